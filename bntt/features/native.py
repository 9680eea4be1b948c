"""When the compiled code of a feature is used, and when its reference."""

import ctypes
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from bntt.common import environment
from bntt.spiking.kernels import compiled


class Native:
    """The compiled code of the module ``file``, whose C++ source lies beside it and has its name.

    ``signatures`` are those of `bntt.spiking.kernels.compiled.load`. ``fault(library)`` is the self-check: one line
    that says where the library disagrees with the reference, or None.
    """

    def __init__(self, file: str, signatures: Mapping[str, str], fault: Callable[[ctypes.CDLL], str | None]) -> None:
        self.source, self.signatures, self.fault = Path(file).with_suffix(".cpp"), signatures, fault

    @property
    def library(self) -> ctypes.CDLL | None:
        """The library, or None where the reference runs: by ``BNTT_KERNELS=plain``, or with a message on stderr."""
        return None if environment.plain_kernels() else self._checked

    @cached_property
    def _checked(self) -> ctypes.CDLL | None:
        name = self.source.stem
        try:
            library = compiled.load(name, [self.source], self.signatures)
            fault = self.fault(library)
            if fault is None:
                return library
        except Exception as error:  # of a compiler, a loader: in any case the reference runs
            fault = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        print(f"the compiled {name} is not used, numpy runs instead (slower): {fault}", file=sys.stderr, flush=True)
        return None
