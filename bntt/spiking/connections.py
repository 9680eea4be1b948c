"""Connections that compute in the precision of their input spikes, and leave out what is silent.

A spike is 0, 1 or -1, and an average of four spikes is a multiple of 1/4. Four times any of these fits into a byte
exactly; so a CPU keeps spikes as bytes for the backward pass. Weights are kept in float32 and rounded to the spikes'
type where they are used. Sums are taken in float32.

While a CPU makes the bytes, it counts the spikes of each step. The current of a step without spikes is zero, and so is
its share of the weights' gradient: only the steps from the first spike to the last are convolved. Where spikes are few
among these, too, 3 x 3 convolutions and the gradients of their weights visit the spikes and leave out the zeros
(`bntt.spiking.kernels.native.sparse_currents`). Which way is taken depends on the density of this layer's spikes in
this batch and on the processor's instructions, and on nothing that was timed, so a training can be repeated to the bit.
The two ways differ in the order of their sums. The gradient for the input is always dense.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules import module as torch_modules

from bntt.spiking.kernels import QUARTERS, accumulator, backend_for, eagerly, floating, ordinary

PIECE = 2**22  # spikes converted from bytes at once in the backward pass: enough for full speed, and little memory

Settings = tuple[Any, Any, Any, int]  # stride, padding, dilation, groups of a convolution


@eagerly
def connect(connection: nn.Module, spikes: Tensor) -> Tensor:
    """Currents ``[T, N, ...]`` of ``spikes [T, N, ...]`` through a stateless module, as one batch of T * N.

    Convolutions and linear layers without bias run in the precision of the spikes, or of autocast where that is on.
    Integers and booleans are taken in the precision of the weights. Any other module, and any module with hooks, is
    called as it is (`as_module`). Raises ValueError for a convolution with padding ``"same"``, and for spikes that are
    no real numbers.
    """
    images = floating(spikes, "spikes", precision(connection)).flatten(0, 1)
    if hooked(connection):
        current = as_module(connection, images)
    elif type(connection) is nn.Linear and connection.bias is None:
        current = _through(images, connection.weight, None, len(spikes))
    elif type(connection) is nn.Conv2d and connection.bias is None and connection.padding_mode == "zeros":
        padding = [0, 0] if connection.padding == "valid" else connection.padding
        if padding == "same":
            raise ValueError("a convolution over spikes takes its padding as numbers, not as 'same'")
        settings = (connection.stride, padding, connection.dilation, connection.groups)
        current = _through(images, connection.weight, settings, len(spikes))
    else:
        current = as_module(connection, images)
    return current.unflatten(0, spikes.shape[:2])


def as_module(module: nn.Module, images: Tensor) -> Tensor:
    """Call a module on arrays ``[N, ...]`` whose type need not be that of its weights.

    Half precision before float32 weights is computed by autocast, which rounds weights as `connect` does. Otherwise the
    module computes in the precision of its weights. The result has the type of ``images``, or that of the weights if
    ``images`` are integers or booleans.
    """
    images = floating(images, "arrays", precision(module))
    kind, device = precision(module, images.dtype), images.device.type
    if kind == images.dtype:
        return module(images)
    half = images.dtype in (torch.float16, torch.bfloat16) and kind == torch.float32
    if half and torch.amp.is_autocast_available(device):
        with torch.autocast(device, images.dtype):
            return module(images).to(images.dtype)
    return module(images.to(kind)).to(images.dtype)


def hooked(module: nn.Module) -> bool:
    """Whether a module has hooks, or all modules have. If so, the module itself must be called."""
    own = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(own) or bool(torch_modules._has_any_global_hook())


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors that are attributes, as the parameters of `nn.DataParallel`'s replicas are."""
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        yield from (a for a in vars(part).values() if isinstance(a, Tensor))


def precision(module: nn.Module, otherwise: torch.dtype = torch.float32) -> torch.dtype:
    """The type of a module's weights, or ``otherwise`` where it has none."""
    return next((a.dtype for a in tensors_of(module) if a.is_floating_point()), otherwise)


def _through(images: Tensor, weight: Tensor, settings: Settings | None, steps: int) -> Tensor:
    kind = images.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and images.dtype != torch.float64:
        images = images.to(torch.get_autocast_dtype(kind))
    if ordinary(images, weight):
        return _Connect.apply(images, weight, settings, steps)
    return _current(images, weight, settings)


def _current(images: Tensor, weight: Tensor, settings: Settings | None) -> Tensor:
    narrow = weight.to(images.dtype)
    return F.linear(images, narrow) if settings is None else torch.conv2d(images, narrow, None, *settings)


class _Stretch(NamedTuple):
    """The images from the first step with a spike to the last, and the share of their values that are not zero."""

    first: int
    end: int
    density: float


def _kept(backend: ModuleType, images: Tensor, steps: int) -> tuple[Tensor, _Stretch]:
    """Spikes as they are kept for the backward pass, and where they are.

    A GPU keeps them as they are, because two more passes over them would take a seventh of a step, and looks for none,
    because it would have to be waited for.
    """
    found = backend.quarters(images, steps) if images.device.type == "cpu" and images.numel() else None
    if found is None:
        return images, _Stretch(0, len(images), 1.0)
    kept, counts = found
    some, size = counts.nonzero().flatten().tolist() or [0], len(images) // steps
    first, end = some[0] * size, (some[-1] + 1) * size
    return kept, _Stretch(first, end, int(counts.sum()) / kept[first:end].numel())


def _sparse_below(
    backend: ModuleType, images: Tensor, kept: Tensor, weight: Tensor, settings: Settings | None
) -> tuple[float, float]:
    """The densities below which currents and the weights' gradient visit spikes; 0 where they cannot."""
    if kept is images or settings is None or not hasattr(backend, "sparse_below"):
        return 0.0, 0.0
    return backend.sparse_below(images, weight, settings)


class _Connect(torch.autograd.Function):
    """A convolution, or a matrix product where ``settings`` is None, of the images of ``steps`` time-steps."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, settings: Settings | None, steps: int) -> Tensor:
        backend = backend_for(images)
        kept, stretch = _kept(backend, images, steps)
        below, gradient_below = _sparse_below(backend, images, kept, weight, settings)
        ctx.save_for_backward(kept if ctx.needs_input_grad[1] else None, weight)
        ctx.settings, ctx.kind, ctx.shape = settings, images.dtype, images.shape
        ctx.stretch, ctx.sparse = stretch, stretch.density < gradient_below
        if stretch.density < below:
            return backend.sparse_currents(kept, weight, images.dtype)
        current = _current(images[stretch.first : stretch.end], weight, settings)
        if len(current) == len(images):
            return current
        silent = [0, 0] * (current.dim() - 1) + [stretch.first, len(images) - stretch.end]
        return F.pad(current, silent)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        kept, weight = ctx.saved_tensors
        narrow = weight.to(ctx.kind)
        of_images = of_weight = None
        if ctx.needs_input_grad[1]:
            if ctx.sparse:
                whole = grad.contiguous(memory_format=torch.channels_last)
                of_weight = backend_for(whole).sparse_weight_gradient(kept, whole)
            else:
                stretch = slice(ctx.stretch.first, ctx.stretch.end)
                of_weight = _dense_gradient_of_weight(kept[stretch], narrow, grad[stretch], ctx.settings)
            of_weight = of_weight.to(weight.dtype)
        if ctx.needs_input_grad[0]:
            of_images = _gradient_of_images(ctx.shape, narrow, grad, ctx.settings)
        return of_images, of_weight, None, None


def _dense_gradient_of_weight(kept: Tensor, weight: Tensor, upstream: Tensor, settings: Settings | None) -> Tensor:
    piece = max(1, PIECE // kept[0].numel()) if kept.device.type == "cpu" else len(kept)
    parts = (
        _gradient_of_weight(images.to(weight.dtype), weight, of_current, settings)
        for images, of_current in zip(kept.split(piece), upstream.split(piece), strict=True)
    )
    total = next(parts).to(accumulator(weight.dtype))  # adding it to zeros would take one more wide copy
    for part in parts:
        total.add_(part)
    return total.mul_(1 / QUARTERS) if kept.dtype == torch.int8 else total


def _gradient_of_images(shape: torch.Size, weight: Tensor, upstream: Tensor, settings: Settings | None) -> Tensor:
    if settings is None:
        return upstream @ weight
    stride, padding, dilation, groups = settings
    # Rows and columns that a stride leaves over at the far edge; the shape of the result does not determine them.
    rest = [
        (side + 2 * p - d * (k - 1) - 1) % s
        for side, s, p, d, k in zip(shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
    ]
    return torch.conv_transpose2d(upstream, weight, None, stride, padding, rest, groups, dilation)


def _gradient_of_weight(images: Tensor, weight: Tensor, upstream: Tensor, settings: Settings | None) -> Tensor:
    if settings is None:
        return upstream.T @ images
    stride, padding, dilation, groups = settings
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        upstream, images, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
    )[1]
