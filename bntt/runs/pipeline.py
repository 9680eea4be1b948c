"""Training and evaluation of one run: what the command line and the workflow call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from bntt.classifiers import Classifier
from bntt.common.errors import Stopped, UserError
from bntt.data import store
from bntt.data.images import ImageData
from bntt.experiment import declared, plugins
from bntt.experiment.schema import Experiment, Run
from bntt.measurements import Subject, measure_all
from bntt.methods import Task, Trained
from bntt.runs import provenance, status, together
from bntt.runs.checkpoints import Checkpoints, Ledger, States
from bntt.runs.devices import joules, lease
from bntt.runs.directory import WEIGHTS, RunDirectory
from bntt.runs.status import Status
from bntt.spiking import processes
from bntt.training.arithmetic import settle
from bntt.training.loop import Outcome

_CURRENT = (Status.TRAINED, Status.DIVERGED)  # the statuses of a current training


def train(
    experiment: Experiment,
    run: Run,
    results: Path,
    device: str = "auto",
    keep: Callable[..., Checkpoints] = Checkpoints,
) -> str:
    """Train or convert, unless the directory already holds this very run. Returns one line that says what happened.

    Processes that torchrun started train together, see `bntt.runs.together`.
    ``keep(folder, belongs_to, ledger, guard=)`` makes the checkpoints. Raises Stopped if training stops before its end.
    """
    directory = RunDirectory.of(run, results)
    with together.joined(run), directory.alone() if processes.rank() == 0 else nullcontext(_nothing) as check_owner:
        done = _train(experiment, run, results, device, keep, check_owner)
        return done if processes.rank() == 0 else ""


def _train(
    experiment: Experiment,
    run: Run,
    results: Path,
    device: str,
    keep: Callable[..., Checkpoints],
    check_owner: Callable[[], None],
) -> str:
    directory = RunDirectory.of(run, results)
    store.prepare(run.dataset)
    record: dict[str, Any] = status.decides_training(run) | {"data": store.identity(run.dataset)}
    start = None
    if run.start is not None:
        start = _trained(experiment, experiment.run(run.dataset, run.start, run.seed), results)
        record["start_sha256"] = start.training()["files"].get(WEIGHTS)
    current = processes.rank() == 0 and status.find(experiment, run, results, training_alone=True).status in _CURRENT
    if together.of_first(current):
        return f"{directory.path}: already trained"
    with lease(device) as chosen:
        settle(run.threads)
        began, ledger = provenance.now(), Ledger(provenance.machine(_device_name(chosen)), partial(joules, chosen))
        checkpoints = keep(directory.scratch, record, ledger, guard=check_owner)
        images = _images(run, chosen)
        if start is not None and start.training()["status"] != "done":
            trained = Trained({}, Outcome(diverged=f"the row it starts from, {run.start}, diverged"))
        else:
            weights = {} if start is None else {"start": {k: v.to(chosen) for k, v in start.weights().items()}}
            keeper = checkpoints if processes.count() == 1 else together.Together(checkpoints)
            task = Task(run, images, keeper, **weights)
            with _user_errors(run), _continued_by_the_same_command(directory):
                trained = _call(run, "train", task, returns=Trained)
        outcome, spent = trained.outcome, ledger.spent
        if outcome.diverged is None and not all(a.isfinite().all() for a in trained.weights.values()):
            outcome = replace(outcome, diverged="weights were not finite at the end")
        if seconds := sum(row["seconds"] for row in outcome.history):  # of all epochs, including validation
            record["images_per_second"] = round(len(images.train) * len(outcome.history) / seconds, 1)
        if outcome.selected_epoch is not None:
            record["selected_epoch"] = outcome.selected_epoch
        ended = "done" if outcome.diverged is None else "diverged"
        record |= {
            "status": ended,
            "reason": outcome.diverged,
            "steps": outcome.steps,
            **trained.facts,
            "provenance": provenance.environment(_device_name(chosen), run.threads),
            "started": began,
            "pieces": spent.pieces,
            "machines": spent.machines,
            "processes": processes.count(),
            "seconds": round(spent.seconds, 2),
            "gpu_joules": spent.joules if processes.count() == 1 else None,  # of one GPU
            "peak_memory_mb": provenance.peak_memory_mb(),
        }
        if processes.rank() == 0:
            check_owner()
            directory.finish_training(record, trained.weights, outcome.tables)
            checkpoints.clear()
    last = outcome.history[-1] if outcome.history else {}
    validated = bool(len(images.validation) and last) and ended == "done"
    detail = f", validation accuracy {last['validation_accuracy']:.1f} %" if validated else ""
    if "precision" in trained.facts:
        detail += f", {trained.facts['precision']} with {trained.facts['kernels']} kernels"
    if "decay_budget" in trained.facts:
        detail += f", decay budget of gamma {trained.facts['decay_budget']:.2f} e-folds"
    return f"{directory.path}: {ended}{detail}{'' if outcome.diverged is None else ': ' + outcome.diverged}"


def _nothing() -> None:
    """The check of a process that owns nothing and writes nothing."""


def evaluate(
    experiment: Experiment,
    run: Run,
    results: Path,
    device: str = "auto",
    keep: Callable[..., Checkpoints] = Checkpoints,
) -> str:
    """Measure a run on the test images; returns a line that says what happened. UserError if it is not trained.

    ``keep`` is as in `train`: a state is saved between two batches, and Stopped raised if the evaluation is to stop.
    """
    with RunDirectory.of(run, results).alone() as check_owner:
        return _evaluate(experiment, run, results, device, keep, check_owner)


def _evaluate(
    experiment: Experiment,
    run: Run,
    results: Path,
    device: str,
    keep: Callable[..., Checkpoints],
    check_owner: Callable[[], None],
) -> str:
    store.prepare(run.dataset)
    found = status.find(experiment, run, results)
    unfinished = found.directory.scratch / "evaluation"
    if found.status.measured:
        States(unfinished, {}).clear()  # of one that was killed after its last line
        return f"{found.directory.path}: already evaluated"
    directory = found.directory if found.status in _CURRENT else _trained(experiment, run, results)
    training = directory.training()
    made_from = {"data": training["data"], "weights_sha256": training["files"].get(WEIGHTS)}
    record = status.decides_evaluation(run) | made_from
    if training["status"] != "done":
        directory.finish_evaluation(record | {"status": training["status"], "reason": training["reason"]}, {})
        return f"{directory.path}: {training['status']}, nothing to evaluate"

    with lease(device) as chosen:
        settle(run.threads)
        began, ledger = provenance.now(), Ledger(provenance.machine(_device_name(chosen)))
        checkpoints = keep(unfinished, record, ledger, guard=check_owner)
        with checkpoints.listening(), _user_errors(run), _continued_by_the_same_command(directory):
            measured = subject(run, directory, chosen)
            measured.passes.keep(checkpoints)
            tables, reasons = measure_all(measured)
        spent = ledger.spent
        record |= {
            "status": "done",
            "not_applicable": reasons,
            "provenance": provenance.environment(_device_name(chosen), run.threads),
            "started": began,
            "pieces": spent.pieces,
            "machines": spent.machines,
            "seconds": round(spent.seconds, 2),
            "peak_memory_mb": provenance.peak_memory_mb(),
        }
        check_owner()
        directory.finish_evaluation(record, tables)
        checkpoints.clear()
    return f"{directory.path}: test accuracy {tables['anytime.csv'][-1]['accuracy']:.2f} %"


def subject(run: Run, directory: RunDirectory, device: torch.device) -> Subject:
    """What the measurements get: the trained classifier and its data. UserError if the weights are damaged."""
    images, weights = _images(run, device), directory.weights()
    try:
        return Subject(run, images, _call(run, "classifier", run, images, weights, returns=get_args(Classifier)))
    except UserError as error:
        if of_other_weights(error):
            path = directory.path / WEIGHTS
            raise UserError(
                f"{path} is whole, but row {run.row} cannot load it; mend the method, or train it again: {error}"
            ) from error
        raise


def _images(run: Run, device: torch.device) -> ImageData:
    """The data of a run on a device, with single events if its method needs them."""
    return store.load(run.dataset, events=declared.needs_events(run.method)).as_asked(device, run.options)


def of_other_weights(error: UserError) -> bool:
    """Whether an error says that a network could not load weights, because names or shapes differ."""
    return str(error.__cause__).startswith("Error(s) in loading state_dict")  # torch's words


def _call(run: Run, function: str, *arguments: Any, returns: type | tuple[type, ...] = object) -> Any:
    """Call a function of the run's method."""
    module = declared.plugins("methods", "OPTIONS")[run.method]
    return plugins.call(module, function, *arguments, returns=returns)


def _trained(experiment: Experiment, run: Run, results: Path) -> RunDirectory:
    """The directory of a run whose training is current; an error says why it is not."""
    found = status.find(experiment, run, results, training_alone=True)
    if found.status in (Status.MISSING, Status.DAMAGED):  # these reasons say where, and what to run
        raise UserError(found.reason)
    if found.status not in _CURRENT:
        raise UserError(f"{found.directory.path} is {found.status}: {found.reason}; train it again")
    return found.directory


@contextmanager
def _continued_by_the_same_command(directory: RunDirectory) -> Iterator[None]:
    """Say in a Stopped which run stopped, and how it goes on."""
    try:
        yield
    except Stopped as stopped:
        stopped.args = (f"{directory.path}: {stopped}; run it again to continue",)
        raise


@contextmanager
def _user_errors(run: Run) -> Iterator[None]:
    """Turn a ValueError of the mathematics, and a lack of memory, into a UserError: options cause both."""
    where = f"experiment {run.experiment}, row {run.row}"
    try:
        yield
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    except (MemoryError, torch.OutOfMemoryError) as error:
        reason, advice = str(error) or "memory ran out.", "Lower batch_size, or time_chunk if the row has one"
        raise UserError(f"{where}: {reason.splitlines()[0]} {advice}") from None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
