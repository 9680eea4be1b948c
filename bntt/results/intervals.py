"""Intervals and statistics of small arrays: pure functions whose results can be checked by hand.

Every interval is two-sided, at 95 % unless another ``level`` is given. Each function names its source. scipy is
imported inside functions, so that `python -m bntt check --help` starts fast.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)  # 1.96


class Estimate(NamedTuple):
    """A value with the ends of its interval; all three are equal if the value has no uncertainty."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        return cls(value, value, value)

    def times(self, factor: float) -> "Estimate":
        """The estimate in another unit; ``factor`` must be positive."""
        return Estimate(*(factor * part for part in self))

    def within(self, least: float, most: float) -> "Estimate":
        """The estimate with its interval cut to ``[least, most]``, the range of possible values."""
        return Estimate(self.value, max(self.low, least), min(self.high, most))


# -- accuracies ------------------------------------------------------------------------------------------------


def decode_bits(text: str, images: int) -> NDArray[np.bool_]:
    """Which images are right, bool ``[images]``, from hex digits, image 0 first; ValueError for a wrong length."""
    if not isinstance(text, str) or len(text) != -(-images // 4):
        raise ValueError(f"{images} images need {-(-images // 4)} hexadecimal digits, not {text!r}")
    nibbles = np.array([int(digit, 16) for digit in text], dtype=np.uint8)
    return np.unpackbits(nibbles[:, None], axis=1)[:, 4:].reshape(-1)[:images].astype(bool)


def standard_error(right: float, images: int) -> float:
    """Binomial standard error of the proportion p = right / images: sqrt(p (1 - p) / images)."""
    share = right / images
    return math.sqrt(share * (1 - share) / images)


def paired_difference(first: ArrayLike, second: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Difference of two proportions on the same images, ``first`` minus ``second``, with Tango's interval."""
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"paired images are needed, not {first.size} and {second.size}")
    return tango(int((first & ~second).sum()), int((second & ~first).sum()), first.size, level)


def tango(only_first: int, only_second: int, pairs: int, level: float = LEVEL) -> Estimate:
    """Difference of paired proportions, (b - c) / n, with its score interval (Tango 1998, Stat. Med. 17:891).

    Of n ``pairs``, b = ``only_first`` are right for the first alone, c = ``only_second`` for the second alone. The
    interval holds all d that the score test does not reject: |b - c - n d| <= z sqrt(n (2 q + d (1 - d))), with q the
    most likely P("second alone") given d. It agrees with McNemar's test at d = 0, and has a width even if b = c = 0.
    """
    from scipy.optimize import brentq

    b, c, n = only_first, only_second, pairs
    z = NormalDist().inv_cdf((1 + level) / 2)

    def excess(d: float, side: int) -> float:
        linear = -b - c + (2 * n - b + c) * d
        q = (math.sqrt(max(0.0, linear**2 + 8 * n * c * d * (1 - d))) - linear) / (4 * n)
        return b - c - n * d - side * z * math.sqrt(max(0.0, n * (2 * q + d * (1 - d))))

    value = (b - c) / n
    beside = 1e-12  # at the value itself the variance may be 0, and then the excess is 0
    low = -1.0 if value == -1 else brentq(excess, -1.0, value - beside, args=(1,), xtol=1e-16)
    high = 1.0 if value == 1 else brentq(excess, value + beside, 1.0, args=(-1,), xtol=1e-16)
    return Estimate(value, low, high)


# -- means -----------------------------------------------------------------------------------------------------


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the latter is NaN for a single value."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else math.nan


def student_interval(values: ArrayLike, level: float = LEVEL, unit: float = 0.0) -> Estimate:
    """Mean with Student's interval (Student 1908, Biometrika 6:1): mean -+ t(n - 1) s / sqrt(n); ValueError: n < 2.

    Values that come in multiples of a ``unit``, as accuracies do, can be equal by rounding alone. Then s is at least
    unit / sqrt(12), the deviation of a rounding error, so that the interval has a width (Sheppard 1898).
    """
    from scipy.special import stdtrit

    count = np.asarray(values).size
    if count < 2:
        raise ValueError("an interval of a mean needs at least two values")
    mean, deviation = mean_std(values)
    deviation = max(deviation, unit / math.sqrt(12))
    half = float(stdtrit(count - 1, (1 + level) / 2)) * deviation / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def interval_over_seeds(values: ArrayLike) -> Estimate | None:
    """`student_interval` of one value per seed, NaN where it is missing; None if fewer than two are there."""
    array = np.asarray(values, dtype=float)
    there = array[~np.isnan(array)]
    return student_interval(there) if there.size > 1 else None


def prediction_interval(values: ArrayLike) -> Estimate:
    """Mean with the interval in which one more value falls: mean -+ t(n - 1) s sqrt(1 + 1/n) (Hahn 1970, JASA 65:1668).

    If values are independent and normal, a new one is outside in 5 % of cases. Raises ValueError if n < 2.
    """
    mean, low, high = student_interval(values)
    half = (high - low) / 2 * math.sqrt(np.asarray(values).size + 1)
    return Estimate(mean, mean - half, mean + half)


def prediction_interval_of_steps(values: ArrayLike) -> Estimate:
    """The same for whole numbers, such as a step: their rounding adds 1/12 to the variance, and neighbours are inside.

    Seeds that agree on a step show no spread, although a spread of half a step is likely to give that. So the variance
    of rounding (Sheppard 1898, Proc. Lond. Math. Soc. 29:353) is added, and one step to either side is always inside.
    A new number of the same normal distribution, rounded too, is outside in 4 to 6 % of cases if the spread is at least
    2 steps, and in fewer if it is less, for 3 to 10 values. Raises ValueError if there are fewer than two.
    """
    from scipy.special import stdtrit

    count = np.asarray(values).size
    if count < 2:
        raise ValueError("a prediction interval needs at least two values")
    mean, deviation = mean_std(values)
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * math.sqrt((deviation**2 + 1 / 12) * (1 + 1 / count))
    return Estimate(mean, mean - max(half, 1.0), mean + max(half, 1.0))


def paired_mean_difference(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean of ``first - second`` over pairs (images or seeds), with Student's interval of the differences."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"paired images are needed, not {first.size} and {second.size}")
    return student_interval(first - second, level)


# -- peaks -------------------------------------------------------------------------------------------------------------


def peak_step(scale: ArrayLike) -> int:
    """The time-step, from 1, at which the mean over channels of ``scale[T, C]`` is largest; the first of equals."""
    return int(np.asarray(scale, dtype=float).mean(1).argmax()) + 1
