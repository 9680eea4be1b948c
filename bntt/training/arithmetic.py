"""Settings of a process: number of threads, full float32 precision, and freed memory that it keeps."""

import contextlib
import ctypes
import sys
from pathlib import Path

import torch

from bntt.common import environment
from bntt.spiking.kernels import Unavailable, compiled

SOURCE = Path(__file__).with_name("buffers.cpp")


def settle(threads: int) -> None:
    """Set the number of threads, on which numbers may depend, turn TF32 off, and keep freed memory in the process.

    Returning every large buffer to the system causes page faults, which take a quarter of the next training step. If
    the allocator of ``buffers.cpp`` cannot be compiled, malloc keeps them, which takes more memory; a message says so.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # convolutions in full float32
    if sys.platform == "linux" and not environment.plain_kernels():
        try:
            _keep_buffers()
        except Unavailable as reason:
            print(f"the allocator of large buffers is not used (more memory): {reason}", file=sys.stderr, flush=True)
    with contextlib.suppress(AttributeError, OSError):  # only glibc has mallopt; without it, only slower
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: allocate no buffer by mmap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not shrink the heap


def _keep_buffers() -> None:
    """Compile the allocator for this version of PyTorch, and let PyTorch use it."""
    root = Path(torch.__file__).parent
    flags = [
        "-std=c++20",  # of PyTorch's headers
        f"-DTORCH_VERSION={torch.__version__}",  # unused: the library of another version is another one
        f"-isystem{root / 'include'}",
        f"-L{root / 'lib'}",
        "-l:libc10.so",
    ]
    compiled.load("buffers", [SOURCE], {"keep_buffers": ""}, flags).keep_buffers()
