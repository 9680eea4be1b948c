"""The four passes in plain PyTorch: the reference for every faster backend. See the package for the contract."""

import torch
from torch import Tensor

from bntt.spiking.kernels import Dynamics


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the rows of each step, ``[T, C]`` each (Eq. 1, Algorithm 1)."""
    mean = x.mean(1)
    return mean, (x - mean[:, None]).square_().mean(1)


def _at(values: Tensor | None, t: int) -> Tensor | None:
    return None if values is None else values[t]


def _integrate(u: Tensor, x: Tensor, scale: Tensor | None, shift: Tensor | None, leak: float) -> None:
    """Eq. 9, in place: ``u <- leak * u + scale * x + shift``. Without a norm it is Eq. 4."""
    u.mul_(leak)
    if scale is None or shift is None:
        u.add_(x)
    else:
        u.addcmul_(x, scale).add_(shift)


def _reset(u: Tensor, spikes: Tensor, dynamics: Dynamics) -> None:
    """What is left of the membrane after a spike: nothing (hard), or what exceeded the threshold (soft)."""
    if dynamics.hard_reset:
        u.masked_fill_(spikes != 0, 0.0)
    else:
        u.sub_(spikes, alpha=dynamics.threshold)


def scan(x: Tensor, scale: Tensor | None, shift: Tensor | None, dynamics: Dynamics, membrane: Tensor) -> Tensor:
    """Spikes ``[T, M, C]``; a neuron fires when its membrane exceeds the threshold strictly, as released."""
    spikes = torch.empty_like(x)
    for t in range(len(x)):
        _integrate(membrane, x[t], _at(scale, t), _at(shift, t), dynamics.leak)
        torch.gt(membrane, dynamics.threshold, out=spikes[t])
        _reset(membrane, spikes[t], dynamics)
    return spikes


def reverse_scan(
    x: Tensor,
    centre: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    dynamics: Dynamics,
    grad_spikes: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Back-propagation through time (Eqs. 6, 10) with no gradient through the reset."""
    leak, threshold, hard_reset, alpha = dynamics
    membranes = torch.empty_like(x)  # u[t] before the reset
    u, buffer = torch.zeros_like(x[0]), torch.empty_like(x[0])
    for t in range(len(x)):
        _integrate(u, x[t], _at(scale, t), _at(shift, t), leak)
        membranes[t] = u
        torch.gt(u, threshold, out=buffer)
        _reset(u, buffer, dynamics)

    dy = membranes  # each step's membrane is read once, just before its gradient takes its place
    future = torch.zeros_like(u)
    for t in reversed(range(len(x))):
        u = membranes[t]
        if hard_reset:
            future.masked_fill_(u > threshold, 0.0)
        slope = torch.sub(u, threshold, out=buffer).abs_().mul_(-alpha / threshold).add_(alpha).clamp_(min=0)  # Eq. 8
        dy[t] = future.mul_(leak).addcmul_(grad_spikes[t], slope)
    if scale is None:
        return dy, None, None
    centred = x if centre is None else x - centre[:, None]
    return dy, (dy * centred).sum(1), dy.sum(1)


def combine(
    dy: Tensor,
    x: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvariance: Tensor | None,
) -> Tensor:
    """The gradient for the current: through the affine map, and through the batch moments where they were used."""
    if scale is None:
        return dy
    dx = dy * scale[:, None]
    if mean is not None and dmean is not None and dvariance is not None:
        rows = x.shape[1]
        slope = 2 * dvariance / rows
        dx.addcmul_(x, slope[:, None]).add_((dmean / rows - slope * mean)[:, None])
    return dx
