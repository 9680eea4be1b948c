"""Run directories: the only reader and writer of ``results/<experiment>/runs/<dataset>/<row>/seed-<k>/``.

Training writes ``train.json`` last, and evaluation ``evaluate.json``. Each of these manifests names the files that
belong to it with their sha256, and has its own sha256. Readers accept no other files.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bntt.common.errors import UserError
from bntt.common.files import read_sealed, sha256, write_atomically, write_sealed
from bntt.experiment.schema import Run
from bntt.runs.owner import owned

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

RESULTS = Path("results")
WEIGHTS = "model.safetensors"
OF_TRAINING = ("history.csv", "gradients.csv")  # the tables that training writes; all others are measurements


class MissingError(UserError):
    """A manifest does not exist."""


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run. Reading raises UserError for damaged files, and MissingError without a manifest.

    A file that may not be read raises PermissionError, because making it again would overwrite what is there.
    """

    path: Path
    scratch: Path  # states of an unfinished run; not an output of the workflow, so it survives a failed job

    @classmethod
    def of(cls, run: Run, results: Path = RESULTS) -> "RunDirectory":
        root = results / run.experiment
        return cls(root / "runs" / run.name, root / "scratch" / run.name)

    @property
    def train_json(self) -> Path:
        return self.path / "train.json"

    @property
    def evaluate_json(self) -> Path:
        return self.path / "evaluate.json"

    def alone(self) -> AbstractContextManager[Callable[[], None]]:
        """Work on this run alone: wait for another process at work, such as a job that outlived a killed Snakemake.

        The context's value is the check of `bntt.runs.owner.owned`, to be called before anything is written.
        """
        return owned(self.scratch, self.path)

    def finish_training(
        self, record: dict[str, Any], weights: "Mapping[str, Tensor]", tables: Mapping[str, list[dict[str, Any]]]
    ) -> None:
        """Write weights (if ``status`` is done) and the tables that are not empty, then ``train.json``."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        def save(beside: Path) -> None:
            try:
                # Copies, because safetensors takes no tensors that share memory, as tied weights do.
                save_file({name: a.detach().to("cpu", copy=True).contiguous() for name, a in weights.items()}, beside)
            except SafetensorError as error:  # for instance, a full disk
                raise OSError(None, str(error)) from None

        files = {}
        if record["status"] == "done":
            write_atomically(self.path / WEIGHTS, save)
            files[WEIGHTS] = sha256(self.path / WEIGHTS)
        files |= {name: self._write_csv(name, rows) for name, rows in tables.items() if rows}
        write_sealed(self.train_json, record | {"files": files})

    def finish_evaluation(self, record: dict[str, Any], tables: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write every measurement, then ``evaluate.json``."""
        files = {name: self._write_csv(name, rows) for name, rows in tables.items()}
        write_sealed(self.evaluate_json, record | {"files": files})

    def _write_csv(self, name: str, rows: list[dict[str, Any]]) -> str:
        import pandas as pd

        frame = pd.DataFrame(rows)
        write_atomically(self.path / name, lambda beside: frame.to_csv(beside, index=False, float_format="%.6g"))
        return sha256(self.path / name)

    def training(self) -> dict[str, Any]:
        return self._manifest(self.train_json, "train")

    def evaluation(self) -> dict[str, Any]:
        return self._manifest(self.evaluate_json, "evaluate")

    def weights(self) -> "dict[str, Tensor]":
        """The weights that ``train.json`` names, by parameter name, on the CPU."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.vouched(self.training(), WEIGHTS, "train")
        try:
            return load_file(path)
        except SafetensorError:
            raise UserError(f"{path} is not a safetensors file; run `python -m bntt train` for it again") from None

    def table(self, name: str) -> "pd.DataFrame":
        """A csv file that ``train.json`` (`OF_TRAINING`) or ``evaluate.json`` (measurements) names."""
        import pandas as pd

        manifest, command = (self.training(), "train") if name in OF_TRAINING else (self.evaluation(), "evaluate")
        try:
            # Without the dtype, hexadecimal digits without a letter would be read as a number.
            frame = pd.read_csv(self.vouched(manifest, name, command), dtype={"correct": str})
        except pd.errors.EmptyDataError:
            return pd.DataFrame()
        return frame.fillna({"correct": ""}) if "correct" in frame else frame

    def vouched(self, manifest: Mapping[str, Any], name: str, command: str) -> Path:
        """The path of the file that the manifest names; if it is missing or changed, a UserError says what to run."""
        path = self.path / name
        if name not in manifest["files"]:
            why = manifest.get("not_applicable", {}).get(name, manifest["status"])
            raise UserError(f"{self.path} has no {name}: {why}")
        if not path.is_file() or sha256(path) != manifest["files"][name]:
            raise UserError(
                f"{path} is missing or damaged: it is not the file that {command}.json names; "
                f"run `python -m bntt {command}` for it again"
            )
        return path

    @staticmethod
    def _manifest(path: Path, command: str) -> dict[str, Any]:
        try:
            document = read_sealed(path)
            files = document["files"].items()
            plain = all(isinstance(value, str) and Path(name).name == name for name, value in files)
            if not plain or document["status"] not in ("done", "diverged"):
                raise ValueError
        except FileNotFoundError:
            raise MissingError(f"{path} is missing; run `python -m bntt {command}` for it first") from None
        except PermissionError:
            raise
        except (OSError, ValueError, KeyError, AttributeError):
            raise UserError(f"{path} is damaged; run `python -m bntt {command}` for it again") from None
        return document
