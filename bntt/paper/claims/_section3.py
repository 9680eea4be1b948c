"""Claims of the paper's mathematical analysis (Sections 3.3 and 3.4): what Eqs. 13 to 16 neglect, and the error."""

import math
from collections.abc import Callable

import pandas as pd

from bntt.common.text import counted, listed, number
from bntt.paper.claims._evidence import BNTT, Evidence, Part, below, claim, part
from bntt.results.collect import select
from bntt.results.energy import ratio
from bntt.results.intervals import bootstrap_median

SMALL_MEAN = 0.1  # a mean of a tenth of a standard deviation changes E[x^2] by 1 %, which can be neglected
SMALL_CHANGE = 0.1  # Eq. 14 replaces a factor by its neighbour in time; we take "similar" to mean within a tenth
ALIKE = 1.5  # largest variance over smallest; thresholds of Eq. 16 then differ by a factor below 1.23, its square root
FEW_WRONG = 0.1  # we take Eq. 16 to describe a layer if wrong spikes are less than a tenth of its spikes

OVER_LAYERS = "median over layers, with a percentile bootstrap over layers"


def _over_layers(evidence: Evidence, statistic: Callable[[pd.DataFrame], float], border: float) -> list[Part]:
    """A statistic of each layer of bntt, and whether its median over layers is below a border."""

    def compare(row: str) -> Part:
        frame = evidence.table("approximations", row)
        by_layer = {str(layer): float(statistic(part)) for layer, part in frame.groupby("layer", sort=False)}
        middle = bootstrap_median(list(by_layer.values()))
        layers = [layer for layer, value in by_layer.items() if value < border]
        note = f"below {border:g} in {len(layers)} of {counted(len(by_layer), 'layer')}"
        return Part(row, middle, below(middle, border), note + (f": {listed(layers)}" if layers else ""))

    return [part(BNTT, compare)]


def _wrong_share(frame: pd.DataFrame) -> float:
    return ratio(frame["wrong"].sum(), frame["spikes"].sum())


def _wrong_together(evidence: Evidence) -> str:
    share = _wrong_share(select(evidence.frames["approximations"], row=BNTT))
    if math.isinf(share):
        return ""
    return f"All layers together: {number(100 * share, 0)} wrong spikes for every 100 spikes."


@claim(
    "The mean of the input current is small enough to be neglected.",
    "Section 3.3, Eq. 13",
    f"|mean| / sqrt(var + eps), median over channels, then over steps, below {SMALL_MEAN:g}; {OVER_LAYERS}",
)
def mean_negligible(evidence: Evidence) -> list[Part]:
    return _over_layers(evidence, lambda layer: layer["relative_mean"].median(), SMALL_MEAN)


@claim(
    "The scale gamma / sqrt(var + eps) is similar at neighbouring time-steps.",
    "Section 3.3, Eq. 14",
    f"|s[t] − s[t−1]| / |s[t]|, median over channels, then over steps, below {SMALL_CHANGE:g}; {OVER_LAYERS}",
)
def scale_varies_slowly(evidence: Evidence) -> list[Part]:
    return _over_layers(evidence, lambda layer: layer["scale_change"].median(), SMALL_CHANGE)


@claim(
    "The variance of the input current is similar at all time-steps.",
    "Section 3.4",
    f"variance, mean over channels: largest / smallest over the T steps, below {ALIKE:g}; {OVER_LAYERS}",
    note="If no spike reaches a layer in the first steps, its variance is near 0 there.",
)
def variance_alike(evidence: Evidence) -> list[Part]:
    return _over_layers(evidence, lambda layer: ratio(layer["variance"].max(), layer["variance"].min()), ALIKE)


@claim(
    "BNTT has the effect of a firing threshold that varies over time-steps.",
    "Section 3.3, Eq. 16",
    "spikes that the approximate threshold adds or misses / the layer's spikes, for the same currents, below "
    f"{FEW_WRONG:g}; {OVER_LAYERS}",
    note=_wrong_together,
)
def threshold_equivalent(evidence: Evidence) -> list[Part]:
    return _over_layers(evidence, _wrong_share, FEW_WRONG)
