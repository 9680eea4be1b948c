"""AEDAT 2.0 recordings of a DVS128 event camera: the file format of DVS-CIFAR10.

A file begins with lines of text that start with ``#``. Then follow pairs of big-endian 32-bit words: an address and a
time-stamp in microseconds. In the address of a DVS128, bit 0 is the polarity (0 is ON), bits 1 to 7 are x, counted from
the right, bits 8 to 14 are y, counted from below, and bit 15 marks a special event, which no pixel sent. The events
that are returned have their origin in the upper left corner, as images have.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bntt.common.errors import UserError

SIDE = 128  # pixels of the sensor
HEADER = b"#!AER-DAT2.0\r\n"
LATE = 1e-3  # share of events that may follow a later event in the file
PIECE = 2**18  # events decoded at once: few enough to stay in the cache


@dataclass(frozen=True)
class Events:
    """Events of one recording in the order of time; all arrays have the same length."""

    microseconds: np.ndarray  # int64, since the first event of the file; negative for out-of-order events before it
    x: np.ndarray  # uint8, from the left
    y: np.ndarray  # uint8, from above
    on: np.ndarray  # bool: True where the pixel got brighter
    special: int = 0  # events that no pixel sent, skipped
    reordered: int = 0  # events that followed a later event in the file

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
    _undo_overflows(stamps)
    stamps -= stamps[0]
    late = _late(stamps)
    if late > LATE * kept:
        raise UserError(
            f"{where}: {late} of {kept} time-stamps run backwards, more than {LATE:.1%}; "
            "the file is damaged: fetch it again"
        )
    if late:
        order = np.argsort(stamps, kind="stable")
        stamps, x, y, on = stamps[order], x[order], y[order], on[order]
    return Events(stamps, x, y, on, special, late)


def write(path: Path, events: Events, first_microsecond: int = 0) -> None:
    """Write an AEDAT 2.0 file of events, as a DVS128 would have recorded them."""
    address = (SIDE - 1 - events.x.astype(np.uint32)) << 1 | (SIDE - 1 - events.y.astype(np.uint32)) << 8
    words = np.empty((len(events), 2), ">u4")
    words[:, 0] = address | ~events.on
    words[:, 1] = (events.microseconds + first_microsecond) & 0xFFFFFFFF
    path.write_bytes(HEADER + words.tobytes())


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


def _undo_overflows(stamps: np.ndarray) -> None:
    """Undo overflows in place.

    The counter overflows at 2^31 or 2^32 microseconds, that is after 36 or 72 minutes. A decrease by more than half of
    2^31 is taken as an overflow. An increase by more than that is taken as a late event from before an overflow.
    """
    stamps &= 2**31 - 1
    turns = 0
    last = stamps[0]
    for first in range(0, len(stamps), PIECE):
        piece = stamps[first : first + PIECE]
        steps = np.diff(piece, prepend=last)
        last = piece[-1].copy()
        turned = turns + np.cumsum((steps < -(2**30)).astype(np.int64) - (steps > 2**30))
        turns = turned[-1]
        piece += turned << 31


def _late(stamps: np.ndarray) -> int:
    """The number of time-stamps that follow a later one."""
    late, latest = 0, stamps[0]
    for first in range(0, len(stamps), PIECE):
        piece = stamps[first : first + PIECE]
        reached = np.maximum(np.maximum.accumulate(piece), latest)
        late += int(np.count_nonzero(piece < reached))
        latest = reached[-1]
    return late
