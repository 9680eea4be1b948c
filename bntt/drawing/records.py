"""The record of a drawing: its notebook, the code, interpreter and measurements that it used, and what it drew.

The record is ``notebooks/<name>.json``, beside the executed notebook. It holds the hash of every file, so a table or a
figure that was changed later, or that was drawn from other measurements, is detected. Only this module decides whether
a drawing is current.

A preliminary overview (`bntt.drawing.preliminary`) has the place and the record of the overview, which replaces both.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bntt.common.errors import UserError
from bntt.common.files import read_sealed, sha256, write_sealed
from bntt.experiment import code_hash
from bntt.experiment.schema import Experiment
from bntt.runs import provenance
from bntt.runs.status import Found

if TYPE_CHECKING:
    from bntt.results.collect import Results  # imports pandas, and the workflow asks here whenever it starts


STUDY = "wave"  # the notebook of docs/wave.md
_COMPARED = {"decay-neither", "decay-gamma"}


def is_study(experiment: Experiment) -> bool:
    """Whether an experiment has the rows that the notebook of docs/wave.md compares, on one dataset."""
    return set(experiment.rows) >= _COMPARED and len(experiment.datasets) == 1


def write_record(
    path: Path, source: Path, experiment: str, results: "Results", outputs: list[Path], preliminary: bool = False
) -> None:
    """Write to ``path`` the record of a drawing just made from ``results``, with the files drawn in their folder.

    A ``preliminary`` drawing is of the first seeds alone.
    """
    folder = results.folder
    files = [*_drawn(folder, source.stem), *(one for one in outputs if one.resolve().is_relative_to(folder.resolve()))]
    document = {
        "source": f"{source.resolve().parent.name}/{source.name}",
        "experiment": experiment,
        **_shown(source, results.experiment, results.runs),
        **provenance.source(),
        "interpreter": provenance.interpreter(),  # also of the notebook
        "drawn": provenance.now(),
        "files": {one.resolve().relative_to(folder.resolve()).as_posix(): sha256(one) for one in files},
        **({"preliminary": True} if preliminary else {}),
    }
    write_sealed(path, document)


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """The record of a table, a figure or the overview; raises UserError if it is missing or damaged."""
    path = folder / "notebooks" / f"{name}.json"
    try:
        record = read_sealed(path)
        if not isinstance(record["files"], dict) or not isinstance(record["measured"], dict):
            raise ValueError
    except FileNotFoundError:
        raise UserError(f"{path} is missing; draw {name} again, by Snakemake or `python -m bntt notebook`") from None
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path} is damaged; draw {name} again") from None
    return record


def vouched(folder: Path, record: dict[str, Any], file: str) -> Path:
    """The path of a drawn file; raises UserError if the file is missing or was changed."""
    path = folder / file
    if file not in record["files"] or not path.is_file() or sha256(path) != record["files"][file]:
        raise UserError(f"{path} is missing or was changed since it was drawn; draw {Path(file).stem} again")
    return path


def is_current(folder: Path, source: Path, experiment: Experiment, runs: Iterable[Found]) -> bool:
    """Whether the drawing of a notebook source shows the present results of an experiment and is whole."""
    try:
        record = read_record(folder, source.stem)
        for file in record["files"]:
            vouched(folder, record, file)
    except UserError:
        return False
    return _shown(source, experiment, runs).items() <= record.items()


def is_preliminary(folder: Path) -> bool:
    """Whether the overview in a results folder is one of the first seeds alone."""
    try:
        return "preliminary" in read_record(folder, "overview")
    except UserError:
        return False


def wants_preliminary(folder: Path, source: Path, first: Experiment, runs: Sequence[Found]) -> bool:
    """Whether a preliminary overview of the runs of ``first`` is to be drawn: neither it nor a fuller one is there.

    ``source`` is that of the overview, and ``runs`` are all of the experiment.
    """
    if is_preliminary(folder):
        names = {run.name for run in first.runs}
        return not is_current(folder, source, first, [one for one in runs if one.run.name in names])
    return not _shows_only(folder, source.stem, _measured(runs))


def remove_outdated(folder: Path, sources: Iterable[Path], runs: Iterable[Found]) -> None:
    """Remove each drawing of ``sources`` that may show a number which is not a present result of ``runs``."""
    present = _measured(runs)
    for name in (source.stem for source in sources):
        if _shows_only(folder, name, present):
            continue
        for path in [*_drawn(folder, name), *folder.glob(f"{name}.html"), *folder.glob(f"notebooks/{name}.*")]:
            path.unlink()


def _shows_only(folder: Path, name: str, present: dict[str, str]) -> bool:
    """Whether a drawing is there, and shows no number but those of ``present``."""
    try:
        return read_record(folder, name)["measured"].items() <= present.items()
    except UserError:
        return False  # nobody knows what it shows


def _drawn(folder: Path, name: str) -> list[Path]:
    """The files of tables and figures that the notebook ``name`` drew; the overview draws recordings."""
    pattern = "recordings-*.png" if name == "overview" else f"{name}[.-]*"
    return sorted(path for kind in ("tables", "figures") for path in (folder / kind).glob(pattern))


def _shown(source: Path, experiment: Experiment, runs: Iterable[Found]) -> dict[str, Any]:
    """What decides what a drawing shows: its notebook, the code that draws, the plan, the measurements."""
    text = [experiment.title, experiment.notes] if source.stem == "overview" else []
    return {
        "notebook_sha256": sha256(source),
        "code": code_hash.drawing_code(),
        "planned": [*text, *(run.name for run in experiment.runs)],
        "measured": _measured(runs),
    }


def _measured(runs: Iterable[Found]) -> dict[str, str]:
    """The hash of each evaluate.json of the runs that ended, by run."""
    ended = [one for one in runs if one.status.ended and one.directory.evaluate_json.is_file()]
    return {one.run.name: sha256(one.directory.evaluate_json) for one in ended}


def damaged_drawings(folder: Path) -> list[str]:
    """One message for each damaged drawing in a results folder, of those that have a record; empty if there is none."""
    faults = []
    for path in sorted((folder / "notebooks").glob("*.json")):
        try:
            record = read_record(folder, path.stem)
            for file in record["files"]:
                vouched(folder, record, file)
        except UserError as error:
            faults.append(str(error))
    return faults
