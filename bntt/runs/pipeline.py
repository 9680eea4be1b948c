"""Training and evaluation of one run: what the command line and the workflow call."""

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bntt.common.errors import Stopped, UserError
from bntt.data import store
from bntt.experiment import code_hash, declared
from bntt.experiment.schema import Experiment, Run
from bntt.measurements import Subject, measure_all
from bntt.methods import Task, Trained
from bntt.runs import provenance
from bntt.runs.checkpoints import Checkpoints, Ledger
from bntt.runs.devices import joules, lease
from bntt.runs.directory import RunDirectory
from bntt.training.arithmetic import settle
from bntt.training.loop import Outcome


def train(
    experiment: Experiment,
    run: Run,
    results: Path,
    device: str = "auto",
    keep: Callable[..., Checkpoints] = Checkpoints,
) -> str:
    """Train or convert, unless the directory already holds this very run. Returns one line that says what happened.

    ``keep(folder, belongs_to, ledger)`` makes the checkpoints. A training that stops before its end raises Stopped.
    """
    directory = RunDirectory.of(run, results)
    record: dict[str, Any] = {
        "config": run.training_config(),
        "code": code_hash.training_code(run),
        "data": _prepared(run),
    }
    start = _start(experiment, run, results)
    if start is not None:
        record["start_sha256"] = start.training()["files"].get("model.safetensors")
    if _current(directory, "train", record):
        return f"{directory.path}: already trained"
    with lease(device) as chosen:
        settle(run.threads)
        began, ledger = provenance.now(), Ledger(provenance.machine(_device_name(chosen)), partial(joules, chosen))
        checkpoints = keep(directory.scratch, record, ledger)
        images = store.load(run.dataset).as_asked(chosen, run.options)
        if start is not None and start.training()["status"] != "done":
            trained = Trained({}, Outcome(diverged=f"the row it starts from, {run.start}, diverged"))
        else:
            weights = {} if start is None else {"start": {k: v.to(chosen) for k, v in start.weights().items()}}
            task = Task(run, images, checkpoints, **weights)
            try:
                trained = _user_errors(partial(_method(run).train, task), run)
            except Stopped as stopped:
                stopped.args = (f"{directory.path}: {stopped}; run it again to go on",)
                raise
        outcome, spent = trained.outcome, ledger.spent
        status = "done" if outcome.diverged is None else "diverged"
        record |= {
            "status": status,
            "reason": outcome.diverged,
            "steps": outcome.steps,
            **_speed(outcome, len(images.train)),
            **({} if outcome.selected_epoch is None else {"selected_epoch": outcome.selected_epoch}),
            **trained.facts,
            "provenance": provenance.environment(_device_name(chosen), run.threads),
            "started": began,
            "pieces": spent.pieces,
            "machines": spent.machines,
            "seconds": round(spent.seconds, 2),
            "gpu_joules": spent.joules,
            "peak_memory_mb": provenance.peak_memory_mb(),
        }
        directory.finish_training(record, trained.weights, outcome.history)
        checkpoints.clear()
    last = outcome.history[-1] if outcome.history else {}
    detail = f", validation accuracy {last['validation_accuracy']:.1f} %" if last and status == "done" else ""
    if "precision" in trained.facts:
        detail += f", {trained.facts['precision']} with {trained.facts['kernels']} kernels"
    if "decay_budget" in trained.facts:
        detail += f", decay budget of gamma {trained.facts['decay_budget']:.2f} e-folds"
    return f"{directory.path}: {status}{detail}{'' if outcome.diverged is None else ': ' + outcome.diverged}"


def evaluate(run: Run, results: Path, device: str = "auto") -> str:
    """Measure a trained run on the test images. Returns one line that says what happened."""
    directory = RunDirectory.of(run, results)
    training = _trained(directory, run)
    record: dict[str, Any] = {
        "config": run.training_config(),
        "data": training["data"],
        "code": code_hash.evaluation_code(run),
        "evaluation": dict(run.evaluation),
        "weights_sha256": training["files"].get("model.safetensors"),
    }
    if _current(directory, "evaluate", record):
        return f"{directory.path}: already evaluated"
    if training["status"] != "done":
        directory.finish_evaluation(record | {"status": training["status"], "reason": training["reason"]}, {})
        return f"{directory.path}: {training['status']}, nothing to evaluate"

    with lease(device) as chosen:
        settle(run.threads)
        began, clock = provenance.now(), time.perf_counter()
        tables, reasons = _user_errors(lambda: measure_all(subject(run, directory, chosen)), run)
        record |= {
            "status": "done",
            "not_applicable": reasons,
            "provenance": provenance.environment(_device_name(chosen), run.threads),
            "started": began,
            "seconds": round(time.perf_counter() - clock, 2),
            "peak_memory_mb": provenance.peak_memory_mb(),
        }
        directory.finish_evaluation(record, tables)
    return f"{directory.path}: test accuracy {tables['anytime.csv'][-1]['accuracy']:.2f} %"


def subject(run: Run, directory: RunDirectory, device: torch.device) -> Subject:
    """What the measurements are given: the trained classifier, with the data it is judged on."""
    images, weights = store.load(run.dataset).as_asked(device, run.options), directory.weights()
    try:
        return Subject(run, images, _method(run).classifier(run, images, weights))
    except (RuntimeError, KeyError):
        raise UserError(
            f"{directory.path / 'model.safetensors'} does not hold the weights of row {run.row}; train it again"
        ) from None


def _method(run: Run) -> ModuleType:
    return import_module(declared.plugins("methods", "OPTIONS")[run.method])


def _speed(outcome: Outcome, images: int) -> dict[str, float]:
    """Training images per second over the epochs, their validation included; nothing where a method has no epochs."""
    seconds = sum(row["seconds"] for row in outcome.history)
    return {"images_per_second": round(images * len(outcome.history) / seconds, 1)} if seconds else {}


def _start(experiment: Experiment, run: Run, results: Path) -> RunDirectory | None:
    """The run that a run starts from, which must be trained as planned, on the data that are there now."""
    if run.start is None:
        return None
    start = experiment.run(run.dataset, run.start, run.seed)
    directory = RunDirectory.of(start, results)
    _trained(directory, start)
    return directory


def _trained(directory: RunDirectory, run: Run) -> dict[str, Any]:
    """The manifest of a trained run; an error where it is of other options or data than are there now."""
    training = directory.training()
    if training.get("config") != run.training_config():
        raise UserError(f"{directory.train_json} is of another configuration than the experiment file; train it again")
    if training.get("data") != _prepared(run):
        raise UserError(f"{directory.train_json} is of other data or another split than is prepared; train it again")
    return training


def _current(directory: RunDirectory, command: str, record: dict[str, Any]) -> bool:
    """Whether a finished manifest was made from exactly this record, and its files are whole."""
    try:
        manifest = directory.training() if command == "train" else directory.evaluation()
        for name in manifest["files"]:
            directory.vouched(manifest, name, command)
    except UserError:
        return False
    return all(manifest.get(key) == value for key, value in record.items())


def _prepared(run: Run) -> dict[str, Any]:
    """What is recorded of the dataset, which is prepared if need be."""
    store.prepare(run.dataset)
    manifest = store.manifest(run.dataset)
    return {key: manifest[key] for key in ("dataset", "state", "content_sha256", "split_sha256", "images")}


def _user_errors(work, run: Run):
    """A ValueError from the mathematics is about the options it was given, and so is a GPU that is too small."""
    try:
        return work()
    except ValueError as error:
        raise UserError(f"experiment {run.experiment}, row {run.row}: {error}") from None
    except torch.OutOfMemoryError as error:
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"experiment {run.experiment}, row {run.row}: {first_line} Lower batch_size, or time_chunk where it has one"
        ) from None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
