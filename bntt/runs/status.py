"""Planned runs joined with what is there of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bntt.common.errors import UserError
from bntt.experiment.schema import Experiment, Run
from bntt.runs.directory import RESULTS, RunDirectory

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Found:
    """A planned run and what is there of it, with the reason.

    ``done``; ``diverged``; ``missing``; ``outdated``, made with another configuration or other weights; ``damaged``.
    """

    run: Run
    directory: RunDirectory
    status: str
    reason: str = ""

    def table(self, name: str) -> "pd.DataFrame | None":
        """A measurement, or None where it does not apply or there is no result."""
        if self.status != "done":
            return None
        manifest = self.directory.training() if name == "history.csv" else self.directory.evaluation()
        return self.directory.table(name) if name in manifest["files"] else None

    @cached_property
    def training(self) -> dict[str, Any] | None:
        return self.directory.training() if self.status in ("done", "diverged") else None


def found(experiment: Experiment, results: Path = RESULTS) -> Iterator[Found]:
    """Every planned run joined with what is found under a results root; never fails, whatever is there."""
    for run in experiment.runs:
        directory = RunDirectory.of(run, results)
        try:
            yield _found(experiment, run, results)
        except UserError as error:
            kind = "missing" if "is missing;" in str(error) else "damaged"
            yield Found(run, directory, kind, str(error))


def _found(experiment: Experiment, run: Run, results: Path) -> Found:
    directory = RunDirectory.of(run, results)
    training = directory.training()
    if training.get("config") != run.training_config():
        return Found(run, directory, "outdated", "trained with another configuration than the experiment file's")
    if reason := _other_start(experiment, run, training, results):
        return Found(run, directory, "outdated", reason)
    for name in training["files"]:
        if name != "model.safetensors" or directory.path.joinpath(name).exists():  # kept results may lack the weights
            directory.vouched(training, name, "train")
    if training["status"] == "diverged":
        return Found(run, directory, "diverged", training.get("reason") or "")
    evaluation = directory.evaluation()
    if evaluation.get("weights_sha256") != training["files"].get("model.safetensors"):
        return Found(run, directory, "outdated", "measured with earlier weights; run `python -m bntt evaluate` again")
    if evaluation.get("config") != run.training_config() or evaluation.get("evaluation") != dict(run.evaluation):
        return Found(run, directory, "outdated", "measured with other options; run `python -m bntt evaluate` again")
    for name in evaluation["files"]:
        directory.vouched(evaluation, name, "evaluate")
    return Found(run, directory, "done")


def _other_start(experiment: Experiment, run: Run, training: Mapping[str, Any], results: Path) -> str:
    """Why a run was not made from the run that it starts from, as that is now and is planned; empty where it was."""
    if run.start is None:
        return ""
    start = experiment.run(run.dataset, run.start, run.seed)
    of_start = RunDirectory.of(start, results).training()
    if of_start.get("config") != start.training_config():
        return f"row {start.row}, which it starts from, was trained with another configuration"
    if of_start["files"].get("model.safetensors") != training.get("start_sha256"):
        return f"made from earlier weights of row {start.row}; run `python -m bntt train` again"
    if of_start.get("data") != training.get("data"):
        return f"row {start.row}, which it starts from, was trained on other data"
    return _other_start(experiment, start, of_start, results)
