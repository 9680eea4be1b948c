"""Effects of a 2 x 2 design, tests of several hypotheses together, and rules that call a difference by its interval."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bntt.results.intervals import LEVEL, Estimate, student_interval


class Effects(NamedTuple):
    """Main effects of two factors and their interaction, each with Student's interval over seeds."""

    first: Estimate
    second: Estimate
    interaction: Estimate


def two_by_two(neither: ArrayLike, first: ArrayLike, second: ArrayLike, both: ArrayLike) -> Effects:
    """Effects of two factors from one value per seed in each of the four cells; seeds are paired.

    A main effect is the value with the factor minus that without it, averaged over the other factor. The interaction is
    the effect of the first factor with the second minus that without it. ValueError: fewer than two seeds, or cells
    with different numbers of them.
    """
    cells = [np.asarray(cell, dtype=float) for cell in (neither, first, second, both)]
    if len({cell.size for cell in cells}) != 1:
        raise ValueError(f"the four cells need the same seeds, not {[cell.size for cell in cells]} of them")
    none, one, other, all_ = cells
    return Effects(
        student_interval(((one - none) + (all_ - other)) / 2),
        student_interval(((other - none) + (all_ - one)) / 2),
        student_interval((all_ - other) - (one - none)),
    )


def cause(first: Estimate, second: Estimate, interaction: Estimate, large: float = 0.5, small: float = 0.1) -> str:
    """Which factor makes a fall: ``first``, ``second``, ``both`` or ``undecided``, by the rules of docs/wave.md."""
    falls = [effect.high < -large for effect in (first, second)]
    absent = [-small <= effect.low and effect.high <= small for effect in (first, second)]
    if falls[0] and absent[1]:
        return "first"
    if falls[1] and absent[0]:
        return "second"
    return "both" if interaction.low > small or interaction.high < -small else "undecided"


def p_value(differences: ArrayLike, margin: float | None = None) -> float:
    """Student's two-sided p-value that the mean of ``differences`` is not 0.

    With a ``margin``, twice the one-sided p-value that it is above ``-margin``; so both are tested at the same level.
    Equal differences have a p-value of 0, or of 1 if they do not differ from what is tested. ValueError: fewer than 2.
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(differences, dtype=float) + (0.0 if margin is None else margin)
    if values.size < 2 or not np.isfinite(values).all():
        raise ValueError(f"a test needs at least two finite differences, not {values.size}")
    if (values == values[0]).all():
        return 0.0 if values[0] > 0 or (margin is None and values[0] < 0) else 1.0
    if margin is None:
        return float(ttest_1samp(values, 0.0).pvalue)
    return min(1.0, 2 * float(ttest_1samp(values, 0.0, alternative="greater").pvalue))


def holm(p_values: Mapping[str, float], level: float = 1 - LEVEL) -> dict[str, bool]:
    """Which hypotheses are rejected together, by Holm's method (1979, Scand. J. Stat. 6:65)."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    rejected = dict.fromkeys(p_values, False)
    for position, name in enumerate(ordered):
        if not p_values[name] <= level / (len(ordered) - position):
            break
        rejected[name] = True
    return rejected
