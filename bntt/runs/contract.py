"""The contract of a method, as checks that run on any method file and on every kind of data.

`bntt.methods` states the contract. Each check here is a function in ``CHECKS``. It gets a `Trial`, the method on one
kind of made-up data, and returns what it found, in a few words or none. It raises `Broken` if the method does not keep
the contract, and `NotApplicable` if the check has nothing to look at. ``python -m bntt test METHOD`` prints the
results, and the project's tests call the same functions.

A method need not accept every kind of data. One that does not says so in one line, which is kept too; but it accepts
one kind at least.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from bntt.classifiers import Classifier
from bntt.common.errors import Stopped, UserError, check_name
from bntt.common.text import listed
from bntt.data.events.streams import joined
from bntt.data.images import ImageData, Images
from bntt.experiment import declared, plugins
from bntt.experiment.options import validated
from bntt.experiment.schema import Run, models
from bntt.measurements import Subject, measure_all
from bntt.methods import Task, Trained
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory
from bntt.runs.pipeline import of_other_weights

KINDS = ("grey images", "colour images", "recordings")
SEED, OTHER_SEED = 3, 4  # not 0, with which a seed that is lost on the way would not be missed
CLASSES, SIDE, FRAMES, SENSOR, EVENTS = 3, 8, 4, 128, 400
COUNTS = {"train": 12, "validation": 6, "test": 9}

# Values that make a training small, for options of these names where the declaration takes them. Every other number of
# things that a method works through is at most FEW.
SMALL = {"architecture": "vgg5", "width": 0.1, "epochs": 2, "batch_size": 5, "time_steps": FRAMES}
AMOUNT, FEW = re.compile(r"(^|_)(epochs|events|images|iterations|recordings|samples|steps|trees)$"), 16
STOPPED = "stopped by the contract"
ALIVE = {"gain": 3.0, "learning_rate": 0.01}  # of a row to start from: every layer has a positive current
OF_BOTH = ("bntt.data.images", "bntt.spiking.networks", "bntt.spiking.encoding")  # options alike in a row and its start


class Broken(Exception):
    """The contract is not kept; the message says what is expected and what was found."""


class NotApplicable(Exception):
    """There is nothing to check; the message says why."""


@dataclass(frozen=True)
class Attempt:
    """A training: what it made in how many steps, or the line that refuses the data, or the error that it ended in."""

    made: Trained | None = None
    steps: int = 0
    refusal: str = ""
    error: Exception | None = None


@dataclass(frozen=True)
class Result:
    """What a check came to: ``passed``, ``failed`` or ``not applicable``, and the reason or what was found."""

    check: str
    kind: str
    word: str
    text: str = ""


def made_up(kind: str, side: int = SIDE, events: bool = False, other_test: bool = False) -> ImageData:
    """A few images or recordings of a kind in KINDS, whose classes differ in where they are bright or have events.

    With ``events``, recordings have single events too. ``other_test`` exchanges the test part alone.
    """

    def part(name: str) -> Images:
        count, draws = COUNTS[name], np.random.default_rng([list(COUNTS).index(name), name == "test" and other_test])
        labels = np.arange(count) % CLASSES
        if kind != "recordings":
            pixels = draws.integers(0, 200, (count, 3 if kind == "colour images" else 1, side, side), dtype=np.uint8)
            pixels[np.arange(count), :, labels] += 55  # one row
            return Images(torch.from_numpy(pixels), torch.from_numpy(labels))
        time = np.sort(draws.integers(0, 100_000, (count, EVENTS)))  # microseconds
        x, on = draws.integers(0, SENSOR, time.shape), draws.integers(0, 2, time.shape)
        y = (labels[:, None] * 40 + draws.integers(0, 48, time.shape)) % SENSOR
        frames = np.zeros((count, FRAMES, 2, side, side), np.uint8)
        square, frame = SENSOR // side, time * FRAMES // 100_000
        np.add.at(frames, (np.arange(count)[:, None], frame, on, y // square, x // square), 1)
        words = (time << 15 | y << 8 | x << 1 | on).astype(np.uint32)
        return Images(torch.from_numpy(frames), torch.from_numpy(labels), joined(words) if events else None)

    channels = {"grey images": 1, "colour images": 3, "recordings": 2}[kind]
    blank = torch.zeros(channels, 1, 1)
    return ImageData(
        kind, CLASSES, part("train"), part("validation"), part("test"), blank, blank + 1, "made up", "unknown"
    )


def small(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a method, with values that make it fast, or those given; UserError for wrong ones."""
    model, chosen = _model(method), {}
    for name, entry in declared.options(declared.plugins("methods", "OPTIONS")[method]).items():
        value = SMALL.get(name)
        if value is None and AMOUNT.search(name) and isinstance(entry["default"], int):
            value = min(entry["default"], max(FEW, entry.get("min", FEW)))
        if value is not None and _takes(model, name, value):
            chosen[name] = value
    return validated(model, chosen | dict(given), f"method {method}").model_dump()


def _model(method: str) -> Any:
    """The pydantic model of a method's options; UserError for an unknown or broken method."""
    known = models()
    check_name("method", method, declared.plugins("methods", "OPTIONS"), "bntt/methods")
    if method in known.broken:
        raise known.broken[method]
    return known.options[method]


def _takes(model: Any, name: str, value: Any) -> bool:
    try:
        validated(model, {name: value}, "")
    except UserError:
        return False
    return True


class Pieces(Checkpoints):
    """The keeper of a training that counts its steps, and stops it after one of them."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        super().__init__(folder)
        self.steps, self.stop_after = 0, stop_after

    def due(self) -> bool:
        self.steps += 1
        return self.stop.reason is not None or self.steps == self.stop_after

    def save(self, state: Any) -> None:
        super().save(state)
        if self.steps == self.stop_after:
            raise Stopped(STOPPED, interrupted=False)


class Trial:
    """A method on one kind of data: its options, its trainings, each made once, and its predictions."""

    def __init__(self, method: str, kind: str, folder: Path, given: Mapping[str, Any] | None = None) -> None:
        """Work in ``folder``; ``given`` are options with other values than those that `small` chooses."""
        self.method, self.kind, self.folder = method, kind, folder
        self.module = declared.plugins("methods", "OPTIONS").get(method, method)
        self.options = small(method, given or {})
        self.needs_events = bool(declared.literal(self.module, "NEEDS_EVENTS"))
        self.folders = (folder / f"training-{number}" for number in count())

    def data(self, other_test: bool = False) -> ImageData:
        """The data as the pipeline would give them, made anew; UserError if the options do not fit them."""
        return self.asked(made_up(self.kind, events=self.needs_events, other_test=other_test))

    def asked(self, data: ImageData) -> ImageData:
        """Data as a run with these options gets them."""
        return data.as_asked(torch.device("cpu"), self.options)

    def run(self, seed: int = SEED) -> Run:
        """A run of the method with a seed."""
        start = "start" if declared.literal(self.module, "NEEDS_START") else None
        return self._run(self.method, "row", seed, start, self.options)

    def _run(self, method: str, row: str, seed: int, start: str | None, options: Mapping[str, Any]) -> Run:
        evaluation = validated(models().evaluation, {"noise_sigmas": [0.4], "draws": 1}, "evaluation").model_dump()
        return Run("contract", self.kind, row, seed, method, start, 1, options, evaluation)

    @cached_property
    def start(self) -> Mapping[str, Tensor]:
        """The weights of a row that the method can start from: of an ``ann``, or of the method that it names."""
        method = declared.literal(self.module, "NEEDS_START")
        if not method:
            return {}
        method = method if isinstance(method, str) else "ann"
        modules = declared.plugins("methods", "OPTIONS")
        check_name("method", method, modules, f"{declared.place(self.module, 'NEEDS_START')}: NEEDS_START")
        shared = {
            name: self.options[name] for module in OF_BOTH for name in declared.options(module) if name in self.options
        }
        known = declared.options(modules[method])
        options = small(method, {name: value for name, value in (ALIVE | shared).items() if name in known})
        run = self._run(method, "start", SEED, None, options)
        task = Task(run, self.data(), Pieces(next(self.folders)))
        made: Trained = plugins.call(modules[method], "train", task, returns=Trained)
        return made.weights

    def task(
        self, seed: int = SEED, data: ImageData | None = None, folder: Path | None = None, stop_after: int | None = None
    ) -> Task:
        """What the method gets: data and start of its own, and a keeper, which stops it if that is asked."""
        start = {"start": {name: value.clone() for name, value in self.start.items()}} if self.start else {}
        keeper = Pieces(folder or next(self.folders), stop_after)
        return Task(self.run(seed), self.data() if data is None else data, keeper, **start)

    def train(self, task: Task) -> Trained:
        """Train as the pipeline does, with random generators in a state that no other training found."""
        scramble()
        made: Trained = plugins.call(self.module, "train", task, returns=Trained)
        return made

    @cached_property
    def first(self) -> Attempt:
        """The training with SEED."""
        try:
            task = self.task()
            return Attempt(self.train(task), steps_of(task))
        except Stopped:
            raise
        except Exception as error:
            return Attempt(error=error) if (refusal := refused(error)) is None else Attempt(refusal=refusal)

    @property
    def made(self) -> Trained:
        """What the training with SEED made; NotApplicable if it made nothing to look at."""
        if self.first.made is None:
            raise NotApplicable("it does not accept them" if self.first.refusal else "it does not train")
        if self.first.made.outcome.diverged is not None or not_finite(self.first.made):
            raise NotApplicable("its training diverged")
        return self.first.made

    @cached_property
    def directory(self) -> RunDirectory:
        """A run directory with the training that was made."""
        directory = RunDirectory(self.folder / "run", self.folder / "scratch")
        record = {"status": "done", "reason": None, **self.made.facts}
        directory.finish_training(record, self.made.weights, self.made.outcome.tables)
        return directory

    def classifier(self, weights: Mapping[str, Tensor], data: ImageData | None = None, seed: int = SEED) -> Classifier:
        """The method's classifier with these weights."""
        scramble()
        data = self.data() if data is None else data
        made: Classifier = plugins.call(
            self.module, "classifier", self.run(seed), data, weights, returns=get_args(Classifier)
        )
        return made

    def predictions(self, classifier: Classifier, data: ImageData | None = None) -> Tensor:
        """Running logits of the test images ``[T, N, classes]``; Broken if they are not that, or not finite."""
        data = self.data() if data is None else data
        samples, pieces, then = torch.arange(len(data.test)), [], 0
        for start, logits in classifier.running_logits(classifier.given(data, data.test, samples), samples, 7):
            if start != then:
                raise Broken(f"expected running logits without a gap, the next from step {then}, found {start}")
            pieces.append(logits)
            then += len(logits)
        found = torch.cat(pieces)
        wanted = (classifier.time_steps, len(data.test), data.classes)
        if found.shape != wanted:
            raise Broken(f"expected logits [T, N, classes] of shape {list(wanted)}, found {list(found.shape)}")
        if not found.isfinite().all():
            raise Broken("expected finite logits, found some that are not")
        return found


def steps_of(task: Task) -> int:
    """After how many steps a training asked its keeper whether to save."""
    return task.keeper.steps if isinstance(task.keeper, Pieces) else 0


def not_finite(made: Trained) -> str:
    """The name of a weight that is not finite, if there is one."""
    return next((name for name, value in made.weights.items() if not value.isfinite().all()), "")


def scramble() -> None:
    """Give every generator that a method might draw from by mistake another state than it had before."""
    number = random.SystemRandom().getrandbits(31)
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


def one_line(text: str, what: str) -> str:
    """The text itself; Broken if it is not one line."""
    if not text.strip() or "\n" in text:
        raise Broken(f"expected {what} to be one line, found {text!r}")
    return text


def refused(error: Exception) -> str | None:
    """The text of an error that says that what a plug-in was given is wrong; None for another error.

    It is a UserError, or a ValueError of the package's own mathematics, which the pipeline makes one. Weights that do
    not fit a network are refused too.
    """
    if isinstance(error, plugins.Mistake) and not of_other_weights(error):
        return None
    return str(error) if isinstance(error, UserError | ValueError) else None


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """How two sets of weights differ, to the last bit, or None."""
    if one.keys() != other.keys():
        return f"weights {listed(sorted(one.keys() ^ other.keys()))} are in one of them alone"
    for name, value in one.items():
        if value.shape != other[name].shape or value.dtype != other[name].dtype or not torch.equal(value, other[name]):
            return f"weight {name} is another"
    return None


# -- the checks -------------------------------------------------------------------------------------------


def declares_itself(trial: Trial) -> str:
    """The docstring begins with one line that says what it is; `train` and `classifier` are defined."""
    if not declared.summary(trial.module):
        raise Broken(f"expected a docstring whose first line says what it is, found none in {trial.module}")
    return ""


def trains(trial: Trial) -> str:
    """Training ends with finite weights, or the method says in one line that it does not accept these data."""
    if trial.first.refusal:
        return f"does not accept them: {one_line(trial.first.refusal, 'the line that refuses these data')}"
    if trial.first.made is None:
        raise trial.first.error or AssertionError
    if trial.first.made.outcome.diverged is not None:
        raise Broken(f"expected a training that ends, found that it diverged: {trial.first.made.outcome.diverged}")
    if name := not_finite(trial.first.made):
        raise Broken(f"expected finite weights, found that {name} is not")
    return ""


def predicts(trial: Trial) -> str:
    """The classifier gives finite running logits, with as many time-steps and parameters as are said."""
    classifier = trial.classifier(trial.directory.weights())
    steps = trial.options.get("time_steps", 1)
    if classifier.time_steps != steps:
        raise Broken(f"expected {steps} time-steps, by its options, found a classifier with {classifier.time_steps}")
    trial.predictions(classifier)
    names = [layer.name for layer in classifier.layers]
    if names and not names[-1].startswith("fc"):
        raise Broken(f"expected the last layer to be a fully connected one, fc..., found {names[-1]}")
    network = getattr(classifier, "network", None)
    if network is not None:
        count = sum(parameter.numel() for parameter in network.parameters())
        if trial.made.facts.get("parameters") != count:
            raise Broken(f"expected the fact parameters = {count}, found {trial.made.facts.get('parameters')}")
    return ""


def is_decided_by_its_seed(trial: Trial) -> str:
    """The same seed gives the same weights, whatever state PyTorch's, NumPy's and Python's generators are in."""
    if found := difference(trial.made.weights, trial.train(trial.task()).weights):
        raise Broken(f"expected the same weights with the same seed, found that {found}")
    return ""


def uses_its_seed(trial: Trial) -> str:
    """Another seed gives other weights, unless the method says by ``SEEDED`` that nothing is random."""
    seeded = declared.literal(trial.module, "SEEDED")
    with_seed = seeded.items() <= trial.options.items() if isinstance(seeded, dict) else seeded is not False
    changed = difference(trial.made.weights, trial.train(trial.task(OTHER_SEED)).weights)
    if not with_seed and changed:
        raise Broken(f"expected the same weights with another seed, as SEEDED = {seeded} says, found that {changed}")
    if with_seed and not changed:
        raise Broken(
            "expected other weights with another seed, found the same; draw from task.run.seed, or declare SEEDED = "
            "False if nothing is random"
        )
    return "" if with_seed else "nothing is random"


def reloads(trial: Trial) -> str:
    """The weights that were saved give the same predictions, twice, and whatever the seed: nothing else is needed."""
    directory = trial.directory
    expected = trial.predictions(trial.classifier(trial.train(trial.task()).weights))
    trial.train(trial.task(OTHER_SEED))  # what it left in memory is not what is needed
    for what, seed in (("reloaded", SEED), ("loaded again", SEED), ("loaded in a run with another seed", OTHER_SEED)):
        stored = directory.weights()
        if not torch.equal(expected, trial.predictions(trial.classifier(stored, seed=seed))):
            raise Broken(
                f"expected the same predictions from weights that were {what}, found others; whatever the classifier "
                "needs belongs to the weights"
            )
    return ""


def resumes(trial: Trial) -> str:
    """A training that was stopped at a step goes on from there, to the same weights and history."""
    outcome, total = trial.made.outcome, trial.first.steps
    if not total:
        if outcome.steps or outcome.history:
            raise Broken(
                f"expected that it asks its keeper after each of {outcome.steps} steps, found that it never does"
            )
        raise NotApplicable("it trains in one piece, without steps between which it could stop")
    for step in sorted({1, total // 2 + 1} & set(range(1, total))):
        folder = next(trial.folders)
        try:
            trial.train(trial.task(folder=folder, stop_after=step))
        except Stopped as stopped:
            if stopped.interrupted or str(stopped) != STOPPED:
                raise
        else:
            raise Broken(
                f"expected that it saves its state after step {step}, when its keeper says so, found that it does not"
            )
        rest = trial.task(folder=folder)
        resumed = trial.train(rest)
        if steps_of(rest) != total - step:
            raise Broken(
                f"expected {total - step} more steps after a stop at step {step} of {total}, found {steps_of(rest)}; "
                "begin from task.keeper.load()"
            )
        if found := difference(trial.made.weights, resumed.weights):
            raise Broken(f"expected the same weights after a stop at step {step} of {total}, found that {found}")
        if _history(resumed) != _history(trial.made) or resumed.outcome.steps != outcome.steps:
            raise Broken(f"expected the same history after a stop at step {step} of {total}, found another")
    return ""


def _history(made: Trained) -> str:
    """The history without its times, as text, in which NaN equals NaN."""
    return repr([{name: value for name, value in row.items() if name != "seconds"} for row in made.outcome.history])


def reads_no_test_images(trial: Trial) -> str:
    """Other test images and labels do not change the weights."""
    data = trial.data(other_test=True)
    relabelled = replace(data, test=replace(data.test, labels=data.test.labels.flip(0)))
    if found := difference(trial.made.weights, trial.train(trial.task(data=relabelled)).weights):
        raise Broken(f"expected that training uses no test images, found that with others {found}")
    return ""


def keeps_what_it_is_given(trial: Trial) -> str:
    """Training leaves its data and its start as they are, and classification the weights and the data."""
    weights, untouched = trial.directory.weights(), trial.directory.weights()
    task, fresh = trial.task(), trial.data()
    trial.train(task)
    trial.predictions(trial.classifier(weights, task.data), task.data)
    for what, now, before in (("start", task.start, trial.start), ("weights", weights, untouched)):
        if found := difference(now, before):
            raise Broken(f"expected that the {what} are left as they are, found that {found}")
    for part in COUNTS:
        now, before = getattr(task.data, part), getattr(fresh, part)
        same = torch.equal(now.pixels, before.pixels) and torch.equal(now.labels, before.labels)
        if not same or (before.events is not None and not np.array_equal(now.events.words, before.events.words)):
            raise Broken(f"expected that the {part} data are left as they are, found that they were changed")
    return ""


def measures(trial: Trial) -> str:
    """Every measurement has its declared columns, or says in one line why it does not apply."""
    subject = Subject(trial.run(), trial.data(), trial.classifier(trial.directory.weights()))
    tables, reasons = measure_all(subject)
    trial.directory.finish_evaluation({"status": "done", "not_applicable": reasons}, tables)
    for name in tables:
        columns = list(declared.literal(f"bntt.measurements.{Path(name).stem}", "COLUMNS"))
        found = list(trial.directory.table(name).columns)
        if tables[name] and sorted(found) != sorted(columns):
            raise Broken(f"expected the columns {listed(columns)} in {name}, found {listed(found)}")
    for name, reason in reasons.items():
        one_line(reason, f"the reason why {name} does not apply")
    if len(tables.get("anytime.csv", ())) != subject.classifier.time_steps:
        raise Broken("expected anytime.csv to have the accuracy at every time-step, found that it has not")
    if ("spikes.csv" in tables) != subject.classifier.spiking:
        raise Broken(f"expected spikes.csv if and only if the classifier is spiking, found {sorted(tables)}")
    if trial.made.outcome.history:
        trial.directory.table("history.csv")
        tables["history.csv"] = [dict(row) for row in trial.made.outcome.history]
    else:
        reasons["history.csv"] = "it does not train in epochs"
    why = [
        f"{listed([n for n, r in reasons.items() if r == reason])} ({reason})"
        for reason in dict.fromkeys(reasons.values())
    ]
    return f"writes {listed(sorted(tables))}" + (f"; not {'; '.join(why)}" if why else "")


def rejects_wrong_options(trial: Trial) -> str:
    """An option of a wrong type, and an unknown one, is one line that names it."""
    _ = trial.made
    model = _model(trial.method)
    wrong = {name: 7 if isinstance(value, str) else "wrong" for name, value in trial.options.items()}
    for name, value in [*wrong.items(), ("no_such_option", 1)]:
        try:
            validated(model, {name: value}, trial.method)
        except UserError as error:
            if name not in one_line(str(error), f"the message about option {name}"):
                raise Broken(f"expected a message that names option {name}, found {error}") from None
        else:
            raise Broken(f"expected that option {name} is not {value!r}, found that this is accepted")
    return ""


def rejects_data_without_events(trial: Trial) -> str:
    """A method that declares ``NEEDS_EVENTS = True`` refuses recordings that have none in one line."""
    if not trial.needs_events:
        raise NotApplicable("it needs no single events")
    _ = trial.made
    try:
        trial.train(trial.task(data=trial.asked(made_up(trial.kind))))
    except Exception as error:
        if (refusal := refused(error)) is None:
            raise
        one_line(refusal, "the line that refuses data without events")
        return ""
    raise Broken("expected that data without single events are refused, found that they are accepted")


def rejects_images_of_another_size(trial: Trial) -> str:
    """Weights of one image size are refused for another one in one line, or classify it as well."""
    weights = trial.directory.weights()
    side = 2 * trial.data().shape[-1]
    data = made_up(trial.kind, side, trial.needs_events).to(torch.device("cpu"))
    try:
        classifier = trial.classifier(weights, data)
    except Exception as error:
        if (refusal := refused(error)) is None:
            raise
        one_line(refusal, "the line that refuses images of another size")
        return ""
    try:
        trial.predictions(classifier, data)
    except Exception as error:
        raise Broken(
            f"expected that `classifier` refuses images of {side} x {side}, as these weights are for another size, "
            f"found that classifying them fails: {type(error).__name__}: {error}"
        ) from None
    return "classifies them too"


CHECKS: dict[str, Callable[[Trial], str]] = {
    function.__name__.replace("_", " "): function
    for function in (
        declares_itself,
        trains,
        predicts,
        is_decided_by_its_seed,
        uses_its_seed,
        reloads,
        resumes,
        reads_no_test_images,
        keeps_what_it_is_given,
        measures,
        rejects_wrong_options,
        rejects_data_without_events,
        rejects_images_of_another_size,
    )
}


def check(name: str, trial: Trial) -> Result:
    """One check on one kind of data. An error inside the method fails the check."""
    try:
        return Result(name, trial.kind, "passed", CHECKS[name](trial))
    except NotApplicable as why:
        return Result(name, trial.kind, "not applicable", str(why))
    except Stopped:
        raise
    except Broken as broken:
        text = str(broken)
    except UserError as error:
        text = f"expected no error, found {error}"
    except Exception as error:
        text = f"expected no error, found {type(error).__name__}: {error}"
    return Result(name, trial.kind, "failed", " ".join(text.split()))


def check_all(method: str, folder: Path, given: Mapping[str, Any] | None = None) -> Iterator[Result]:
    """Every check of a method on every kind of data, and last whether it accepts one of them."""
    trials = [Trial(method, kind, folder / kind, given) for kind in KINDS]
    for name in CHECKS:
        yield from (check(name, trial) for trial in trials)
    yield accepts_some_data(trials)


def accepts_some_data(trials: list[Trial]) -> Result:
    """Whether a method accepts one kind of data at least."""
    name, refusals = "accepts some kind of data", [trial.first.refusal for trial in trials]
    if all(refusals):
        return Result(name, "", "failed", f"expected one kind at least, found that it refuses all: {refusals[0]}")
    return Result(name, "", "passed")
