"""From the AEDAT 2.0 files of many recordings to parts: frames, single events, and what became of every event."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from bntt.common.errors import UserError
from bntt.data._parts import Parts, divided
from bntt.data.events.aedat import decode
from bntt.data.events.frames import Tally, to_frames
from bntt.data.events.streams import packed


def assembled(
    files: Iterable[tuple[str, bytes]],
    labels: np.ndarray,
    split: dict[str, list[int]],
    place: Path,
    *,
    steps: int,
    size: int,
    bin_microseconds: int | None,
    transposed: bool = False,
    from_publisher: bool = False,
    facts: dict[str, Any] | None = None,
) -> Parts:
    """Parts of recordings, divided by ``split``: counts uint8 ``[N, steps, 2, size, size]``, and their single events.

    ``files`` gives the name (for messages) and content of the file of each of the ``labels``, in order. See `to_frames`
    for the bins; where they divide whole recordings there are no single events. ``transposed`` swaps x and y.
    Raises ValueError if there are not as many files as labels.

    Single events wait in a file without a name, in the folder ``place`` or, if there is none, in the nearest one above
    it. So they take no memory, and nothing of them stays if the process is killed.
    """
    frames = np.empty((len(labels), steps, 2, size, size), np.uint8)
    tally, special, reordered, damaged, empty = Tally(), 0, 0, 0, 0
    there = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryFile(dir=there, buffering=0) as waiting:
        kept = _Kept(waiting)
        named = tqdm(files, "recordings", len(labels), disable=None)
        for frame, file in zip_longest(frames, named):
            if frame is None or file is None:
                raise ValueError(f"there must be one file for each of {len(labels)} labels")
            name, content = file
            events = decode(content, name)
            if transposed:
                events = replace(events, x=events.y, y=events.x)
            frame[:], counted = to_frames(events, steps, size, bin_microseconds)
            if bin_microseconds is not None:
                kept.add(packed(events, steps * bin_microseconds))
            tally.add(counted)
            special += events.special
            reordered += events.reordered
            damaged += events.damaged
            empty += counted.framed == 0
        words = None if bin_microseconds is None else kept.recordings()
    counts = vars(tally) | {
        "special": special,
        "reordered": reordered,
        "damaged": damaged,
        "empty_recordings": empty,
    }
    facts = {**(facts or {}), "events": counts}
    return divided(frames, labels, split, words, from_publisher=from_publisher, facts=facts)


class _Kept:
    """The words of one recording after the other, in a file without a buffer, which nothing is left to do for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.counts = file, [0]

    def add(self, words: np.ndarray) -> None:
        rest = memoryview(words.tobytes())
        try:
            while rest:
                rest = rest[self.file.write(rest) :]  # it may write a part
        except OSError as error:
            raise UserError(f"cannot keep single events: {error.strerror}; make room, or set BNTT_DATA") from None
        self.counts.append(len(words))

    def recordings(self) -> list[np.ndarray]:
        """The words of each recording, read from the file when they are needed, also after it was closed."""
        ends = np.cumsum(self.counts).tolist()
        if not ends[-1]:
            return [np.zeros(0, np.uint32) for _ in self.counts[1:]]
        words = np.asarray(np.memmap(self.file, np.uint32, "r", shape=(ends[-1],)))
        return [words[begin:end] for begin, end in pairwise(ends)]
