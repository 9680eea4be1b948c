"""Which device a run uses. Where there are GPUs, a run takes one for itself and waits its turn.

The lock is the kernel's (flock), so it is released when its owner dies, however it dies. A set CUDA_VISIBLE_DEVICES is
honoured: only the devices that it shows are used, and locks are named by the devices' UUIDs, so that runs that see
different subsets still meet.
"""

import ctypes
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bntt.common.errors import UserError


@contextmanager
def lease(device: str = "auto") -> Iterator[torch.device]:
    """A device for the duration: ``cpu``, ``cuda`` (any free one), or ``auto`` (a GPU where there is one)."""
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
    """Energy that a GPU has used since its driver was loaded, as its own counter has it; None where there is none."""
    if device.type != "cuda":
        return None
    return _counted_joules(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def _counted_joules(uuid: str, library: str = "libnvidia-ml.so.1") -> float | None:
    """The counter of NVML, NVIDIA's management library, which comes with the driver."""
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    try:
        nvml = ctypes.CDLL(library)
        failed = (
            nvml.nvmlInit_v2()
            or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle))
            or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        )
    except (OSError, AttributeError):  # no driver, or one without the counter
        return None
    return None if failed else millijoules.value / 1000


@contextmanager
def lock_one(names: list[str], poll_seconds: float = 0.5) -> Iterator[int]:
    """Hold the lock of the first free device; yields its index. Says once that it waits."""
    folder = Path(tempfile.gettempdir()) / f"bntt-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    files = [(folder / f"{name.replace('/', '_')}.lock").open("w") for name in names]
    waiting = False
    try:
        while True:
            for index, file in enumerate(files):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield index
                return
            if not waiting:
                print(f"waiting for one of {len(names)} GPUs to be free", file=sys.stderr, flush=True)
                waiting = True
            time.sleep(poll_seconds)
    finally:
        for file in files:
            file.close()
