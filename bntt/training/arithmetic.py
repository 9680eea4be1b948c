"""Settings of a process: number of threads, full float32 precision, and freed memory that it keeps."""

import contextlib
import ctypes

import torch


def settle(threads: int) -> None:
    """Set the number of threads, on which numbers may depend, turn TF32 off, and keep freed memory in the process.

    Returning every large buffer to the system causes page faults, which take a quarter of the next training step.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # convolutions in full float32
    with contextlib.suppress(AttributeError, OSError):  # only glibc has mallopt; without it, only slower
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: allocate no buffer by mmap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not shrink the heap
