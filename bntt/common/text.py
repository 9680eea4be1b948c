"""Numbers, intervals, lists and durations in words."""

import math
from collections.abc import Sequence

Interval = tuple[float, float, float]  # a value and the two ends of its interval


DASH = "–"


def number(value: float | None, digits: int = 2) -> str:
    """``value`` with ``digits`` decimals and a true minus sign; from 1e5 as a power of ten; a dash for None or NaN."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e5:
        power = f"{math.log10(abs(value)):.0f}".translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"about {'' if value > 0 else '−'}10{power}"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def interval(estimate: Interval | None, digits: int = 2, unit: str = "") -> str:
    """``value [low, high] unit``; without brackets if the value has no uncertainty."""
    if estimate is None:
        return DASH
    value, low, high = estimate
    text = number(value, digits)
    if not low == value == high:
        text += f" {ends(estimate, digits)}"
    return text + unit if unit == "×" else f"{text} {unit}".strip()


def ends(estimate: Interval | None, digits: int = 2) -> str:
    """The interval alone, ``[low, high]``."""
    if estimate is None:
        return DASH
    _, low, high = estimate
    return f"[{number(low, digits)}, {number(high, digits)}]"


def counted(count: float, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 time-step``, ``2,000 images``, ``20.5 steps``; ``plural`` if it is not noun + s."""
    amount = f"{count:,.1f}".removesuffix(".0")
    return f"{amount} {noun if amount == '1' else plural or noun + 's'}"


MOST_NAMED = 5  # of those that a message is about


def listed(words: Sequence[str], most: int | None = None) -> str:
    """Words joined as ``a, b and c``; if there are more than ``most``, as ``a, b and 5 more``."""
    if most is not None and len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def duration(seconds: float | None) -> str:
    """Seconds as ``45 s``, ``7 min 3 s`` or ``2 h 5 min``."""
    if seconds is None or math.isnan(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
