"""The travelling wave of Section 4.4: at which time-step a curve peaks, and whether deeper layers peak later.

Pure functions of small arrays. A layer is one observation: its channels and its seeds share their course over time, so
counting them would make chance look certain.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

CHANGE = 0.1  # the least change that counts, as a share of a curve's largest magnitude
TAIL = 5  # one in so many steps belongs to the end of a curve
NEAR = 0.01  # distance from the undriven value, as a share of it, within which a gamma carries no information
LEAST_LAYERS = 5  # one order of n layers has p = 1/n!: 0.042 for four, so only five can be significant at 0.025


def trained(gamma: ArrayLike, undriven: float) -> NDArray[np.bool_]:
    """At which steps gamma carries information, bool ``[T]``, from ``gamma[T, C]``.

    ``undriven`` is the value of a gamma that no gradient reached; see `bntt.training.schedule.undriven`. At a step that
    carries information, fewer than half of the channels are within 1 % of it.
    """
    return np.asarray(near(gamma, undriven).mean(axis=1) < 0.5)


def near(gamma: ArrayLike, undriven: ArrayLike) -> NDArray[np.bool_]:
    """Which gammas are within 1 % of the undriven value; none is where that is NaN."""
    return np.asarray(np.abs(np.asarray(gamma, dtype=float) - undriven) <= NEAR * np.abs(undriven))


def marked(gamma: pd.DataFrame, summary: pd.DataFrame) -> pd.Series:
    """Which lines of a frame of ``gamma.csv`` are undriven, by the column ``undriven_gamma`` of `Results.summary`."""
    of_runs = summary.set_index(["dataset", "row", "seed"])["undriven_gamma"].astype(float)
    runs = pd.MultiIndex.from_frame(gamma[["dataset", "row", "seed"]])
    return pd.Series(near(gamma["gamma"], of_runs.reindex(runs).to_numpy()), gamma.index, dtype=bool)


def clear_peak(curve: ArrayLike, informative: ArrayLike | None = None) -> int | None:
    """The time-step, from 1, at which a curve is largest, the first of equals; None if this is no clear peak.

    A curve has a clear peak if it falls and stays low: at each of its last steps, a fifth of all, it is below its
    largest value by more than a tenth of its largest magnitude. So a flat curve has none, nor has a rise to a plateau,
    which noise may lower at single steps. A curve has none either if its largest value is at a step that is not
    ``informative[T]``, or if it is empty or not finite. ValueError: ``informative`` has another length.
    """
    values = np.asarray(curve, dtype=float)
    if not values.size or not np.isfinite(values).all():
        return None
    peak = int(values.argmax())
    if informative is not None:
        of_steps = np.asarray(informative, dtype=bool)
        if of_steps.shape != values.shape:
            raise ValueError(f"a curve of {values.size} steps needs as many marks, not {of_steps.size}")
        if not of_steps[peak]:
            return None
    tail = values[-math.ceil(values.size / TAIL) :]
    return peak + 1 if values[peak] - tail.max() > CHANGE * np.abs(values).max() else None


def fall(curve: ArrayLike) -> float | None:
    """The value at the last step over the largest value; None if that is not positive, or a value is not finite."""
    values = np.asarray(curve, dtype=float)
    if not values.size or not np.isfinite(values).all() or values.max() <= 0:
        return None
    return float(values[-1] / values.max())


class Order(NamedTuple):
    """Whether deeper layers peak later."""

    tau: float  # Kendall's tau-b between depth and peak step: 1 if each layer peaks later than all before it
    p_later: float  # probability, if the order of the layers is random, of a tau at least as large
    p_earlier: float  # and of one at least as small
    layers: int  # how many layers count
    steps: tuple[float | None, ...]  # mean peak step of each layer, conv1 first; None if the layer is left out


def peak_order(peaks: Sequence[Sequence[int | None]]) -> Order | None:
    """The order of the steps ``peaks[seed][layer]`` in depth, conv1 first; None if fewer than `LEAST_LAYERS` count.

    A layer's step is its mean over the seeds in which it has a peak. A layer that has none in most seeds does not
    count. Tau-b is that of Kendall (1945, Biometrika 33:239). The p-values are exact, also with ties: all orders of the
    observed steps are equally likely. ValueError: the seeds have different numbers of layers.
    """
    steps = tuple(mean_step(of_seeds) for of_seeds in zip(*peaks, strict=True))
    observed = [step for step in steps if step is not None]
    if len(observed) < LEAST_LAYERS:
        return None
    pairs = list(combinations(observed, 2))
    rising, falling = (sum(sign * (deep - shallow) > 0 for shallow, deep in pairs) for sign in (1, -1))
    tau = (rising - falling) / math.sqrt(len(pairs) * (rising + falling)) if rising + falling else 0.0
    orders = _orders(tuple(sorted(Counter(observed).values())))
    total = sum(orders)
    return Order(tau, sum(orders[: falling + 1]) / total, sum(orders[falling:]) / total, len(observed), steps)


def mean_step(peaks: Sequence[int | None]) -> float | None:
    """The mean step of a layer over the seeds in which it has a peak; None if it has none in most seeds."""
    found = [peak for peak in peaks if peak is not None]
    return sum(found) / len(found) if found and 2 * len(found) >= len(peaks) else None


@cache
def _orders(ties: tuple[int, ...]) -> tuple[int, ...]:
    """How many distinct orders have 0, 1, 2, ... pairs that fall, of values that come in groups of equals.

    ``ties`` are the sizes of the groups, by increasing value. In which order they stand does not matter (MacMahon
    1916, Combinatory Analysis), so they can be sorted. The last place holds a value of some group, and falls below the
    greater ones; before it stand the others in any order.
    """
    counts = [0] * (sum(map(math.prod, combinations(ties, 2))) + 1)
    if not counts[1:]:
        return (1,)  # at most one group
    for group, size in enumerate(ties):
        others = tuple(sorted(filter(None, (*ties[:group], size - 1, *ties[group + 1 :]))))
        falling = sum(ties[group + 1 :])
        for more, orders in enumerate(_orders(others)):
            counts[falling + more] += orders
    return tuple(counts)
