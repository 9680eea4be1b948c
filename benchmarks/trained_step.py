"""Time of a training step of a trained network, over the time of its dense convolutions alone.

    python benchmarks/trained_step.py wave-cifar10 cifar10 decay-gamma 0 results

Arguments: experiment, dataset, row, seed, and the folder of results with the run's weights. The step is the one of
training (spikes of a batch of training images, forward, cross-entropy, backward, SGD), with a learning rate of 0, so
that the network stays as it was trained. The limit is that of `train_step.py` for the same layers. Currents and
gradients of each layer in a float32 step are also compared with those of dense convolutions of the same numbers in
float64; the last column says how far dense float32 is from that. The times are measured in rounds, step and limit in
turns.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package may not be installed

from contestants import PRECISIONS, Limit  # noqa: E402
from train_step import relative  # noqa: E402

from bntt.data import store  # noqa: E402
from bntt.experiment.schema import load  # noqa: E402
from bntt.methods import surrogate  # noqa: E402
from bntt.runs.directory import RunDirectory  # noqa: E402
from bntt.spiking import connections  # noqa: E402
from bntt.spiking.encoding import encode  # noqa: E402
from bntt.spiking.networks import SpikingNetwork, place  # noqa: E402
from bntt.spiking.randomness import key  # noqa: E402
from bntt.training.arithmetic import settle  # noqa: E402

STEPS = 5  # timed in a round, after one that is not


class Training:
    """A trained network and a batch of its training images."""

    def __init__(self, options: argparse.Namespace) -> None:
        run = load(options.experiment).run(options.dataset, options.row, options.seed)
        store.prepare(run.dataset)
        self.data = store.load(run.dataset).as_asked(torch.device("cpu"), run.options)
        self.options, self.samples = run.options, torch.arange(options.batch or run.options["batch_size"])
        self.network: SpikingNetwork = surrogate.build(run.options, self.data)
        self.network.load_state_dict(RunDirectory.of(run, options.results).weights())
        place(self.network, torch.device("cpu"))
        self.network.train()
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.0, momentum=0.9, fused=True)

    def step(self, dtype: torch.dtype) -> None:
        images, signed = self.data.train.unit(self.samples), self.options["coding"] == "signed"
        scaled, noise = self.data.scaled(images, signed), key(0, "benchmark")
        spikes = encode(scaled, self.options["time_steps"], noise, self.samples, signed=signed, dtype=dtype)
        loss = F.cross_entropy(self.network.logits(self.network(spikes)), self.data.train.labels[self.samples])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, kind in (("experiment", str), ("dataset", str), ("row", str), ("seed", int), ("results", Path)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--batch", type=int, help="images per step (default: the row's)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(default: bf16)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    settle(options.threads)
    training, dtype = Training(options), PRECISIONS[options.precision]
    images = len(training.samples) * training.options["time_steps"]
    limit = Limit(training.network.description, images, options.precision, "cpu")
    config = limit.search()
    ratios = []
    for _ in range(options.rounds):
        seconds = step_seconds(training, dtype)
        ratios.append((seconds / limit.seconds(config), seconds))
    ratio, seconds = (statistics.median(column) for column in zip(*ratios, strict=True))
    least, most = min(ratios)[0], max(ratios)[0]
    print(f"{options.threads} threads, {images} images and steps, {options.precision}: {seconds:.3f} s a step, ")
    print(f"{ratio:.2f} ({least:.2f} to {most:.2f}) of the limit in {options.rounds} rounds")
    print("\n| layer | density of its input | current, off by | gradient of the weights, off by | of dense float32 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for layer, row in zip(training.network.description, compared(training), strict=False):
        print(f"| {layer.name} | {100 * row[0]:.1f} % | {row[1]:.1e} | {row[2]:.1e} | {row[3]:.1e} |")


def step_seconds(training: Training, dtype: torch.dtype) -> float:
    found = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        training.step(dtype)
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def compared(training: Training) -> list[tuple[float, float, float, float]]:
    """Of each hidden layer in a float32 step: the density of its input, and how far three numbers are from float64.

    The numbers are the currents, the gradient of the weights, and this gradient by dense float32. Differences are
    relative to the largest number.
    """
    rows: list[tuple[float, float, float, float]] = []
    whole_forward, whole_backward = connections._Connect.forward, connections._Connect.backward
    inputs: list[tuple[Tensor, float]] = []

    def forward(ctx, images, weight, settings, steps):
        current = whole_forward(ctx, images, weight, settings, steps)
        dense = connections._current(images.double(), weight.double(), settings)
        inputs.append((images, relative(current, dense)))
        return current

    def backward(ctx, grad):
        found = whole_backward(ctx, grad)
        images, of_current = inputs.pop()  # layers come in reverse order
        weight = ctx.saved_tensors[1]
        dense, exact = (
            connections._gradient_of_weight(images.to(kind), weight.to(kind), grad.to(kind), ctx.settings)
            for kind in (torch.float32, torch.float64)
        )
        density = (images != 0).float().mean().item()
        rows.append((density, of_current, relative(found[1], exact), relative(dense, exact)))
        return found

    connections._Connect.forward, connections._Connect.backward = staticmethod(forward), staticmethod(backward)
    try:
        training.step(torch.float32)
    finally:
        connections._Connect.forward = staticmethod(whole_forward)
        connections._Connect.backward = staticmethod(whole_backward)
    return rows[::-1]


if __name__ == "__main__":
    main()
