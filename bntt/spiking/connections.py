"""Connections that compute in the precision of their input spikes, which a CPU can keep as bytes for the backward pass.

A spike is 0 or 1, and an average of four spikes is a multiple of 1/4. Four times either value fits into a byte exactly.
Weights are kept in float32 and rounded to the spikes' type where they are used. The convolution library accumulates in
float32.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules import module as torch_modules

from bntt.spiking.kernels import accumulator, eagerly, floating, ordinary

QUARTERS = 4  # a byte counts quarters of a spike
PIECE = 2**22  # spikes converted from bytes at once in the backward pass: enough for full speed, and little memory
CACHED = 2**19  # spikes converted to bytes at once: few enough to stay in the cache

Settings = tuple[Any, Any, Any, int]  # stride, padding, dilation, groups of a convolution


@eagerly
def connect(connection: nn.Module, spikes: Tensor, as_bytes: bool = False) -> Tensor:
    """Currents ``[T, N, ...]`` of ``spikes [T, N, ...]`` through a stateless module, as one batch of T * N.

    Convolutions and linear layers without bias run in the precision of the spikes, or of autocast where that is on.
    Integers and booleans are taken in the precision of the weights. With ``as_bytes``, the spikes must be multiples of
    1/4 below 32 in absolute value. Any other module, and any module with hooks, is called as it is (`as_module`).
    Raises ValueError for a convolution with padding ``"same"``, and for spikes that are no real numbers.
    """
    images = floating(spikes, "spikes", precision(connection)).flatten(0, 1)
    if hooked(connection):
        current = as_module(connection, images)
    elif type(connection) is nn.Linear and connection.bias is None:
        current = _through(images, connection.weight, None, as_bytes)
    elif type(connection) is nn.Conv2d and connection.bias is None and connection.padding_mode == "zeros":
        padding = [0, 0] if connection.padding == "valid" else connection.padding
        if padding == "same":
            raise ValueError("a convolution over spikes takes its padding as numbers, not as 'same'")
        settings = (connection.stride, padding, connection.dilation, connection.groups)
        current = _through(images, connection.weight, settings, as_bytes)
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


def _through(images: Tensor, weight: Tensor, settings: Settings | None, as_bytes: bool) -> Tensor:
    kind = images.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and images.dtype != torch.float64:
        images = images.to(torch.get_autocast_dtype(kind))
    if ordinary(images, weight):
        return _Connect.apply(images, weight, settings, as_bytes)
    return _current(images, weight, settings)


def _current(images: Tensor, weight: Tensor, settings: Settings | None) -> Tensor:
    narrow = weight.to(images.dtype)
    return F.linear(images, narrow) if settings is None else torch.conv2d(images, narrow, None, *settings)


class _Connect(torch.autograd.Function):
    """A convolution, or a matrix product where ``settings`` is None."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, settings: Settings | None, as_bytes: bool) -> Tensor:
        ctx.settings, ctx.kind = settings, images.dtype
        stored = None
        if ctx.needs_input_grad[1]:
            # On a GPU they stay as they are: two more passes over them would take a seventh of a step.
            stored = _to_bytes(images) if as_bytes and images.device.type == "cpu" else images
        ctx.save_for_backward(stored, weight)
        return _current(images, weight, settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        stored, weight = ctx.saved_tensors
        need_images, need_weight = ctx.needs_input_grad[:2]
        narrow = weight.to(ctx.kind)
        of_images = of_weight = None
        if need_weight:
            of_weight = torch.zeros_like(weight, dtype=accumulator(weight.dtype))
            piece = max(1, PIECE // stored[0].numel()) if stored.device.type == "cpu" else len(stored)
            for images, upstream in zip(stored.split(piece), grad.split(piece), strict=True):
                scale = 1 if images.dtype == ctx.kind else 1 / QUARTERS
                of_weight.add_(_gradient_of_weight(images.to(ctx.kind), narrow, upstream, ctx.settings), alpha=scale)
            of_weight = of_weight.to(weight.dtype)
        if need_images:
            of_images = _gradient_of_images(stored.shape, narrow, grad, ctx.settings)
        return of_images, of_weight, None, None


def _to_bytes(images: Tensor) -> Tensor:
    stored = torch.empty_like(images, dtype=torch.int8)
    piece = max(1, CACHED // images[0].numel())
    for narrow, wide in zip(stored.split(piece), images.split(piece), strict=True):
        narrow.copy_(wide * QUARTERS)
    return stored


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
