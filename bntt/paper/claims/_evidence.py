"""What a claim is, how it is judged, and the measurements that it is judged by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bntt.common.text import number
from bntt.results.collect import Results
from bntt.results.facts import test_images, why_absent
from bntt.results.intervals import Estimate, decode_bits

Verdict = Literal["holds", "fails", "undecided"]

BNTT, SURROGATE, ANN = "bntt", "surrogate", "ann"  # rows that the claims are about; conversions are found by method


@dataclass(frozen=True)
class Part:
    """One comparison of a claim. One that does not count stands beside the others for information."""

    label: str
    estimate: Estimate | None
    verdict: Verdict
    note: str = ""
    counts: bool = True


@dataclass(frozen=True)
class Claim:
    """A claim with what it rests on; its verdict is that of its parts together."""

    name: str
    text: str
    where: str  # in the paper
    statistic: str  # with the kind of its interval
    unit: str
    parts: Sequence[Part]
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Fails where one part fails; holds where all hold; else undecided."""
        verdicts = {part.verdict for part in self.parts if part.counts}
        return "fails" if "fails" in verdicts else "holds" if verdicts == {"holds"} else "undecided"

    @property
    def decisive(self) -> Part | None:
        """The first part that makes the verdict what it is."""
        return next((part for part in self.parts if part.counts and part.verdict == self.verdict), None)

    @property
    def value(self) -> float | None:
        return self.decisive.estimate.value if self.decisive and self.decisive.estimate else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.decisive.estimate[1:] if self.decisive and self.decisive.estimate else None


class Missing(Exception):
    """A measurement that a part needs is not there; the message says why."""


def above(estimate: Estimate, border: float = 0.0) -> Verdict:
    """Whether a value is above a border. A value without uncertainty that is not above it fails."""
    if estimate.low > border:
        return "holds"
    return "fails" if estimate.high < border or estimate.low == estimate.high else "undecided"


def below(estimate: Estimate, border: float) -> Verdict:
    """Whether a value is below a border."""
    value, low, high = estimate
    return above(Estimate(-value, -high, -low), -border)


@dataclass(frozen=True)
class Evidence:
    """The frames of one dataset and one seed, and why a row has none."""

    rows: Mapping[str, str]  # row -> method, in the order of the experiment
    absent: Mapping[str, str]  # row -> why it has no result
    diverged: frozenset[str]
    frames: Mapping[str, pd.DataFrame]  # "anytime" -> anytime.csv of all rows, ...
    images: int
    exit_threshold: float

    @classmethod
    def of(cls, results: Results, dataset: str, seed: int) -> "Evidence":
        """What a results root holds of a dataset and a seed."""
        names = ("anytime", "spikes", "image_spikes", "gamma", "noise", "early_exit", "energy", "approximations")
        frames = {name: results.frame(f"{name}.csv") for name in names}
        runs = results.summary
        runs = runs[(runs["dataset"] == dataset) & (runs["seed"] == seed)]
        gone = runs[runs["status"] != "done"]
        return cls(
            dict(zip(runs["row"], runs["method"], strict=True)),
            {one.row: why_absent(one.status, one.reason) for one in gone.itertuples()},
            frozenset(gone.loc[gone["status"] == "diverged", "row"]),
            {name: f[(f["dataset"] == dataset) & (f["seed"] == seed)] for name, f in frames.items()},
            test_images(results, dataset) or 0,
            results.experiment.evaluation["exit_threshold"],
        )

    @property
    def conversions(self) -> list[str]:
        return [row for row, method in self.rows.items() if method == "conversion"]

    def has(self, name: str) -> list[str]:
        """The rows with a measurement, in the order of the experiment."""
        found = set(self.frames[name]["row"])
        return [row for row in self.rows if row in found]

    def of_row(self, name: str, row: str) -> pd.DataFrame:
        """A measurement of a row."""
        if row not in self.rows:
            raise Missing(f"this experiment has no row {row}")
        if row in self.absent:
            raise Missing(f"row {row}: {self.absent[row]}")
        frame = self.frames[name]
        frame = frame[frame["row"] == row]
        if frame.empty:
            raise Missing(f"row {row} has no {name}.csv")
        return frame

    def last_step(self, row: str) -> int:
        return int(self.of_row("anytime", row)["time_step"].max())

    def right(self, row: str, step: int) -> NDArray[np.bool_]:
        """Which test images a row has right after so many steps."""
        frame = self.of_row("anytime", row)
        found = frame.loc[frame["time_step"] == step, "correct"]
        return self._bits(row, found, f"after {step} steps")

    def right_under_noise(self, row: str) -> dict[float, NDArray[np.bool_]]:
        """The same for each noise level, after all of the row's steps."""
        frame = self.of_row("noise", row)
        frame = frame[frame["time_step"] == frame["time_step"].max()]
        return {
            float(sigma): self._bits(row, frame.loc[frame["sigma"] == sigma, "correct"], f"at sigma {sigma:g}")
            for sigma in frame["sigma"].unique()
        }

    def _bits(self, row: str, found: pd.Series, what: str) -> NDArray[np.bool_]:
        if found.empty or found.iloc[0] == "":
            raise Missing(f"row {row}: no record of the single images {what}")
        return decode_bits(found.iloc[0], self.images)

    def accuracy(self, row: str, step: int) -> float:
        frame = self.of_row("anytime", row)
        found = frame.loc[frame["time_step"] == step, "accuracy"]
        if found.empty:
            raise Missing(f"row {row} has no step {step}")
        return float(found.iloc[0])

    def image_spikes(self, row: str, step: int) -> NDArray[np.float64]:
        """Spikes per neuron of each test image after so many steps."""
        frame = self.of_row("image_spikes", row)
        frame = frame[frame["time_step"] == step].sort_values("sample")
        if frame.empty:
            raise Missing(f"row {row}: spikes are not reported after {step} steps")
        return frame["spikes"].to_numpy(dtype=float)

    def gammas(self, row: str) -> dict[str, NDArray[np.float64]]:
        """Scales ``[T, C]`` of each layer, conv1 first."""
        frame = self.of_row("gamma", row)
        return {
            str(layer): part.pivot(index="time_step", columns="channel", values="gamma").to_numpy(dtype=float)
            for layer, part in frame.groupby("layer", sort=False)
        }

    def percent(self, row: str, step: int) -> str:
        return f"{number(self.accuracy(row, step), 1)} %"


# -- helpers of the claims ----------------------------------------------------------------------------------------


def part(row: str, compare: Callable[[str], Part], counts: bool = True) -> Part:
    """What ``compare`` says of a row, or, where a measurement is missing, an undecided part with the reason."""
    try:
        return replace(compare(row), counts=counts)
    except Missing as reason:
        return Part(row, None, "undecided", str(reason), counts)


def versus(evidence: Evidence, rows: Sequence[str], compare: Callable[[str], Part]) -> list[Part]:
    """One part for each row that is compared; one that diverged has no measurement and does not count."""
    return [part(row, compare, row not in evidence.diverged) for row in rows]


def baselines(evidence: Evidence) -> list[str]:
    """The spiking baselines: the surrogate row and every conversion."""
    if not evidence.conversions:
        return [SURROGATE, "conversion"]  # the latter is reported as missing
    return [SURROGATE, *evidence.conversions]
