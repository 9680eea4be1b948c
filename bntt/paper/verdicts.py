"""Verdicts: how a reproduced number compares with a printed one. Pure functions on a few numbers.

The first verdict that applies is given:

NOT_RUN         there is no run that may judge the cell; the reason is given
UNDERSPECIFIED  the paper does not give what a run needs; declared with the cell, never computed
INCOMPLETE      there are fewer seeds than planned, or fewer than three
MATCH           the mean over seeds is within the cell's tolerance of the printed number
CONSISTENT      the printed number is inside the 95 % prediction interval for one new run
BETTER, WORSE   the printed number is outside this interval; DIFFERS where neither higher nor lower is better

A printed number is mostly from a single run, so the interval is for a single new run, not for the mean. If paper
and reproduction draw from one normal distribution, the printed number is outside in 5 % of cases.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bntt.common.text import counted
from bntt.results.intervals import LEVEL, Estimate, mean_std, prediction_interval

Word = Literal["MATCH", "CONSISTENT", "BETTER", "WORSE", "DIFFERS", "INCOMPLETE", "UNDERSPECIFIED", "NOT_RUN"]
WORDS: tuple[Word, ...] = get_args(Word)
DECIDED = frozenset(WORDS[:5])

FEWEST_SEEDS = 3
WEAK_POINTS = 1.0  # half-width of the interval, in points of accuracy, above which CONSISTENT is weak
WEAK_SHARE = 0.1  # the same for other numbers, as a share of the printed number
STEPS_BETWEEN = 200  # of a mean, from its lower to its upper bound
ROUNDING = 1e-9  # error of floating-point arithmetic; a value at the very edge of a tolerance counts as within


@dataclass(frozen=True)
class Verdict:
    """A verdict, with its reason and the values that it rests on."""

    word: Word
    reason: str = ""
    values: Sequence[float] = ()  # one for each seed that has a result
    interval: Estimate | None = None  # their mean, and the prediction interval for one new run
    weak: bool = False  # CONSISTENT, but the interval is so wide that this says little

    @property
    def mean(self) -> float | None:
        return mean_std(self.values)[0] if self.values else None

    @property
    def half_width(self) -> float | None:
        return None if self.interval is None else (self.interval.high - self.interval.low) / 2

    def __str__(self) -> str:
        return f"{self.word}{' (weak)' if self.weak else ''}"


def judge(
    printed: float,
    values: Sequence[float],
    planned: int,
    tolerance: float,
    direction: Literal["higher", "lower", "none"],
    percent: bool = False,
) -> Verdict:
    """The verdict on a printed number, from the ``values`` of the seeds that were run; ``planned`` seeds were planned.

    ``tolerance`` is in the unit of the number; ``percent`` says that the number is an accuracy in per cent.
    """
    values = tuple(float(value) for value in values)
    needed = max(planned, FEWEST_SEEDS)
    finite = all(map(math.isfinite, values))  # the energy ratio of a network without spikes is infinite
    interval = prediction_interval(values) if len(values) > 1 and finite else None
    if len(values) < needed:
        planning = (
            f"{len(values)} of {planned} planned seeds" if planned >= FEWEST_SEEDS else counted(len(values), "seed")
        )
        return Verdict("INCOMPLETE", f"{planning}; at least {FEWEST_SEEDS} are needed", values, interval)
    if interval is None:
        infinite = sum(not math.isfinite(value) for value in values)
        if infinite < len(values):
            return Verdict("INCOMPLETE", f"{infinite} of {len(values)} seeds give no finite number", values)
        return Verdict(beyond(max(values), printed, direction), "not a finite number", values)
    if abs(interval.value - printed) <= tolerance + ROUNDING:
        return Verdict("MATCH", values=values, interval=interval)
    if interval.low - ROUNDING <= printed <= interval.high + ROUNDING:
        widest = WEAK_POINTS if percent else WEAK_SHARE * abs(printed)
        return Verdict("CONSISTENT", "", values, interval, (interval.high - interval.low) / 2 > widest)
    return Verdict(beyond(interval.value, printed, direction), values=values, interval=interval)


def beyond(value: float, printed: float, direction: Literal["higher", "lower", "none"]) -> Word:
    """The word for a value that differs from the printed one."""
    if direction == "none":
        return "DIFFERS"
    return "BETTER" if (value > printed) == (direction == "higher") else "WORSE"


def between(low: Sequence[float], high: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """Values for each seed that lie between two bounds, chosen so that every verdict the bounds allow appears.

    These are all corners, that is, each value at one of its bounds, and a path from the lowest mean to the highest,
    along which the values scatter least. The squared distance of the mean from a printed number, minus the interval's
    squared half-width, is concave in each value, so it is smallest at a corner. On the path the mean takes all values.
    """
    yield from set(itertools.product(*zip(low, high, strict=True)))
    for share in range(STEPS_BETWEEN + 1):
        centre = min(low) + (max(high) - min(low)) * share / STEPS_BETWEEN
        yield tuple(min(max(centre, least), most) for least, most in zip(low, high, strict=True))


def refusals_by_chance(verdicts: Iterable[Verdict]) -> float:
    """How many verdicts would be BETTER, WORSE or DIFFERS by chance alone, if every number were reproduced.

    An upper bound: tolerances make it smaller. Numbers that are equal in all seeds, such as settings, do not count.
    """
    of_chance = [one for one in verdicts if one.word in DECIDED and len(set(one.values)) > 1]
    return (1 - LEVEL) * len(of_chance)


def what_chance_does(verdicts: Sequence[Verdict]) -> str:
    """`refusals_by_chance` as a sentence."""
    decided = sum(one.word in DECIDED for one in verdicts)
    at_most = f"at most {refusals_by_chance(verdicts):.1f}"
    return f"Of {counted(decided, 'decided number')}, chance alone would make {at_most} BETTER, WORSE or DIFFERS."
