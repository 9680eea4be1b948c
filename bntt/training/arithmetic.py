"""How a process computes: threads, float32 without shortcuts, and memory that it keeps."""

import contextlib
import ctypes

import torch


def settle(threads: int) -> None:
    """Fix the number of threads, which numbers may depend on, and keep freed memory in the process.

    Handing every large buffer back to the kernel costs page faults in the next step: a quarter of a training step.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    with contextlib.suppress(AttributeError, OSError):  # glibc has mallopt; elsewhere it is only slower
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no buffer of its own mapping
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not shrink the heap
