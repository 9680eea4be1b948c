"""The saved state of an unfinished training or evaluation, from which it continues exactly.

A state is saved after a given number of minutes or steps, and when the process is told to stop: by SIGTERM or SIGUSR1,
which a batch system sends before it takes the machine away, by Ctrl-C, or because its minutes are over.
"""

import contextlib
import hashlib
import io
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bntt.common.errors import Stopped, UserError
from bntt.common.files import write_atomically, write_json


class States:
    """Two state files. Saving overwrites the older one, so there is a complete state at every moment."""

    def __init__(self, folder: Path, belongs_to: Mapping[str, Any]) -> None:
        """Keep states in ``folder``. Only states saved with an equal ``belongs_to`` (plain data) are loaded."""
        self.files = (folder / "state-0.pt", folder / "state-1.pt")
        self._note = folder / "belongs_to.json"
        self._belongs_to = dict(belongs_to)
        self._generation = 0  # of the newest state

    def load(self) -> Any | None:
        """The newest intact state that belongs here, or None. Standard error names each file not used, and why."""
        newest: dict[str, Any] = {"generation": 0, "state": None}
        for path in filter(Path.exists, self.files):
            saved = _read(path)
            if saved is not None and saved["belongs_to"] == self._belongs_to:
                newest = max(newest, saved, key=lambda one: one["generation"])
            else:
                why = "damaged" if saved is None else "of another configuration, code or data"
                print(f"bntt: {path} is {why} and not used", file=sys.stderr, flush=True)
        write_json(self._note, self._belongs_to)  # for a human reader; fails early if the folder is not writable
        self._generation = newest["generation"]
        return newest["state"]

    def save(self, state: Any) -> None:
        """Write a state over the older one; raises UserError if it cannot be written."""
        generation, buffer = self._generation + 1, io.BytesIO()
        torch.save({"belongs_to": self._belongs_to, "generation": generation, "state": state}, buffer)
        content = buffer.getvalue()
        write_atomically(self.files[generation % 2], lambda beside: beside.write_bytes(_digest(content) + content))
        self._generation = generation

    def clear(self) -> None:
        """Remove both files."""
        for path in self.files:
            path.unlink(missing_ok=True)


class Stop:
    """Whether a training or an evaluation must stop: because of a signal, or because its minutes are over."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self, minutes: float | None = None) -> None:
        """Stop ``minutes`` from now; with None, only a signal stops."""
        self._ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._signal: int | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop, or None."""
        if self._signal is not None:
            return f"stopped by {signal.Signals(self._signal).name}"
        if time.monotonic() >= self._ends:
            return "stopped because its minutes are over"
        return None

    @property
    def interrupted(self) -> bool:
        """Whether the user stops it."""
        return self._signal == signal.SIGINT

    def stop_if_due(self) -> None:
        """Raise Stopped if there is a reason to stop."""
        if (reason := self.reason) is not None:
            raise Stopped(reason, self.interrupted)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside this context, the first signal is a reason to stop; a second one has its usual effect."""
        if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals
            yield
            return

        def note(number: int, _: object) -> None:
            self._signal = number
            as_ever.close()

        with contextlib.ExitStack() as as_ever:
            for number in self.SIGNALS:
                as_ever.callback(signal.signal, number, signal.signal(number, note))
            yield


@dataclass(frozen=True)
class Spent:
    """What a training or an evaluation used: seconds, joules of the GPU (None if not counted), pieces, machines.

    A piece is the part of it between one start of the command and the next.
    """

    seconds: float = 0.0
    joules: float | None = None
    pieces: int = 0
    machines: list[str] = field(default_factory=list)


@dataclass
class Ledger:
    """Counts what a run has used: in the pieces before, and in this one, which begins when the ledger is made."""

    machine: str = ""
    joules: Callable[[], float | None] = lambda: None  # reads a counter, whose zero is arbitrary
    before: Spent = Spent()

    def __post_init__(self) -> None:
        self._began, self._joules_at_start = time.monotonic(), self.joules() or 0.0

    @property
    def seconds(self) -> float:
        """Seconds up to now, in all pieces."""
        return self.before.seconds + time.monotonic() - self._began

    @property
    def spent(self) -> Spent:
        """All that was used up to now."""
        joules = self.joules()
        return Spent(
            seconds=self.seconds,
            joules=None if joules is None else (self.before.joules or 0.0) + joules - self._joules_at_start,
            pieces=self.before.pieces + 1,
            machines=list(dict.fromkeys([*self.before.machines, self.machine])),
        )


class Checkpoints:
    """Keeps one training's or evaluation's state, and says when to save it: `bntt.training.loop.Keeper` for runs."""

    def __init__(
        self,
        folder: Path,
        belongs_to: Mapping[str, Any] | None = None,
        ledger: Ledger | None = None,  # by default one that begins now
        every_minutes: float = 5.0,
        every_steps: int | None = None,
        minutes: float | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep states in ``folder``, of what ``belongs_to`` describes: configuration, code, data.

        A state is due after ``every_minutes`` or ``every_steps``. After ``minutes``, a state is saved and Stopped
        raised. ``guard`` is called before a state is written, and raises an error if this process must not write.
        """
        self.states, self.stop = States(folder, belongs_to or {}), Stop(minutes)
        self.ledger = ledger or Ledger()
        self._guard = guard
        self._every_steps, self._every_seconds = every_steps, 60 * every_minutes
        self._steps, self._saved = 0, time.monotonic()  # steps since a state was saved, and when that was

    @property
    def seconds(self) -> float:
        return self.ledger.seconds

    def listening(self) -> AbstractContextManager[None]:
        return self.stop.listening()

    def load(self) -> Any | None:
        found = self.states.load()
        if found is None:
            return None
        self.ledger.before = Spent(**found["spent"])
        return found["training"]

    def due(self) -> bool:
        self._steps += 1
        return (
            self.stop.reason is not None
            or self._steps == self._every_steps
            or time.monotonic() >= self._saved + self._every_seconds
        )

    def save(self, state: Any) -> None:
        self.write(state)
        self.saved()
        self.stop.stop_if_due()

    def write(self, state: Any) -> None:
        """Write a state."""
        self._guard()
        self.states.save({"training": state, "spent": asdict(self.ledger.spent)})

    def saved(self) -> None:
        """Note that a state was saved now."""
        self._steps, self._saved = 0, time.monotonic()

    def clear(self) -> None:
        """Remove all states; what they belong to has ended."""
        self.states.clear()


def _read(path: Path) -> dict[str, Any] | None:
    """What a state file holds, or None if the file is damaged.

    The hash is checked before anything is unpickled, and only plain data are unpickled. Raises UserError if an intact
    file cannot be read.
    """
    content = memoryview(path.read_bytes())
    if bytes(content[:65]) != _digest(content[65:]):
        return None
    try:
        saved: dict[str, Any] = torch.load(io.BytesIO(content[65:]), weights_only=True, map_location="cpu")
    except Exception as error:  # for instance, written by another version of torch
        raise UserError(
            f"{path}: the saved state is intact but cannot be read ({type(error).__name__}); delete it to start again"
        ) from None
    return saved


def _digest(content: bytes | memoryview) -> bytes:
    """The first line of a file: the hash of the rest."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
