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
from functools import cache, wraps
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from bntt.common import environment

Result = TypeVar("Result")
FUSED = (torch.float32, torch.bfloat16)  # what the fused backends compute with
QUARTERS = 4  # a byte counts quarters of a spike
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Dynamics(NamedTuple):
    """The parameters of a neuron with linear leak (Eq. 4) and of its surrogate gradient (Eq. 8)."""

    leak: float
    threshold: float
    hard_reset: bool
    alpha: float


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type of sums and membranes for values of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def floating(x: Tensor, what: str, kind: torch.dtype = torch.float32) -> Tensor:
    """``x`` as floating-point numbers: integers and booleans become ``kind``, which is never PyTorch's default type.

    Raises ValueError for complex numbers and whatever else is no array of real numbers.
    """
    if x.layout == torch.strided and x.dtype in FLOATING:
        return x.resolve_neg()
    if x.layout != torch.strided or x.is_complex() or x.is_floating_point() or x.is_quantized:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATING)
        raise ValueError(f"{what} are dense arrays of {names}, integers or booleans, not {x.layout} of {x.dtype}")
    return x.to(kind)


def ordinary(*tensors: Tensor | None) -> bool:
    """Whether a kernel may read the memory of these tensors.

    It may not while a program is traced, exported or compiled, within the transforms of `torch.func`, in forward-mode
    differentiation, under a dispatch mode, and for subclasses of Tensor. There, only PyTorch's own operations work.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_in_torch_dispatch_mode():
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    dual = forward_ad._current_level >= 0
    return all(
        a is None or (_has_memory(a) and not (dual and forward_ad.unpack_dual(a).tangent is not None)) for a in tensors
    )


def _has_memory(x: Tensor) -> bool:
    if type(x) is not Tensor and type(x) is not nn.Parameter:
        return False
    try:
        x.untyped_storage()
    except NotImplementedError:  # sparse, or a batch of gradients
        return False
    return True


def eagerly(function: Callable[..., Result]) -> Callable[..., Result]:
    """Leave this function out of what `torch.compile` compiles: it runs as ever, between two compiled pieces.

    A program that is exported has no such gaps; there the function takes part. The compiler is loaded only when it is
    at work, which `torch.compiler.disable` does at once: a second of every start.
    """
    outside = _disable_dynamo(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return outside(*args, **kwargs)
        return function(*args, **kwargs)

    # A code object of its own, since the compiler counts by it how often it had to compile anew.
    call.__code__ = call.__code__.replace(co_name=function.__name__)  # type: ignore[attr-defined]
    return call


class Unavailable(Exception):
    """A backend cannot be used here; the message says why in one line."""


def backend_for(x: Tensor) -> ModuleType:
    """The fastest backend for this tensor's device and precision; the plain one for what is not `ordinary`."""
    if x.dtype not in FUSED or environment.plain_kernels() or not ordinary(x):
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
    return backend_for(torch.empty(0, dtype=torch.float32, device=device)).__name__.rpartition(".")[2]


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, with which it computes faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
