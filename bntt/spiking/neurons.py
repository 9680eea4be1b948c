"""Spiking neurons with a linear leak, and the operator that runs a temporal norm and a neuron together.

Eq. 4: the membrane leaks and adds its current. Above the threshold the neuron fires and is reset, either softly (the
threshold is subtracted) or hard (to zero). Eq. 8: the surrogate gradient is a triangle. No gradient flows through the
reset, as in the released code.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bntt.spiking.connections import hooked, tensors_of
from bntt.spiking.kernels import Dynamics, accumulator, backend_for, eagerly, floating, ordinary, plain
from bntt.spiking.norms import TemporalNorm


def as_rows(x: Tensor) -> Tensor:
    """Currents ``[T, N, C, ...]`` as rows ``[T, M, C]``: a view where x is channels-last, else a copy."""
    return x.movedim(2, -1).flatten(1, -2).contiguous()


def from_rows(rows: Tensor, like: Tensor, divisor: int = 1) -> Tensor:
    """The inverse of `as_rows`: a channels-last view of shape ``like.shape``, with sides divided by ``divisor``."""
    steps, samples, channels, *space = like.shape
    return rows.reshape(steps, samples, *(side // divisor for side in space), channels).movedim(-1, 2)


class _NormScan(torch.autograd.Function):
    """From rows of current to rows of spikes: moments pass, norm on ``[T, C]``, scan pass; backward in reverse order.

    The norm's own arithmetic is ordinary autograd on ``[T, C]`` tensors, which the backward pass runs between the two
    large passes. Returns the spikes, and the membrane after the last step if a membrane to start from was given, else
    None. Both are differentiable.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        membrane: Tensor | None,
        norm: TemporalNorm | None,
        dynamics: Dynamics,
        start: int | None,
        halve: int | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        backend = backend_for(x)
        mean = scale = shift = None
        leaves: list[Tensor] = []
        tiny = None
        if norm is not None:
            with torch.enable_grad():
                if norm.training:
                    mean, spread = backend.moments(x)
                    leaves = [mean.double().requires_grad_(), spread.double().requires_grad_()]
                    tiny = norm.batch_affine(leaves[0], leaves[1], x.shape[1], start)
                else:
                    tiny = norm.inference_affine(start or 0, len(x))
            scale, shift = (a.detach().to(accumulator(x.dtype)).contiguous() for a in tiny)
        left = None if membrane is None else membrane.clone()
        spikes = backend.scan(x, scale, shift, dynamics, left, halve)
        ctx.save_for_backward(x, membrane, mean, scale, shift)
        ctx.dynamics, ctx.halve = dynamics, halve
        ctx.leaves, ctx.tiny, ctx.parameters = leaves, tiny, parameters
        return spikes, left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor, grad_left: Tensor | None) -> tuple[Tensor | None, ...]:
        x, membrane, mean, scale, shift = ctx.saved_tensors
        if not ordinary(x, grad_spikes, grad_left):
            raise RuntimeError("the gradient of spikes is taken eagerly and for one upstream gradient at a time")
        backend = backend_for(x)
        carried = None if grad_left is None else grad_left.clone()
        dy, dscale, dshift = backend.reverse_scan(
            x, mean, scale, shift, ctx.dynamics, membrane, grad_spikes.contiguous(), carried, ctx.halve
        )
        wanted = [*ctx.leaves, *ctx.parameters]
        grads: list[Tensor | None] = [None] * len(wanted)
        if wanted:
            dshift = dshift.double()
            dscale = dscale.double() + (0 if mean is None else mean.double() * dshift)  # undo the centring
            # A norm may have a constant scale or shift, and may ignore a moment or a parameter.
            learned = [(a, da) for a, da in zip(ctx.tiny, (dscale, dshift), strict=True) if a.requires_grad]
            if learned:
                maps, upstream = zip(*learned, strict=True)
                grads = list(torch.autograd.grad(maps, wanted, upstream, retain_graph=True, allow_unused=True))
        of_moments, of_parameters = grads[: len(ctx.leaves)], grads[len(ctx.leaves) :]
        dmean = dvariance = None
        if ctx.leaves:
            dmean, dvariance = (torch.zeros_like(mean) if g is None else g.to(mean.dtype) for g in of_moments)
        dx = backend.combine(dy, x, scale, mean, dmean, dvariance)
        return dx, carried, None, None, None, None, *of_parameters


def _checked(current: Tensor, norm: TemporalNorm | None, membrane: Tensor | None, halve: bool) -> Tensor:
    """The current as floating-point numbers; raises ValueError for arguments that do not go together."""
    if current.dim() < 3 or 0 in current.shape:
        raise ValueError(f"currents are [T, N, C, ...] and not empty, got shape {tuple(current.shape)}")
    if norm is not None:
        norm.check_channels(current)
    if halve and (current.dim() != 5 or current.shape[3] % 2 or current.shape[4] % 2):
        raise ValueError(f"2 x 2 averages need currents [T, N, C, H, W] of even sides, got {tuple(current.shape)}")
    channels = current.shape[2]
    wanted = (current[0].numel() // channels, channels)
    if membrane is not None and (tuple(membrane.shape) != wanted or membrane.device != current.device):
        found = f"{tuple(membrane.shape)} on {membrane.device}"
        raise ValueError(f"the membrane of these currents is {wanted} on {current.device}, got {found}")
    return floating(current, "currents")


def called(norm: TemporalNorm) -> bool:
    """Whether a norm must be called as a module: it has hooks, or a ``forward`` of its own."""
    return hooked(norm) or type(norm).forward is not TemporalNorm.forward


def _normalised(norm: TemporalNorm, current: Tensor, start: int | None) -> Tensor:
    return norm(current) if start is None else norm(current, start)


def at_inference(norm: TemporalNorm, current: Tensor, start: int) -> Tensor:
    """What the norm makes of steps ``start ..`` at inference, whatever mode it is in."""
    training = norm.training
    norm.training = False
    try:
        return norm(current, start)
    finally:
        norm.training = training


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons on currents ``[T, N, C, ...]``; returns spikes of the same shape.

    Parameters
    ----------
    leak
        Lambda of Eq. 4, in [0, 1]; the released code has 0.95.
    threshold
        Firing threshold theta, positive.
    reset
        ``soft`` (a spike subtracts the threshold) or ``hard`` (a spike sets the membrane to zero).
    alpha
        Damping of the surrogate gradient of Eq. 8, ``alpha * max(0, 1 - |u - theta| / theta)``; at least 0. The
        released code differentiates through u / theta, which adds a factor 1 / theta. The two agree at theta = 1.

    Raises
    ------
    ValueError
        For a leak, threshold, reset or alpha outside these ranges.
    """

    def __init__(self, leak: float = 0.95, threshold: float = 1.0, reset: str = "soft", alpha: float = 0.3) -> None:
        super().__init__()
        if not 0 <= leak <= 1:
            raise ValueError(f"leak is between 0 and 1, not {leak}")
        if not 0 < threshold < math.inf:
            raise ValueError(f"threshold is positive and finite, not {threshold}")
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha is at least 0 and finite, not {alpha}")
        if reset not in ("soft", "hard"):
            raise ValueError(f"reset is 'soft' or 'hard', not {reset!r}")
        self.leak, self.threshold, self.reset, self.alpha = leak, threshold, reset, alpha

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(float(self.leak), float(self.threshold), self.reset == "hard", float(self.alpha))

    @eagerly
    def forward(self, current: Tensor, norm: TemporalNorm | None = None, halve: bool = False) -> Tensor:
        """Spikes, from membranes at 0. With ``norm``, the same passes also normalise the current.

        With ``halve``, returns 2 x 2 averages of the spikes, ``[T, N, C, H / 2, W / 2]``; then the currents must be
        ``[T, N, C, H, W]`` with even H and W. Raises ValueError for empty currents, for currents with fewer than 3
        axes, and where the norm has another number of channels or of time-steps.
        """
        return self._run(current, norm, None, None, halve)[0]

    @eagerly
    def advance(
        self, current: Tensor, norm: TemporalNorm | None, start: int, membrane: Tensor, *, halve: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, on steps ``start ..`` of a longer sequence, from ``membrane [M, C]``.

        M is N times the number of positions. Returns the spikes and the membrane after the last step; differentiable in
        the current and the membrane.
        """
        return self._run(current, norm, start, membrane, halve)

    def _run(
        self, current: Tensor, norm: TemporalNorm | None, start: int | None, membrane: Tensor | None, halve: bool
    ) -> tuple[Tensor, Any]:
        current = _checked(current, norm, membrane, halve)
        width = current.shape[-1] if halve else None
        if membrane is not None:
            membrane = membrane.to(accumulator(current.dtype))
        tensors = [] if norm is None else list(tensors_of(norm))
        fused = ordinary(current, membrane, *tensors)
        if norm is not None and (not fused or called(norm)):
            current, norm, tensors = _normalised(norm, current, start), None, []
        rows = as_rows(current)
        if fused:
            wanted = (a for a in tensors if a.requires_grad)
            spikes, membrane = _NormScan.apply(rows, membrane, norm, self.dynamics, start, width, *wanted)
        else:
            spikes, left = plain.unrolled(rows, self.dynamics, membrane, width)
            membrane = None if membrane is None else left
        return from_rows(spikes, current, 2 if halve else 1), membrane

    @eagerly
    @torch.no_grad()
    def resume(
        self, current: Tensor, norm: TemporalNorm | None, start: int, membrane: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Inference on steps ``start ..`` of a longer sequence: spikes, and the membrane ``[M, C]`` after them."""
        current = _checked(current, norm, membrane, False)
        if norm is not None and called(norm):
            current, norm = at_inference(norm, current, start), None
        rows = as_rows(current)
        kind = accumulator(rows.dtype)
        scale = shift = None
        if norm is not None:
            scale, shift = (a.to(kind).contiguous() for a in norm.inference_affine(start, len(rows)))
        membrane = torch.zeros_like(rows[0], dtype=kind) if membrane is None else membrane.to(kind, copy=True)
        spikes = backend_for(rows).scan(rows, scale, shift, self.dynamics, membrane, None)
        return from_rows(spikes, current), membrane

    def extra_repr(self) -> str:
        return f"leak={self.leak}, threshold={self.threshold}, reset={self.reset!r}, alpha={self.alpha}"


class IF(LIF):
    """Integrate-and-fire neurons, which do not leak; converted networks use them. Arguments as for `LIF`."""

    def __init__(self, threshold: float = 1.0, reset: str = "soft", alpha: float = 0.3) -> None:
        super().__init__(1.0, threshold, reset, alpha)
