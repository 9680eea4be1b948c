"""The passes of the temporal-norm operator and the Poisson coder, behind one interface.

A backend is a module with the five functions below. Currents are rows ``x [T, M, C]``: M counts samples and positions,
channels are innermost, and the array is contiguous. (A convolution's channels-last output is such an array without a
copy.) The type is float32, bfloat16 or float64. Sums, membranes, scales and shifts have the type
``accumulator(x.dtype)``, which is never narrower than float32.

* ``moments(x) -> mean, variance``: for each time-step and channel, ``[T, C]``. The variance is biased, and computed
  without cancellation.
* ``scan(x, scale, shift, dynamics, membrane, halve) -> output``: runs the neuron over T on the current
  ``scale[t] * x[t] + shift[t]`` (or on x, if they are None). The neuron starts from ``membrane [M, C]``, which is
  updated in place; with None it starts at 0, and its last state is not kept. The output is the spikes ``[T, M, C]`` in
  x's type. With ``halve = W``, for rows that are maps of even height and of width W, it is their 2 x 2 averages
  ``[T, M / 4, C]``.
* ``reverse_scan(x, centre, scale, shift, dynamics, membrane, grad_output, grad_membrane, halve)
  -> dy, dscale, dshift``: recomputes the membranes from the scan's starting point (only x was kept) and runs the scan
  backwards. ``dy`` ``[T, M, C]`` is the gradient for the normalised current, in x's type. ``dscale`` and ``dshift``,
  ``[T, C]``, are the sums of ``dy * (x - centre)`` and of ``dy``; the terms are taken around ``centre [T, C]`` so that
  they do not cancel. Both are None without a scale. ``grad_membrane [M, C]`` is the gradient for the membrane after the
  scan. It is overwritten with the gradient for the membrane at the start. None means that the former is zero and the
  latter is not needed.
* ``combine(dy, x, scale, mean, dmean, dvariance) -> dx``: ``scale * dy + dmean / M + 2 (x - mean) dvariance / M``, with
  ``x - mean`` computed before the product, so that nothing cancels. It may overwrite dy.
* ``poisson(rate, time_steps, key, samples, start, dtype) -> spikes``: signed spikes ``[T, N, C, H, W]``, channels-last
  in memory, for images ``rate [N, C, H, W]`` in [-1, 1]. At step t, pixel p of sample n fires ``sign(rate)`` if the
  upper 24 bits of its keyed word (see `bntt.spiking.randomness`, position ``t * C * H * W + p``) are below
  ``|rate| * 2**24``. All backends give the same spikes.

``backend_for`` chooses the backend. ``BNTT_KERNELS=plain`` in the environment turns the fused backends off.
"""

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bntt.common import environment


class Dynamics(NamedTuple):
    """The parameters of a neuron with linear leak (Eq. 4) and of its surrogate gradient (Eq. 8)."""

    leak: float
    threshold: float
    hard_reset: bool
    alpha: float


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type of sums and membranes for values of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Unavailable(Exception):
    """A backend cannot be used here; the message says why in one line."""


def backend_for(x: Tensor) -> ModuleType:
    """The fastest backend for this tensor's device and precision."""
    if x.dtype not in (torch.float32, torch.bfloat16) or environment.plain_kernels():
        return import_module(f"{__name__}.plain")
    return _fused(x.device.type)


@cache
def _fused(device_type: str) -> ModuleType:
    """The device's fused backend, or the plain one where it has none.

    If the fused backend cannot be loaded or fails its check, the plain one is used too; a message on stderr says so.
    """
    from bntt.spiking.kernels import checks, plain

    name = {"cpu": "native", "cuda": "gpu"}.get(device_type)
    if name is None:
        return plain
    try:
        backend = import_module(f"{__name__}.{name}")
        fault = checks.fault(backend, torch.device(device_type))
        if fault is None:
            return backend
    except Exception as error:  # of a compiler, a driver, a missing package: in any case plain PyTorch runs
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    print(f"the {name} kernels are not used, plain PyTorch runs instead (slower): {fault}", file=sys.stderr, flush=True)
    return plain


def event_layer_for(x: Tensor) -> Callable[..., Any] | None:
    """The event-driven layer for inference on these spikes; None where their device has none."""
    return getattr(backend_for(x), "event_layer", None)


def spikes_held_in(like: Tensor) -> torch.dtype:
    """The type in which inference holds spikes: bfloat16 for the event-driven layer, where it is exact and faster."""
    return torch.bfloat16 if event_layer_for(like) else like.dtype


def name_for(device: torch.device) -> str:
    """The name of the backend for float32 and bfloat16 on a device, for the run's record."""
    return backend_for(torch.empty(0, device=device)).__name__.rpartition(".")[2]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, with which it computes faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
