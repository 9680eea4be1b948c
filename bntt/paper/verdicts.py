"""Verdicts: how a reproduced number compares with a printed one. Pure functions on a few numbers.

The first verdict that applies is given:

NOT_RUN         there is no run that may judge the cell; the reason is given
UNDERSPECIFIED  the paper does not give what a run needs; declared with the cell, never computed
INCOMPLETE      fewer seeds than planned, or fewer than three, have a network that works
INCOMPARABLE    the number was bought at a lower accuracy than the paper's, and is not WORSE by itself
MATCH           the mean over seeds is within the cell's tolerance of the printed number
CONSISTENT      the printed number is inside the 95 % prediction interval for one new run
BETTER, WORSE   the printed number is outside this interval; DIFFERS where neither higher nor lower is better

A printed number is mostly from a single run, so the interval is for a single new run, not for the mean. If paper
and reproduction draw from one normal distribution, the printed number is outside in 5 % of cases.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bntt.common.text import counted, number
from bntt.results.intervals import (
    LEVEL,
    Estimate,
    mean_std,
    prediction_interval,
    prediction_interval_of_steps,
)

Word = Literal[
    "MATCH", "CONSISTENT", "BETTER", "WORSE", "DIFFERS", "INCOMPARABLE", "INCOMPLETE", "UNDERSPECIFIED", "NOT_RUN"
]
Direction = Literal["higher", "lower", "none"]
WORDS: tuple[Word, ...] = get_args(Word)
DECIDED = frozenset(WORDS[:5])
FAVOURABLE: frozenset[Word] = frozenset({"MATCH", "CONSISTENT", "BETTER"})

MEANINGS: Mapping[Word, str] = {  # for readers of tables
    "MATCH": "the mean over seeds is within the number's tolerance, mostly half a unit of its last digit",
    "CONSISTENT": "the printed number is in the 95 % prediction interval for one new run",
    "BETTER": "the printed number is outside of this interval, and the mean over seeds is better",
    "WORSE": "the printed number is outside of this interval, and the mean is worse; or every seed failed, because it "
    "diverged, or its network is silent or at chance",
    "DIFFERS": "the printed number is outside of this interval, and neither side is better",
    "INCOMPARABLE": "a cost or a gamma of networks that are less accurate than the paper's",
    "INCOMPLETE": "fewer seeds than planned, or than three, have a network that works",
    "UNDERSPECIFIED": "the paper does not give what a run needs, so only the difference to the printed number is shown",
    "NOT_RUN": "no run may judge it",
}
WEAK = "weak: the interval reaches more than a point of accuracy, or a tenth of another number, to either side"

FEWEST_SEEDS = 3
WEAK_POINTS = 1.0  # half-width of the interval, in points of accuracy, above which MATCH and CONSISTENT are weak
WEAK_SHARE = 0.1  # the same for other numbers, as a share of the printed number
PRICE_POINTS = 1.0  # how much lower the accuracy of a cost may be; Table 1's own early exits lose up to one point
STEPS_BETWEEN = 200  # of a mean, from its lower to its upper bound
ROUNDING = 1e-9  # error of floating-point arithmetic; a value at the very edge of a tolerance counts as within


@dataclass(frozen=True)
class Verdict:
    """A verdict, with its reason and the values that it rests on."""

    word: Word
    reason: str = ""
    values: Sequence[float] = ()  # one for each seed that has a result
    interval: Estimate | None = None  # their mean, and the prediction interval for one new run
    weak: bool = False  # MATCH or CONSISTENT, but the interval is so wide that this says little

    @property
    def mean(self) -> float | None:
        return mean_std(self.values)[0] if self.values else None

    @property
    def half_width(self) -> float | None:
        return None if self.interval is None else (self.interval.high - self.interval.low) / 2

    def remarked(self, *remarks: str) -> "Verdict":
        """The verdict with remarks after its reason; empty ones do not count."""
        return replace(self, reason="; ".join(filter(None, [self.reason, *remarks])))

    def __str__(self) -> str:
        return f"{self.word}{' (weak)' if self.weak else ''}"


def explained(verdicts: Iterable[Verdict]) -> str:
    """What the words of these verdicts mean, for readers of a table."""
    verdicts = list(verdicts)
    meanings = [f"{word}: {MEANINGS[word]}" for word in WORDS if any(one.word == word for one in verdicts)]
    return ". ".join([*meanings, *[WEAK] * any(one.weak for one in verdicts)]) + "."


def interval_of(values: Sequence[float], whole: bool = False) -> Estimate | None:
    """The prediction interval for one new run; None for fewer than two values, or if one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return prediction_interval_of_steps(values) if whole else prediction_interval(values)


def judge(
    printed: float,
    values: Sequence[float],
    planned: int,
    tolerance: float,
    direction: Direction,
    percent: bool = False,
    whole: bool = False,
) -> Verdict:
    """The verdict on a printed number, from the ``values`` of the seeds that were run; ``planned`` seeds were planned.

    ``tolerance`` is in the unit of the number; ``percent`` says that the number is an accuracy in per cent, and
    ``whole`` that it is a whole number, such as a step, in each run.
    """
    values = tuple(float(value) for value in values)
    needed = max(planned, FEWEST_SEEDS)
    interval = interval_of(values, whole)
    if len(values) < needed:
        planning = (
            f"{len(values)} of {planned} planned seeds" if planned >= FEWEST_SEEDS else counted(len(values), "seed")
        )
        return Verdict("INCOMPLETE", f"{planning}; at least {FEWEST_SEEDS} are needed", values, interval)
    if interval is None:
        infinite = sum(not math.isfinite(value) for value in values)
        if infinite < len(values):
            return Verdict("INCOMPLETE", f"{infinite} of {len(values)} seeds give no finite number", values)
        return Verdict(failed(direction), "not a finite number", values)
    weak = (interval.high - interval.low) / 2 > (WEAK_POINTS if percent else WEAK_SHARE * abs(printed))
    if abs(interval.value - printed) <= tolerance + ROUNDING:
        return Verdict("MATCH", "", values, interval, weak)
    if interval.low - ROUNDING <= printed <= interval.high + ROUNDING:
        return Verdict("CONSISTENT", "", values, interval, weak)
    return Verdict(beyond(interval.value, printed, direction), values=values, interval=interval)


def beyond(value: float, printed: float, direction: Direction) -> Word:
    """The word for a value that differs from the printed one."""
    if direction == "none":
        return "DIFFERS"
    return "BETTER" if (value > printed) == (direction == "higher") else "WORSE"


def failed(direction: Direction) -> Word:
    """The word for a network that gives no number, because training diverged or no neuron fires."""
    return "DIFFERS" if direction == "none" else "WORSE"


def as_accurate(accuracy: Verdict, printed: float) -> bool:
    """Whether networks are as accurate as the printed accuracy in per cent, so that what they cost can be compared."""
    if accuracy.word not in FAVOURABLE or accuracy.mean is None:
        return False
    return accuracy.mean >= printed - PRICE_POINTS - ROUNDING


def bought_at(verdict: Verdict, accuracy: Verdict, printed: float) -> Verdict:
    """A verdict on a cost (energy, steps) or on gamma, together with the accuracy that the same networks reach.

    A network that classifies nothing spends nothing. So if the networks are not as accurate as the ``printed`` accuracy
    in per cent, a number that is not WORSE by itself is INCOMPARABLE.
    """
    if verdict.word not in DECIDED or verdict.word == "WORSE" or as_accurate(accuracy, printed):
        return verdict
    if accuracy.word not in DECIDED:
        return replace(verdict, word=accuracy.word, reason=f"its accuracy: {accuracy.reason}", weak=False)
    because = f" ({verdict.reason})" if verdict.reason else ""
    reached = f", {number(accuracy.mean)} %," if accuracy.mean is not None else ""
    less = "WORSE than" if accuracy.word == "WORSE" else f"more than {PRICE_POINTS:g} point under"
    return replace(
        verdict,
        word="INCOMPARABLE",
        reason=f"{verdict.word} by itself{because}, but its accuracy{reached} is {less} the printed {printed:g} %",
        weak=False,
    )


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
    """How many verdicts chance alone would make BETTER, WORSE or DIFFERS on average, if every number were reproduced.

    A twentieth of those that are decided. Numbers that are equal in all seeds, such as settings, do not count.
    """
    of_chance = [one for one in verdicts if one.word in DECIDED and len(set(one.values)) > 1]
    return (1 - LEVEL) * len(of_chance)


def what_chance_does(verdicts: Sequence[Verdict]) -> str:
    """`refusals_by_chance` as a sentence, for verdicts on measured numbers."""
    decided = sum(one.word in DECIDED for one in verdicts)
    return (
        f"Of {counted(decided, 'decided number')}, chance alone would make about {refusals_by_chance(verdicts):.1f} "
        "BETTER, WORSE or DIFFERS on average, if all were reproduced."
    )
