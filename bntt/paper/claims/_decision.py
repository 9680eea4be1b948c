"""How a claim is decided: pure functions of arrays, the same for measurements and for simulated draws of them.

A claim consists of components, such as one for each row and layer. Each has a value with an interval and a border, and
the claim says on which side of the border the true value lies. For the claim to be true, all components must be so.

* It *holds* if the 95 % interval of every component lies entirely on the claim's side. If some component is not as the
  claim says, this happens in at most 2.5 % of cases, however many components there are (intersection-union test,
  Berger 1982, Technometrics 24:295).
* It *fails* if, for some component, the interval at level 1 - 0.05 / k lies entirely on the other side, where k is the
  number of components (Bonferroni). So a true claim is not refuted by chance because it has many components.
* Else it is *undecided*.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bntt.results.intervals import LEVEL, Estimate, student_interval
from bntt.results.waves import Order

Outcome = Literal["holds", "fails", "undecided", "not decidable"]
Interval = Callable[[float], Estimate]  # level -> a value with its interval


@dataclass(frozen=True)
class Component:
    """One value that a claim is about: its interval at any level, and the side of a border where it should lie."""

    name: str
    interval: Interval
    border: float = 0.0
    above: bool = True  # else the claim says that the value is below the border

    def distance(self) -> float:
        """How far the value is on the claim's side of the border; negative on the other side."""
        value = self.interval(LEVEL).value
        return value - self.border if self.above else self.border - value

    def margin(self, level: float = LEVEL) -> tuple[float, float]:
        """How far the ends of the interval are on the claim's side of the border, the worse end first."""
        _, low, high = self.interval(level)
        return (low - self.border, high - self.border) if self.above else (self.border - high, self.border - low)


def decide(components: Sequence[Component]) -> list[Outcome]:
    """The outcome of each component, given that these are all components of the claim."""
    level = refuting_level(len(components))

    def outcome(one: Component) -> Outcome:
        least, most = one.margin()
        if least > 0:
            return "holds"
        return "fails" if most < 0 and one.margin(level)[1] < 0 else "undecided"

    return [outcome(one) for one in components]


def refuting_level(components: int) -> float:
    """The level of the intervals that may refute a claim with so many components."""
    return 1 - (1 - LEVEL) / max(1, components)


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Of components or parts: fails if one fails, holds if all hold; else not decidable if one is so."""
    found = set(outcomes)
    if "fails" in found:
        return "fails"
    if found == {"holds"}:
        return "holds"
    return "not decidable" if "not decidable" in found else "undecided"


def ordered(order: Order | None) -> Outcome:
    """Whether peaks come later in deeper layers: by an exact test over layers, each side at 2.5 %."""
    if order is None:
        return "undecided"
    if order.p_later <= (1 - LEVEL) / 2:
        return "holds"
    return "fails" if order.p_earlier <= (1 - LEVEL) / 2 else "undecided"


@dataclass(frozen=True)
class Value:
    """A component's value in one seed; ``over_images`` gives its interval over test images, and None means exact."""

    value: float
    over_images: Interval | None = None
    unit: float = 0.0  # the resolution of the value

    def interval(self, level: float = LEVEL) -> Estimate:
        return Estimate.exact(self.value) if self.over_images is None else self.over_images(level)


def component(
    name: str, seeds: Sequence[Value], border: float = 0.0, above: bool = True, log: bool = False
) -> Component:
    """A component from its value in each seed; with one seed its interval is over test images, or it is exact.

    ``log``: over seeds, the logarithms are averaged.
    """
    if len(seeds) == 1:
        return Component(name, seeds[0].interval, border, above)
    return Component(name, over_seeds([one.value for one in seeds], log, seeds[0].unit), border, above)


def over_seeds(values: ArrayLike, log: bool = False, unit: float = 0.0) -> Interval:
    """Student's interval of the mean over two or more seeds; with ``log``, of the geometric mean of positive values.

    ``unit`` is the resolution of the values. If all are infinite, so is the interval; if some are, or one is NaN,
    nothing is known.
    """
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        infinite = Estimate.exact(math.inf)
        unknown = Estimate(float(array.mean()), -math.inf, math.inf)
        return lambda level: infinite if np.isposinf(array).all() else unknown
    if not log:
        return partial(student_interval, array, unit=unit)
    return partial(_geometric_mean, np.log(array))


def _geometric_mean(logs: ArrayLike, level: float) -> Estimate:
    """Student's interval of the logarithms, as ratios; an end beyond the largest float is infinite."""
    with np.errstate(over="ignore"):
        return Estimate(*np.exp(student_interval(logs, level)).tolist())
