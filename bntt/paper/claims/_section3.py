"""Claims of the paper's mathematical analysis (Sections 3.3 and 3.4): what Eqs. 13 to 16 neglect, and what it costs."""

from collections.abc import Callable

import pandas as pd

from bntt.common.text import listed, number
from bntt.paper.claims._evidence import BNTT, Claim, Evidence, Part, below, part
from bntt.results.intervals import bootstrap_median

SMALL_MEAN = 0.1  # a mean of a tenth of a standard deviation changes E[x^2] by 1 %, so that it can be neglected
SMALL_CHANGE = 0.1  # Eq. 14 replaces a factor by its neighbour; a tenth is the error that "similar" is taken to allow
ALIKE = 1.5  # largest variance over smallest; the thresholds of Eq. 16 then differ by less than 1.23, its root
FEW_WRONG = 0.1  # Eq. 16 is taken to describe a layer where it misplaces less than a tenth as many spikes as there are

OVER_LAYERS = "median over layers, with a percentile bootstrap over them"


def _over_layers(evidence: Evidence, statistic: Callable[[pd.DataFrame], float], border: float) -> list[Part]:
    """A statistic of each of bntt's layers, and whether that of the middle layer is below a border."""

    def compare(row: str) -> Part:
        frame = evidence.table("approximations", row)
        by_layer = {str(layer): statistic(part) for layer, part in frame.groupby("layer", sort=False)}
        middle = bootstrap_median(list(by_layer.values()))
        layers = [layer for layer, value in by_layer.items() if value < border]
        note = f"below {border:g} in {len(layers)} of {len(by_layer)} layers"
        return Part(row, middle, below(middle, border), note + (f": {listed(layers)}" if layers else ""))

    return [part(BNTT, compare)]


def _column(name: str) -> Callable[[pd.DataFrame], float]:
    return lambda layer: float(layer[name].median())


def mean_negligible(evidence: Evidence) -> Claim:
    """Eq. 13: the mean of the current is neglected."""
    return Claim(
        "mean-negligible",
        "The mean of the input current is small enough to be neglected.",
        "Section 3.3, Eq. 13",
        f"|mean| / sqrt(var + eps), median over channels, then over steps, below {SMALL_MEAN:g}; {OVER_LAYERS}",
        "",
        _over_layers(evidence, _column("relative_mean"), SMALL_MEAN),
    )


def scale_varies_slowly(evidence: Evidence) -> Claim:
    """Eq. 14: gamma and sigma are taken as equal at neighbouring steps."""
    return Claim(
        "scale-varies-slowly",
        "The scale gamma / sqrt(var + eps) is alike at neighbouring time-steps.",
        "Section 3.3, Eq. 14",
        f"|s[t] − s[t−1]| / |s[t]|, median over channels, then over steps, below {SMALL_CHANGE:g}; {OVER_LAYERS}",
        "",
        _over_layers(evidence, _column("scale_change"), SMALL_CHANGE),
    )


def variance_alike(evidence: Evidence) -> Claim:
    """Section 3.4: the variance is similar at all time-steps."""

    def spread(layer: pd.DataFrame) -> float:
        smallest = layer["variance"].min()
        return float(layer["variance"].max() / smallest) if smallest > 0 else float("inf")

    return Claim(
        "variance-alike",
        "The variance of the input current is alike at all time-steps.",
        "Section 3.4",
        f"largest over smallest variance in T, mean over channels, below {ALIKE:g}; {OVER_LAYERS}",
        "",
        _over_layers(evidence, spread, ALIKE),
        "A layer that no spike reaches at the first steps has a variance near 0 there.",
    )


def threshold_equivalent(evidence: Evidence) -> Claim:
    """Eq. 16: BNTT acts like a firing threshold that changes with time."""

    def wrong(layer: pd.DataFrame) -> float:
        return float(layer["wrong"].sum() / layer["spikes"].sum()) if layer["spikes"].sum() > 0 else float("inf")

    note = ""
    total = evidence.frames["approximations"]
    total = total[total["row"] == BNTT] if len(total) else total
    if len(total) and total["spikes"].sum() > 0:
        share = 100 * total["wrong"].sum() / total["spikes"].sum()
        note = f"Layers taken together, {number(share, 0)} wrong spikes for every 100 spikes."
    return Claim(
        "threshold-equivalent",
        "BNTT has the effect of a firing threshold that varies over time-steps.",
        "Section 3.3, Eq. 16",
        "spikes that the approximate threshold adds or misses, over the layer's spikes, given the same currents, below "
        f"{FEW_WRONG:g}; {OVER_LAYERS}",
        "",
        _over_layers(evidence, wrong, FEW_WRONG),
        note,
    )
