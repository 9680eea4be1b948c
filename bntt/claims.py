"""The paper's qualitative claims, each judged from the measurements of one dataset and one seed.

A claim *holds* or *fails* where the interval of its statistic lies wholly on one side of the border, and is *undecided*
where the interval includes the border or a run that it needs is missing. Intervals are at 95 %, over the test images
unless a claim says otherwise; methods are compared image by image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bntt.collect import Results
from bntt.report import listed, number, test_images, why_absent
from bntt.statistics import (
    Estimate,
    bootstrap_mean,
    decode_bits,
    paired_difference,
    paired_mean_difference,
    peak_delay,
    peak_step,
)
from bntt.tables import READINGS, energy_ratios

Verdict = Literal["holds", "fails", "undecided"]

BNTT, SURROGATE, ANN = "bntt", "surrogate", "ann"  # rows that the claims are about; conversions are found by method

SAVED_PERCENT = 20.0  # Section 4.2: an early exit "further reduces the latency by ~20 %"
LITTLE_POINTS = 1.0  # Table 1's early exits lose 0.2, 0.8 and 1.0 points: the largest loss that the paper calls none
SMALL_MEAN = 0.1  # a mean of a tenth of a standard deviation changes E[x^2] by 1 %, so that it can be neglected
SMALL_CHANGE = 0.1  # Eq. 14 replaces a factor by its neighbour; a tenth is the error that "similar" is taken to allow
ALIKE = 1.5  # largest variance over smallest; the thresholds of Eq. 16 then differ by less than 1.23, its root
FEW_WRONG = 0.1  # Eq. 16 is taken to describe the layer where it misplaces less than a tenth as many spikes as there are


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


def judge(results: Results, dataset: str) -> list[Claim]:
    """Every claim, on the first seed; where there are several, the note says how often the others agree."""
    seeds = list(dict.fromkeys(run.seed for run in results.experiment.runs))
    by_seed = [[claim(Evidence.of(results, dataset, seed)) for claim in CLAIMS] for seed in seeds]
    if len(seeds) == 1:
        return by_seed[0]
    judged = []
    for of_claim in zip(*by_seed, strict=True):
        verdicts = [one.verdict for one in of_claim]
        counts = [f"{word} on {verdicts.count(word)}" for word in dict.fromkeys(verdicts)]
        note = f"Intervals are over images of seed {seeds[0]}; of {len(seeds)} seeds it {listed(counts)}."
        first = of_claim[0]
        judged.append(Claim(**{**vars(first), "note": f"{first.note} {note}".strip()}))
    return judged


# -- helpers of the claims -----------------------------------------------------------------------------------------


def _part(label: str, work: Callable[[], Part], counts: bool = True) -> Part:
    """A part, or, where a measurement is missing, an undecided one with the reason."""
    try:
        return work()
    except Missing as reason:
        return Part(label, None, "undecided", str(reason), counts)


def _versus(evidence: Evidence, rows: Sequence[str], compare: Callable[[str], Part], counts: bool = True) -> list[Part]:
    """One part for each row that is compared; one that diverged has no measurement and does not count."""
    return [_part(row, lambda row=row: compare(row), counts and row not in evidence.diverged) for row in rows]


def _baselines(evidence: Evidence) -> list[str]:
    """The spiking baselines: the surrogate row and every conversion."""
    if not evidence.conversions:
        return [SURROGATE, "conversion"]  # the latter is reported as missing
    return [SURROGATE, *evidence.conversions]


# -- the claims ------------------------------------------------------------------------------------------------------


def gamma_peaks_later(evidence: Evidence) -> Claim:
    """Section 4.4: the deeper the layer, the later gamma peaks."""

    def of_row(row: str, counts: bool) -> Part:
        gammas = evidence.gammas(row)
        tau = peak_delay(list(gammas.values()))
        peaks = ", ".join(f"{layer} {peak_step(gamma)}" for layer, gamma in gammas.items())
        return Part(row, tau, above(tau), f"peak steps: {peaks}", counts)

    beside = [row for row in evidence.has("gamma") if row != BNTT]
    return Claim(
        "gamma-peaks-later",
        "Gamma peaks later in deeper layers.",
        "Section 4.4, Figs. 3 and 5",
        "Kendall's tau-b between depth and the step at which mean gamma peaks; percentile bootstrap over channels",
        "",
        [
            _part(BNTT, lambda: of_row(BNTT, True)),
            *(_part(row, lambda row=row: of_row(row, False), False) for row in beside),
        ],
    )


def fewer_spikes(evidence: Evidence) -> Claim:
    """Section 4.3: fewer spikes than the other spiking methods, each after all of its steps."""

    def compare(row: str) -> Part:
        own, other = evidence.last_step(BNTT), evidence.last_step(row)
        fewer = paired_mean_difference(evidence.image_spikes(row, other), evidence.image_spikes(BNTT, own))
        layers, of_row = (evidence.of_row("spikes", r).groupby("layer")["spikes"].sum() for r in (BNTT, row))
        lower = int((layers < of_row.reindex(layers.index)).sum())
        return Part(row, fewer, above(fewer), f"T = {other}; bntt is lower in {lower} of {len(layers)} layers")

    return Claim(
        "fewer-spikes",
        "BNTT spikes less than the other spiking methods, each after all of its own time-steps.",
        "Section 4.3, Fig. 4(a)",
        "mean over images of (spikes per neuron of the other − of bntt); Student's interval, paired by image",
        "spikes per neuron",
        _versus(evidence, _baselines(evidence), compare),
    )


def fewer_spikes_at_equal_steps(evidence: Evidence) -> Claim:
    """The same after as many steps as BNTT has, with the accuracy that each then has."""

    def compare(row: str) -> Part:
        step = evidence.last_step(BNTT)
        fewer = paired_mean_difference(evidence.image_spikes(row, step), evidence.image_spikes(BNTT, step))
        note = f"after {step} steps it has {evidence.percent(row, step)}, bntt {evidence.percent(BNTT, step)}"
        return Part(row, fewer, above(fewer), note)

    return Claim(
        "fewer-spikes-at-equal-steps",
        "BNTT spikes less than the other spiking methods after equally many time-steps.",
        "Section 4.3",
        "mean over images of (spikes per neuron of the other − of bntt); Student's interval, paired by image",
        "spikes per neuron",
        _versus(evidence, _baselines(evidence), compare),
        "A network that cannot answer yet has spiked little.",
    )


def early_exit_saves(evidence: Evidence) -> Claim:
    """Section 3.4: early exit saves time-steps at little loss of accuracy."""
    threshold = evidence.exit_threshold

    def parts(row: str, counts: bool) -> list[Part]:
        exits = evidence.of_row("early_exit", row)
        found = exits[np.isclose(exits["threshold"], threshold)]
        if found.empty:
            raise Missing(f"row {row}: no exit at threshold {threshold:g} was measured")
        step, last = int(found["exit_step"].iloc[0]), evidence.last_step(row)
        saved = 100 * (last - step) / last
        note = f"{step} of {last} steps" if found["exits"].iloc[0] else "gamma is never below the threshold: no exit"
        change = paired_difference(evidence.right(row, step), evidence.right(row, last)).times(100)
        return [
            Part(f"{row}: steps saved, %", Estimate.exact(saved), _enough(saved), note, counts),
            Part(f"{row}: accuracy at exit − at T, points", change, above(change, -LITTLE_POINTS), "", counts),
        ]

    def of_row(row: str, counts: bool) -> list[Part]:
        try:
            return parts(row, counts)
        except Missing as reason:
            return [Part(row, None, "undecided", str(reason), counts)]

    beside = [row for row in evidence.has("early_exit") if row != BNTT]
    return Claim(
        "early-exit-saves",
        "Early exit saves steps at little loss of accuracy.",
        "Sections 3.4 and 4.5, Fig. 6, Table 1",
        f"at threshold {threshold:g} on gamma: at least {SAVED_PERCENT:g} % of the steps saved, and at most "
        f"{LITTLE_POINTS:g} point of accuracy lost, with Tango's interval, paired by image",
        "",
        [*of_row(BNTT, True), *(part for row in beside for part in of_row(row, False))],
    )


def _enough(saved: float) -> Verdict:
    return "holds" if saved >= SAVED_PERCENT else "fails"


def better_under_noise(evidence: Evidence) -> Claim:
    """Section 4.6: higher accuracy than every other method under input noise."""

    def compare(row: str, counts: bool = True) -> Part:
        levels = _noise_pairs(evidence, row)
        gain = bootstrap_mean(100 * np.mean([own.astype(float) - other for _, own, other in levels], axis=0))
        per_level = {sigma: paired_difference(own, other) for sigma, own, other in levels}
        better = [sigma for sigma, one in per_level.items() if one.low > 0]
        worse = [sigma for sigma, one in per_level.items() if one.high < 0]
        note = f"bntt is better at sigma {_sigmas(better)}; worse at {_sigmas(worse)}"
        return Part(row, gain, above(gain), note, counts)

    others = [*_baselines(evidence), ANN]
    beside = [row for row in evidence.has("noise") if row not in (BNTT, *others)]
    parts = [
        *_versus(evidence, others, compare),
        *_versus(evidence, beside, lambda row: compare(row, False), False),
    ]
    means = {}
    for row in evidence.has("noise"):
        levels = [right.mean() for sigma, right in evidence.right_under_noise(row).items() if sigma > 0]
        means[row] = 100 * float(np.mean(levels)) if levels else 0.0
    ranking = sorted(means, key=lambda row: -means[row])
    best = f"Mean accuracy over sigma > 0: {', '.join(f'{row} {number(means[row], 1)} %' for row in ranking)}."
    return Claim(
        "better-under-noise",
        "BNTT is more accurate than the other methods on noisy images.",
        "Section 4.6, Fig. 4(b)",
        "accuracy of bntt − of the other, mean over sigma > 0, each after all of its steps; percentile bootstrap over "
        "images. Single sigmas by Tango's interval",
        "points",
        parts,
        best if ranking else "",
    )


def noise_differences(evidence: Evidence) -> pd.DataFrame:
    """Accuracy of bntt minus each other row's at each sigma, in points, with Tango's paired interval."""
    lines = []
    for row in evidence.has("noise"):
        if row != BNTT and BNTT in evidence.has("noise"):
            for sigma, own, other in _noise_pairs(evidence, row, zero=True):
                lines.append((row, sigma, *paired_difference(own, other).times(100)))
    return pd.DataFrame(lines, columns=["row", "sigma", "difference", "low", "high"])


def _noise_pairs(evidence: Evidence, row: str, zero: bool = False) -> list[tuple[float, NDArray, NDArray]]:
    """Noise levels that bntt and a row share, with the images that each has right."""
    own, other = evidence.right_under_noise(BNTT), evidence.right_under_noise(row)
    levels = [(sigma, own[sigma], other[sigma]) for sigma in own if sigma in other and (sigma > 0 or zero)]
    if not levels:
        raise Missing(f"rows bntt and {row} share no noise level")
    return levels


def _sigmas(sigmas: Sequence[float]) -> str:
    return listed([f"{sigma:g}" for sigma in sigmas]) or "none"


def surrogate_trains_worse(evidence: Evidence) -> Claim:
    """Section 4.2: without BNTT, surrogate-gradient training reaches less accuracy, or does not converge."""

    def compare(row: str) -> Part:
        if row in evidence.diverged:
            return Part(row, None, "holds", f"row {row} {evidence.absent[row]}")
        own, other = evidence.last_step(BNTT), evidence.last_step(row)
        gain = paired_difference(evidence.right(BNTT, own), evidence.right(row, other)).times(100)
        note = f"bntt {evidence.percent(BNTT, own)} at T = {own}, {row} {evidence.percent(row, other)} at T = {other}"
        return Part(row, gain, above(gain), note)

    return Claim(
        "surrogate-trains-worse",
        "Surrogate gradients without a norm train to a lower accuracy.",
        "Section 4.2, Table 1",
        "accuracy of bntt − of surrogate, each at its own T; Tango's interval, paired by image",
        "points",
        [_part(SURROGATE, lambda: compare(SURROGATE))],
    )


def _over_layers(
    evidence: Evidence, statistic: Callable[[pd.DataFrame], float], border: float, what: str
) -> tuple[list[Part], str]:
    """A statistic of each layer against a border: the median layer, with the lowest and the highest for an interval."""

    def of_bntt() -> Part:
        frame = evidence.of_row("approximations", BNTT)
        by_layer = {str(layer): statistic(part) for layer, part in frame.groupby("layer", sort=False)}
        values = np.array(list(by_layer.values()))
        estimate = Estimate(float(np.median(values)), float(values.min()), float(values.max()))
        within = [layer for layer, value in by_layer.items() if value < border]
        note = f"{what} in {len(within)} of {len(values)} layers" + (f" ({listed(within)})" if within else "")
        return Part(BNTT, estimate, below(estimate, border), note)

    return [_part(BNTT, of_bntt)], "The interval is the range over layers: undecided means that it depends on the layer."


def _column(name: str) -> Callable[[pd.DataFrame], float]:
    return lambda layer: float(pd.to_numeric(layer[name], errors="coerce").median())


def mean_negligible(evidence: Evidence) -> Claim:
    """Eq. 13: the mean of the current is neglected."""
    parts, note = _over_layers(evidence, _column("relative_mean"), SMALL_MEAN, f"below {SMALL_MEAN:g}")
    return Claim(
        "mean-negligible",
        "The mean of the input current is small enough to be neglected.",
        "Section 3.3, Eq. 13",
        f"|mean| / sqrt(var + eps), median over channels, then over steps; below {SMALL_MEAN:g}",
        "",
        parts,
        note,
    )


def scale_varies_slowly(evidence: Evidence) -> Claim:
    """Eq. 14: gamma and sigma are taken as equal at neighbouring steps."""
    parts, note = _over_layers(evidence, _column("scale_change"), SMALL_CHANGE, f"below {SMALL_CHANGE:g}")
    return Claim(
        "scale-varies-slowly",
        "The scale gamma / sqrt(var + eps) is alike at neighbouring time-steps.",
        "Section 3.3, Eq. 14",
        f"|s[t] − s[t−1]| / |s[t]|, median over channels, then over steps; below {SMALL_CHANGE:g}",
        "",
        parts,
        note,
    )


def variance_alike(evidence: Evidence) -> Claim:
    """Section 3.4: the variance is similar at all time-steps."""

    def spread(layer: pd.DataFrame) -> float:
        smallest = layer["variance"].min()
        return float(layer["variance"].max() / smallest) if smallest > 0 else float("inf")

    parts, note = _over_layers(evidence, spread, ALIKE, f"below {ALIKE:g}")
    return Claim(
        "variance-alike",
        "The variance of the input current is alike at all time-steps.",
        "Section 3.4",
        f"largest over smallest variance in T, mean over channels; below {ALIKE:g}",
        "",
        parts,
        f"{note} A layer that no spike reaches at the first steps has a variance near 0 there.",
    )


def threshold_equivalent(evidence: Evidence) -> Claim:
    """Eq. 16: BNTT acts like a firing threshold that changes with time."""

    def wrong(layer: pd.DataFrame) -> float:
        return float(layer["wrong"].sum() / layer["spikes"].sum()) if layer["spikes"].sum() > 0 else float("inf")

    parts, note = _over_layers(evidence, wrong, FEW_WRONG, f"below {FEW_WRONG:g}")
    total = evidence.frames["approximations"]
    total = total[total["row"] == BNTT] if len(total) else total
    if len(total) and total["spikes"].sum() > 0:
        share = 100 * total["wrong"].sum() / total["spikes"].sum()
        note = f"Over all layers, {number(share, 0)} wrong spikes for every 100 spikes. {note}"
    return Claim(
        "threshold-equivalent",
        "BNTT has the effect of a firing threshold that varies over time-steps.",
        "Section 3.3, Eq. 16",
        "spikes that the approximate threshold adds or misses, over the layer's spikes, given the same currents; below "
        f"{FEW_WRONG:g}",
        "",
        parts,
        note,
    )


def low_energy(evidence: Evidence) -> Claim:
    """Section 4.3: less energy than the dense network, and than the other spiking methods."""
    ratios = energy_ratios(evidence.frames["energy"])

    def at_own_steps(row: str) -> pd.Series:
        evidence.of_row("energy", row)
        found = ratios[ratios["row"] == row]
        return found.loc[found["time_step"].idxmax()]

    def compare(row: str) -> Part:
        own = at_own_steps(BNTT)
        other = pd.Series(1.0, index=list(READINGS)) if row == ANN else at_own_steps(row)
        times = own[list(READINGS)].astype(float) / other[list(READINGS)].astype(float)
        estimate = Estimate.exact(float(times["own"]))
        same = int(((times > 1) == (times["own"] > 1)).sum())
        return Part(row, estimate, above(estimate, 1.0), f"the same under {same} of {len(times)} readings of the formula")

    rows = [ANN, *_baselines(evidence)]
    parts = [
        _part(row, lambda row=row: compare(row), counts=row == ANN or row not in evidence.diverged) for row in rows
    ]
    return Claim(
        "low-energy",
        "BNTT needs less energy than the dense network and than the other spiking methods.",
        "Section 4.3, Table 3",
        "energy of the other / energy of bntt, each after all of its steps, the paper's accounting; above 1. Energies are "
        "measured over all test images and have no interval",
        "×",
        parts,
        "The dense network (ann) is bntt's own architecture at 4.6 pJ per operation.",
    )


CLAIMS: tuple[Callable[[Evidence], Claim], ...] = (
    gamma_peaks_later,
    fewer_spikes,
    fewer_spikes_at_equal_steps,
    early_exit_saves,
    better_under_noise,
    surrogate_trains_worse,
    low_energy,
    mean_negligible,
    scale_varies_slowly,
    variance_alike,
    threshold_equivalent,
)
