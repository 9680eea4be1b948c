"""The state of an unfinished training: kept in two generations, saved now and then, continued exactly.

A state is saved every so many minutes or steps, and when training is told to stop: by SIGTERM or SIGUSR1, which a
batch system sends before it takes the machine away, by Ctrl-C, or because its minutes are over. Each of the two files
carries the hash of its content, and the older is overwritten, so that one whole state is there at every moment.
"""

import contextlib
import hashlib
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bntt.common.errors import Stopped, UserError
from bntt.common.files import write_atomically, write_json

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Checkpoints:
    """Keeps the state of one training, and says when to save it and when to stop."""

    def __init__(
        self,
        folder: Path,
        belongs_to: Mapping[str, Any] | None = None,
        every_minutes: float = 5.0,
        every_steps: int | None = None,
        minutes: float | None = None,
    ) -> None:
        """Keep states in ``folder``.

        ``belongs_to`` is what a state is good for, as JSON has it: configuration, code, data. The state of another
        training is not continued. ``minutes`` is the time after which training stops at a saved state.
        """
        self.files = (folder / "state-0.pt", folder / "state-1.pt")
        self.pieces = 1  # times that this training was started
        self.machine = ""  # that it is on now
        self._machines_before: list[str] = []
        self._note = folder / "belongs_to.json"
        self._belongs_to = dict(belongs_to or {})
        self._every_steps, self._every_seconds = every_steps, 60 * every_minutes
        self._began = self._saved = time.monotonic()
        self._ends = None if minutes is None else self._began + 60 * minutes
        self._spent_before, self._joules_before = 0.0, 0.0
        self._meter: Callable[[], float | None] = lambda: None
        self._steps_since = 0
        self._generation = self._next = 0
        self._signal: int | None = None

    @property
    def seconds(self) -> float:
        """Time spent on this training up to now, in all its pieces."""
        return self._spent_before + time.monotonic() - self._began

    @property
    def machines(self) -> list[str]:
        """What this training was on up to now, in all its pieces."""
        return list(dict.fromkeys([*self._machines_before, self.machine]))

    def metered_by(self, meter: Callable[[], float | None]) -> None:
        """Count energy by a meter of joules from now on."""
        self._meter, start = meter, meter()
        self._joules_before -= start or 0.0

    @property
    def joules(self) -> float | None:
        """Energy spent on this training up to now, in all its pieces; None where nothing counts it."""
        now = self._meter()
        return None if now is None else self._joules_before + now

    def load(self) -> Any | None:
        """The newest whole state of this training, or None. What is not used is said on standard error."""
        found = []
        for index, path in enumerate(self.files):
            if not path.exists():
                continue
            try:
                saved = _read(path)
            except _DamagedError:
                _warn(f"{path} is damaged and not used")
                continue
            if saved["belongs_to"] != self._belongs_to:
                _warn(f"{path} is of another configuration, code or data and not used")
                continue
            found.append((saved["generation"], index, saved))
        write_json(self._note, self._belongs_to)  # for a reader, and to fail early where nothing can be written
        if not found:
            return None
        self._generation, index, saved = max(found, key=lambda one: one[0])
        self._next = 1 - index
        self._spent_before, self.pieces = saved["seconds"], saved["pieces"] + 1
        self._joules_before += saved["joules"] or 0.0
        self._machines_before = saved["machines"]
        return saved["state"]

    def due(self) -> bool:
        """Whether to save now; to be asked after every step."""
        self._steps_since += 1
        return (
            self._stop_reason() is not None
            or self._steps_since == self._every_steps
            or time.monotonic() >= self._saved + self._every_seconds
        )

    def save(self, state: Any) -> None:
        """Write a state over the older one; raise Stopped where training is to stop."""
        self._generation += 1
        content = {
            "belongs_to": self._belongs_to,
            "generation": self._generation,
            "seconds": self.seconds,
            "joules": self.joules,
            "pieces": self.pieces,
            "machines": self.machines,
            "state": state,
        }
        path = self.files[self._next]
        write_atomically(path, lambda beside: _write(beside, content))
        self._next, self._steps_since, self._saved = 1 - self._next, 0, time.monotonic()
        if (reason := self._stop_reason()) is not None:
            raise Stopped(reason, self._signal == signal.SIGINT)

    def clear(self) -> None:
        """Remove all states; training has ended."""
        for path in self.files:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, the first signal that asks to end asks for a stop at the next step; a second one acts as ever."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in STOPPING}

        def stop(number: int, _: object) -> None:
            self._signal = number
            for one, handler in before.items():
                signal.signal(one, handler)

        for number in STOPPING:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_reason(self) -> str | None:
        if self._signal is not None:
            return f"stopped by {signal.Signals(self._signal).name}"
        if self._ends is not None and time.monotonic() >= self._ends:
            return "stopped, since its minutes are over"
        return None


class _DamagedError(Exception):
    """A file that does not hold what was written to it."""


def _write(path: Path, content: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    payload = buffer.getbuffer()
    with path.open("wb") as stream:
        stream.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        stream.write(payload)


def _read(path: Path) -> dict[str, Any]:
    """What was written. Nothing is unpickled before its hash was right, and nothing but plain data even then."""
    content = memoryview(path.read_bytes())
    if bytes(content[:65]) != hashlib.sha256(content[65:]).hexdigest().encode() + b"\n":
        raise _DamagedError
    try:
        return torch.load(io.BytesIO(content[65:]), weights_only=True, map_location="cpu")
    except Exception as error:  # written by another version of torch, say
        raise UserError(
            f"{path}: the saved state is whole and cannot be read ({type(error).__name__}); delete it to start anew"
        ) from None


def _warn(message: str) -> None:
    print(f"bntt: {message}", file=sys.stderr, flush=True)
