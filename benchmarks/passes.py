"""What share of the memory's bandwidth the passes of the temporal-norm operator reach on the CPU.

    python benchmarks/passes.py                     # the layers of VGG9 on 32 x 32 images, batch 16, T = 25
    python benchmarks/passes.py --width 0.25 --side 16 --batch 64     # those of the demo

Three loops of PyTorch measure the bandwidth in this process, on arrays larger than the caches: one reads, one copies,
and one adds an array to another in place. From them follow the seconds that a pass needs for what it must read and
write once: its currents are read, its output is a copy, and `combine` adds in place. The share is that time over the
pass's own; where arrays fit into the caches it may exceed 1.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package may not be installed

from bntt.spiking.kernels import Dynamics, backend_for  # noqa: E402
from bntt.spiking.networks import WeightLayer, weight_layers  # noqa: E402
from bntt.training.arithmetic import settle  # noqa: E402

DYNAMICS = Dynamics(0.95, 1.0, False, 0.3)
LARGE = 2**28  # bytes of the array that measures the bandwidth
REPEATS = 7
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--steps", type=int, default=25, help="time-steps of the network")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies the widths of the layers")
    parser.add_argument("--precision", choices=TYPES, default="bf16", help="type of currents and spikes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads")
    options = parser.parse_args()
    settle(options.threads)
    read, copy, update = bandwidth()
    print(f"{options.threads} threads read {read:.1f} GB/s, copy {copy:.1f} GB/s and add in place {update:.1f} GB/s\n")
    print("| layer | pass | bytes per neuron-step | ns per neuron-step | GB/s | share of the bandwidth |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    total: dict[str, list[float]] = {}
    for layer in weight_layers("vgg9", (3, options.side, options.side), 10, options.width)[:-1]:
        for name, sizes, work in passes(layer, options):
            size, seconds = sum(sizes), median(work)
            least = (sizes[0] / read + sizes[1] / copy + sizes[2] / update) / 1e9
            count = options.steps * options.batch * layer.neurons
            row = size / count, seconds / count * 1e9, size / seconds / 1e9, least / seconds
            print(f"| {layer.name} | {name} | {row[0]:.1f} | {row[1]:.3f} | {row[2]:.1f} | {row[3]:.2f} |")
            for position, value in enumerate((size, seconds, least)):
                total.setdefault(name, [0.0, 0.0, 0.0])[position] += value
    total["all"] = [sum(column) for column in zip(*total.values(), strict=True)]
    for name, (size, seconds, least) in total.items():
        print(f"| all | {name} | | {1e3 * seconds:.1f} ms | {size / seconds / 1e9:.1f} | {least / seconds:.2f} |")


def median(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    work()
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def bandwidth() -> tuple[float, float, float]:
    """GB/s of reading, of copying, and of adding in place; bytes read and bytes written both count."""
    source, target = torch.ones(LARGE // 4), torch.ones(LARGE // 4)
    loops = (1, source.sum), (2, lambda: target.copy_(source)), (3, lambda: target.add_(source))
    read, copy, update = (arrays * LARGE / median(loop) / 1e9 for arrays, loop in loops)
    return read, copy, update


def passes(
    layer: WeightLayer, options: argparse.Namespace
) -> Iterator[tuple[str, tuple[float, float, float], Callable[[], object]]]:
    """The passes on one layer: name; bytes that are read alone, copied, and added in place; and the pass itself."""
    dtype = TYPES[options.precision]
    side = layer.side or 1
    rows, halve = options.batch * side * side, side if layer.pool else None
    x = torch.randn(options.steps, rows, layer.outputs).to(dtype)
    scale, shift, dmean, dvariance = torch.randn(4, options.steps, layer.outputs).unbind()
    backend = backend_for(x)
    output = backend.scan(x, scale, shift, DYNAMICS, None, halve)
    upstream, dy = torch.randn(output.shape).to(dtype), torch.randn(x.shape).to(dtype)
    current, out = x.numel() * x.element_size(), output.numel() * output.element_size()
    mean, _ = backend.moments(x)
    yield "moments", (current, 0, 0), lambda: backend.moments(x)
    yield "scan", (current - out, 2 * out, 0), lambda: backend.scan(x, scale, shift, DYNAMICS, None, halve)
    back = x, mean, scale, shift, DYNAMICS, None, upstream, None, halve
    yield "reverse scan", (out, 2 * current, 0), lambda: backend.reverse_scan(*back)
    yield "combine", (0, 0, 3 * current), lambda: backend.combine(dy, x, scale, mean, dmean, dvariance)


if __name__ == "__main__":
    main()
