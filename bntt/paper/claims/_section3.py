"""Claims of the paper's mathematical analysis (Sections 3.3 and 3.4): what Eqs. 13 to 16 neglect, and the error."""

import math
from collections.abc import Callable

import pandas as pd

from bntt.common.text import number
from bntt.paper.claims._evidence import BNTT, Evidence, Group, Part, Seeds, claim, worst_layer
from bntt.results.collect import select
from bntt.results.energy import ratio

SMALL_MEAN = 0.1  # a mean of a tenth of a standard deviation changes E[x^2] by 1 %, which can be neglected
SMALL_CHANGE = 0.1  # Eq. 14 replaces a factor by its neighbour in time; we take "similar" to mean within a tenth
ALIKE = 1.5  # largest variance over smallest; thresholds of Eq. 16 then differ by a factor below 1.23, its square root
FEW_WRONG = 0.1  # we take Eq. 16 to describe a layer if wrong spikes are less than a tenth of its spikes

WORST = "in the layer where it is largest"


def _layers(
    seeds: Seeds, statistic: Callable[[pd.DataFrame], float], border: float, log: bool = False
) -> list[Group | Part]:
    """A statistic of each layer's ``approximations.csv``, and whether it is below a border in every layer."""

    def by_layer(one: Evidence) -> dict[str, float]:
        frame = one.table("approximations", BNTT)
        return {str(layer): float(statistic(part)) for layer, part in frame.groupby("layer", sort=False)}

    return [worst_layer(seeds, by_layer, border, log)]


def _wrong_share(frame: pd.DataFrame) -> float:
    """Wrong spikes over spikes; NaN without either, where there is nothing to compare."""
    wrong, spikes = frame["wrong"].sum(), frame["spikes"].sum()
    return ratio(wrong, spikes) if wrong or spikes else math.nan


def _wrong_together(seeds: Seeds) -> str:
    share = _wrong_share(pd.concat([select(one.frames["approximations"], row=BNTT) for one in seeds]))
    if not math.isfinite(share):
        return ""
    return f"All layers together: {number(100 * share, 0)} wrong spikes for every 100 spikes."


@claim(
    "The mean of the input current is small enough to be neglected.",
    "Section 3.3, Eq. 13",
    f"|mean| / sqrt(var + eps), median over channels, then over steps, below {SMALL_MEAN:g}; {WORST}",
)
def mean_negligible(seeds: Seeds) -> list[Group | Part]:
    return _layers(seeds, lambda layer: layer["relative_mean"].median(), SMALL_MEAN)


@claim(
    "The scale gamma / sqrt(var + eps) is similar at neighbouring time-steps.",
    "Section 3.3, Eq. 14",
    f"|s[t] − s[t−1]| / |s[t]|, median over channels, then over steps, below {SMALL_CHANGE:g}; {WORST}",
)
def scale_varies_slowly(seeds: Seeds) -> list[Group | Part]:
    return _layers(seeds, lambda layer: layer["scale_change"].median(), SMALL_CHANGE)


@claim(
    "The variance of the input current is similar at all time-steps.",
    "Section 3.4",
    f"variance, mean over channels: largest / smallest over the T steps, below {ALIKE:g}; {WORST}",
    note="If no spike reaches a layer in the first steps, its variance is near 0 there.",
)
def variance_alike(seeds: Seeds) -> list[Group | Part]:
    return _layers(seeds, lambda layer: ratio(layer["variance"].max(), layer["variance"].min()), ALIKE, log=True)


@claim(
    "BNTT has the effect of a firing threshold that varies over time-steps.",
    "Section 3.3, Eq. 16",
    "spikes that the approximate threshold adds or misses / the layer's spikes, for the same currents, below "
    f"{FEW_WRONG:g}; {WORST}",
    note=_wrong_together,
)
def threshold_equivalent(seeds: Seeds) -> list[Group | Part]:
    return _layers(seeds, _wrong_share, FEW_WRONG)
