"""The passes as Triton kernels, for float32 and bfloat16 on a GPU. The package says the contract.

All are bound by memory, so what counts is how often each value crosses it; `gpu_kernels` has the kernels. Whatever is
summed over rows is summed per tile, then over the tiles in a fixed order: equal inputs give equal bits. Nothing waits
for the device, so the passes can be captured in a CUDA graph, once each has run at the same shapes. Importing this
module needs triton, running it a C compiler for triton's launcher.
"""

from contextlib import nullcontext

import torch
import triton
from torch import Tensor

from bntt.spiking.kernels import Dynamics, checks
from bntt.spiking.kernels import gpu_kernels as kernels

# A tile has at most 64 channels, one or two lines of 128 bytes, and rows in proportion; fewer rows where there would
# otherwise be too few programs for a large GPU. Both are fixed numbers, since the tiles decide the order of the sums.
CHANNELS, SMALLEST, PROGRAMS = 64, 256, 528
TOGETHER = 2  # neighbouring channels of a thread in the reverse scan: with fewer it has more rows, and sums them alone
REGISTERS = 168  # of a thread in the reverse scan: three programs of 128 threads fit a multiprocessor, none spills
DEVICES = ("cuda", "cpu")  # a CPU is one for Triton's interpreter
MASK = 0xFFFFFFFF


def _on(x: Tensor) -> torch.cuda.device | nullcontext[None]:
    """Triton starts kernels on the current device, which must be the tensor's; a CPU is one for its interpreter."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _check(x: Tensor, halve: int | None = None, **others: dict[str, Tensor | None]) -> None:
    """As `checks.arguments`; besides, the kernels count rows in 31 bits and time-steps in 16."""
    checks.arguments(DEVICES, x, halve, **others)
    if x.shape[0] >= 2**16 or x.shape[1] >= 2**31:
        raise ValueError(f"the GPU kernels take less than 2**16 steps of 2**31 rows, not {tuple(x.shape)}")


def _tile(rows: int, channels: int, values: int) -> tuple[int, int]:
    """Rows and channels of a tile of up to so many values."""
    wide = min(triton.next_power_of_2(channels), CHANNELS)
    high, across = values // wide, triton.cdiv(channels, wide)
    while high * wide > SMALLEST and triton.cdiv(rows, high) * across < PROGRAMS:
        high //= 2
    return high, wide


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance ``[T, C]``."""
    _check(x)
    steps, rows, channels = x.shape
    high, wide = _tile(rows, channels, 2048)
    across = triton.cdiv(channels, wide)
    tiles = min(64, max(1, triton.cdiv(rows, high) * across * steps // (8 * PROGRAMS)))  # of one program, in turn
    blocks = triton.cdiv(rows, high * tiles)
    means, spreads = x.new_empty(2, blocks, steps, channels, dtype=torch.float32).unbind()
    mean, variance = x.new_empty(2, steps, channels, dtype=torch.float32).unbind()
    with _on(x):
        grid = (blocks, across, steps)
        kernels.moments[grid](x, means, spreads, rows, channels, tiles, high, wide, num_warps=_warps(high * wide, 16))
        kernels.merge[(triton.cdiv(steps * channels, 16),)](
            means, spreads, mean, variance, blocks, high * tiles, rows, steps * channels, 64, 16, num_warps=4
        )
    return mean, variance


def _warps(values: int, per_thread: int) -> int:
    return max(1, values // (32 * per_thread))


def scan(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    dynamics: Dynamics,
    membrane: Tensor | None = None,
    halve: int | None = None,
) -> Tensor:
    """Spikes, or their 2 x 2 averages."""
    _check(x, halve, of_steps={"scale": scale, "shift": shift}, of_neurons={"membrane": membrane})
    steps, rows, channels = x.shape
    out_rows = rows // 4 if halve else rows
    output = x.new_empty(steps, out_rows, channels)
    high, wide = _tile(out_rows, channels, 1024 if halve else 2048)
    leak, threshold, hard, _ = dynamics
    with _on(x):
        kernels.scan[(triton.cdiv(out_rows, high), triton.cdiv(channels, wide))](
            x, scale, shift, membrane, output, steps, rows, channels, halve or 0, leak, threshold,
            bool(hard), halve is not None, high, wide, num_warps=_warps(high * wide, 8 if halve else 16),
        )  # fmt: skip
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
    """The gradient for the normalised current, and its sums."""
    _check(
        x,
        halve,
        of_steps={"centre": centre, "scale": scale, "shift": shift},
        of_neurons={"membrane": membrane, "grad_membrane": grad_membrane},
        of_outputs={"grad_output": grad_output},
    )
    steps, rows, channels = x.shape
    high, wide = _tile(rows, channels, 1024)
    blocks = triton.cdiv(rows, high)
    dy = torch.empty_like(x)
    stored = x.new_empty((steps - 1) // 4, rows, channels, dtype=torch.float32)
    sums = None if scale is None else x.new_empty(2, blocks, steps, channels, dtype=torch.float32)
    leak, threshold, hard, alpha = dynamics
    with _on(x):
        kernels.reverse_scan[(blocks, triton.cdiv(channels, wide))](
            x, centre, scale, shift, membrane, grad_output, grad_membrane, stored, dy, sums,
            steps, rows, channels, halve or 0, leak, threshold, alpha,
            bool(hard), halve is not None, high, wide, min(TOGETHER, wide),
            num_warps=_warps(high * wide, 8), maxnreg=REGISTERS,
        )  # fmt: skip
    if sums is None:
        return dy, None, None
    dscale, dshift = sums.sum(1, dtype=torch.float64).float().unbind()
    return dy, dscale, dshift


def combine(
    dy: Tensor,
    x: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    dmean: Tensor | None,
    dvariance: Tensor | None,
) -> Tensor:
    """The gradient for the current, in dy's place."""
    if scale is None:
        return dy
    if mean is None or dmean is None or dvariance is None:
        mean = dmean = dvariance = None
    of_steps = {"scale": scale, "mean": mean, "dmean": dmean, "dvariance": dvariance}
    _check(x, of_steps=of_steps, of_currents={"dy": dy})
    steps, rows, channels = x.shape
    high, wide = _tile(rows, channels, 2048)
    with _on(x):
        kernels.combine[(triton.cdiv(rows, high), triton.cdiv(channels, wide), steps)](
            dy, x, scale, mean, dmean, dvariance, rows, channels, 1 / rows, high, wide,
            num_warps=_warps(high * wide, 16),
        )  # fmt: skip
    return dy


def _word(number: int) -> int:
    """The lower 32 bits of a number as the signed one that has them, so that the kernel's argument is always int32."""
    number &= MASK
    return number - 2**32 if number >= 2**31 else number


def poisson(
    rate: Tensor,
    time_steps: int,
    key: int | Tensor,
    samples: Tensor,
    start: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Keyed spikes, channels-last; inside a CUDA graph the key is its lower and its upper word, an int64 tensor."""
    rate, samples = rate.float().contiguous(), samples.contiguous()
    checks.coding(DEVICES, rate, time_steps, key, samples, start, dtype)
    count, channels, height, width = rate.shape
    out = rate.new_empty(time_steps, count, height, width, channels, dtype=dtype)
    words = key if isinstance(key, Tensor) else None
    low, high = (0, 0) if isinstance(key, Tensor) else (_word(key), _word(key >> 32))
    size = channels * height * width
    with _on(rate):
        kernels.poisson[(count, triton.cdiv(size, 1024))](
            rate, samples.long(), words, out,
            time_steps, channels, height * width, _word(start * size), low, high, 1024, num_warps=4,
        )  # fmt: skip
    return out.permute(0, 1, 4, 2, 3)
