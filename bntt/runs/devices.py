"""Which device a run uses. If there are GPUs, a run takes one for itself, and waits until one is free.

The lock is the kernel's (flock), so it is released when its owner ends, in whatever way. If CUDA_VISIBLE_DEVICES is
set, only its devices are used. Locks are named by the devices' UUIDs, so they also work between runs that see different
subsets of the devices.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from bntt.common.errors import UserError


@contextmanager
def lease(device: str = "auto") -> Iterator[torch.device]:
    """Yield a device and hold it: ``cpu``, ``cuda`` (any free one), or ``auto`` (a GPU if there is one, else the CPU).

    Raises UserError for another word, and for ``cuda`` if no GPU is visible.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is auto, cpu or cuda, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is visible; use --device cpu")
    if device == "cpu" or not torch.cuda.is_available():
        yield torch.device("cpu")
        return
    identities = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    with lock_one(identities) as index:
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)


def joules(device: torch.device) -> float | None:
    """Energy in joules that a GPU has used since its driver was loaded; None if nothing counts it.

    The counter is that of NVML, NVIDIA's management library, which comes with the driver.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:  # a bare GPU machine may lack nvidia-ml-py; no energy is recorded then
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
    except pynvml.NVMLError:  # no driver, or a GPU without the counter
        return None


@contextmanager
def lock_one(names: list[str], poll_seconds: float = 0.5) -> Iterator[int]:
    """Hold the lock of the first free device, and yield its index in ``names``. Prints once that it waits."""
    folder = Path(tempfile.gettempdir()) / f"bntt-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    locks = [FileLock(folder / f"{name.replace('/', '_')}.lock", preserve_lock_file=True) for name in names]
    taken = next(_taken(locks), None)
    if taken is None:
        print(f"waiting for one of {len(names)} GPUs to be free", file=sys.stderr, flush=True)
    while taken is None:
        time.sleep(poll_seconds)
        taken = next(_taken(locks), None)
    try:
        yield locks.index(taken)
    finally:
        taken.release()


def _taken(locks: list[FileLock]) -> Iterator[FileLock]:
    """Acquire the free locks one at a time, and yield each."""
    for lock in locks:
        with suppress(Timeout):
            lock.acquire(blocking=False)
            yield lock
