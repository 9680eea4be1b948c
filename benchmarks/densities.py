"""From which density of spikes on a dense convolution is faster than visiting the spikes, on this processor.

    python benchmarks/densities.py                  # bfloat16, all threads
    python benchmarks/densities.py --precision fp32 --threads 1

For 3 x 3 convolutions of several shapes, prints the time of the currents and of the weights' gradient by visiting
spikes over that of the same by dense arithmetic, as a training step computes them, for several densities, and the
density at which each ratio is 1, by interpolation. Each time is the least of some repeats, in turns, because the
frequency of a processor that others use, too, changes within seconds, most of all with AMX. `SPARSE_BELOW` of
`bntt.spiking.kernels.native` holds such densities.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package may not be installed

from passes import TYPES  # noqa: E402

from bntt.spiking import connections  # noqa: E402
from bntt.spiking.kernels import backend_for  # noqa: E402
from bntt.training.arithmetic import settle  # noqa: E402

SETTINGS = ((1, 1), (1, 1), (1, 1), 1)  # stride, padding, dilation, groups
SHAPES = (  # input and output channels, side of the maps: the demo's layers, and those of VGG9 at half and full width
    (16, 16, 16), (16, 32, 8), (32, 32, 8), (32, 64, 16), (32, 32, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16),
    (128, 256, 8), (256, 256, 8),
)  # fmt: skip
DENSITIES = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
REPEATS = 9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100, help="images times time-steps of maps of 32 x 32")
    parser.add_argument("--precision", choices=TYPES, default="bf16", help="type of currents and spikes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads")
    options = parser.parse_args()
    settle(options.threads)
    if not hasattr(backend_for(torch.ones(1)), "sparse_currents"):
        sys.exit("densities.py: only the compiled kernels visit spikes, and they are not to be had here")
    columns = [f"{100 * density:g} %" for density in DENSITIES]
    print(f"{options.threads} threads, {options.precision}; currents / gradient of the weights\n")
    print("| inputs, outputs, side |", " | ".join((*columns, "equal at")), "|")
    print("| --- |", " | ".join("---:" for _ in (*columns, "")), "|")
    for shape in SHAPES:
        found = [ratios(*shape, density, options) for density in DENSITIES]
        equal = [crossing([both[i] for both in found]) for i in (0, 1)]
        cells = (f"{current:.2f} / {gradient:.2f}" for current, gradient in found)
        print("| {}, {}, {} |".format(*shape), " | ".join((*cells, " / ".join(equal))), "|", flush=True)


def ratios(inputs: int, outputs: int, side: int, density: float, options: argparse.Namespace) -> tuple[float, float]:
    """The times of currents and of the weights' gradient by visiting spikes, over those by dense arithmetic."""
    dtype, images = TYPES[options.precision], options.images * max(1, (32 // side) ** 2 // 4)

    def maps(x: torch.Tensor) -> torch.Tensor:
        return x.to(dtype).contiguous(memory_format=torch.channels_last)

    spikes = maps(torch.rand(images, inputs, side, side) < density)
    upstream = maps(torch.randn(images, outputs, side, side))
    weight = torch.randn(outputs, inputs, 3, 3).contiguous(memory_format=torch.channels_last)
    backend = backend_for(spikes)
    kept, _ = backend.quarters(spikes, 1)
    sparse, dense = seconds(
        lambda: backend.sparse_currents(kept, weight, dtype), lambda: connections._current(spikes, weight, SETTINGS)
    )
    sparse_gradient, dense_gradient = seconds(
        lambda: backend.sparse_weight_gradient(kept, upstream),
        lambda: connections._dense_gradient_of_weight(kept, weight.to(dtype), upstream, SETTINGS),
    )
    return sparse / dense, sparse_gradient / dense_gradient


def seconds(*works: Callable[[], object]) -> list[float]:
    """The least seconds of a call of each, measured in turns."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for times, work in zip(found, works, strict=True):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return [min(times) for times in found]


def crossing(of_densities: list[float]) -> str:
    """The density at which a ratio that grows with it passes 1."""
    points = zip(DENSITIES, of_densities, strict=True)
    for (below, low), (above, high) in itertools.pairwise(points):
        if low < 1 <= high:
            return f"{100 * (below + (1 - low) / (high - low) * (above - below)):.0f} %"
    return f"over {100 * DENSITIES[-1]:g} %" if of_densities[-1] < 1 else f"below {100 * DENSITIES[0]:g} %"


if __name__ == "__main__":
    main()
