"""The passes in C++ for the CPU, compiled on the machine that runs them.

`bntt.spiking.kernels` has the contract, ``native.cpp`` the code. Importing this module builds the library. If it cannot
be built, the import raises `Unavailable` with a one-line reason.
"""

import ctypes
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bntt.spiking.kernels import Dynamics, checks, compiled

SOURCES = [Path(__file__).with_name(name) for name in ("events.cpp", "native.cpp", "sparse.cpp")]
FEW = 16  # input channels, of which fewer make visiting spikes slow
# The measured share of non-zero inputs above which visiting all inputs is faster than visiting spikes at inference: in
# general, and for layers with fewer than FEW input channels.
DENSE_ABOVE, DENSE_ABOVE_OF_FEW = 0.4, 0.06
# The density of spikes below which visiting them is faster than oneDNN's dense arithmetic in training, for currents and
# for the gradient of the weights: up to a number of output channels. Currents of fewer than FEW input channels are
# always dense. Measured on one core each of two processors (docs/performance.md); benchmarks/densities.py measures them
# anew. With AMX, dense bfloat16 is many times as fast.
SPARSE_BELOW = {
    torch.float32: {16: (0.3, 0.3), 32: (0.45, 0.45), math.inf: (0.33, 0.6)},
    torch.bfloat16: {16: (0.09, 0.23), 32: (0.2, 0.5), math.inf: (0.33, 0.55)},
}
SPARSE_BELOW_WITH_AMX = {16: (0.02, 0.14), 32: (0.03, 0.2), math.inf: (0.04, 0.15)}  # of bfloat16
TAPS = ((3, 3), (1, 1), (1, 1), (1, 1), 1)  # kernel, stride, padding, dilation, groups of what can visit spikes
CPU = ("cpu",)
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

SIGNATURES = {
    "moments": "pnnnpp",
    "scan": "pnnnppffipnp",
    "reverse_scan": "pnnnpppfffipppnppp",
    "combine": "ppnnnppppp",
    "poisson": "pnnnnkpnp",
    "quarters": "pnnppp",
    "sparse_currents": "pnnnnnpp",
    "sparse_weight_gradient": "ppnnnnnp",
}
_library = compiled.load(
    "kernels",
    SOURCES,
    {f"{name}_{function}": kinds for name in NAMES.values() for function, kinds in SIGNATURES.items()},
)


def _call(function: str, *arguments: Tensor | float | int | None, dtype: torch.dtype) -> None:
    """Call ``<type>_<function>`` of the library; `checks.arguments` has seen the tensors."""
    pointers = (a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    getattr(_library, f"{NAMES[dtype]}_{function}")(*pointers)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, ``[T, C]`` each."""
    checks.arguments(CPU, x)
    mean, variance = x.new_empty(2, x.shape[0], x.shape[2], dtype=torch.float32).unbind()
    _call("moments", x, *x.shape, mean, variance, dtype=x.dtype)
    return mean, variance


def scan(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    dynamics: Dynamics,
    membrane: Tensor | None = None,
    halve: int | None = None,
) -> Tensor:
    """Spikes ``[T, M, C]``, or their 2 x 2 averages ``[T, M / 4, C]``."""
    checks.arguments(CPU, x, halve, of_steps={"scale": scale, "shift": shift}, of_neurons={"membrane": membrane})
    steps, rows, channels = x.shape
    output = x.new_empty(steps, rows // 4 if halve else rows, channels)
    leak, threshold, hard, _ = dynamics
    _call("scan", x, *x.shape, scale, shift, leak, threshold, bool(hard), membrane, halve or 0, output, dtype=x.dtype)
    return output


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
    """The gradient ``[T, M, C]`` for the normalised current, and its sums ``[T, C]``."""
    checks.arguments(
        CPU,
        x,
        halve,
        of_steps={"centre": centre, "scale": scale, "shift": shift},
        of_neurons={"membrane": membrane, "grad_membrane": grad_membrane},
        of_outputs={"grad_output": grad_output},
    )
    dy = torch.empty_like(x)
    dscale = dshift = None
    if scale is not None:
        dscale, dshift = torch.empty_like(scale), torch.empty_like(scale)
    leak, threshold, hard, alpha = dynamics
    _call(
        "reverse_scan", x, *x.shape, centre, scale, shift, leak, threshold, alpha, bool(hard), membrane, grad_output,
        grad_membrane, halve or 0, dy, dscale, dshift, dtype=x.dtype,
    )  # fmt: skip
    return dy, dscale, dshift


def combine(
    dy: Tensor,
    x: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvariance: Tensor | None,
) -> Tensor:
    """The gradient for the current, ``[T, M, C]``, which overwrites dy."""
    if scale is not None:
        if mean is None or dmean is None or dvariance is None:
            mean = dmean = dvariance = None
        of_steps = {"scale": scale, "mean": mean, "dmean": dmean, "dvariance": dvariance}
        checks.arguments(CPU, x, of_steps=of_steps, of_currents={"dy": dy})
        _call("combine", dy, x, *x.shape, scale, mean, dmean, dvariance, dy, dtype=x.dtype)
    return dy


def poisson(
    rate: Tensor, time_steps: int, key: int, samples: Tensor, start: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Keyed spikes ``[T, N, C, H, W]``, channels-last in memory."""
    rate, samples = rate.float().contiguous(), samples.contiguous()
    checks.coding(CPU, rate, time_steps, key, samples, start, dtype)
    count, channels, height, width = rate.shape
    out = rate.new_empty(time_steps, count, height, width, channels, dtype=dtype)
    sizes = (time_steps, count, channels, height * width)
    _call("poisson", rate, *sizes, key, samples.long(), start, out, dtype=dtype)
    return out.permute(0, 1, 4, 2, 3)


def quarters(x: Tensor, steps: int) -> tuple[Tensor, Tensor] | None:
    """Bytes that count quarters of a spike, and how many values of each step are not zero, ``[T]``.

    ``x [T * N, ...]`` is dense in any order that has the first axis outermost, which the bytes keep. None if x is not,
    or if a value is no multiple of 1/4 in [-32, 32).
    """
    checks.memory(CPU, x)
    if x.dtype not in NAMES or not (x.is_contiguous() or channels_last(x)) or len(x) % steps or not x.numel():
        return None
    whole, counts = torch.empty_like(x, dtype=torch.int8), torch.empty(steps, dtype=torch.int64, device="cpu")
    exact = torch.empty((), dtype=torch.bool, device="cpu")
    _call("quarters", x, steps, x.numel() // steps, whole, counts, exact, dtype=x.dtype)
    return (whole, counts) if exact else None


def channels_last(x: Tensor) -> bool:
    """Whether these are maps ``[I, C, H, W]`` whose channels lie innermost."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def sparse_below(x: Tensor, weight: Tensor, settings: tuple[Any, ...]) -> tuple[float, float]:
    """The densities below which `sparse_currents` and `sparse_weight_gradient` are faster than dense arithmetic.

    ``x [I, Cin, H, W]`` are the spikes as numbers; ``settings`` are stride, padding, dilation and groups. Both are 0
    for what the two cannot compute.
    """
    outputs, inputs, *kernel = weight.shape
    if (tuple(kernel), *settings) != TAPS or weight.dtype != torch.float32 or not channels_last(x):
        return 0.0, 0.0
    amx = x.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    densities = SPARSE_BELOW_WITH_AMX if amx else SPARSE_BELOW[x.dtype]
    current, gradient = next(below for most, below in densities.items() if outputs <= most)
    return 0.0 if inputs < FEW else current, gradient


def sparse_currents(spikes: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Currents ``[I, Cout, H, W]`` of a 3 x 3 convolution of stride and padding 1, in ``dtype``, channels-last.

    ``spikes [I, Cin, H, W]`` are bytes of `quarters`, channels-last. ``weight [Cout, Cin, 3, 3]`` is rounded to
    ``dtype``. Sums are float32; their order depends on the shapes alone.
    """
    count, inputs, height, width = _maps(spikes, "spikes", torch.int8)
    outputs = len(weight)
    if weight.shape != (outputs, inputs, 3, 3) or dtype not in NAMES:
        raise ValueError(f"weight {tuple(weight.shape)} in {dtype} does not belong to spikes {tuple(spikes.shape)}")
    rounded = weight.to(dtype).to(torch.float32, memory_format=torch.channels_last)
    _maps(rounded, "weight", torch.float32)
    current = torch.empty(count, height, width, outputs, dtype=dtype, device="cpu")
    _call("sparse_currents", spikes, count, height, width, inputs, outputs, rounded, current, dtype=dtype)
    return current.permute(0, 3, 1, 2)


def sparse_weight_gradient(spikes: Tensor, gradient: Tensor) -> Tensor:
    """The gradient for the weight of `sparse_currents`, ``[Cout, Cin, 3, 3]`` float32.

    ``gradient [I, Cout, H, W]`` for the currents is float32 or bfloat16, channels-last.
    """
    count, inputs, *sides = _maps(spikes, "spikes", torch.int8)
    of_maps, outputs, *found = _maps(gradient, "gradient", gradient.dtype)
    if (of_maps, found) != (count, sides) or gradient.dtype not in NAMES:
        raise ValueError(f"gradient {tuple(gradient.shape)} of {gradient.dtype} is not of spikes {tuple(spikes.shape)}")
    of_weight = torch.empty(outputs, 3, 3, inputs, dtype=torch.float32, device="cpu")
    _call("sparse_weight_gradient", spikes, gradient, count, *sides, inputs, outputs, of_weight, dtype=gradient.dtype)
    return of_weight.permute(0, 3, 1, 2)


def _maps(x: Tensor, name: str, dtype: torch.dtype) -> torch.Size:
    """The shape of maps of bytes or numbers that a sparse pass may read; raises ValueError for others."""
    checks.memory(CPU, x)
    if not channels_last(x) or x.dtype != dtype or not x.numel():
        raise ValueError(f"{name} must be maps of {dtype}, channels-last; got {tuple(x.shape)} of {x.dtype}")
    return x.shape


def event_layer(
    spikes: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    dynamics: Dynamics,
    membrane: Tensor,
    halve: bool,
    dense_above: float | None = None,
) -> tuple[Tensor, Tensor, float]:
    """One spiking layer at inference: connection, affine map, neuron and 2 x 2 averages, with no current in memory.

    ``spikes [T, N, H, W, Cin]`` are float32 or bfloat16. ``weight [9 or 1, Cin, Cout]`` is float32: a 3 x 3 convolution
    with stride and padding 1, in row-major order, or a matrix product. ``membrane [N * H * W, Cout]`` is updated in
    place. Returns the output ``[T, N, H, W, Cout]``, with half H and W if ``halve``; the number of spikes before
    averaging, ``[T, N]`` float64; and the share of inputs that were not zero. Steps with a larger share than
    ``dense_above`` visit all inputs, which changes no bit of the result. Raises ValueError for arguments of other
    shapes, types or layouts.
    """
    checks.memory(CPU, spikes, weight, scale, shift, membrane)
    if spikes.dim() != 5 or spikes.dtype not in NAMES or weight.dim() != 3:
        found = f"{tuple(spikes.shape)} of {spikes.dtype} and {tuple(weight.shape)}"
        raise ValueError(f"spikes [T, N, H, W, Cin] are float32 or bfloat16, weight is [taps, Cin, Cout]; got {found}")
    steps, count, height, width, inputs = spikes.shape
    taps, _, outputs = weight.shape
    if dense_above is None:
        dense_above = DENSE_ABOVE_OF_FEW if inputs < FEW else DENSE_ABOVE
    checks.tensor("spikes", spikes, tuple(spikes.shape), spikes.dtype, spikes.device)
    for name, given, shape in (
        ("weight", weight, (taps, inputs, outputs)),
        ("scale", scale, (steps, outputs)),
        ("shift", shift, (steps, outputs)),
        ("membrane", membrane, (count * height * width, outputs)),
    ):
        if given is not None:
            checks.tensor(name, given, shape, torch.float32, spikes.device)
    sides = (height // 2, width // 2) if halve else (height, width)
    output = spikes.new_empty(steps, count, *sides, outputs)
    counts = spikes.new_empty(steps, count, dtype=torch.float64)
    density = ctypes.c_double()
    pointers = [ctypes.c_void_p(a if a is None else a.data_ptr()) for a in (spikes, weight, scale, shift, membrane)]
    leak, threshold, hard, _ = dynamics
    wrong = _library.event_layer(
        pointers[0], list(NAMES).index(spikes.dtype), *pointers[1:4],
        ctypes.c_float(leak), ctypes.c_float(threshold), int(hard), pointers[4], ctypes.c_void_p(output.data_ptr()),
        int(halve), ctypes.c_void_p(counts.data_ptr()), *map(ctypes.c_long, (*spikes.shape, outputs)),
        taps, ctypes.c_double(dense_above), ctypes.byref(density),
    )  # fmt: skip
    if wrong:
        raise ValueError(f"no event-driven layer for spikes {tuple(spikes.shape)} and weights {tuple(weight.shape)}")
    return output, counts, density.value
