"""What an experiment will cost, measured before it is run: time, memory and disk of each row and in all.

Every row of every dataset is trained for 20 steps and looks at a few test images, in processes of their own, as many at
once as the workflow would run. What a run costs is then

    start + steps x step + epochs x validation,    and    start + images x (first pass + further passes x pass)

where a further pass is one of noise on the image or of another draw of the spikes. A dataset that is not prepared is
made up, of random numbers in its shape. How long a pass takes depends on how much a trained network spikes, which one
that was trained for 20 steps cannot tell; a training step does not depend on it.
"""

import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError
from bntt.common.text import duration
from bntt.data import store
from bntt.experiment import declared
from bntt.experiment.schema import Experiment, Run
from bntt.runs.directory import RunDirectory
from bntt.runs.status import Found, Status, found

EPOCHS, STEPS = 2, 10  # of a measurement
WARM = 3  # steps at the start of it that do not count
FEWEST_IMAGES, MOST_IMAGES, IMAGE_STEPS = 4, 100, 2500  # test images of a measurement, and with all their time-steps
APPROXIMATED = declared.literal("bntt.measurements.approximations", "IMAGES")


@dataclass(frozen=True)
class Cost:
    """What one run of a row costs, in seconds and bytes."""

    dataset: str
    row: str
    start: str | None  # row that it starts from
    runs: int
    done: int
    trained: int  # and not yet evaluated
    step: float | None  # seconds of a training step; None where a row does not train
    training: float
    evaluation: float
    memory: float  # peak, of the process
    gpu_memory: float
    disk: float
    note: str = ""

    @property
    def remaining(self) -> float:
        """Seconds of what is not done, one after the other."""
        return (self.runs - self.done) * (self.training + self.evaluation) - self.trained * self.training

    @property
    def longest(self) -> float:
        """Seconds of the run of which the most remains."""
        training = self.training if self.runs > self.done + self.trained else 0.0
        return training + (self.evaluation if self.runs > self.done else 0.0)


def slots(experiment: Experiment, device: str, cores: int) -> int:
    """How many runs go at once: as many as there are cores for, and GPUs, of which each run takes one for itself."""
    at_once = max(1, cores // experiment.runs[0].threads)
    if device == "cpu":
        return at_once
    import torch

    return min(at_once, torch.cuda.device_count()) if torch.cuda.is_available() else at_once


def plan(experiment: Experiment, results: Path, device: str, workers: int) -> Iterator[Cost]:
    """The cost of every row on every dataset, as it becomes known; a row after the one that it starts from."""
    rows: dict[tuple[str, str], list[Run]] = {}
    for run in experiment.runs:
        rows.setdefault((run.dataset, run.row), []).append(run)
    there = {one.run.name: one for one in found(experiment, results)}
    # Each family, a row with all that start from it, is measured by one worker after the other.
    families: dict[tuple[str, str], list[Run]] = {}
    for (dataset, _), runs in rows.items():
        root = runs[0]
        while root.start is not None:
            root = rows[dataset, root.start][0]
        families.setdefault((dataset, root.row), []).append(runs[0])
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="bntt-plan-") as folder,
        ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool,
    ):
        jobs = [
            pool.submit(_measure_family, experiment, family, device, Path(folder) / str(number))
            for number, family in enumerate(families.values())
        ]
        for job in as_completed(jobs):
            for measured in _result(job):
                runs = rows[measured["dataset"], measured["row"]]
                yield _cost(runs[0], [there[run.name] for run in runs], measured)


def report(costs: Iterable[Cost], at_once: int) -> Iterator[str]:
    """A line for every row as it is measured, and the sums."""
    columns = "{:14} {:20} {:>4} {:>4} {:>9} {:>12} {:>12} {:>8}"
    yield columns.format("dataset", "row", "runs", "done", "step", "training", "evaluation", "memory")
    measured = []
    for one in costs:
        measured.append(one)
        step = "-" if one.step is None else f"{1000 * one.step:.0f} ms"
        memory = f"{max(one.memory, one.gpu_memory) / 1e9:.1f} GB"
        times = duration(one.training), duration(one.evaluation)
        line = columns.format(one.dataset, one.row, one.runs, one.done, step, *times, memory)
        yield f"{line}  {one.note}".rstrip()
    whole = sum(one.runs * (one.training + one.evaluation) for one in measured)
    remaining = sum(one.remaining for one in measured)
    disk = sum(one.runs * one.disk for one in measured)
    runs, done = (sum(getattr(one, name) for one in measured) for name in ("runs", "done"))
    yield f"in all {runs} runs, {done} done; {whole / 3600:.2f} hours of training and evaluation, one after the other"
    chains: dict[tuple[str, str | None], float] = {}
    for one in measured:  # a row comes after the one that it starts from
        chains[one.dataset, one.row] = chains.get((one.dataset, one.start), 0.0) + one.longest
    together = max(remaining / at_once, *chains.values())
    yield (
        f"remaining: {remaining / 3600:.2f} hours, or {duration(together)} with {at_once} at once; "
        f"{disk / 1e6:.0f} MB on disk, {max(one.memory for one in measured) / 1e9:.1f} GB of memory for the largest"
    )


def _result(job: "Future[list[dict[str, Any]]]") -> list[dict[str, Any]]:
    try:
        return job.result()
    except BrokenProcessPool:
        raise UserError(
            "plan: a measurement was killed, probably since memory ran out; measure fewer at once with --cores"
        ) from None


def _cost(run: Run, there: Sequence[Found], measured: dict[str, Any]) -> Cost:
    """From what was measured to what a whole run costs, and how many of a row's runs are there already."""
    images = _images(run)
    step, training = measured["step"], measured["start"] + measured["training"]
    if step is not None:
        epochs = run.options["epochs"]
        steps = images["train"] / run.options["batch_size"]
        training = measured["start"] + epochs * (steps * step + measured["validation"])
    noise_levels = sum(sigma > 0 for sigma in run.evaluation["noise_sigmas"]) if measured["noise"] else 0
    passes = noise_levels + (run.evaluation["draws"] - 1 if measured["draws"] else 0)
    evaluation = measured["start"] + images["test"] * (measured["first_pass"] + passes * measured["pass"])
    evaluation += min(images["test"], APPROXIMATED) * measured["approximations"]
    states = 4 * measured["weights"] if step is not None else 0  # weights and momentum, in two generations
    return Cost(
        dataset=run.dataset,
        row=run.row,
        start=run.start,
        runs=len(there),
        done=sum(one.status.ended for one in there),
        trained=sum(one.status is Status.TRAINED for one in there),
        step=step,
        training=training,
        evaluation=evaluation,
        memory=measured["memory"],
        gpu_memory=measured["gpu_memory"],
        disk=measured["weights"] + states / len(there),
        note=measured["note"],
    )


def _images(run: Run) -> dict[str, int]:
    """Images of each part that a run uses."""
    known = store.manifest(run.dataset) if store.manifest_path(run.dataset).is_file() else store.facts(run.dataset)
    images = dict(known["images"])
    held_out = run.options["held_out"] if not images["validation"] else 0
    images["train"] = min(images["train"] - held_out, run.options["train_limit"] or images["train"])
    images["validation"] = images["validation"] or held_out
    images["test"] = min(images["test"], run.options["test_limit"] or images["test"])
    return images


def _measure_family(experiment: Experiment, family: list[Run], device: str, folder: Path) -> list[dict[str, Any]]:
    """Measure a row and those that start from it, in a process of its own."""
    began = time.perf_counter()
    import torch

    from bntt.runs import pipeline, provenance
    from bntt.runs.checkpoints import Checkpoints

    ends: list[float] = []

    class Clock(Checkpoints):
        """Notes when each step ended, and never saves."""

        def due(self) -> bool:
            _wait(torch)
            ends.append(time.perf_counter())
            return False

    small = [_small(run) for run in family]
    _make_up_what_is_not_prepared(small[0], folder)
    short = Experiment(experiment.name, experiment.title, "", tuple(small))
    imports = time.perf_counter() - began
    measured = []
    for run in small:
        ends.clear()
        begun = time.perf_counter()
        pipeline.train(short, run, folder, device, Clock)
        trained = time.perf_counter() - begun
        directory = RunDirectory.of(run, folder)
        training = directory.training()
        step, validation = _step_and_validation(ends, run)
        weights = directory.path / "model.safetensors"
        measured.append(
            {
                "dataset": run.dataset,
                "row": run.row,
                "start": imports + (0.0 if step is None else ends[0] - begun - step),
                "step": step,
                "validation": validation,
                "training": trained,
                "memory": 1e6 * provenance.peak_memory_mb(),
                "gpu_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
                "weights": weights.stat().st_size if weights.is_file() else 0,
                "note": training["reason"] or "",
                **_passes(run, directory, device),
            }
        )
    return measured


def _wait(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _step_and_validation(ends: list[float], run: Run) -> tuple[float | None, float]:
    """Seconds of a step and of a validation, from when steps ended; None and 0 where a row does not train."""
    if len(ends) < 2:
        return None, 0.0
    in_epoch = -(-run.options["train_limit"] // run.options["batch_size"])
    gaps = [after - before for before, after in itertools.pairwise(ends)]  # the gap before step number 1, 2, ...
    inner = [gap for number, gap in enumerate(gaps, 1) if number % in_epoch]
    step = statistics.median(inner[WARM:] or inner or gaps)
    between = [gap - step for number, gap in enumerate(gaps, 1) if number % in_epoch == 0]
    return step, max(0.0, statistics.mean(between or [0.0]))


def _passes(run: Run, directory: RunDirectory, device: str) -> dict[str, Any]:
    """Seconds for each test image of the first pass, of a further one and of the approximations."""
    import torch

    from bntt.measurements import approximations
    from bntt.measurements.observation import right_at_reported_steps
    from bntt.runs import pipeline
    from bntt.runs.devices import lease

    nothing = {"first_pass": 0.0, "pass": 0.0, "approximations": 0.0, "noise": False, "draws": False}
    if directory.training()["status"] != "done":
        return nothing
    with lease(device) as chosen:
        subject = pipeline.subject(run, directory, chosen)
        seconds = []
        for work in (
            lambda: subject.observation,
            lambda: right_at_reported_steps(subject, subject.noise_key(1)),
            lambda: approximations.measure(subject),
        ):
            begun = time.perf_counter()
            work()
            _wait(torch)
            seconds.append((time.perf_counter() - begun) / len(subject.data.test))
        return nothing | {
            "first_pass": seconds[0],
            "pass": seconds[1],
            "approximations": seconds[2],
            "noise": not subject.data.recordings,
            "draws": subject.why_not_drawn is None,
        }


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
    """Point this process to made-up data, where the run's dataset is not prepared."""
    if store.manifest_path(run.dataset).is_file():
        return
    images = _images(run)
    own = dict(store.facts(run.dataset)["images"])
    images["train"] += 0 if own["validation"] else run.options["held_out"]
    images["validation"] = own["validation"]
    os.environ["BNTT_DATA"] = str(folder / "data")
    store.make_up(run.dataset, images)
