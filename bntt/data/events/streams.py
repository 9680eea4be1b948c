"""The events of many recordings, one 32-bit word for each event, for methods that work on single events.

Frames count events in bins, so the time within a bin is lost. Methods such as HATS and HOTS need it. A dataset that
declares ``"events": True`` in its ``DATASET`` keeps these words beside the frames: of the events in the frames' time
window, in the order of time, at the sensor's full resolution.

The lower 15 bits of a word are as in the address of an AEDAT 2.0 file, but with the origin in the upper left corner and
1 for ON: bit 0 is the polarity, bits 1 to 7 are x, bits 8 to 14 are y. The upper 17 bits are microseconds since the
recording began, so a window has at most 131,072 of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bntt.data.events.aedat import SIDE, Events

WINDOW = 2**17  # microseconds that fit


@dataclass(frozen=True)
class Streams:
    """Recordings as ``words`` uint32 ``[E]``, one after the other; recording i has ``words[offsets[i]:offsets[i+1]]``.

    ``offsets`` is int64 ``[N + 1]``.
    """

    words: np.ndarray
    offsets: np.ndarray
    side: int = SIDE  # pixels of the sensor

    def __post_init__(self) -> None:
        """Raise ValueError for offsets that do not divide the words."""
        ends = self.offsets
        if len(ends) < 1 or ends[0] != 0 or ends[-1] != len(self.words) or (np.diff(ends) < 0).any():
            raise ValueError(f"offsets must rise from 0 to {len(self.words)}, the number of events")

    def __len__(self) -> int:
        """The number of recordings."""
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        """The words of one recording."""
        return self.words[self.offsets[number] : self.offsets[number + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def some(self, those: slice) -> "Streams":
        """The recordings of a slice; neighbours share their words with these."""
        begin, end, step = those.indices(len(self))
        if step != 1 or end <= begin:
            return self.take(range(begin, end, step))
        offsets = self.offsets[begin : end + 1]
        return Streams(self.words[offsets[0] : offsets[-1]], offsets - offsets[0], self.side)

    def take(self, numbers: Iterable[int]) -> "Streams":
        """These recordings, in this order."""
        return joined([self[int(number)] for number in numbers], self.side)


def joined(recordings: Iterable[np.ndarray], side: int = SIDE) -> Streams:
    """The streams of recordings, each an array of words, of a sensor of ``side`` pixels."""
    parts = list(recordings)
    words = np.concatenate([np.zeros(0, np.uint32), *parts])
    return Streams(words, np.cumsum([0, *map(len, parts)], dtype=np.int64), side)


def packed(events: Events, window: int) -> np.ndarray:
    """The words of a recording's events in its first ``window`` microseconds; ValueError for a window above WINDOW.

    Events with a damaged time-stamp are in no window.
    """
    if not 0 < window <= WINDOW:
        raise ValueError(f"a window has 1 to {WINDOW:,} microseconds, not {window}")
    kept = (events.microseconds >= 0) & (events.microseconds < window)
    time, x, y, on = (a[kept].astype(np.uint32) for a in (events.microseconds, events.x, events.y, events.on))
    return time << 15 | y << 8 | x << 1 | on


def microseconds(words: np.ndarray) -> np.ndarray:
    """Time of each event since the recording began, int32."""
    return (words >> 15).astype(np.int32)


def columns(words: np.ndarray) -> np.ndarray:
    """x of each event, from the left, uint8."""
    return (words >> 1 & 127).astype(np.uint8)


def rows(words: np.ndarray) -> np.ndarray:
    """y of each event, from above, uint8."""
    return (words >> 8 & 127).astype(np.uint8)


def polarities(words: np.ndarray) -> np.ndarray:
    """1 for ON, 0 for OFF, uint8."""
    return (words & 1).astype(np.uint8)
