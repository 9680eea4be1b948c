"""What a fused backend must pass before it is used, and what its arguments must pass before a pointer is taken.

The self-check, `fault`, compares every pass of a backend with the plain one in float64, on small arrays.
"""

from collections.abc import Mapping
from functools import partial
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from bntt.spiking.kernels import FUSED, Dynamics, ordinary, plain
from bntt.spiking.randomness import generator

NONE: Mapping[str, Tensor | None] = {}
STEPS, MAPS, WIDTH = 7, 2, 4  # the rows form maps, so that they can be averaged 2 x 2
# Relative to the largest entry: about 300 and 5 rounding errors. No sum here has more than 32 terms, all of them small.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}


def tensor(
    name: str, found: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, because: str = ""
) -> None:
    """Raise ValueError unless an `ordinary` tensor has the shape, type, device and layout that a kernel expects."""
    right = found.is_contiguous() and not found.is_neg()
    if not right or found.shape != shape or found.dtype != dtype or found.device != device:
        got = f"{tuple(found.shape)} of {found.dtype} on {found.device}, {'' if right else 'not '}contiguous"
        raise ValueError(f"{name} must be {shape} of {dtype} on {device}, contiguous; got {got}{because}")
    if 0 in shape or not found.untyped_storage().nbytes():
        raise ValueError(f"{name} is empty")


def memory(devices: tuple[str, ...], first: Tensor, *others: Tensor | None) -> None:
    """Raise ValueError unless a kernel may read these tensors, of which the first is on one of ``devices``."""
    if not ordinary(first, *others):
        raise ValueError("kernels take ordinary dense tensors, not such as are traced or transformed")
    if first.device.type not in devices:
        raise ValueError(f"kernels take tensors on {' or '.join(devices)} here, not on {first.device}")


def arguments(
    devices: tuple[str, ...],
    x: Tensor,
    halve: int | None = None,
    *,
    of_steps: Mapping[str, Tensor | None] = NONE,
    of_neurons: Mapping[str, Tensor | None] = NONE,
    of_currents: Mapping[str, Tensor | None] = NONE,
    of_outputs: Mapping[str, Tensor | None] = NONE,
) -> None:
    """Raise ValueError unless a fused pass may be given the pointers of these tensors, by name.

    Currents ``x [T, M, C]``, on one of ``devices``, decide device and type of all. ``of_steps`` are ``[T, C]`` and
    ``of_neurons`` ``[M, C]``, both float32. ``of_currents`` ``[T, M, C]``, and ``of_outputs`` ``[T, M, C]``, with
    ``halve`` ``[T, M / 4, C]``, have the type of x. None passes, but scale and shift come together.
    """
    memory(devices, x, *of_steps.values(), *of_neurons.values(), *of_currents.values(), *of_outputs.values())
    if x.dim() != 3 or x.dtype not in FUSED:
        raise ValueError(f"x must be rows [T, M, C] of float32 or bfloat16, got {tuple(x.shape)} of {x.dtype}")
    steps, rows, channels = x.shape
    if halve is not None and (halve < 2 or halve % 2 or rows % (2 * halve)):
        raise ValueError(f"{rows} rows are not maps of even height and of even width {halve}")
    out = rows if halve is None else rows // 4
    tensor("x", x, (steps, rows, channels), x.dtype, x.device)
    because = f": it does not belong to currents {tuple(x.shape)}"
    for group, shape, dtype in (
        (of_steps, (steps, channels), torch.float32),
        (of_neurons, (rows, channels), torch.float32),
        (of_currents, (steps, rows, channels), x.dtype),
        (of_outputs, (steps, out, channels), x.dtype),
    ):
        for name, found in group.items():
            if found is not None:
                tensor(name, found, shape, dtype, x.device, because)
    if "shift" in of_steps and (of_steps["scale"] is None) != (of_steps["shift"] is None):
        raise ValueError("scale and shift must be given together, or neither of them")


def coding(
    devices: tuple[str, ...],
    rate: Tensor,
    time_steps: int,
    key: int | Tensor,
    samples: Tensor,
    start: int,
    dtype: torch.dtype,
) -> None:
    """Raise ValueError unless a fused Poisson coder may be given these arguments."""
    memory(devices, rate, samples, key if isinstance(key, Tensor) else None)
    if rate.dim() != 4 or not rate.is_floating_point():
        raise ValueError(f"rate must be [N, C, H, W] of floating-point numbers, got {tuple(rate.shape)}, {rate.dtype}")
    tensor("rate", rate, tuple(rate.shape), rate.dtype, rate.device)
    if samples.is_floating_point() or samples.is_complex():
        raise ValueError(f"samples must be integers, not {samples.dtype}")
    tensor("samples", samples, (len(rate),), samples.dtype, rate.device)
    if isinstance(key, Tensor):
        tensor("key", key, (2,), torch.int64, rate.device)
    elif not 0 <= key < 2**64:
        raise ValueError(f"key must be of 64 bits, not {key}")
    if time_steps < 1 or start < 0 or dtype not in FUSED:
        raise ValueError(f"no {time_steps} steps from step {start} of {dtype}: at least 1, from 0, float32 or bfloat16")


def fault(backend: ModuleType, device: torch.device) -> str | None:
    """One line that says what disagrees with the plain backend; None if nothing does."""
    for dtype in (torch.float32, torch.bfloat16):
        for channels in (80, 3):  # full vectors of channels, and a remainder
            for hard in (False, True):
                for halve in (None, WIDTH):
                    if wrong := _wrong(_compare(backend, device, dtype, channels, hard, halve), dtype):
                        return wrong
            if hasattr(backend, "sparse_currents") and (wrong := _wrong(_of_spikes(backend, dtype, channels), dtype)):
                return wrong
    return None


def _wrong(pairs: dict[str, tuple[Tensor, Tensor]], dtype: torch.dtype) -> str | None:
    """What disagrees of results found and expected, by name; None if nothing does."""
    for what, (found, expected) in pairs.items():
        error = (found.double().cpu() - expected).abs().max().item() / expected.abs().max().item()
        if not error <= (0 if what in ("spikes", "poisson") else TOLERANCE[dtype]):
            return f"{what} in {dtype} is off by {error:.1e} in the self-check"
    return None


def _eighths(draws: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(-16, 17, shape, generator=draws, device="cpu").double() / 8


def _compare(
    backend: ModuleType, device: torch.device, dtype: torch.dtype, channels: int, hard: bool, halve: int | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """The backend's results and the expected ones, by name, on equal currents."""
    draws = generator("self-check", channels)
    rows = MAPS * WIDTH * WIDTH
    eighths = partial(_eighths, draws)
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
    rate, samples = (eighths(3, channels, 2, 3) / 2).float(), torch.tensor([5, 0, 2], device="cpu")
    key = 0xFEDCBA9876543210
    spikes = backend.poisson(rate.to(device), 4, key, samples.to(device), 2, dtype)
    return pairs | {"poisson": (spikes, plain.poisson(rate, 4, key, samples, 2, torch.float64))}


def _of_spikes(backend: ModuleType, dtype: torch.dtype, channels: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Currents and the weights' gradient that visit spikes, and those of a dense convolution."""
    draws = generator("self-check of spikes", channels)
    maps, weight = (2 * _eighths(draws, 6, channels, 3, 4)).clamp(-1, 1), _eighths(draws, channels, channels, 3, 3)
    current = torch.conv2d(maps, weight, padding=1)
    upstream = _eighths(draws, *current.shape)
    of_weight = conv2d_weight(maps, list(weight.shape), upstream, padding=1)
    whole, kept = (a.to(dtype, memory_format=torch.channels_last) for a in (upstream, maps))
    kept, _ = backend.quarters(kept, 3)
    return {
        "currents of spikes": (backend.sparse_currents(kept, weight.float(), dtype), current),
        "the weights' gradient": (backend.sparse_weight_gradient(kept, whole), of_weight),
    }
