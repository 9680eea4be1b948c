"""Compares every pass of a backend with the plain one in float64, on small arrays, before the backend is used."""

from types import ModuleType

import torch
from torch import Tensor

from bntt.spiking.kernels import Dynamics, plain
from bntt.spiking.randomness import generator

STEPS, MAPS, WIDTH = 7, 2, 4  # the rows form maps, so that they can be averaged 2 x 2
# Relative to the largest entry: about 300 and 5 rounding errors. No sum here has more than 32 terms, all of them small.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}


def fault(backend: ModuleType, device: torch.device) -> str | None:
    """One line that says what disagrees with the plain backend; None if nothing does."""
    for dtype in (torch.float32, torch.bfloat16):
        for channels in (80, 3):  # full vectors of channels, and a remainder
            for hard in (False, True):
                for halve in (None, WIDTH):
                    pairs = _compare(backend, device, dtype, channels, hard, halve)
                    for what, (found, expected) in pairs.items():
                        error = (found.double().cpu() - expected).abs().max().item() / expected.abs().max().item()
                        if not error <= (0 if what in ("spikes", "poisson") else TOLERANCE[dtype]):
                            return f"{what} in {dtype} is off by {error:.1e} in the self-check"
    return None


def _compare(
    backend: ModuleType, device: torch.device, dtype: torch.dtype, channels: int, hard: bool, halve: int | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """The backend's results and the expected ones, by name, on equal currents."""
    draws = generator("self-check", channels)
    rows = MAPS * WIDTH * WIDTH

    def eighths(*shape: int) -> Tensor:
        return torch.randint(-16, 17, shape, generator=draws).double() / 8

    x = eighths(STEPS, rows, channels)
    upstream = eighths(STEPS, rows // 4 if halve else rows, channels)
    scale, shift, dmean, dvariance = eighths(4, STEPS, channels)
    rest, left = eighths(2, rows, channels)
    # With a leak of 1/2 no membrane is ever rounded, so no membrane can be on the wrong side of the threshold.
    dynamics = Dynamics(0.5, 1.0, hard, 0.25)

    def run(module: ModuleType, kind: torch.dtype, where: torch.device) -> dict[str, Tensor]:
        wide = torch.float64 if kind == torch.float64 else torch.float32
        current, grad = (a.to(where, kind) for a in (x, upstream))
        s, b, dm, dv, u, g = (a.to(where, wide).clone() for a in (scale, shift, dmean, dvariance, rest, left))
        mean, variance = module.moments(current)
        start = u.clone()
        spikes = module.scan(current, s, b, dynamics, u, halve)
        dy, dscale, dshift = module.reverse_scan(current, mean, s, b, dynamics, start, grad, g, halve)
        found = {"mean": mean, "variance": variance, "spikes": spikes, "membrane": u, "dy": dy.clone()}
        found |= {"dscale": dscale, "dshift": dshift, "grad_membrane": g}
        return found | {"dx": module.combine(dy, current, s, mean, dm, dv)}

    found, expected = run(backend, dtype, device), run(plain, torch.float64, torch.device("cpu"))
    pairs = {name: (found[name], expected[name]) for name in found}
    rate, samples = (eighths(3, channels, 2, 3) / 2).float(), torch.tensor([5, 0, 2])
    key = 0xFEDCBA9876543210
    spikes = backend.poisson(rate.to(device), 4, key, samples.to(device), 2, dtype)
    return pairs | {"poisson": (spikes, plain.poisson(rate, 4, key, samples, 2, torch.float64))}
