"""What an experiment will cost, estimated before it is run: time, memory and disk, of each row and in total.

Every row of every dataset is trained for a few steps and measured on a few test images, each in a process of its own.
As many processes run at once as the workflow would run. The cost of a run is then

    start + steps x step + epochs x validation,    and    start + measurements

A row is measured with small batches and few test images first, then with more, as long as its share of the minutes
lasts. What its own size costs is on a line through two sizes: a step is linear in the images of its batch, measurements
in test images x time-steps. A row that trains keeps all its time-steps, of which it has few. One that does not has
thousands, each of which costs the same, and is measured with the first of them. A row on single events, which trains in
one piece, is trained on the first recordings, as many as it takes to have all classes, or more; its training is linear
in their number. Random numbers of the same shape replace a dataset that is not prepared.

The peak memory of a process that trains on few images is that of its start. So the tensors that a step keeps for its
backward pass are counted instead, and twice their growth is added. The memory of a row that does not train is that
of few test images. The memory of an evaluation is on a line through two batches of test images; it is at least that of
a training with few images, which the same process did before.

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
from math import prod
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError, check_name
from bntt.common.text import counted, duration
from bntt.data import store
from bntt.experiment import declared
from bntt.experiment.schema import Experiment, Run
from bntt.measurements import images_at_once, measure
from bntt.runs.directory import WEIGHTS, RunDirectory
from bntt.runs.status import Found, Status, found

BATCH, TEST_IMAGES, CALIBRATION_IMAGES = 2, 1, 1  # of the first size that is measured
GROWTH = 2  # of all three, from one size to the next; the last has the row's own batch or calibration images
MOST_IMAGES = 100  # test images measured, at most, and recordings of a training on single events
TIME_STEPS = 25  # of a row that does not train
ENOUGH = 2  # sizes that are measured in any case of a row that trains, because a line needs them
FAR = 4  # times the work of the first size, from which on a line through the two is trusted; growth on single events
STEPS = 2  # of a training that is measured; the first is not counted
LEARNING_RATE = 1e-9
APPROXIMATED = declared.literal("bntt.measurements.approximations", "IMAGES")
IMPORTS = ("torch", "torch._dynamo", "bntt.runs.pipeline")  # what every run loads; the second by torch's optimisers
KEPT_TWICE = 2  # memory that a training takes for each byte kept for the backward pass; 1.5 to 2.4 were measured
TIMED = f"import time; began = time.perf_counter(); import {', '.join(IMPORTS)}; print(time.perf_counter() - began)"


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
    memory: float  # peak, of the process that trains
    evaluation_memory: float  # peak, of a process that evaluates
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
    context = multiprocessing.get_context("forkserver")  # a process of its own for each row, which imports nothing
    context.set_forkserver_preload(list(IMPORTS))
    with (
        subprocess.Popen([sys.executable, "-c", TIMED], stdout=subprocess.PIPE, text=True) as importing,
        tempfile.TemporaryDirectory(prefix="bntt-plan-") as folder,
        ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool,
    ):
        jobs: list[Future[dict[str, Any]]] = []
        for number, there in enumerate(rows.values()):
            share = (len(rows) - number) / workers  # how many such rows one process has yet to measure
            place = Path(folder) / str(number)
            jobs.append(pool.submit(_measure, experiment, there[0].run, device, place, end, max(1.0, share)))
        imports = float(importing.communicate()[0])
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
    evaluation = measured["start"] + measured["evaluation"] + measured["approximations"]

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
        evaluation_memory=measured["evaluation_memory"],
        gpu_memory=measured["gpu_memory"],
        disk=disk,
        note=measured["note"],
    )


def _images(run: Run) -> dict[str, int]:
    """The number of images that a run uses, by part: train, validation, test."""
    known = store.manifest(run.dataset) if store.manifest_path(run.dataset).is_file() else store.facts(run.dataset)
    images = dict(known["images"])
    held_out = run.options.get("held_out", 0) if not images["validation"] else 0
    images["train"] = min(images["train"] - held_out, run.options.get("train_limit") or images["train"])
    images["validation"] = images["validation"] or held_out
    images["test"] = min(images["test"], run.options.get("test_limit") or images["test"])
    return images


@dataclass(frozen=True)
class _Size:
    """What was measured with some number of images, in seconds and bytes."""

    run: Run
    start: float
    step: float | None
    validation: float  # of one image
    training: float  # of a row without training steps
    evaluation: float  # without the approximations
    approximations: float
    memory: float
    evaluation_memory: float
    kept: float  # of it, for the backward pass of a step
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
    whole = _work(run)  # of the dataset itself, and not of what is made up
    families = [_family(experiment, run, 0)]
    while families[-1][0] != (larger := _family(experiment, run, len(families)))[0]:
        families.append(larger)
    trainings = [_work(family[0])["training"] for family in families[:ENOUGH]]  # of single events; one size may be all
    enough = ENOUGH if "epochs" in run.options or (_in_one_piece(run) and trainings[-1] > trainings[0]) else 1
    prepared = store.manifest_path(run.dataset).is_file()
    bytes_of_images = 0 if prepared else sum(_images(run).values()) * prod(store.facts(run.dataset)["shape"])
    if not prepared:
        _make_up(families[-1], folder)
    sizes: list[_Size] = []
    for family in families:
        if len(sizes) >= enough and time.monotonic() + GROWTH * (time.monotonic() - began) > stop:
            break
        began = time.monotonic()
        sizes.append(_measure_size(experiment, family, device, folder))
    last = sizes[-1]
    notes = [] if len(sizes) == len(families) else [f"extrapolated from {_sized(last.run)}"]
    notes += [f"evaluation not measured: {last.unfinished}"] if last.unfinished else []
    estimate: dict[str, Any] = {
        "start": sizes[0].start,
        "step": None if last.step is None else _extrapolated(sizes, whole, "step"),
        "validation": last.validation,
        "weights": last.weights,
        "note": "; ".join(notes),
    }
    for name in ("training", "evaluation", "approximations", "evaluation_memory", "gpu_memory"):
        estimate[name] = _extrapolated(sizes, whole, name)
    estimate["memory"] = last.memory + KEPT_TWICE * (_extrapolated(sizes, whole, "kept") - last.kept)
    for name in ("gpu_memory",) if last.gpu_memory else ("memory", "evaluation_memory"):
        estimate[name] += bytes_of_images  # few of them were made up
    return estimate


def _extrapolated(sizes: Sequence[_Size], whole: Mapping[str, int], name: str) -> float:
    """A quantity of the ``whole`` work: on the line through the first size and the last.

    It is at most proportional to the work. A time is just that where a larger size took no longer, because nothing is
    then known of the part that every size has. It is at least half of that if the two sizes are near each other: one
    slow moment of the machine in the first makes the line almost flat.
    """
    last = sizes[-1]
    amount, done, first = float(getattr(last, name)), _work(last.run)[name], _work(sizes[0].run)[name]
    proportional = amount * whole[name] / done
    slope = (amount - getattr(sizes[0], name)) / (done - first) if done > first else 0.0
    if name in ("kept", "evaluation_memory", "gpu_memory"):  # counted, not timed
        return min(amount + max(0.0, slope) * (whole[name] - done), proportional)
    if slope <= 0:
        return proportional
    least = proportional / 2 if done < FAR * first and done < whole[name] else 0.0
    return min(max(amount + slope * (whole[name] - done), least), proportional)


def _work(run: Run) -> dict[str, int]:
    """What each quantity is linear in."""
    options, images = run.options, _images(run)
    batch, test, steps = options.get("batch_size", 1), images["test"], options.get("time_steps", 1)
    return {
        "step": batch,
        "training": images["train"] if _in_one_piece(run) else options.get("calibration_images", 1),
        "evaluation": test * steps,
        "approximations": min(test, APPROXIMATED) * steps,
        "evaluation_memory": min(test, images_at_once(run, steps)),
        "kept": batch,
        "gpu_memory": batch,
    }


def _sized(run: Run) -> str:
    options = run.options
    if "epochs" in options:
        return f"batches of {options['batch_size']}"
    if _in_one_piece(run):
        return counted(options["train_limit"], "training recording")
    return counted(options["test_limit"], "test image")


def _measure_size(experiment: Experiment, family: Sequence[Run], device: str, folder: Path) -> _Size:
    """Train the first of these small runs, after the others, from which it starts, and measure it.

    The others, which are the same for all sizes, are trained only once.
    """
    import torch

    from bntt.runs import pipeline, provenance
    from bntt.runs.checkpoints import Checkpoints
    from bntt.runs.devices import lease

    ends: list[float] = []
    kept: dict[int, int] = {}  # bytes of the tensors of the last step in the host's memory, by address

    class Clock(Checkpoints):
        """Notes when each step ended, and never saves."""

        def due(self) -> bool:
            ends.append(_now())
            return False

    def keep(tensor: Any) -> Any:
        if len(ends) == STEPS - 1 and tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself may be the output of what keeps it, and would never be freed

    small = family[0]
    short = Experiment(experiment.name, experiment.title, "", tuple(family))
    for one in reversed(family[1:]):
        pipeline.train(short, one, folder, device)
    begun = _now()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pipeline.train(short, small, folder, device, Clock)
    ended = _now()
    trained_with = provenance.peak_memory_mb()
    gaps = [after - before for before, after in itertools.pairwise([begun, *ends])]  # the first is with the start
    step = statistics.median(gaps[1:] or gaps) if gaps else None
    directory = RunDirectory.of(small, folder)
    record, weights = directory.training(), directory.path / WEIGHTS
    seconds: dict[str, float] = {}
    if record["status"] == "done":
        with lease(device) as chosen:
            subject = pipeline.subject(small, directory, chosen)
            for name, module in declared.plugins("measurements", "COLUMNS").items():
                begun_with = _now()
                measure(module, subject)
                seconds[name] = _now() - begun_with
    validated = _images(small)["validation"]
    return _Size(
        run=small,
        start=0.0 if step is None else max(0.0, gaps[0] - step),
        step=step,
        validation=0.0 if step is None or not validated else (ended - ends[-1]) / validated,
        training=ended - begun,
        evaluation=sum(seconds.values()) - seconds.get("approximations", 0.0),
        approximations=seconds.get("approximations", 0.0),
        memory=1e6 * (provenance.peak_memory_mb() if step is None else trained_with),
        evaluation_memory=1e6 * provenance.peak_memory_mb(),
        kept=sum(kept.values()),
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


def _small(run: Run, size: int) -> Run:
    """The run with few images, more for a larger size: one short epoch or few recordings, and a few test images."""
    images, options = _images(run), dict(run.options)
    options["test_limit"] = min(TEST_IMAGES * GROWTH**size, MOST_IMAGES, images["test"])
    if "calibration_images" in options:
        options["calibration_images"] = min(CALIBRATION_IMAGES * GROWTH**size, options["calibration_images"])
        options["train_limit"] = options["calibration_images"]
    if "epochs" in options:
        options["batch_size"] = batch = min(BATCH * GROWTH**size, options["batch_size"])
        options |= {
            "epochs": 1,
            "learning_rate": LEARNING_RATE,
            "train_limit": min(images["train"] // batch, STEPS) * batch or images["train"],
            "held_out": min(options["held_out"], batch),
        }
    elif _in_one_piece(run):
        least = _with_every_class(run.dataset)
        options["train_limit"] = min(least * FAR**size, max(least, MOST_IMAGES), images["train"])
    elif "time_steps" in options:
        options["time_steps"] = min(TIME_STEPS, options["time_steps"])
    return replace(run, options=options)


def _in_one_piece(run: Run) -> bool:
    """Whether a run trains on all its recordings at once: on single events, and not in epochs."""
    return "epochs" not in run.options and declared.needs_events(run.method)


def _with_every_class(dataset: str) -> int:
    """The number of the first training images that are of all classes; made-up ones are of one after the other."""
    if not store.manifest_path(dataset).is_file():
        return int(store.facts(dataset)["classes"])
    import numpy as np

    labels = np.load(store.folder(dataset) / "train-labels.npy", allow_pickle=False)
    return int(np.unique(labels, return_index=True)[1].max()) + 1


def _family(experiment: Experiment, run: Run, size: int) -> list[Run]:
    """Small runs for measurement: one of this run, then those of the rows that it starts from, at the smallest size."""
    runs = [run]
    while (start := runs[-1].start) is not None:
        runs.append(experiment.run(run.dataset, start, run.seed))

    def one_step(start: Run) -> Run:  # its weights are needed, whatever they are
        return replace(start, options={**start.options, "epochs": 1, "train_limit": start.options["batch_size"]})

    starts = (_small(one, 0) for one in runs[1:])
    return [_small(run, size), *(one_step(start) if "epochs" in start.options else start for start in starts)]


def _make_up(family: Sequence[Run], folder: Path) -> None:
    """Make this process use random data, as many as the largest of its runs needs."""
    dataset, needed = family[0].dataset, [_images(one) for one in family]
    images = {part: max(one[part] for one in needed) for part in needed[0]}
    if not store.facts(dataset)["images"]["validation"]:  # held out of the training images
        images |= {"train": images["train"] + images["validation"], "validation": 0}
    os.environ["BNTT_DATA"] = str(folder / "data")
    store.make_up(dataset, images)
