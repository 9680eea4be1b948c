"""Many pictures before the simulated camera, recorded by several processes at once.

A recording depends on its picture, the key and its number alone, so the number of processes changes nothing. They are
started as programs of their own, because `multiprocessing` would run the user's program again in each of them.
"""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np

from bntt.common.errors import UserError
from bntt.data.events.aedat import encode
from bntt.data.events.camera import record

MOST = 8  # processes; each needs 0.3 GB, most of it for PyTorch
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from bntt.data.events.recorder import _work; _work()"


def recorded(pictures: np.ndarray, key: int, processes: int | None = None) -> Generator[bytes, None, None]:
    """The AEDAT 2.0 file of each picture, in order; ``pictures`` is uint8 ``[N, H, H]``, see `record`.

    A process waits with its next recording until this one is taken, so memory is bounded. Close the iterator
    (`contextlib.closing`) to end the processes early. Raises UserError if one of them is killed.
    """
    count = processes or min(MOST, os.cpu_count() or 1)
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[3])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            started.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=-1)
            )
        for first, process in enumerate(started):
            task = io.BytesIO()
            np.save(task, np.array([key, first, count], np.uint64))
            np.save(task, pictures[first::count])
            _send(process, task.getvalue())
        for number in range(len(pictures)):
            process = started[number % count]
            yield _taken(process, int.from_bytes(_taken(process, 4)))
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _send(process: subprocess.Popen[bytes], content: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(content)
        process.stdin.close()
    except BrokenPipeError:
        raise _ended(process) from None
    finally:
        process.stdin = None  # `communicate` would write to it


def _taken(process: subprocess.Popen[bytes], size: int) -> bytes:
    assert process.stdout is not None
    content = process.stdout.read(size)
    if len(content) < size:
        raise _ended(process)
    return content


def _ended(process: subprocess.Popen[bytes]) -> Exception:
    """The error of a process that ended early."""
    status = process.wait()
    if status < 0:
        return UserError(
            f"a process that records pictures was killed by signal {-status}, perhaps because memory ran out; make "
            "room, and prepare the dataset again"
        )
    return RuntimeError(f"a process that records pictures ended with status {status}; it said why above")


def _work() -> None:
    """Record the pictures that standard input brings, and write the files to standard output.

    An interrupt is left to the parent. If the parent is gone, so is the reader of the output, and this process ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = io.BytesIO(sys.stdin.buffer.read())
    key, first, apart = np.load(task, allow_pickle=False).tolist()
    pictures = np.load(task, allow_pickle=False)
    try:
        for place, picture in enumerate(pictures):
            content = encode(record(picture, key, first + place * apart))
            sys.stdout.buffer.write(len(content).to_bytes(4) + content)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)
