"""What a claim is, when it holds, and the measurements that it is judged from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bntt.common.text import counted, number
from bntt.results.collect import Results, last_step, select
from bntt.results.dead import diagnosis
from bntt.results.facts import test_images, why_absent
from bntt.results.intervals import Estimate, decode_bits

Outcome = Literal["holds", "fails", "undecided", "not decidable"]

BNTT, SURROGATE, ANN = "bntt", "surrogate", "ann"  # rows that the claims are about; conversions are found by method


@dataclass(frozen=True)
class Part:
    """One comparison of a claim. If ``counts`` is false, it is shown for information only."""

    label: str
    estimate: Estimate | None
    outcome: Outcome
    note: str = ""
    counts: bool = True


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; its parts together decide its outcome."""

    name: str
    text: str
    where: str  # place in the paper
    statistic: str  # and the kind of its interval
    unit: str
    parts: Sequence[Part]
    note: str = ""

    @property
    def outcome(self) -> Outcome:
        """Of the parts that count: fails if one fails, holds if all hold; else not decidable if one is so."""
        outcomes = {part.outcome for part in self.parts if part.counts}
        if "fails" in outcomes:
            return "fails"
        if outcomes == {"holds"}:
            return "holds"
        return "not decidable" if "not decidable" in outcomes else "undecided"


class Missing(Exception):
    """A measurement that a part needs is missing; the message says why."""

    outcome: Outcome = "undecided"


class OfDeadNetwork(Missing):
    """A measurement is of a silent network or of one at chance, about which no claim says anything."""

    outcome: Outcome = "not decidable"


def above(estimate: Estimate, border: float = 0.0) -> Outcome:
    """Whether a value is above a border: undecided if its interval includes the border; an exact value on it fails."""
    if estimate.low > border:
        return "holds"
    return "fails" if estimate.high < border or estimate.low == estimate.high else "undecided"


def below(estimate: Estimate, border: float) -> Outcome:
    """Whether a value is below a border, as `above`."""
    value, low, high = estimate
    return above(Estimate(-value, -high, -low), -border)


@dataclass(frozen=True)
class Evidence:
    """The measurements of one dataset and one seed; for rows without a result, the reason."""

    rows: Mapping[str, str]  # row -> method, in the order of the experiment
    absent: Mapping[str, str]  # row -> why it has no result
    diverged: frozenset[str]
    frames: Mapping[str, pd.DataFrame]  # "anytime" -> anytime.csv of all rows, ...
    images: int
    exit_threshold: float
    dataset: str
    dead: Mapping[str, str] = field(default_factory=dict)  # row -> why it is silent or at chance

    @classmethod
    def of(cls, results: Results, dataset: str, seed: int) -> "Evidence":
        """The evidence that ``results`` has on a dataset and a seed."""
        names = ("anytime", "spikes", "image_spikes", "gamma", "noise", "early_exit", "energy", "approximations")
        runs = select(results.summary, dataset=dataset, seed=seed)
        gone = runs[runs["status"] != "done"]
        return cls(
            dict(zip(runs["row"], runs["method"], strict=True)),
            {one.row: why_absent(one.status, one.reason) for one in gone.itertuples()},
            frozenset(select(gone, status="diverged")["row"]),
            {name: results.frame(f"{name}.csv", dataset=dataset, seed=seed) for name in names},
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
            raise Missing(f"this experiment has no row {row}")
        if row in self.absent:
            raise Missing(f"row {row}: {self.absent[row]}")
        if row in self.dead:
            raise OfDeadNetwork(f"row {row} is {self.dead[row]}")
        frame = select(self.frames[name], row=row)
        if frame.empty:
            raise Missing(f"row {row} has no {name}.csv")
        return frame

    def working(self, row: str, step: int) -> None:
        """Raise Missing if a row's network is dead after ``step`` steps, as it may be although it works later."""
        at = select(self.table("anytime", row), time_step=step)
        if at.empty:
            raise Missing(f"row {row} has no step {step}")
        accuracy, spikes = float(at["accuracy"].iloc[0]), self.table("spikes", row)
        if dead := diagnosis(spikes, accuracy, step, self.images, self.dataset):
            raise OfDeadNetwork(f"row {row} is {dead.reason}")

    def last_step(self, row: str) -> int:
        return int(self.table("anytime", row)["time_step"].max())

    def right(self, row: str, step: int) -> NDArray[np.bool_]:
        """Which test images a row classifies correctly after ``step`` steps, bool ``[images]``."""
        return self._bits(row, select(self.table("anytime", row), time_step=step), f"after {counted(step, 'step')}")

    def right_under_noise(self, row: str) -> dict[float, NDArray[np.bool_]]:
        """The same for each noise level, after all of the row's steps."""
        frame = last_step(self.table("noise", row))
        by_sigma = frame.groupby("sigma", sort=False)
        return {float(sigma): self._bits(row, lines, f"at sigma {sigma:g}") for sigma, lines in by_sigma}

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

    def percent(self, row: str, step: int) -> str:
        """The accuracy of a row after ``step`` steps as text, ``90.5 %``."""
        found = select(self.table("anytime", row), time_step=step)
        if found.empty:
            raise Missing(f"row {row} has no step {step}")
        return f"{number(found['accuracy'].iloc[0], 1)} %"


# -- what the claims are made of -----------------------------------------------------------------------------------

Text = str | Callable[[Evidence], str]
Parts = Callable[[Evidence], list[Part]]
Weigh = Callable[[Evidence], Claim]
CLAIMS: list[Weigh] = []


def claim(text: str, where: str, statistic: Text, unit: str = "", note: Text = "") -> Callable[[Parts], Weigh]:
    """A decorator that adds a claim to CLAIMS; the decorated function gives its parts and its name."""

    def of(parts: Parts) -> Weigh:
        @wraps(parts)
        def weighed(evidence: Evidence) -> Claim:
            name = parts.__name__.replace("_", "-")
            said = [one if isinstance(one, str) else one(evidence) for one in (statistic, note)]
            return Claim(name, text, where, said[0], unit, parts(evidence), said[1])

        CLAIMS.append(weighed)
        return weighed

    return of


def part(row: str, compare: Callable[[str], Part], counts: bool = True) -> Part:
    """``compare(row)``; if a measurement is missing or of a dead network, a part without estimate, with the reason."""
    try:
        return replace(compare(row), counts=counts)
    except Missing as reason:
        return Part(row, None, reason.outcome, str(reason), counts)


def versus(evidence: Evidence, compare: Callable[[str], Part], *further: str) -> list[Part]:
    """One part for each spiking baseline (the surrogate row and every conversion), then for each of the further rows.

    A row that diverged has no measurement and does not count.
    """
    conversions = [row for row, method in evidence.rows.items() if method == "conversion"]
    rows = [SURROGATE, *(conversions or ["conversion"]), *further]  # without a conversion, one part says so
    return [part(row, compare, row not in evidence.diverged) for row in rows]
