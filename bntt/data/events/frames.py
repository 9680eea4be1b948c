"""From events to frames: counts of ON and OFF events in time bins and squares of pixels, and a tally of the others."""

from dataclasses import dataclass

import numpy as np

from bntt.data.events.aedat import SIDE, Events

MOST = 255  # the largest count in one byte


@dataclass
class Tally:
    """What became of the events; the last four numbers add up to the first."""

    events: int = 0
    framed: int = 0
    outside_window: int = 0
    outside_crop: int = 0
    saturated: int = 0  # beyond the 255th of one bin and square

    def add(self, other: "Tally") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def to_frames(events: Events, bins: int, size: int, bin_microseconds: int | None) -> tuple[np.ndarray, Tally]:
    """Counts uint8 ``[bins, 2, size, size]``, OFF before ON, and what became of every event.

    The bins are ``bin_microseconds`` long and begin with the first event, as in Wu et al. 2019. With None, they divide
    the whole recording into equal parts. An event with a damaged time-stamp is outside of all bins. The
    squares are ``128 // size`` pixels wide and start in the upper left corner. The pixels that remain at the right and
    at the bottom are cropped.
    """
    if bin_microseconds is None:
        whole = int(events.microseconds[-1]) + 1
        bin_of = events.microseconds * bins // whole
    else:
        bin_of = events.microseconds // bin_microseconds
    width = SIDE // size
    column, row = events.x // width, events.y // width
    in_window = (bin_of >= 0) & (bin_of < bins)
    in_crop = (column < size) & (row < size)
    kept = in_window & in_crop
    cell = ((bin_of[kept] * 2 + events.on[kept]) * size + row[kept]) * size + column[kept]
    counts = np.bincount(cell, minlength=bins * 2 * size * size)
    frames = np.minimum(counts, MOST).astype(np.uint8).reshape(bins, 2, size, size)
    framed = int(frames.sum(dtype=np.int64))
    tally = Tally(
        events=len(events),
        framed=framed,
        outside_window=int(np.count_nonzero(~in_window)),
        outside_crop=int(np.count_nonzero(in_window & ~in_crop)),
        saturated=int(np.count_nonzero(kept)) - framed,
    )
    return frames, tally
