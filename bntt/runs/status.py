"""Which files of a planned run exist, and whether they are current. Only this module decides it.

The command line, the workflow, `plan`, `check`, the tables and the verdicts all use it. A run is current if it was made
with the planned options, by the present code, from the prepared data, and from the present weights of the run that it
starts from.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bntt.common.errors import UserError
from bntt.data import store
from bntt.experiment import code_hash
from bntt.experiment.schema import Experiment, Run
from bntt.runs.directory import OF_TRAINING, RESULTS, WEIGHTS, MissingError, RunDirectory

if TYPE_CHECKING:
    import pandas as pd


class Status(StrEnum):
    """Which results of a planned run exist, and whether they are current."""

    DONE = "done"  # trained, measured, and current
    KEPT = "kept"  # measured with the planned options; the weights are gone, so it cannot be measured again
    DIVERGED = "diverged"  # trained, diverged, and current; there is nothing to measure
    TRAINED = "trained"  # trained and current, but not measured yet
    OUTDATED = "outdated"  # made with other options, code, data or weights
    DAMAGED = "damaged"  # a file is not the one that a manifest names
    MISSING = "missing"

    @property
    def measured(self) -> bool:
        """Whether there are measurements to draw."""
        return self in (Status.DONE, Status.KEPT)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.measured or self is Status.DIVERGED


@dataclass(frozen=True)
class Found:
    """A planned run, its status, and the reason of the status."""

    run: Run
    directory: RunDirectory
    status: Status
    reason: str = ""

    def table(self, name: str) -> "pd.DataFrame | None":
        """A measurement or a table of training; None if it does not apply or there is no result."""
        if not self.status.measured:
            return None
        manifest = self.directory.training() if name in OF_TRAINING else self.directory.evaluation()
        return self.directory.table(name) if name in manifest["files"] else None

    @cached_property
    def training(self) -> dict[str, Any] | None:
        """What training recorded; None if the run has not ended."""
        return self.directory.training() if self.status.ended else None

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """What evaluation recorded; None if the run is not measured."""
        return self.directory.evaluation() if self.status.measured else None


def decides_training(run: Run) -> dict[str, Any]:
    """The options and the code that decide the weights of a run; a change of either trains it again."""
    return {"config": run.training_config(), "code": code_hash.training_code(run)}


def decides_evaluation(run: Run) -> dict[str, Any]:
    """The options and the code that decide the measurements of a run, given its weights."""
    code = code_hash.evaluation_code(run)
    return {"config": run.training_config(), "code": code, "evaluation": dict(run.evaluation)}


def found(experiment: Experiment, results: Path = RESULTS, here: bool = True) -> Iterator[Found]:
    """Every planned run with its status under a results root, whatever is there.

    Raises UserError for a file that may not be read.

    With ``here`` false, runs are not compared with the present code and data. This is for readers of results, which may
    have been made elsewhere or by an earlier version.
    """
    for run in experiment.runs:
        yield find(experiment, run, results, here)


def find(experiment: Experiment, run: Run, results: Path, here: bool = True, training_alone: bool = False) -> Found:
    """The status of a planned run; or only of its training, which is current if ``trained`` or ``diverged``.

    Raises UserError for a file that may not be read.
    """
    judge = _training_status if training_alone else _status
    try:
        status, reason = judge(experiment, run, results, here)
    except MissingError as error:
        status, reason = Status.MISSING, str(error)
    except UserError as error:
        status, reason = Status.DAMAGED, str(error)
    except PermissionError as error:
        raise UserError(f"{error.filename}: {error.strerror}; make it readable, or choose another folder") from None
    return Found(run, RunDirectory.of(run, results), status, reason)


class Unfinished(NamedTuple):
    """The runs that must be trained and those that must be measured, by name, until every planned run has ended."""

    training: Set[str]
    evaluation: Set[str]


def unfinished(experiment: Experiment, results: Path = RESULTS) -> Unfinished:
    """What is left to do, whatever an earlier command left.

    A run whose weights are gone is trained again only if they are needed. All that starts from weights which are made
    again is made again, too.
    """
    known = {one.run.name: one.status for one in found(experiment, results)}
    evaluation = {name for name, status in known.items() if not status.ended}
    alone = known | {
        run.name: find(experiment, run, results, training_alone=True).status
        for run in experiment.runs
        if run.name in evaluation
    }
    no_weights = {name for name, status in alone.items() if status is Status.KEPT}
    training = {name for name, status in alone.items() if not (status is Status.TRAINED or status.ended)}
    training |= evaluation & no_weights
    starts = {run.name: replace(run, row=run.start).name for run in experiment.runs if run.start is not None}
    for name in reversed(starts):  # a row comes after the one that it starts from
        if name in training and starts[name] in no_weights:
            training.add(starts[name])
    for name, start in starts.items():
        if start in training:
            training.add(name)
    return Unfinished(training, evaluation | training)


def _status(experiment: Experiment, run: Run, results: Path, here: bool) -> tuple[Status, str]:
    status, reason = _training_status(experiment, run, results, here)
    if status not in (Status.TRAINED, Status.KEPT):
        return status, reason
    directory = RunDirectory.of(run, results)
    training = directory.training()
    if status is Status.TRAINED and not directory.evaluate_json.exists():
        return Status.TRAINED, "not measured yet"
    evaluation, again = directory.evaluation(), "run `python -m bntt evaluate` again"
    if evaluation.get("weights_sha256") != training["files"].get(WEIGHTS):
        return Status.OUTDATED, f"measured with earlier weights; {again}"
    if not (run.has_config(evaluation.get("config")) and run.has_evaluation(evaluation.get("evaluation"))):
        return Status.OUTDATED, f"measured with other options; {again}"
    if here and status is Status.TRAINED and evaluation.get("code") != code_hash.evaluation_code(run):
        return Status.OUTDATED, f"measured by other code; {again}"
    for name in evaluation["files"]:
        directory.vouched(evaluation, name, "evaluate")
    return (Status.DONE, "") if status is Status.TRAINED else (Status.KEPT, reason)


def _training_status(experiment: Experiment, run: Run, results: Path, here: bool) -> tuple[Status, str]:
    """``trained``, ``kept``, ``diverged`` or ``outdated``; raises UserError if a file is missing or damaged."""
    directory = RunDirectory.of(run, results)
    training = directory.training()
    if not run.has_config(training.get("config")):
        return Status.OUTDATED, "trained with another configuration than the experiment file's"
    if reason := _other_start(experiment, run, training, results):
        return Status.OUTDATED, reason
    kept = WEIGHTS in training["files"] and not (directory.path / WEIGHTS).exists()
    for name in training["files"]:
        if not (kept and name == WEIGHTS):
            directory.vouched(training, name, "train")
    if kept:
        return Status.KEPT, "its weights are not here"
    if here and training.get("code") != code_hash.training_code(run):
        return Status.OUTDATED, "trained by other code; run `python -m bntt train` again"
    if here and store.is_current(run.dataset) and training.get("data") != store.identity(run.dataset):
        return Status.OUTDATED, "trained on other data or another split than the prepared ones"
    if here and run.start is not None:
        start, reason = _training_status(experiment, experiment.run(run.dataset, run.start, run.seed), results, here)
        if start is Status.OUTDATED:
            return start, f"row {run.start}, which it starts from, is outdated: {reason}"
    if training["status"] == "diverged":
        return Status.DIVERGED, training.get("reason") or ""
    return Status.TRAINED, ""


def _other_start(experiment: Experiment, run: Run, training: Mapping[str, Any], results: Path) -> str:
    """Why a run was not made from the present and planned run that it starts from; empty if it was."""
    if run.start is None:
        return ""
    start = experiment.run(run.dataset, run.start, run.seed)
    of_start = RunDirectory.of(start, results).training()
    if not start.has_config(of_start.get("config")):
        return f"row {start.row}, which it starts from, was trained with another configuration"
    if of_start["files"].get(WEIGHTS) != training.get("start_sha256"):
        return f"made from earlier weights of row {start.row}; run `python -m bntt train` again"
    if of_start.get("data") != training.get("data"):
        return f"row {start.row}, which it starts from, was trained on other data"
    return _other_start(experiment, start, of_start, results)
