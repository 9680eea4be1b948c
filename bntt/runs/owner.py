"""A run directory has one owner: the process that works on it, on whichever machine.

The lock is a file that names its owner and that the owner touches every few seconds (filelock's `SoftFileLease`). It
needs nothing of a disk but that one of several processes creates a file, which shared disks keep, too; their kernel's
locks may hold on one machine alone. An owner that died on this machine is recognised at once. One on a lost machine is
recognised when its file was not touched for `LEASE` seconds.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bntt.common.errors import UserError
from bntt.common.files import read_sealed, write_sealed
from bntt.runs import provenance

if TYPE_CHECKING:
    from filelock import OwnerRecord

LEASE = 120.0  # seconds without a sign of life after which an owner counts as lost; all processes must agree on it
POLL = 0.5  # seconds between two looks of a process that waits


@contextmanager
def owned(folder: Path, what: object) -> Iterator[Callable[[], None]]:
    """Own ``folder``; wait while another process does, and say which on standard error, as the owner of ``what``.

    Yields a check, to be called before anything is written. It raises UserError if ownership was lost: if this process
    gave no sign of life for so long, as when it was suspended, that another has taken over. Raises UserError if the
    folder cannot be written.
    """
    from filelock import SoftFileLease, Timeout

    lease, note = SoftFileLease(folder / "owner.lock", lease_duration=LEASE), folder / "owner.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lease.acquire(blocking=False)
        except Timeout:
            print(f"bntt: {what}: waiting for {_described(lease.owner, note)}", file=sys.stderr, flush=True)
            lease.acquire(poll_interval=POLL)
        mine = lease.owner
        with suppress(UserError):  # no room; the note is for a human reader
            write_sealed(note, {"token": lease.token, "host": socket.gethostname(), "since": provenance.now()})
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose a folder that can be written") from None

    def lost() -> bool:
        return lease.compromise is not None or lease.owner not in (mine, None)  # None: the disk does not answer

    def check() -> None:
        if lost():
            time.sleep(POLL)  # a process that looks whether the owner lives moves the file away for a moment
            if lost():
                raise UserError(f"{what}: taken over by {_described(lease.owner, note)}; this process stops")

    try:
        yield check
    finally:
        if not lost():  # else the note is another owner's
            with suppress(OSError):
                note.unlink(missing_ok=True)
        lease.release()


def _described(record: "OwnerRecord | None", note: Path) -> str:
    """Who owns a folder: process, host and since when."""
    if record is None:
        return "another process at work on it"
    with suppress(OSError, ValueError):
        told = read_sealed(note)
        if told["token"] == record.token:
            return f"process {record.pid} on {told['host']}, at work on it since {told['since']}"
    return f"process {record.pid} on {record.hostname}, at work on it"
