"""The passes in plain PyTorch, the reference for every faster backend. `bntt.spiking.kernels` has the contract."""

import torch
from torch import Tensor

from bntt.spiking import randomness
from bntt.spiking.kernels import QUARTERS, Dynamics, accumulator

CACHED = 2**19  # spikes made bytes at once: few enough to stay in the cache


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the rows of each step, ``[T, C]`` each (Eq. 1, Algorithm 1)."""
    x = x.to(accumulator(x.dtype))
    mean = x.mean(1)
    return mean, (x - mean[:, None]).square().mean(1)


def _at(values: Tensor | None, t: int) -> Tensor | None:
    return None if values is None else values[t]


def _integrate(u: Tensor, x: Tensor, scale: Tensor | None, shift: Tensor | None, leak: float) -> None:
    """Eq. 9, in place: ``u <- leak * u + scale * x + shift``. Without a norm it is Eq. 4."""
    u.mul_(leak)
    if scale is None or shift is None:
        u.add_(x)
    else:
        u.addcmul_(x.to(u.dtype), scale).add_(shift)


def _reset(u: Tensor, spikes: Tensor, dynamics: Dynamics) -> None:
    """Reset the membrane in place after a spike: to zero (hard), or by subtracting the threshold (soft)."""
    if dynamics.hard_reset:
        u.masked_fill_(spikes != 0, 0.0)
    else:
        u.sub_(spikes, alpha=dynamics.threshold)


def _quads(rows: Tensor, width: int) -> Tensor:
    """Rows ``[T, M, C]`` of maps as a view ``[T, M / 2W, 2, W / 2, 2, C]``; axes 2 and 4 are the 2 x 2 window."""
    steps, _, channels = rows.shape
    return rows.reshape(steps, -1, 2, width // 2, 2, channels)


def scan(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    dynamics: Dynamics,
    membrane: Tensor | None = None,
    halve: int | None = None,
) -> Tensor:
    """Spikes ``[T, M, C]``; a neuron fires if its membrane is strictly above the threshold, as in the released code."""
    u = _rest(x) if membrane is None else membrane
    spikes = torch.empty_like(x)
    for t in range(len(x)):
        _integrate(u, x[t], _at(scale, t), _at(shift, t), dynamics.leak)
        torch.gt(u, dynamics.threshold, out=spikes[t])
        _reset(u, spikes[t], dynamics)
    return spikes if halve is None else _quads(spikes, halve).mean((2, 4)).reshape(len(x), -1, x.shape[2])


def unrolled(
    x: Tensor, dynamics: Dynamics, membrane: Tensor | None = None, halve: int | None = None
) -> tuple[Tensor, Tensor]:
    """As `scan` without a norm, written with operations that PyTorch differentiates, records and transforms itself.

    Returns the spikes and the membrane after the last step. The gradient is that of `reverse_scan`.
    """
    leak, threshold, hard_reset, alpha = dynamics
    u = torch.zeros_like(x[0], dtype=accumulator(x.dtype)) if membrane is None else membrane
    spikes = []
    for current in x.unbind():
        u = leak * u + current.to(u.dtype)
        fired = (u > threshold).to(u.dtype)
        d = (u - threshold).clamp(-threshold, threshold)
        ramp = alpha * (d - d * d.abs() / (2 * threshold))  # its derivative is Eq. 8
        spikes.append((fired + (ramp - ramp.detach())).to(x.dtype))
        u = u * (1 - fired) if hard_reset else u - threshold * fired
    out = torch.stack(spikes)
    return (out if halve is None else _quads(out, halve).mean((2, 4)).reshape(len(out), -1, x.shape[2])), u


def _rest(x: Tensor) -> Tensor:
    return torch.zeros_like(x[0], dtype=accumulator(x.dtype))


def reverse_scan(
    x: Tensor,
    centre: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    dynamics: Dynamics,
    membrane: Tensor | None,
    grad_output: Tensor,
    grad_membrane: Tensor | None = None,
    halve: int | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Back-propagation through time (Eqs. 6, 10) with no gradient through the reset."""
    leak, threshold, hard_reset, alpha = dynamics
    membranes = torch.empty_like(x, dtype=accumulator(x.dtype))  # u[t] before the reset
    u = _rest(x) if membrane is None else membrane.clone()
    buffer = torch.empty_like(u)
    for t in range(len(x)):
        _integrate(u, x[t], _at(scale, t), _at(shift, t), leak)
        membranes[t] = u
        torch.gt(u, threshold, out=buffer)
        _reset(u, buffer, dynamics)

    if halve is not None:
        quads = _quads(x, halve)
        grad_output = (grad_output.reshape(*quads.shape[:2], 1, -1, 1, x.shape[2]) / 4).expand(quads.shape)
        grad_output = grad_output.reshape(x.shape)
    dy = membranes  # each step's membrane is read once, just before its gradient takes its place
    future = torch.zeros_like(u) if grad_membrane is None else grad_membrane  # for the membrane after the reset
    for t in reversed(range(len(x))):
        u = membranes[t]
        if hard_reset:
            future.masked_fill_(u > threshold, 0.0)
        slope = torch.sub(u, threshold, out=buffer).abs_().mul_(-alpha / threshold).add_(alpha).clamp_(min=0)  # Eq. 8
        dy[t] = future.addcmul_(grad_output[t].to(u.dtype), slope)
        future.mul_(leak)
    dscale = dshift = None
    if scale is not None:
        centred = x if centre is None else x - centre[:, None]
        dscale, dshift = (dy * centred).sum(1), dy.sum(1)
    return dy.to(x.dtype), dscale, dshift


def combine(
    dy: Tensor,
    x: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvariance: Tensor | None,
) -> Tensor:
    """The gradient for the current, ``[T, M, C]``: through the affine map, and through batch moments if used."""
    if scale is None:
        return dy
    dx = dy * scale[:, None]
    if mean is not None and dmean is not None and dvariance is not None:
        rows = x.shape[1]
        slope = 2 * dvariance / rows
        dx.addcmul_(x - mean[:, None], slope[:, None]).add_((dmean / rows)[:, None])
    return dx.to(x.dtype)


def poisson(
    rate: Tensor, time_steps: int, key: int, samples: Tensor, start: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Keyed spikes ``[T, N, C, H, W]``, channels-last in memory; see `bntt.spiking.kernels`."""
    pixels = rate[0].numel()
    draws = randomness.words(key, samples, time_steps * pixels, start * pixels) >> 8
    probability = (rate.abs().double() * 2**24).long().reshape(len(rate), 1, pixels)
    fired = (draws.reshape(len(rate), time_steps, pixels) < probability).reshape(len(rate), time_steps, *rate.shape[1:])
    spikes = fired.to(dtype) * rate.sign().to(dtype)[:, None]
    return spikes.permute(1, 0, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def quarters(x: Tensor, steps: int) -> tuple[Tensor, Tensor] | None:
    """Bytes that count quarters of a spike, and how many values of each step are not zero; None if not all fit."""
    whole = torch.empty_like(x, dtype=torch.int8)
    piece = max(1, CACHED // max(1, x[0].numel()))
    for narrow, wide in zip(whole.split(piece), x.split(piece), strict=True):
        narrow.copy_(wide * QUARTERS)
        if not torch.equal(narrow.to(x.dtype), wide * QUARTERS):
            return None
    return whole, whole.unflatten(0, (steps, -1)).flatten(1).count_nonzero(1)
