"""What an experiment will cost, estimated before it is run: time, memory and disk, of each row and in total.

Every row of every dataset is trained for a few steps and measured on a few test images, each in a process of its own.
As many processes run at once as the workflow would run. The cost of a run is then

    start + steps x step + epochs x validation,    and    start + test images x all measurements of an image

where the approximations are measured on fewer images. A row is measured with fewer time-steps and smaller batches
first, then with more, as long as its share of the minutes lasts. If they end before its own size is reached, a line
through two sizes gives the rest: time and memory of a step are linear in time-steps x images, those of an image in
time-steps. Random numbers of the same shape replace a dataset that is not prepared.

The learning rate is almost 0, so that no network dies of small batches. The time of a measurement depends on how much
the trained network spikes, which the first steps of a training cannot show either. The time of a training step does not
depend on it. All times are those of the device that measured them.
"""

import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from math import prod, sqrt
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError, check_name
from bntt.common.text import counted, duration
from bntt.data import store
from bntt.experiment import declared
from bntt.experiment.schema import Experiment, Run
from bntt.measurements import measure_all
from bntt.runs.directory import WEIGHTS, RunDirectory
from bntt.runs.status import Found, Status, found

GROWTH = 4  # from one size that is measured to the next
SIZES = 6  # the first is the row's own size divided by GROWTH to the power of SIZES - 1
ENOUGH = 2  # sizes that are measured in any case, because a line needs them
EPOCHS, STEPS = 2, 2  # of a training that is measured: its epochs, and the steps of each
FEWEST_IMAGES, MOST_IMAGES, IMAGE_STEPS = 2, 100, 2500  # test images measured, and those times their time-steps
LEARNING_RATE = 1e-9
APPROXIMATED = declared.literal("bntt.measurements.approximations", "IMAGES")
IMPORTS = ("torch", "bntt.runs.pipeline", "bntt.measurements.approximations")  # what every run loads


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
    return f"{provenance.machine('cpu')}, {counted(experiment.runs[0].threads, 'thread')} for each run"


def plan(
    experiment: Experiment,
    results: Path,
    device: str,
    workers: int,
    minutes: float,
    dataset: str | None = None,
    row: str | None = None,
) -> Iterator[Cost]:
    """Yield the cost of every row on every dataset, or of those named, in order, within about ``minutes``.

    Standard error says how far it is. Raises UserError if there is no such row, or if a measurement is killed.
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
    end = time.monotonic() + 60 * minutes
    imports = _seconds_to_import()
    context = multiprocessing.get_context("forkserver")  # a process of its own for each row, which imports nothing
    context.set_forkserver_preload(list(IMPORTS))
    with (
        tempfile.TemporaryDirectory(prefix="bntt-plan-") as folder,
        ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool,
    ):
        jobs: list[Future[dict[str, Any]]] = []
        for number, there in enumerate(rows.values()):
            share = (len(rows) - number) / workers  # how many such rows one process has yet to measure
            place = Path(folder) / str(number)
            jobs.append(pool.submit(_measure, experiment, there[0].run, device, place, end, max(1.0, share)))
        try:
            for number, (there, job) in enumerate(zip(rows.values(), jobs, strict=True), 1):
                run = there[0].run
                print(f"measuring {number} of {len(rows)}: {run.dataset}, {run.row}", file=sys.stderr, flush=True)
                measured = job.result()
                yield _cost(there, measured | {"start": measured["start"] + imports})
        except BrokenProcessPool:
            raise UserError(
                "plan: a measurement was killed, probably because memory ran out; measure fewer at once with --cores"
            ) from None


def _seconds_to_import() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(IMPORTS)}"], check=True)
    return time.perf_counter() - began


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
    done = f"{counted(len(left), 'run')}, {left.count(0.0)} done"
    for dataset in dict.fromkeys(one.dataset for one in measured):
        there = [one for one in measured if one.dataset == dataset]
        hours = sum(len(one.left) * (one.training + one.evaluation) for one in there) / 3600
        runs, remaining = sum(len(one.left) for one in there), sum(sum(one.left) for one in there) / 3600
        yield f"{dataset}: {counted(runs, 'run')}, {hours:.2f} hours; remaining: {remaining:.2f} hours"
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
        training = run.options["epochs"] * (steps * step + images["validation"] * measured["validation"])
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


@dataclass(frozen=True)
class _Size:
    """What was measured with some number of time-steps and images, in seconds and bytes."""

    run: Run
    start: float
    step: float | None
    validation: float  # of one image
    training: float  # of a row without training steps
    image: float
    approximations: float
    memory: float
    gpu_memory: float
    weights: float
    unfinished: str  # why there was nothing to evaluate


def _measure(experiment: Experiment, run: Run, device: str, folder: Path, end: float, share: float) -> dict[str, Any]:
    """Estimate a row in this process, which does nothing else, from one size after the other.

    ``end`` is when all rows should be measured, on the clock of `time.monotonic`; ``share`` is how many rows the time
    until then is for, this one and those after it.
    """
    began = time.monotonic()
    stop = began + max(0.0, end - began) / share
    families = [_family(experiment, run, GROWTH**-k) for k in reversed(range(SIZES))]
    prepared = store.manifest_path(run.dataset).is_file()
    bytes_of_images = 0 if prepared else sum(_images(run).values()) * prod(store.facts(run.dataset)["shape"])
    if not prepared:
        _make_up(families[-1], folder)
    sizes: list[_Size] = []
    for number, family in enumerate(families):
        if sizes and family[0] == sizes[-1].run:
            continue
        if len(sizes) >= ENOUGH and time.monotonic() + GROWTH * (time.monotonic() - began) > stop:
            break
        began = time.monotonic()
        sizes.append(_measure_size(experiment, family, device, folder / str(number)))
    last, whole = sizes[-1], families[-1][0]
    notes = [] if last.run == whole else [f"extrapolated from {_sized(last.run)}"]
    notes += [f"evaluation not measured: {last.unfinished}"] if last.unfinished else []
    of_step, of_image = _work(whole)
    estimate: dict[str, Any] = {
        "start": sizes[0].start,
        "step": None if last.step is None else _extrapolated(sizes, "step", 0, of_step),
        "training": _extrapolated(sizes, "training", 0, of_step),
        "note": "; ".join(notes),
    }
    for name in ("image", "approximations", "validation", "weights"):
        estimate[name] = _extrapolated(sizes, name, 1, of_image)
    for name in ("memory", "gpu_memory"):  # only what trains holds more of both in a larger step
        estimate[name] = getattr(last, name) if last.step is None else _extrapolated(sizes, name, 0, of_step)
    estimate["gpu_memory" if last.gpu_memory else "memory"] += bytes_of_images  # few of them were made up
    return estimate


def _extrapolated(sizes: Sequence[_Size], name: str, kind: int, work: float) -> float:
    """A quantity at the row's own size: on the line through the last size and one that is smaller.

    It is at least what was measured last, and at most proportional to the work.
    """
    last = sizes[-1]
    amount, done = float(getattr(last, name)), _work(last.run)[kind]
    proportional = amount * work / done
    smaller = next((one for one in reversed(sizes) if _work(one.run)[kind] < done), None)
    if smaller is None:
        return proportional
    slope = (amount - getattr(smaller, name)) / (done - _work(smaller.run)[kind])
    return min(max(amount + slope * (work - done), amount), proportional)


def _work(run: Run) -> tuple[float, float]:
    """What the time of a training step, and of an image, is proportional to: time-steps x images, and time-steps."""
    options: Mapping[str, Any] = run.options
    steps = options.get("time_steps", 1)
    if "batch_size" in options and "epochs" in options:
        return steps * options["batch_size"], steps
    return options.get("calibration_steps", 1) * options.get("calibration_images", 1), steps


def _sized(run: Run) -> str:
    options = run.options
    words = [f"T = {options['time_steps']}"] if "time_steps" in options else []
    if "epochs" in options:
        words.append(f"batches of {options['batch_size']}")
    elif "calibration_images" in options:
        words.append(counted(options["calibration_images"], "image"))
    return ", ".join(words)


def _measure_size(experiment: Experiment, family: Sequence[Run], device: str, folder: Path) -> _Size:
    """Train the first of these small runs, after the others, from which it starts, and measure it."""
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

    small = family[0]
    short = Experiment(experiment.name, experiment.title, "", tuple(family))
    for one in reversed(family[1:]):
        pipeline.train(short, one, folder, device)
    begun = _now()
    pipeline.train(short, small, folder, device, Clock)
    training = _now() - begun
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    step = statistics.median(gaps) if gaps else None
    directory = RunDirectory.of(small, folder)
    record, weights = directory.training(), directory.path / WEIGHTS
    image = approximated = 0.0
    if record["status"] == "done":
        with lease(device) as chosen:
            subject = pipeline.subject(small, directory, chosen)
            times = [_now()]
            for measure in (measure_all, approximations.measure):  # the second is a part of the first
                measure(subject)
                times.append(_now())
        seconds, approximated = ((b - a) / len(subject.data.test) for a, b in itertools.pairwise(times))
        image = max(0.0, seconds - approximated)
    validated = _images(small)["validation"]
    return _Size(
        run=small,
        start=0.0 if step is None else max(0.0, ends[0] - begun - step),
        step=step,
        validation=0.0 if step is None or not validated else max(0.0, gaps[len(ends) // EPOCHS - 1] - step) / validated,
        training=training,
        image=image,
        approximations=approximated,
        memory=1e6 * provenance.peak_memory_mb(),
        gpu_memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        weights=weights.stat().st_size if weights.is_file() else 0,
        unfinished=record["reason"] or "",
    )


def _now() -> float:
    """The time in seconds, read after the GPU has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _small(run: Run, part: float) -> Run:
    """A part of the run for measurement: fewer time-steps and images, two short epochs, a few test images."""
    images, options = _images(run), dict(run.options)
    trains = "epochs" in options

    def reduced(name: str, least: int, by: float) -> None:
        if name in options:
            options[name] = min(options[name], max(least, round(options[name] * by)))

    reduced("time_steps", 2, sqrt(part) if trains else part)
    reduced("calibration_images", 2, 2 * part)  # in all its steps, because spikes reach deep layers only after many
    test = int(IMAGE_STEPS * part) // options.get("time_steps", 1)
    options["test_limit"] = min(max(FEWEST_IMAGES, min(test, MOST_IMAGES)), images["test"])
    if trains:
        reduced("batch_size", 4, sqrt(part))
        size = options["batch_size"]
        options |= {
            "epochs": EPOCHS,
            "learning_rate": LEARNING_RATE,
            "train_limit": min(images["train"] // size, STEPS) * size or images["train"],
            "held_out": min(options["held_out"], size),
        }
    elif "calibration_images" in options:
        options["train_limit"] = options["calibration_images"]
    return replace(run, options=options)


def _family(experiment: Experiment, run: Run, part: float) -> list[Run]:
    """Parts of a run for measurement, and of the rows that it starts from, the first of which comes last."""
    runs = [run]
    while (start := runs[-1].start) is not None:
        runs.append(experiment.run(run.dataset, start, run.seed))
    small, *starts = (_small(one, part) for one in runs)

    def one_step(start: Run) -> Run:  # its weights are needed, whatever they are
        return replace(start, options={**start.options, "epochs": 1, "train_limit": start.options["batch_size"]})

    return [small, *(one_step(start) if "batch_size" in start.options else start for start in starts)]


def _make_up(family: Sequence[Run], folder: Path) -> None:
    """Make this process use random data, as many as the largest of its runs needs."""
    dataset, needed = family[0].dataset, [_images(one) for one in family]
    images = {part: max(one[part] for one in needed) for part in needed[0]}
    if not store.facts(dataset)["images"]["validation"]:  # held out of the training images
        images |= {"train": images["train"] + images["validation"], "validation": 0}
    os.environ["BNTT_DATA"] = str(folder / "data")
    store.make_up(dataset, images)
