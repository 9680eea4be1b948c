"""What recordings must pass before compiled code reads them or a method learns, and random events for self-checks."""

import numpy as np

from bntt.common.errors import UserError
from bntt.data.events.streams import Streams, columns, microseconds, rows


def streams(given: Streams) -> None:
    """Raise ValueError unless compiled code may read these recordings.

    Words must be uint32 and offsets int64 in memory without gaps, events in the order of time and on the sensor.
    """
    for name, array, kind in (("words", given.words, np.uint32), ("offsets", given.offsets, np.int64)):
        if array.dtype != kind or array.ndim != 1 or not array.flags.c_contiguous:
            raise ValueError(f"{name} must be a contiguous array of {np.dtype(kind)}, not {array.dtype} {array.shape}")
    if not given.side >= 1:
        raise ValueError(f"a sensor has a side of 1 pixel at least, not {given.side}")
    for number, words in enumerate(given):
        time = microseconds(words)
        if (time[1:] < time[:-1]).any():
            raise ValueError(f"the events of recording {number} are not in the order of time")
        if given.side < 128 and len(words) and max(columns(words).max(), rows(words).max()) >= given.side:
            raise ValueError(f"recording {number} has events outside a sensor of {given.side} x {given.side} pixels")


def every_class(labels: np.ndarray, classes: int) -> None:
    """Raise UserError if a class has no training recordings."""
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise UserError(f"class {missing[0]} has no training recordings; raise train_limit")


def pointers(given: Streams) -> tuple[int, int]:
    """The addresses of words and offsets."""
    return given.words.ctypes.data, given.offsets.ctypes.data


def random_words(count: int, side: int, seed: int, span: int = 3000) -> np.ndarray:
    """Random events at random places, in the order of time, within ``span`` microseconds; several at one time."""
    draws = np.random.default_rng(seed)
    time = np.sort(draws.integers(0, span, count)).astype(np.uint32)
    x, y, on = (draws.integers(0, high, count).astype(np.uint32) for high in (side, side, 2))
    return time << 15 | y << 8 | x << 1 | on
