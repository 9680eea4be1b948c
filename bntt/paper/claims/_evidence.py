"""What a claim is, and the measurements that it is judged from: frames of each seed, and values taken from them."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bntt.common.text import counted, listed, number
from bntt.paper.claims._decision import Component, Outcome, Value, component, decide, refuting_level, together
from bntt.results.collect import Results, last_step, select
from bntt.results.dead import chance, chance_level, diagnosis
from bntt.results.facts import test_images, why_absent
from bntt.results.intervals import LEVEL, Estimate, decode_bits, paired_difference, standard_error

BNTT, SURROGATE, ANN = "bntt", "surrogate", "ann"  # rows that the claims are about; conversions are found by method

ABOVE_CHANCE = 5  # binomial standard errors; a network that works is above chance by more than that
BEHIND_DENSE = 20.0  # points; a spiking network that works is not further behind its dense network

T = TypeVar("T")

# -- claims and their parts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One line of a claim: usually all its components for one row. If ``counts`` is false, for information only.

    ``estimate`` is that of the component that decides: the worst one.
    """

    label: str
    estimate: Estimate | None
    outcome: Outcome
    note: str = ""
    counts: bool = True
    seeds: int = 0  # that it rests on

    @property
    def word(self) -> str:
        """The outcome for a reader, who must see if it rests on a single seed: ``holds (one seed)``."""
        return _word(self.outcome, self.seeds == 1)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or one of ours; its parts together decide its outcome."""

    name: str
    text: str
    where: str  # place in the paper
    statistic: str  # with its unit and interval
    unit: str
    parts: Sequence[Part]
    note: str = ""
    ours: bool = False

    @property
    def outcome(self) -> Outcome:
        return together(part.outcome for part in self.parts if part.counts)

    @property
    def word(self) -> str:
        """The outcome for a reader; ``(one seed)`` if a part that it rests on has one seed only."""
        one_seed = [part.seeds == 1 for part in self.parts if part.counts and part.outcome == self.outcome]
        return _word(self.outcome, all(one_seed) if self.outcome == "fails" else any(one_seed))


def _word(outcome: Outcome, one_seed: bool) -> str:
    return f"{outcome} (one seed)" if one_seed and outcome in ("holds", "fails") else outcome


@dataclass(frozen=True)
class Group:
    """The components that stand on one line, before they are judged together with all others of the claim."""

    label: str
    components: Sequence[Component]
    seeds: int
    note: str = ""
    counts: bool = True
    noun: str = ""  # what a component is: a layer, a noise level

    def part(self, outcomes: Sequence[Outcome], level: float) -> Part:
        """The line: the worst component, how many are as the claim says, and which are not."""
        order = ("fails", "undecided", "holds")
        ranked = list(zip(outcomes, self.components, strict=True))
        outcome, worst = min(ranked, key=lambda one: (order.index(one[0]), one[1].distance()))
        said = [_counts(self.noun, self.components, outcomes, worst)] if self.noun else []
        if beyond := [one.name for word, one in ranked if word == "undecided" and one.margin()[1] < 0]:
            where = f" in {listed(beyond)}" if self.noun else ""
            said.append(f"on the other side at 95 %{where}, but not at {100 * level:.3g} %, which refuting needs here")
        note = "; ".join(filter(None, [*said, self.note]))
        return Part(self.label, worst.interval(LEVEL), outcome, note, self.counts, self.seeds)


def _counts(noun: str, components: Sequence[Component], outcomes: Sequence[Outcome], worst: Component) -> str:
    """``worst of 8 layers: conv3; holds in 6, undecided in conv1, fails in conv3``."""
    if len(components) == 1:
        return f"{noun} {worst.name}"
    said = [f"worst of {counted(len(components), noun)}: {worst.name}"]
    said += [f"holds in {outcomes.count('holds')} of {len(components)}"]
    for word in ("undecided", "fails"):
        names = [one.name for one, outcome in zip(components, outcomes, strict=True) if outcome == word]
        said += [f"{word} in {listed(names)}"] if names else []
    return "; ".join(said)


# -- measurements of one seed --------------------------------------------------------------------------------------


class Missing(Exception):
    """A measurement of one seed is missing; the message says why. The other seeds may have it."""

    outcome: Outcome = "undecided"


class NotPlanned(Missing):
    """The experiment has no such row, or not for this seed."""


class Disqualified(Missing):
    """A network does not work, or diverged: then its part is undecided, whatever other seeds say."""


class OfDeadNetwork(Disqualified):
    """A measurement is of a silent network or of one at chance, about which no claim says anything."""

    outcome: Outcome = "not decidable"


@dataclass(frozen=True)
class Evidence:
    """The measurements of one dataset and one seed; for rows without a result, the reason."""

    seed: int
    rows: Mapping[str, str]  # row -> method, in the order of the experiment
    options: Mapping[str, Mapping[str, Any]]  # row -> options of its method
    starts: Mapping[str, str]  # row -> the row from whose weights it begins
    absent: Mapping[str, str]  # row -> why it has no result
    diverged: Collection[str]
    frames: Mapping[str, pd.DataFrame]  # "anytime" -> anytime.csv of all rows, ...
    train_images: Mapping[str, int]  # row -> how many
    images: int  # test images
    exit_threshold: float
    dataset: str
    dead: Mapping[str, str] = field(default_factory=dict)  # row -> why it is silent or at chance

    @classmethod
    def of(cls, results: Results, dataset: str, seed: int) -> "Evidence":
        """The evidence that ``results`` has on a dataset and a seed."""
        names = ("anytime", "spikes", "image_spikes", "gamma", "noise", "early_exit", "energy", "approximations")
        runs = select(results.summary, dataset=dataset, seed=seed)
        gone = runs[runs["status"] != "done"]
        planned = [run for run in results.experiment.runs if run.dataset == dataset and run.seed == seed]
        trained = runs[runs["train_images"].notna()]
        return cls(
            seed,
            dict(zip(runs["row"], runs["method"], strict=True)),
            {run.row: run.options for run in planned},
            {run.row: run.start for run in planned if run.start is not None},
            {one.row: why_absent(one.status, one.reason) for one in gone.itertuples()},
            frozenset(select(gone, status="diverged")["row"]),
            {name: results.frame(f"{name}.csv", dataset=dataset, seed=seed) for name in names},
            {one.row: int(one.train_images) for one in trained.itertuples()},
            test_images(results, dataset) or 0,
            results.experiment.evaluation["exit_threshold"],
            dataset,
            {one.row: one.why_dead for one in runs.itertuples() if one.why_dead},
        )

    def admitting(self, *rows: str) -> "Evidence":
        """The same evidence, but measurements of these rows count even if their network is dead."""
        return replace(self, dead={row: why for row, why in self.dead.items() if row not in rows})

    def has(self, name: str) -> list[str]:
        """The rows that have measurement ``name``, in the order of the experiment."""
        found = set(self.frames[name]["row"])
        return [row for row in self.rows if row in found]

    def table(self, name: str, row: str) -> pd.DataFrame:
        """Measurement ``name`` of a row; raises Missing if there is none, or if the row's network is dead."""
        if row not in self.rows:
            raise NotPlanned(f"this experiment has no row {row}")
        if row in self.absent:
            # Seeds of bntt that diverged must not be left out of what is said of it; a baseline's may.
            kind = Disqualified if row == BNTT and row in self.diverged else Missing
            raise kind(f"row {row}: {self.absent[row]}")
        if row in self.dead:
            raise OfDeadNetwork(f"row {row} is {self.dead[row]}")
        frame = select(self.frames[name], row=row)
        if frame.empty:
            raise Missing(f"row {row} has no {name}.csv")
        return frame

    def working(self, row: str, step: int | None = None, dense: str | None = None) -> None:
        """Raise Disqualified unless a row's network works after ``step`` steps, by default all of its own.

        It works if it is neither silent nor at chance, if its accuracy is above chance by more than 5 binomial standard
        errors, and if it is at most 20 points behind the dense network that it was made from. A network that was not
        made from one is compared with row ``dense``, where this has a result.
        """
        step = self.last_step(row) if step is None else step
        accuracy = self.accuracy(row, step)
        spikes = select(self.frames["spikes"], row=row)  # a dense network has none
        if dead := diagnosis(spikes, accuracy, step, self.images, self.dataset):
            raise OfDeadNetwork(f"row {row} is {dead.reason}")
        so = f"a {'network' if row == BNTT else 'baseline'} that does not work decides nothing"
        level, said = chance(self.dataset), f"{row}: {number(accuracy, 1)} %"
        least = level + ABOVE_CHANCE * 100 * standard_error(level / 100 * self.images, self.images)
        if accuracy <= least:
            raise Disqualified(f"{said} is not clearly above chance, {chance_level(self.dataset)}; {so}")
        if row in self.starts:
            dense = self.starts[row]
        elif dense not in self.has("anytime"):
            dense = None
        if dense is not None and (behind := self.accuracy(dense) - accuracy) > BEHIND_DENSE:
            whence = ", from which it was made" if row in self.starts else ""
            raise Disqualified(f"{said} is {number(behind, 1)} points under {dense}{whence}; {so}")

    def last_step(self, row: str) -> int:
        return int(self.table("anytime", row)["time_step"].max())

    def accuracy(self, row: str, step: int | None = None) -> float:
        """The accuracy of a row in per cent after ``step`` steps, by default all of its own."""
        step = self.last_step(row) if step is None else step
        found = select(self.table("anytime", row), time_step=step)
        if found.empty:
            raise Missing(f"row {row} has no step {step}")
        return float(found["accuracy"].iloc[0])

    def gain(self, row: str, other: str, step: int | None = None, other_step: int | None = None) -> Value:
        """Accuracy of one row minus that of another in points, paired by image; each by default after all its steps."""
        ends = [(name, self.last_step(name) if at is None else at) for name, at in ((row, step), (other, other_step))]
        lines = [select(self.table("anytime", name), time_step=at) for name, at in ends]
        whats = [f"after {counted(at, 'step')}" for _, at in ends]
        first, second = (self.accuracy(name, at) for name, at in ends)
        return self._paired(first - second, (row, other), lines, whats)

    def gain_under_noise(self, row: str, other: str, zero: bool = False) -> dict[float, Value]:
        """The same for each noise level that both have; without noise only if ``zero``."""
        tables = [last_step(self.table("noise", name)) for name in (row, other)]
        common = [sigma for sigma in tables[0]["sigma"].unique() if sigma in set(tables[1]["sigma"])]
        levels = [float(sigma) for sigma in common if sigma > 0 or zero]
        if not levels:
            raise Missing(f"rows {row} and {other} have no noise level in common")
        gains = {}
        for sigma in levels:
            lines = [select(table, sigma=sigma) for table in tables]
            first, second = (float(line["accuracy"].iloc[0]) for line in lines)
            gains[sigma] = self._paired(first - second, (row, other), lines, [f"at sigma {sigma:g}"] * 2)
        return gains

    def _paired(self, gain: float, rows: Sequence[str], lines: Sequence[pd.DataFrame], whats: Sequence[str]) -> Value:
        """A difference of accuracies in points, whose interval over images needs which of them are right."""

        def over_images(level: float) -> Estimate:
            first, second = (self._bits(*one) for one in zip(rows, lines, whats, strict=True))
            return paired_difference(first, second, level=level).times(100)

        return Value(gain, over_images, 100 / self.images)

    def _bits(self, row: str, lines: pd.DataFrame, what: str) -> NDArray[np.bool_]:
        if lines.empty or lines["correct"].iloc[0] == "":
            raise Missing(f"row {row} does not record which images are right {what}")
        return decode_bits(lines["correct"].iloc[0], self.images)

    def image_spikes(self, row: str, step: int) -> NDArray[np.float64]:
        """Spikes per neuron of each test image, counted over the first ``step`` steps, ``[images]``."""
        frame = select(self.table("image_spikes", row), time_step=step).sort_values("sample")
        if frame.empty:
            raise Missing(f"row {row}: spikes are not reported after {counted(step, 'step')}")
        return frame["spikes"].to_numpy(dtype=float)


# -- from the values of seeds to parts -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What was measured in each seed that has the measurements, and a note on the seeds that have not."""

    seeds: Sequence[Evidence]
    values: Sequence[T]
    without: str


def in_every_seed(
    label: str, seeds: Sequence[Evidence], measure: Callable[[Evidence], T], counts: bool = True
) -> Measured[T] | Part:
    """``measure`` in every seed that has the measurements.

    If none has, or if a network does not work in one of the seeds, a part without estimate, with the reason.
    """
    found: list[tuple[Evidence, T]] = []
    reasons: list[tuple[int, Missing]] = []
    for one in seeds:
        try:
            found.append((one, measure(one)))
        except Missing as reason:
            reasons.append((one.seed, reason))
    for kind in (OfDeadNetwork, Disqualified):
        if of_kind := [(seed, reason) for seed, reason in reasons if isinstance(reason, kind)]:
            return Part(label, None, kind.outcome, _said(of_kind, len(seeds)), counts)
    gone = [(seed, reason) for seed, reason in reasons if not isinstance(reason, NotPlanned)]
    if not found:
        return Part(label, None, "undecided", _said(gone or reasons, len(seeds)), counts)
    without = f"without {_said(gone, len(seeds))}" if gone else ""
    return Measured([one for one, _ in found], [value for _, value in found], without)


def row_of(
    label: str,
    seeds: Sequence[Evidence],
    measure: Callable[[Evidence], Mapping[str, Value]],
    border: float = 0.0,
    above: bool = True,
    log: bool = False,
    counts: bool = True,
    noun: str = "",
    note: Callable[[Sequence[Evidence]], str] = lambda seeds: "",
) -> Group | Part:
    """A line of a claim: the components that ``measure`` gives in each seed, with intervals over these seeds.

    With one seed the interval is over test images, or the value is exact. ``note`` is given the seeds that have the
    measurements. For what is missing, see `in_every_seed`.
    """
    found = in_every_seed(label, seeds, measure, counts)
    if isinstance(found, Part):
        return found
    names = list(found.values[0])
    if any(list(values) != names for values in found.values):
        return Part(label, None, "undecided", "the seeds do not have the same measurements", counts)
    components = [component(name, [of[name] for of in found.values], border, above, log) for name in names]
    try:
        for one in components:
            one.margin()
    except Missing as reason:  # the only seed does not record which images are right
        return Part(label, None, reason.outcome, str(reason), counts)
    said = "; ".join(filter(None, [note(found.seeds), found.without]))
    return Group(label, components, len(found.seeds), said, counts, noun)


def _said(reasons: Sequence[tuple[int, Missing]], seeds: int) -> str:
    """Reasons with their seeds, those of several seeds once; the seeds are left out if there is one reason for all."""
    by_text: dict[str, list[str]] = {}
    for seed, reason in reasons:
        by_text.setdefault(str(reason), []).append(str(seed))
    if len(by_text) == 1 and len(reasons) == seeds:
        return next(iter(by_text))
    return "; ".join(f"seed{'s' if len(of) > 1 else ''} {listed(of)}: {text}" for text, of in by_text.items())


def judged(lines: Sequence[Group | Part]) -> list[Part]:
    """Every line as a part. All components that count are judged together; each other line by itself."""
    counting = [one for line in lines if isinstance(line, Group) and line.counts for one in line.components]
    outcomes = iter(decide(counting))
    parts = []
    for line in lines:
        if isinstance(line, Part):
            parts.append(line)
        elif line.counts:
            own = [next(outcomes) for _ in line.components]
            parts.append(line.part(own, refuting_level(len(counting))))
        else:
            parts.append(line.part(decide(line.components), refuting_level(len(line.components))))
    return parts


# -- what the claims are made of -----------------------------------------------------------------------------------

Seeds = Sequence[Evidence]
Text = str | Callable[[Seeds], str]
Lines = Callable[[Seeds], Sequence[Group | Part]]
Weigh = Callable[[Seeds], Claim]
CLAIMS: list[Weigh] = []


def claim(
    text: str,
    where: str,
    statistic: Text,
    unit: str = "",
    note: Text = "",
    *,
    by_seed: str = "Student's interval over {seeds}",
    by_image: str = "exact for one seed",
    ours: bool = False,
) -> Callable[[Lines], Weigh]:
    """A decorator that adds a claim to CLAIMS; the decorated function gives its lines and its name.

    ``by_seed`` and ``by_image`` name the interval of lines with several seeds and with one; the reader is told those
    that there are.
    """

    def of(lines: Lines) -> Weigh:
        @wraps(lines)
        def weighed(seeds: Seeds) -> Claim:
            name = lines.__name__.replace("_", "-")
            parts = judged(lines(seeds))
            said = [one if isinstance(one, str) else one(seeds) for one in (statistic, note)]
            intervals = list(_intervals(parts, len(seeds), by_seed, by_image))
            return Claim(name, text, where, "; ".join([said[0], *intervals]), unit, parts, said[1], ours)

        CLAIMS.append(weighed)
        return weighed

    return of


def _intervals(parts: Sequence[Part], planned: int, by_seed: str, by_image: str) -> Iterator[str]:
    """How the intervals that are shown were made; without any, how they would be for the seeds that were planned."""
    counts = sorted({part.seeds for part in parts if part.counts and part.seeds} or {planned}, reverse=True)
    if several := [str(count) for count in counts if count > 1]:
        yield by_seed.format(seeds=f"{listed(several)} seeds")
    if 1 in counts:
        yield by_image


def worst_layer(
    seeds: Seeds, statistic: Callable[[Evidence], Mapping[str, float]], border: float, log: bool = False
) -> Group | Part:
    """Whether a statistic of bntt is below a border in every layer: its largest value over layers in each seed.

    The paper says it of the network, so layers are no sample; the note says in how many it is true. Missing if some
    layer has no value.
    """

    def largest(one: Evidence) -> dict[str, Value]:
        values = statistic(one)
        if unknown := [layer for layer, value in values.items() if math.isnan(value)]:
            raise Missing(f"row {BNTT} has no value in {listed(unknown)}")
        return {"": Value(max(values.values()))}

    def note(found: Seeds) -> str:
        values = [statistic(one) for one in found]
        layers = [layer for layer in values[0] if all(of[layer] < border for of in values)]
        worst = max(values[0], key=lambda layer: math.fsum(of[layer] for of in values))
        said = f"below {border:g} in {len(layers)} of {counted(len(values[0]), 'layer')}"
        said += " in every seed" if len(found) > 1 else ""
        return said + (f": {listed(layers)}" if 0 < len(layers) < len(values[0]) else "") + f"; largest in {worst}"

    return row_of(BNTT, seeds, largest, border, above=False, log=log, note=note)


def first_with(seeds: Seeds, rows: Callable[[Evidence], Sequence[str]]) -> list[str]:
    """The rows of all seeds, in the order of the experiment."""
    return list(dict.fromkeys(row for one in seeds for row in rows(one)))


def mean_accuracy(seeds: Seeds, row: str, step: int | None = None) -> str:
    """The mean accuracy of a row over seeds as text, ``90.5 %``."""
    return f"{number(math.fsum(one.accuracy(row, step) for one in seeds) / len(seeds), 1)} %"


def baselines(seeds: Seeds, *further: str) -> list[str]:
    """The surrogate row and every conversion, then further rows; without a conversion, one that will be missing."""
    conversions = first_with(seeds, lambda one: [row for row, method in one.rows.items() if method == "conversion"])
    return [SURROGATE, *(conversions or ["conversion"]), *further]


def versus(
    rows: Sequence[str],
    seeds: Seeds,
    compare: Callable[..., Mapping[str, Value]],
    note: Callable[..., str],
    border: float = 0.0,
    log: bool = False,
    noun: str = "",
) -> list[Group | Part]:
    """A line for each row that bntt is compared with: ``compare(seed, row)``, ``note(seeds, row)``, as for `row_of`.

    A row that diverged in every seed does not count.
    """
    return [
        row_of(
            row,
            seeds,
            partial(compare, row=row),
            border=border,
            log=log,
            counts=not diverged_everywhere(seeds, row),
            noun=noun,
            note=partial(note, row=row),
        )
        for row in rows
    ]


def diverged_everywhere(seeds: Seeds, row: str) -> bool:
    """Whether a row diverged in every seed that it was planned for; then it has no measurement to compare with."""
    planned = [one for one in seeds if row in one.rows]
    return bool(planned) and all(row in one.diverged for one in planned)
