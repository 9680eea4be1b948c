"""Verdicts: how a reproduced number stands to a printed one. Pure functions on a few numbers.

The first that applies:

NOT_RUN         no result that may answer the cell, with the reason
UNDERSPECIFIED  the paper does not say what is needed; declared with the cell, never computed
INCOMPLETE      fewer seeds than planned, or fewer than three
MATCH           the mean over seeds is within the cell's tolerance of the printed number
CONSISTENT      the printed number is in the 95 % prediction interval of one new run
BETTER, WORSE   it is outside; DIFFERS where a cell has no better side

A paper mostly prints a single run, so the interval is that of a single new run, not that of the mean: if paper and
reproduction draw from one normal distribution, the printed number is outside in 5 % of cases.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bntt.results.intervals import LEVEL, Estimate, mean_std, prediction_interval

Word = Literal["MATCH", "CONSISTENT", "BETTER", "WORSE", "DIFFERS", "INCOMPLETE", "UNDERSPECIFIED", "NOT_RUN"]
WORDS: tuple[Word, ...] = get_args(Word)
DECIDED = frozenset(WORDS[:5])

FEWEST_SEEDS = 3
WEAK_POINTS = 1.0  # half-width in points of accuracy beyond which CONSISTENT says little
WEAK_SHARE = 0.1  # the same for other numbers, as a share of the printed one
STEPS_BETWEEN = 200  # of a mean between its bounds
ROUNDING = 1e-9  # of floating-point arithmetic; a printed half digit is no more exact than that


@dataclass(frozen=True)
class Verdict:
    """A word, with what it rests on."""

    word: Word
    reason: str = ""
    values: Sequence[float] = ()  # one for each seed that has a result
    interval: Estimate | None = None  # their mean, and the prediction interval of one new run
    weak: bool = False  # CONSISTENT, but with so wide an interval that it says little

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
    """The verdict on a printed number from the values of the seeds that were run, out of so many planned.

    ``tolerance`` is in the number's unit; ``percent`` says that it is an accuracy in per cent.
    """
    values = tuple(float(value) for value in values)
    needed = max(planned, FEWEST_SEEDS)
    finite = all(map(math.isfinite, values))  # the energy ratio of a silent network is not
    interval = prediction_interval(values) if len(values) > 1 and finite else None
    if len(values) < needed:
        planning = f"{len(values)} of {planned} planned seeds" if planned >= FEWEST_SEEDS else f"{len(values)} seeds"
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
    """The word for a value that is not the printed one."""
    if direction == "none":
        return "DIFFERS"
    return "BETTER" if (value > printed) == (direction == "higher") else "WORSE"


def between(low: Sequence[float], high: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """Values for each seed that lie between two bounds, chosen so that every verdict the bounds allow appears.

    They are all the corners, and a path from the lowest mean to the highest along which the values scatter least. A
    corner comes nearest to a printed number, measured in widths of the interval: the squared distance minus the squared
    width is concave in each value. Along the path, the mean takes every value that it can.
    """
    yield from set(itertools.product(*zip(low, high, strict=True)))
    for share in range(STEPS_BETWEEN + 1):
        centre = min(low) + (max(high) - min(low)) * share / STEPS_BETWEEN
        yield tuple(min(max(centre, least), most) for least, most in zip(low, high, strict=True))


def refusals_by_chance(verdicts: Iterable[Verdict]) -> float:
    """How many of these verdicts would be BETTER, WORSE or DIFFERS by chance alone, were every number reproduced.

    At most: a tolerance makes it fewer. A number that is alike in all seeds, such as a setting, has no chance in it.
    """
    of_chance = [one for one in verdicts if one.word in DECIDED and len(set(one.values)) > 1]
    return (1 - LEVEL) * len(of_chance)


def what_chance_does(verdicts: Sequence[Verdict]) -> str:
    """The same as a sentence."""
    decided = sum(one.word in DECIDED for one in verdicts)
    at_most = refusals_by_chance(verdicts)
    return f"Of {decided} decided, chance alone would make at most {at_most:.1f} BETTER, WORSE or DIFFERS."
