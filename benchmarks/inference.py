"""Time of inference: layers that visit spikes, the same layers computed densely, and other libraries.

The first table needs only this project; `--run` adds a trained network, and `--peers` adds other libraries.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from contestants import CONTESTANTS, EPS, LAYOUTS
from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.data import store
from bntt.experiment.schema import load
from bntt.runs import pipeline
from bntt.runs.directory import RunDirectory
from bntt.spiking.connections import connect
from bntt.spiking.encoding import poisson
from bntt.spiking.layers import SpikingLayer
from bntt.spiking.networks import SpikingNetwork, initialise, place, weight_layers
from bntt.training.arithmetic import settle

PATHS = ("events", "dense bf16", "dense fp32")


def main() -> None:
    options = parse()
    settle(options.threads)
    report: dict[str, object] = {"threads": options.threads, "torch": torch.__version__, "steps": options.steps}
    report["layers"] = by_density(options)
    if options.run:
        experiment, row, seed, results = options.run
        report["trained"] = trained(options, experiment, row, int(seed), Path(results))
    if options.peers:
        report["peers"] = peers(options)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1))


def parse() -> argparse.Namespace:
    """The command line."""
    kind = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=kind)
    add = parser.add_argument
    add("--densities", type=float, nargs="+", default=[0.5, 1, 2, 4, 8], metavar="PERCENT", help="densities of spikes")
    add("--batch", type=int, default=16, help="images in a batch")
    add("--steps", type=int, default=25, help="time-steps")
    add("--threads", type=int, default=2, help="threads of the CPU")
    add("--repeats", type=int, default=7, help="repeats of every measurement, in turns; the median is reported")
    names = ("EXPERIMENT", "ROW", "SEED", "RESULTS")
    add("--run", nargs=4, metavar=names, help="a trained run to measure on its test images")
    add("--peers", action="store_true", help="also other libraries' forward pass")
    add("--json", metavar="FILE", help="write the numbers to this file")
    return parser.parse_args()


def medians(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each work; they run in turns, after one untimed turn."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}


@torch.no_grad()
def dense(layer: SpikingLayer, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    """One layer as in training: a dense connection, then the fused scan with its averages."""
    current = connect(layer.connection, spikes.to(dtype))
    halve, rest = layer._split_pool(current)
    output = layer.neuron(current, layer.norm, halve=halve)
    return output if rest is None else rest(output.flatten(0, 1)).unflatten(0, output.shape[:2])


def paths(layer: SpikingLayer, spikes: Tensor) -> dict[str, Callable[[], object]]:
    """The ways to compute one layer, each on spikes of the type that it reads fastest."""
    wide, narrow = spikes.float(), spikes.bfloat16()
    return {
        "events": lambda: layer.resume(narrow, 0, None),
        "dense bf16": lambda: dense(layer, narrow, torch.bfloat16),
        "dense fp32": lambda: dense(layer, wide, torch.float32),
    }


def by_density(options: argparse.Namespace) -> list[dict[str, float]]:
    """All hidden layers of VGG9, each given random spikes of one density."""
    layers = weight_layers("vgg9", (3, 32, 32), 10)
    network = SpikingNetwork(layers, options.steps, eps=EPS).eval()
    initialise(network, 0, 2.0)
    place(network, torch.device("cpu"))
    print("seconds for all hidden layers of VGG9, 32 x 32, on random spikes of one density")
    print(f"{'density':>8} " + " ".join(f"{path:>11}" for path in PATHS) + "  bf16 / events")
    rows = []
    for percent in options.densities:
        total = dict.fromkeys(PATHS, 0.0)
        side = 32
        for own, layer in zip(layers[:-1], network.hidden().values(), strict=True):
            shape = (options.steps, options.batch, own.inputs)
            if own.is_convolution:
                shape = (options.steps, options.batch, side, side, own.inputs)
            draws = torch.Generator().manual_seed(int(1000 * percent))
            spikes = (torch.rand(shape, generator=draws) < percent / 100).float()
            spikes = spikes.movedim(-1, 2) if own.is_convolution else spikes
            for name, seconds in medians(paths(layer, spikes), options.repeats).items():
                total[name] += seconds
            side = side // 2 if own.pool else side
        rows.append({"percent": percent} | total)
        ratio = total["dense bf16"] / total["events"]
        print(f"{percent:7.1f}% " + " ".join(f"{total[path]:11.4f}" for path in PATHS) + f" {ratio:14.2f}")
    return rows


@torch.no_grad()
def trained(options: argparse.Namespace, name: str, row: str, seed: int, results: Path) -> dict[str, object]:
    """A trained network on its test images: times, densities, and how far the logits are from the dense path's."""
    run = load(name).run("digits", row, seed)
    store.prepare(run.dataset)
    subject = pipeline.subject(run, RunDirectory.of(run, results), torch.device("cpu"))
    images, classifier, noise = subject.data, subject.classifier, subject.noise_key()
    assert isinstance(classifier, SpikingClassifier)
    network, samples = classifier.network, torch.arange(options.batch)
    scaled = classifier.scaled(images, images.test.unit(samples))
    spikes = poisson(scaled, network.time_steps, noise, samples, signed=classifier.signed)
    densities: dict[str, float] = {}

    def by_events(observe=None) -> Tensor:
        return network.logits(network.resume(spikes.bfloat16(), 0, {}, observe))

    def densely(dtype: torch.dtype) -> Tensor:
        out = spikes
        for layer in network.hidden().values():
            out = dense(layer, out, dtype)
        return network.logits(network._readout(out, None))

    def note(layer: str, step) -> None:
        densities[layer] = (step.input.count_nonzero() / step.input.numel()).item()

    difference = (by_events(note) - densely(torch.float32)).abs().amax(1)
    works = {"events": by_events, "dense bf16": lambda: densely(torch.bfloat16)}
    seconds = medians(works | {"dense fp32": lambda: densely(torch.float32)}, options.repeats)
    print(f"\n{run.name}, {options.batch} test images, T = {network.time_steps}")
    print("input density:", ", ".join(f"{layer} {100 * share:.1f} %" for layer, share in densities.items()))
    print("seconds:", ", ".join(f"{path} {value:.4f}" for path, value in seconds.items()))
    print(f"dense bf16 / events: {seconds['dense bf16'] / seconds['events']:.2f}")
    far = int((difference > 1e-4).sum())
    print(
        f"logits: {far} of {len(difference)} images further than 1e-4 from the dense fp32 path, "
        f"{difference.max():.1e} at most"
    )
    return {"seconds": seconds, "densities": densities, "difference": difference.tolist()}


@torch.no_grad()
def peers(options: argparse.Namespace) -> dict[str, float]:
    """Other libraries' forward pass in evaluation mode, in every precision and layout, coding included."""
    layers = weight_layers("vgg9", (3, 32, 32), 10)
    images = torch.randn(options.batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    works = {}
    for name, kind in CONTESTANTS.items():
        if name == "this":
            continue
        for precision in ("fp32", "bf16"):
            for layout in LAYOUTS:
                contestant = kind(layers, options.steps, precision, layout, "cpu")
                contestant.start()
                contestant.network.eval()
                works[f"{name} {precision} {layout}"] = lambda contestant=contestant: contestant.logits(images)
    seconds = medians(works, 3)
    print("\npeers, forward pass in evaluation mode, seconds")
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"  {name:34} {value:.3f}")
    return seconds


if __name__ == "__main__":
    main()
