"""One run at a time, and nothing that outlives it."""

import fcntl
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

WATCHDOG = "import os, sys; sys.stdin.read(); os.killpg(0, 9)"


class Guard:
    """Hold a lock file, and start commands that end when the holder does, however it ends (kill -9 included).

    A watchdog reads from a pipe, which the kernel closes at the holder's death, and then kills the process
    group that it shares with the commands, itself included. It shares the lock too, so whoever gets the lock
    next finds nobody else at work.
    """

    def __init__(self, lock: Path) -> None:
        self.path = lock

    def __enter__(self) -> "Guard":
        self.lock = open(self.path, "a+")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.seek(0)
            print(f"waiting for process {self.lock.read()}, which holds {self.path.name}", flush=True)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.lock.truncate(0)
        self.lock.write(str(os.getpid()))
        self.lock.flush()
        self.watchdog = subprocess.Popen(
            [sys.executable, "-I", "-c", WATCHDOG],
            stdin=subprocess.PIPE,
            pass_fds=[self.lock.fileno()],
            process_group=0,
            preexec_fn=partial(signal.signal, signal.SIGTERM, signal.SIG_IGN),  # see terminate()
        )
        return self

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in the watchdog's process group, without standard input."""
        group = self.watchdog.pid
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=group, text=True, **options)

    def terminate(self) -> None:
        """Ask everything that was started here to end; the watchdog does not listen."""
        os.killpg(self.watchdog.pid, signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        self.watchdog.communicate()  # closes the pipe and waits
        self.lock.close()
