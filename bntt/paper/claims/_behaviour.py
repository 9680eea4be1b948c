"""Claims about what BNTT does: peaks of gamma, spikes, early exit, noise, training, energy (Sections 3.4 and 4)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bntt.common.text import counted, listed, number
from bntt.paper.claims._evidence import ANN, BNTT, SURROGATE, Evidence, Missing, Part, above, claim, part, versus
from bntt.results import intervals
from bntt.results.collect import at_threshold, gammas, last_step
from bntt.results.energy import READINGS, energy_ratios
from bntt.results.intervals import Estimate

Right = NDArray[np.bool_]  # which test images a row classifies correctly

SAVED_PERCENT = 20.0  # Section 4.2: an early exit "further reduces the latency by ~20 %"
LITTLE_POINTS = 1.0  # Table 1's early exits lose 0.2, 0.8 and 1.0 points, and the paper calls even 1.0 no loss
FEWER = "spikes per neuron of the other method − of bntt, mean over images; Student's interval, paired by image"


@claim(
    "Gamma peaks later in deeper layers.",
    "Section 4.4, Figs. 3 and 5",
    "Kendall's tau-b between depth and the step at which mean gamma peaks; percentile bootstrap over channels",
)
def gamma_peaks_later(evidence: Evidence) -> list[Part]:
    def delay(row: str) -> Part:
        layers = gammas(evidence.table("gamma", row))
        tau = intervals.peak_delay(list(layers.values()))
        peaks = ", ".join(f"{layer} {intervals.peak_step(gamma)}" for layer, gamma in layers.items())
        return Part(row, tau, above(tau), f"peak steps: {peaks}")

    return [part(row, delay, counts=row == BNTT) for row in dict.fromkeys([BNTT, *evidence.has("gamma")])]


@claim(
    "BNTT spikes less than the other spiking methods, each after all of its own time-steps.",
    "Section 4.3, Fig. 4(a)",
    FEWER,
    "spikes per neuron",
)
def fewer_spikes(evidence: Evidence) -> list[Part]:
    def compare(row: str) -> Part:
        own, other = evidence.last_step(BNTT), evidence.last_step(row)
        fewer = intervals.paired_mean_difference(evidence.image_spikes(row, other), evidence.image_spikes(BNTT, own))
        layers, others = (evidence.table("spikes", r).groupby("layer")["spikes"].sum() for r in (BNTT, row))
        lower = int((layers < others.reindex(layers.index)).sum())
        note = f"T = {other}; bntt is lower in {lower} of {counted(len(layers), 'layer')}"
        return Part(row, fewer, above(fewer), note)

    return versus(evidence, compare)


@claim(
    "BNTT spikes less than the other spiking methods after equally many time-steps.",
    "Section 4.3",
    FEWER,
    "spikes per neuron",
    "A network that is silent or at chance after so few steps is not compared.",
)
def fewer_spikes_at_equal_steps(evidence: Evidence) -> list[Part]:
    def compare(row: str) -> Part:
        step = evidence.last_step(BNTT)
        evidence.working(row, step)
        fewer = intervals.paired_mean_difference(evidence.image_spikes(row, step), evidence.image_spikes(BNTT, step))
        accuracies = [f"{name} {evidence.percent(name, step)}" for name in (row, BNTT)]
        note = f"accuracy after {counted(step, 'step')}: {', '.join(accuracies)}"
        return Part(row, fewer, above(fewer), note)

    return versus(evidence, compare)


@claim(
    "Early exit saves steps at little loss of accuracy.",
    "Sections 3.4 and 4.5, Fig. 6, Table 1",
    lambda evidence: (
        f"at threshold {evidence.exit_threshold:g} on gamma: at least {SAVED_PERCENT:g} % of the steps saved, and at "
        f"most {LITTLE_POINTS:g} point of accuracy lost, with Tango's interval, paired by image"
    ),
)
def early_exit_saves(evidence: Evidence) -> list[Part]:
    def measured(row: str, counts: bool) -> list[Part]:
        found = at_threshold(evidence.table("early_exit", row), evidence.exit_threshold)
        if found.empty:
            raise Missing(f"row {row}: early exit was not measured at threshold {evidence.exit_threshold:g}")
        step, last = int(found["exit_step"].iloc[0]), evidence.last_step(row)
        saved = 100 * (last - step) / last
        exits = found["exits"].iloc[0]
        used = f"{step} of {counted(last, 'step')}"
        note = used if exits else "gamma reaches the threshold at the last step: no exit"
        change = intervals.paired_difference(evidence.right(row, step), evidence.right(row, last)).times(100)
        enough: Literal["holds", "fails"] = "holds" if saved >= SAVED_PERCENT else "fails"
        return [
            Part(f"{row}: steps saved, %", Estimate.exact(saved), enough, note, counts),
            Part(f"{row}: accuracy at exit − at T, points", change, above(change, -LITTLE_POINTS), "", counts),
        ]

    parts: list[Part] = []
    for row in dict.fromkeys([BNTT, *evidence.has("early_exit")]):
        try:
            parts += measured(row, row == BNTT)
        except Missing as reason:
            parts.append(Part(row, None, reason.outcome, str(reason), row == BNTT))
    return parts


def _ranking(evidence: Evidence) -> str:
    noisy = last_step(evidence.frames["noise"])
    means = noisy[noisy["sigma"] > 0].groupby("row", sort=False)["accuracy"].mean()
    ranked = [f"{row} {number(mean, 1)} %" for row, mean in means.sort_values(ascending=False, kind="stable").items()]
    return f"Mean accuracy over sigma > 0: {', '.join(ranked)}." if ranked else ""


@claim(
    "BNTT is more accurate than the other methods on noisy images.",
    "Section 4.6, Fig. 4(b)",
    "accuracy of bntt − of the other method, mean over sigma > 0, each after all of its steps; percentile bootstrap "
    "over images. For each sigma alone, Tango's interval",
    "points",
    _ranking,
)
def better_under_noise(evidence: Evidence) -> list[Part]:
    def compare(row: str) -> Part:
        levels = _noise_pairs(evidence, row)
        gain = intervals.bootstrap_mean(100 * np.mean([own.astype(float) - other for _, own, other in levels], axis=0))
        per_level = {sigma: intervals.paired_difference(own, other) for sigma, own, other in levels}
        better = [sigma for sigma, one in per_level.items() if one.low > 0]
        worse = [sigma for sigma, one in per_level.items() if one.high < 0]
        note = f"bntt is better at {_sigmas(better)}, worse at {_sigmas(worse)}"
        return Part(row, gain, above(gain), note)

    parts = versus(evidence, compare, ANN)
    compared = {BNTT, *(one.label for one in parts)}
    return parts + [part(row, compare, counts=False) for row in evidence.has("noise") if row not in compared]


def noise_differences(evidence: Evidence) -> pd.DataFrame:
    """Accuracy of bntt minus that of each other row at each sigma, in points, with Tango's paired interval.

    Differences to and from dead networks are among them.
    """
    rows = evidence.has("noise")
    evidence = evidence.admitting(*rows)
    lines = [
        (row, sigma, *intervals.paired_difference(own, other).times(100))
        for row in rows
        if BNTT in rows and row != BNTT
        for sigma, own, other in _noise_pairs(evidence, row, zero=True)
    ]
    return pd.DataFrame(lines, columns=["row", "sigma", "difference", "low", "high"])


def _noise_pairs(evidence: Evidence, row: str, zero: bool = False) -> list[tuple[float, Right, Right]]:
    """Common noise levels of bntt and a row, with the images that bntt and the row classify correctly."""
    own, other = evidence.right_under_noise(BNTT), evidence.right_under_noise(row)
    levels = [(sigma, own[sigma], other[sigma]) for sigma in own if sigma in other and (sigma > 0 or zero)]
    if not levels:
        raise Missing(f"rows bntt and {row} have no noise level in common")
    return levels


def _sigmas(sigmas: Sequence[float]) -> str:
    return f"sigma {listed([f'{sigma:g}' for sigma in sigmas])}" if sigmas else "no sigma"


@claim(
    "Without a norm, training with surrogate gradients reaches a lower accuracy.",
    "Section 4.2, Table 1",
    "accuracy of bntt − of surrogate, each at its own T; Tango's interval, paired by image",
    "points",
)
def surrogate_trains_worse(evidence: Evidence) -> list[Part]:
    def compare(row: str) -> Part:
        own = evidence.last_step(BNTT)
        if row in evidence.diverged:
            return Part(row, None, "holds", f"row {row} {evidence.absent[row]}")
        trained = evidence.admitting(row)  # a network at chance was trained badly, and that is what is claimed
        other = trained.last_step(row)
        gain = intervals.paired_difference(evidence.right(BNTT, own), trained.right(row, other)).times(100)
        note = f"bntt {evidence.percent(BNTT, own)} at T = {own}, {row} {trained.percent(row, other)} at T = {other}"
        return Part(row, gain, above(gain), "; ".join(filter(None, [note, evidence.dead.get(row)])))

    return [part(SURROGATE, compare)]


@claim(
    "BNTT needs less energy than the dense network and than the other spiking methods.",
    "Section 4.3, Table 3",
    "energy of the other method / energy of bntt, each after all of its steps, by the paper's accounting; above 1. "
    "Energies are means over all test images and have no interval",
    "×",
    "The dense network (ann) is bntt's own architecture at 4.6 pJ per operation.",
)
def low_energy(evidence: Evidence) -> list[Part]:
    def ratios(row: str) -> pd.Series:
        """E_ANN / E_method of a row after all of its steps, under each reading of the formula."""
        return last_step(energy_ratios(evidence.table("energy", row)))[list(READINGS)].iloc[0]

    def compare(row: str) -> Part:
        own = ratios(BNTT)
        times = own / (1.0 if row == ANN else ratios(row))
        estimate = Estimate.exact(float(times["own"]))
        same = int(((times > 1) == (times["own"] > 1)).sum())
        note = f"same outcome under {same} of {counted(len(times), 'reading')} of the formula"
        return Part(row, estimate, above(estimate, 1.0), note)

    return [part(ANN, compare), *versus(evidence, compare)]
