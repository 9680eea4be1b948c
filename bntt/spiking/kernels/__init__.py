"""The passes of the temporal-norm operator and the Poisson coder, behind one interface.

A backend is a module with the five functions below. Currents are rows ``x [T, M, C]``: M samples and positions,
channels innermost, contiguous (a convolution's channels-last output is such an array without a copy), in float32,
bfloat16 or float64. Sums, membranes, scales and shifts are of `accumulator(x.dtype)`, never narrower than float32.

``moments(x) -> mean, variance``
    Per time-step and channel, ``[T, C]``, variance biased, without cancellation.
``scan(x, scale, shift, dynamics, membrane, halve) -> output``
    Runs the neuron over T on the current ``scale[t] * x[t] + shift[t]`` (None: x itself). ``membrane [M, C]`` is where
    it starts and is updated in place; None starts at rest and keeps nothing. The output is the spikes ``[T, M, C]`` in
    x's type, or with ``halve = W``, for rows that are maps of even height and of width W, their 2 x 2 averages
    ``[T, M / 4, C]``.
``reverse_scan(x, centre, scale, shift, dynamics, membrane, grad_output, grad_membrane, halve) -> dy, dscale, dshift``
    Recomputes the membranes from where the scan started (nothing but x is kept) and runs it backwards. ``dy``
    ``[T, M, C]`` is the gradient for the normalised current, in x's type; the sums ``dscale``, ``dshift`` ``[T, C]``
    are taken around ``centre``, that is over ``dy * (x - centre)`` and ``dy``, so that they do not cancel; they are
    None without a scale. ``grad_membrane [M, C]`` comes in as the gradient for the membrane that the scan left behind,
    and goes out as the one for the membrane it started from; None is zero, and not wanted.
``combine(dy, x, scale, mean, dmean, dvariance) -> dx``
    ``scale * dy + dmean / M + 2 (x - mean) dvariance / M``, x centred before it is multiplied, so that nothing cancels;
    may overwrite dy.
``poisson(rate, time_steps, key, samples, start, dtype) -> spikes``
    Signed spikes ``[T, N, C, H, W]``, channels-last in memory, of images ``rate [N, C, H, W]`` in [-1, 1]: at step t,
    pixel p of sample n fires ``sign(rate)`` where the upper 24 bits of its keyed word (see
    `bntt.spiking.randomness`, position ``t * C * H * W + p``) lie below ``|rate| * 2**24``. Every backend gives
    the same spikes.

``backend_for`` chooses. ``BNTT_KERNELS=plain`` in the environment turns the fused backends off.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Dynamics(NamedTuple):
    """What a linear-leak neuron does with its current (Eq. 4) and with a gradient (Eq. 8)."""

    leak: float
    threshold: float
    hard_reset: bool
    alpha: float


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type of sums and membranes over values of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Unavailable(Exception):
    """A backend that cannot be used here, with one line that says why."""


def backend_for(x: Tensor) -> ModuleType:
    """The fastest backend that serves this tensor's device and precision."""
    if x.dtype not in (torch.float32, torch.bfloat16) or os.environ.get("BNTT_KERNELS") == "plain":
        return import_module(f"{__name__}.plain")
    return _fused(x.device.type)


@cache
def _fused(device_type: str) -> ModuleType:
    """The device's fused backend; where there is none, or it fails its check, the plain one, and one line says so."""
    from bntt.spiking.kernels import checks, plain

    name = {"cpu": "native", "cuda": "gpu"}.get(device_type)
    if name is None:
        return plain
    try:
        backend = import_module(f"{__name__}.{name}")
        fault = checks.fault(backend, torch.device(device_type))
        if fault is None:
            return backend
    except Exception as error:  # of a compiler, a driver, a missing package: whatever it is, plain PyTorch runs
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    print(f"the {name} kernels are not used, plain PyTorch runs instead (slower): {fault}", file=sys.stderr, flush=True)
    return plain


def event_layer_for(x: Tensor) -> Callable[..., Any] | None:
    """The event-driven layer for inference on these spikes, where their device has one."""
    return getattr(backend_for(x), "event_layer", None)


def spikes_held_in(like: Tensor) -> torch.dtype:
    """The type in which inference holds its spikes: exact in two bytes, which the event-driven layer reads faster."""
    return torch.bfloat16 if event_layer_for(like) else like.dtype


def name_for(device: torch.device) -> str:
    """The name of the backend that serves float32 and bfloat16 on a device, for the record."""
    return backend_for(torch.empty(0, device=device)).__name__.rpartition(".")[2]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, so that computing in it is faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
