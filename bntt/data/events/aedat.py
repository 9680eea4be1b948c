"""AEDAT 2.0 recordings of a DVS128 event camera: the file format of DVS-CIFAR10.

A file begins with lines of text that start with ``#``. Then follow pairs of big-endian 32-bit words: an address and a
time-stamp in microseconds. In the address of a DVS128, bit 0 is the polarity (0 is ON), bits 1 to 7 are x, counted from
the right, bits 8 to 14 are y, counted from below, and bit 15 marks a special event, which no pixel sent. The events
that are returned have their origin in the upper left corner, as images have.
"""

import mmap
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from bntt.common.errors import UserError

SIDE = 128  # pixels of the sensor
HEADER = b"#!AER-DAT2.0\r\n"
WRONG = 1e-3  # share of events whose time-stamp may be out of order or damaged
PIECE = 2**18  # events decoded at once: few enough to stay in the cache
JUMP = 2**29  # microseconds, 9 minutes: neighbours that are further apart are checked against the rest of the file
# An event at an end of the recording is damaged if it is this many times further away than any other two neighbours.
# Fewer events than ENOUGH do not say how far apart neighbours are.
APART = 4
SHORT = 1000  # microseconds, which move no event by more than a bin
ENOUGH = 30


@dataclass(frozen=True)
class Events:
    """Events of one recording in the order of time; all arrays have the same length."""

    microseconds: np.ndarray  # int64, since the recording began; -1 where the time-stamp lies outside of the recording
    x: np.ndarray  # uint8, from the left
    y: np.ndarray  # uint8, from above
    on: np.ndarray  # bool: True where the pixel got brighter
    special: int = 0  # events that no pixel sent, skipped
    reordered: int = 0  # events that were out of order in the file
    damaged: int = 0  # events whose time-stamp lies outside of the recording

    def __len__(self) -> int:
        return len(self.x)


def read(path: Path) -> Events:
    """The events of a file; a damaged file raises UserError, whose message says what is wrong and at which byte."""
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty; fetch it again")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return decode(content, str(path))


def decode(content: bytes | mmap.mmap, where: str) -> Events:
    """The events in the content of a file; ``where`` names the file in messages. Raises UserError as `read`."""
    start = _end_of_header(content, where)
    count, rest = divmod(len(content) - start, 8)
    if rest:
        raise UserError(
            f"{where}: {rest} bytes are left over at offset {start + 8 * count}, where events have 8 bytes each: the "
            "file is cut off; fetch it again"
        )
    if count == 0:
        raise UserError(f"{where}: no event after the header of {start} bytes; fetch the file again")
    stamps = np.empty(count, np.int64)
    x, y, on = (np.empty(count, kind) for kind in (np.uint8, np.uint8, np.bool_))
    kept = special = 0
    for first in range(0, count, PIECE):
        amount = min(PIECE, count - first)
        words = np.frombuffer(content, ">u4", 2 * amount, start + 8 * first).astype(np.uint32)
        address, stamp = words[::2], words[1::2]
        if address.max() >= 2**16:
            bad = int(np.argmax(address >= 2**16))
            raise UserError(
                f"{where}: address {address[bad]:#x} at offset {start + 8 * (first + bad)} is beyond a sensor of "
                f"{SIDE} x {SIDE} pixels; is this a recording of a DVS128?"
            )
        if address.max() >= 2**15:
            of_pixels = address < 2**15
            address, stamp = address[of_pixels], stamp[of_pixels]
            special += amount - len(address)
        here = slice(kept, kept + len(address))
        kept += len(address)
        stamps[here] = stamp
        x[here] = SIDE - 1 - (address >> 1 & 127)
        y[here] = SIDE - 1 - (address >> 8)
        on[here] = ~address & 1
    if kept == 0:
        raise UserError(f"{where}: {special} special events and no event of a pixel; fetch the file again")
    stamps, x, y, on = stamps[:kept], x[:kept], y[:kept], on[:kept]
    few = max(1, int(WRONG * kept))
    _undo_overflows(stamps, few)
    ordered = _in_order(stamps)
    first, last = _ends(stamps[ordered], few)
    far = ordered & ((stamps < first) | (stamps > last))
    if far.any():  # without these, others may be in order
        ordered = np.zeros_like(far)
        ordered[~far] = _in_order(stamps[~far])
        first, last = (int(stamp) for stamp in stamps[ordered][[0, -1]])
    outside = (stamps < first) | (stamps > last)
    damaged, reordered = (int(np.count_nonzero(these)) for these in (outside, ~(ordered | outside)))
    if damaged + reordered > few:
        raise UserError(
            f"{where}: {damaged + reordered} of {kept} time-stamps run backwards or lie far outside of the recording, "
            f"more than {WRONG:.1%}; the file is damaged: fetch it again"
        )
    stamps -= first
    if damaged or reordered:
        stamps[outside] = -1
        order = np.argsort(stamps, kind="stable")
        stamps, x, y, on = stamps[order], x[order], y[order], on[order]
    return Events(stamps, x, y, on, special, reordered, damaged)


def write(path: Path, events: Events, first_microsecond: int = 0) -> None:
    """Write an AEDAT 2.0 file of events, as a DVS128 would have recorded them."""
    path.write_bytes(encode(events, first_microsecond))


def encode(events: Events, first_microsecond: int = 0) -> bytes:
    """The content of the file that `write` writes."""
    address = (SIDE - 1 - events.x.astype(np.uint32)) << 1 | (SIDE - 1 - events.y.astype(np.uint32)) << 8
    words = np.empty((len(events), 2), ">u4")
    words[:, 0] = address | ~events.on
    words[:, 1] = (events.microseconds + first_microsecond) & 0xFFFFFFFF
    return HEADER + words.tobytes()


def _end_of_header(content: bytes | mmap.mmap, where: str) -> int:
    """Offset of the first event in bytes. An event is not mistaken for a line of text, because its first byte is 0."""
    if content[:12] != HEADER[:12]:
        told = content[:12].decode("ascii", "replace")
        raise UserError(f"{where}: not an AEDAT 2.0 file: it starts with {told!r}, not with '#!AER-DAT2.0'")
    end = 0
    while content[end : end + 1] == b"#":
        line = content.find(b"\n", end)
        if line < 0:
            raise UserError(f"{where}: the file ends within its header; fetch it again")
        end = line + 1
    return end


def _undo_overflows(stamps: np.ndarray, few: int) -> None:
    """Undo overflows in place.

    The counter overflows at 2^31 or 2^32 microseconds, that is after 36 or 72 minutes. So a time-stamp is known but for
    multiples of 2^31, and of these the one that is nearest to its neighbour is taken. Up to ``few`` events that lie
    more than JUMP away from both neighbours may be damaged: no other event is placed by them.
    """
    stamps &= 2**31 - 1
    steps = np.diff(stamps)
    if not len(steps) or (steps.min() >= 0 and steps.max() <= JUMP):
        return
    steps = (steps + 2**30 & 2**31 - 1) - 2**30
    stamps[1:] = stamps[0] + np.cumsum(steps)
    begins = [0, *(np.flatnonzero(np.abs(steps) > JUMP) + 1).tolist(), len(stamps)]
    near = None
    for begin, end in pairwise(begins):
        if near is not None:
            stamps[begin:end] += (near - stamps[begin] + 2**30 >> 31) << 31
        if near is None or end - begin > few:
            near = stamps[end - 1]


def _in_order(stamps: np.ndarray) -> np.ndarray:
    """Which events are in the order of time, bool: as many as possible, so that one wrong time-stamp excludes one."""
    in_order = stamps >= np.maximum.accumulate(stamps)
    if in_order.all():
        return in_order
    in_order &= stamps <= np.minimum.accumulate(stamps[::-1])[::-1]  # these contradict no other event
    # Of the others, the longest sequence in order (Fredman 1975), from the end on: tops[k] is the latest time at which
    # a sequence of k + 1 events can begin, negated, because bisect wants it to rise.
    others = np.flatnonzero(~in_order)[::-1]
    tops: list[int] = []
    first_of: list[int] = []
    then = np.full(len(others), -1)
    for number, negated in enumerate((-stamps[others]).tolist()):
        length = bisect_right(tops, negated)
        tops[length : length + 1] = [negated]
        first_of[length : length + 1] = [number]
        if length:
            then[number] = first_of[length - 1]
    number = first_of[-1]
    while number >= 0:
        in_order[others[number]] = True
        number = then[number]
    return in_order


def _ends(stamps: np.ndarray, few: int) -> tuple[int, int]:
    """The first and the last microsecond of a recording, from time-stamps in order.

    Up to ``few`` events before the first or after the last pause do not count if it is much longer than all others.
    """
    pauses = np.diff(stamps)
    if len(stamps) < ENOUGH:
        return int(stamps[0]), int(stamps[-1])
    begin, end = int(np.argmax(pauses[:few])), len(pauses) - 1 - int(np.argmax(pauses[: -few - 1 : -1]))
    longest = max(SHORT, APART * int(np.delete(pauses, [begin, end]).max()))
    first = stamps[begin + 1] if pauses[begin] > longest else stamps[0]
    last = stamps[end] if pauses[end] > longest else stamps[-1]
    return int(first), int(last)
