"""What an experiment will cost, measured before it is run: time, memory and disk, of each row and in total.

Every row of every dataset is trained for 20 steps and measured on a few test images, each in a process of its own. As
many processes run at once as the workflow would run. The cost of a run is then

    start + steps x step + epochs x validation,    and    start + test images x all measurements of an image

where the approximations are measured on fewer images. Random numbers of the same shape replace a dataset that is not
prepared. The time of a measurement depends on how much the trained network spikes, and 20 steps of training cannot show
that. The time of a training step does not depend on it. All times are those of the device that measured them.
"""

import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError, check_name
from bntt.common.text import duration
from bntt.data import store
from bntt.experiment import declared
from bntt.experiment.schema import Experiment, Run
from bntt.measurements import measure_all
from bntt.runs.directory import WEIGHTS, RunDirectory
from bntt.runs.status import Found, Status, found

EPOCHS, STEPS = 2, 10  # of the short training that is measured: its epochs, and the steps of each
FEWEST_IMAGES, MOST_IMAGES, IMAGE_STEPS = 4, 100, 2500  # test images measured, and those times their time-steps
APPROXIMATED = declared.literal("bntt.measurements.approximations", "IMAGES")


@dataclass(frozen=True)
class Cost:
    """What one run of a row costs, in seconds and bytes."""

    dataset: str
    row: str
    start: str | None  # row that it starts from
    left: tuple[float, ...]  # seconds that remain for each of its runs
    step: float | None  # seconds of a training step; None if the row does not train
    training: float
    evaluation: float
    memory: float  # peak, of the process
    gpu_memory: float
    disk: float
    note: str = ""


def slots(experiment: Experiment, device: str, cores: int) -> int:
    """How many runs go at once: limited by the cores, and by the GPUs, because each run takes one for itself."""
    at_once = max(1, cores // experiment.runs[0].threads)
    if device == "cpu":
        return at_once
    import torch

    return min(at_once, torch.cuda.device_count()) if torch.cuda.is_available() else at_once


def device_named(experiment: Experiment, device: str) -> str:
    """The device on which a plan is measured, in words."""
    import torch

    from bntt.runs import provenance

    if device != "cpu" and torch.cuda.is_available():
        return provenance.machine(torch.cuda.get_device_name())
    return f"{provenance.machine('cpu')}, {experiment.runs[0].threads} threads for each run"


def plan(
    experiment: Experiment, results: Path, device: str, workers: int, dataset: str | None = None, row: str | None = None
) -> Iterator[Cost]:
    """Yield the cost of every row on every dataset, or of those named, in order; standard error says how far it is.

    Raises UserError if there is no such row, or if a measurement is killed.
    """
    rows: dict[tuple[str, str], list[Found]] = {}
    for one in found(experiment, results):
        if dataset in (None, one.run.dataset) and row in (None, one.run.row):
            rows.setdefault((one.run.dataset, one.run.row), []).append(one)
    if not rows:
        for kind, value, known in (("dataset", dataset, experiment.datasets), ("row", row, experiment.rows)):
            if value is not None:
                check_name(kind, value, known, f"experiment {experiment.name}")
        raise UserError(f"experiment {experiment.name}: row {row} does not run on dataset {dataset}")
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="bntt-plan-") as folder,
        ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool,
    ):
        jobs = [
            pool.submit(_measure, experiment, there[0].run, device, Path(folder) / str(number))
            for number, there in enumerate(rows.values())
        ]
        try:
            for number, (there, job) in enumerate(zip(rows.values(), jobs, strict=True), 1):
                run = there[0].run
                print(f"measuring {number} of {len(rows)}: {run.dataset}, {run.row}", file=sys.stderr, flush=True)
                yield _cost(there, job.result())
        except BrokenProcessPool:
            raise UserError(
                "plan: a measurement was killed, probably because memory ran out; measure fewer at once with --cores"
            ) from None


def report(costs: Iterable[Cost], at_once: int) -> Iterator[str]:
    """Yield a line for every row when it is measured, then the sums. A row comes after the one that it starts from."""
    columns = "{:14} {:20} {:>4} {:>4} {:>9} {:>12} {:>12} {:>8} {:>10}"
    yield columns.format("dataset", "row", "runs", "done", "step", "training", "evaluation", "memory", "GPU memory")
    measured = []
    chains: dict[tuple[str, str | None], float] = {}
    for one in costs:
        measured.append(one)
        chains[one.dataset, one.row] = chains.get((one.dataset, one.start), 0.0) + max(one.left)
        step = "-" if one.step is None else f"{1000 * one.step:.0f} ms"
        memory = f"{one.memory / 1e9:.1f} GB", f"{one.gpu_memory / 1e9:.1f} GB" if one.gpu_memory else "-"
        times = duration(one.training), duration(one.evaluation)
        line = columns.format(one.dataset, one.row, len(one.left), one.left.count(0.0), step, *times, *memory)
        yield f"{line}  {one.note}".rstrip()
    whole = sum(len(one.left) * (one.training + one.evaluation) for one in measured) / 3600
    disk = sum(len(one.left) * one.disk for one in measured) / 1e6
    largest = f"{max(one.memory for one in measured) / 1e9:.1f} GB of memory"
    if gpu := max(one.gpu_memory for one in measured):
        largest += f" and {gpu / 1e9:.1f} GB of GPU memory"
    left = [seconds for one in measured for seconds in one.left]
    together = duration(max(sum(left) / at_once, *chains.values()))
    done = f"{len(left)} runs, {left.count(0.0)} done"
    for dataset in dict.fromkeys(one.dataset for one in measured):
        there = [one for one in measured if one.dataset == dataset]
        hours = sum(len(one.left) * (one.training + one.evaluation) for one in there) / 3600
        runs, remaining = sum(len(one.left) for one in there), sum(sum(one.left) for one in there) / 3600
        yield f"{dataset}: {runs} runs, {hours:.2f} hours; remaining: {remaining:.2f} hours"
    longest = max(measured, key=lambda one: one.training + one.evaluation)
    alone = duration(longest.training + longest.evaluation)
    yield f"longest single run: {alone}, {longest.row} on {longest.dataset}"
    yield f"in all {done}; {whole:.2f} hours of training and evaluation, one after the other"
    yield (
        f"remaining: {sum(left) / 3600:.2f} hours, or {together} with {at_once} at once; "
        f"{disk:.0f} MB on disk, {largest} for the largest"
    )


def _cost(there: Sequence[Found], measured: dict[str, Any]) -> Cost:
    """The cost of a whole run, computed from what was measured, and what is left of the row's runs."""
    run, images = there[0].run, _images(there[0].run)
    step, training, disk = measured["step"], measured["training"], measured["weights"]
    if step is not None:
        steps = images["train"] / run.options["batch_size"]
        training = run.options["epochs"] * (steps * step + measured["validation"])
        disk += 4 * disk / len(there)  # the saved state of one run at a time: weights and momentum, in two files
    training += measured["start"]
    evaluation = measured["start"] + images["test"] * measured["image"]
    evaluation += min(images["test"], APPROXIMATED) * measured["approximations"]

    def left(status: Status) -> float:
        if status.ended:
            return 0.0
        return evaluation if status is Status.TRAINED else training + evaluation

    return Cost(
        dataset=run.dataset,
        row=run.row,
        start=run.start,
        left=tuple(left(one.status) for one in there),
        step=step,
        training=training,
        evaluation=evaluation,
        memory=measured["memory"],
        gpu_memory=measured["gpu_memory"],
        disk=disk,
        note=measured["note"],
    )


def _images(run: Run) -> dict[str, int]:
    """The number of images that a run uses, by part: train, validation, test."""
    known = store.manifest(run.dataset) if store.manifest_path(run.dataset).is_file() else store.facts(run.dataset)
    images = dict(known["images"])
    held_out = run.options["held_out"] if not images["validation"] else 0
    images["train"] = min(images["train"] - held_out, run.options["train_limit"] or images["train"])
    images["validation"] = images["validation"] or held_out
    images["test"] = min(images["test"], run.options["test_limit"] or images["test"])
    return images


def _measure(experiment: Experiment, run: Run, device: str, folder: Path) -> dict[str, Any]:
    """Measure a row in this process, which does nothing else; the rows that it starts from are trained first."""
    began = time.perf_counter()
    import torch

    from bntt.measurements import approximations
    from bntt.runs import pipeline, provenance
    from bntt.runs.checkpoints import Checkpoints
    from bntt.runs.devices import lease

    ends: list[float] = []

    class Clock(Checkpoints):
        """Notes when each step ended, and never saves."""

        def due(self) -> bool:
            ends.append(_now())
            return False

    small = _small(run)
    family = [small]
    while (start := family[-1].start) is not None:
        family.append(_small(experiment.run(run.dataset, start, run.seed)))
    _make_up_what_is_not_prepared(family[-1], folder)
    short = Experiment(experiment.name, experiment.title, "", tuple(family))
    imports = time.perf_counter() - began
    for one in reversed(family[1:]):
        pipeline.train(short, one, folder, device)
    begun = _now()
    pipeline.train(short, small, folder, device, Clock)
    training = _now() - begun
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    step = statistics.median(gaps) if gaps else None
    directory = RunDirectory.of(small, folder)
    record, weights = directory.training(), directory.path / WEIGHTS
    measured = {
        "start": imports if step is None else imports + ends[0] - begun - step,
        "step": step,
        "validation": 0.0 if step is None else max(0.0, gaps[len(ends) // EPOCHS - 1] - step),  # between two epochs
        "training": training,
        "memory": 1e6 * provenance.peak_memory_mb(),
        "gpu_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "weights": weights.stat().st_size if weights.is_file() else 0,
        "image": 0.0,
        "approximations": 0.0,
        "note": record["reason"] or "",
    }
    if record["status"] == "done":
        with lease(device) as chosen:
            subject = pipeline.subject(small, directory, chosen)
            times = [_now()]
            for measure in (measure_all, approximations.measure):  # the second is a part of the first
                measure(subject)
                times.append(_now())
        seconds, approximated = (after - before for before, after in itertools.pairwise(times))
        measured["image"] = (seconds - approximated) / len(subject.data.test)
        measured["approximations"] = approximated / len(subject.data.test)
    return measured


def _now() -> float:
    """The time in seconds, read after the GPU has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _small(run: Run) -> Run:
    """The run as it is measured: two epochs of ten steps, and a few test images."""
    images = _images(run)
    test = max(FEWEST_IMAGES, IMAGE_STEPS // run.options.get("time_steps", 1))
    options = dict(run.options) | {"test_limit": min(test, MOST_IMAGES, images["test"])}
    if "epochs" in options:
        size = options["batch_size"]
        options |= {"epochs": EPOCHS, "train_limit": min(images["train"] // size, STEPS) * size or images["train"]}
    return replace(run, options=options)


def _make_up_what_is_not_prepared(run: Run, folder: Path) -> None:
    """Make this process use random data if the run's dataset is not prepared."""
    if store.manifest_path(run.dataset).is_file():
        return
    images = _images(run)
    held_out = 0 if store.facts(run.dataset)["images"]["validation"] else images["validation"]
    images |= {"train": images["train"] + held_out, "validation": images["validation"] - held_out}
    os.environ["BNTT_DATA"] = str(folder / "data")
    store.make_up(run.dataset, images)
