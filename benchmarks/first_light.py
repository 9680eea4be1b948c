"""Does everything run on this GPU, and does it compute what the CPU computes? The first thing to run on a new card.

    python benchmarks/first_light.py                       # on the GPU
    python benchmarks/first_light.py --device cpu --quick  # a rehearsal

Prints one line per check, and ends with status 1 if one failed. The checks: the self-check of the kernels; the
Poisson coder, bit for bit; every layer of VGG9 on equal inputs, its spikes, gradients and running moments, against
float64 on the CPU; one training step of VGG9 and VGG11 in each precision, with its time and its peak memory.
"""

import argparse
import copy
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package may not be installed

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from bntt.runs.devices import joules  # noqa: E402
from bntt.spiking.encoding import poisson  # noqa: E402
from bntt.spiking.kernels import checks, name_for, plain  # noqa: E402
from bntt.spiking.networks import SpikingNetwork, initialise, place, weight_layers  # noqa: E402
from bntt.spiking.randomness import key  # noqa: E402
from bntt.training.arithmetic import settle  # noqa: E402

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Bounds for a layer on equal inputs: the share of spikes that rounding flips, the relative error of the gradients, and
# that of the running moments. A bfloat16 current has 8 bits, so one membrane in some hundred flips its spike.
BOUNDS = {"fp32": (1e-3, 1e-2, 1e-4), "bf16": (2e-2, 0.2, 1e-2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, to see whether they run")
    parser.add_argument("--json", metavar="FILE", help="write the results to this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    settle(os.cpu_count() or 1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {card(device)}", flush=True)
    found: list[dict[str, Any]] = []
    for name, work in checks_of(device, options.quick).items():
        began = time.perf_counter()
        try:
            passed, detail = work()
        except Exception as error:  # whatever it is, the other checks are still run
            passed, detail = False, " ".join(f"{type(error).__name__}: {error}".split())[:500]
        seconds = time.perf_counter() - began
        found.append({"check": name, "passed": passed, "detail": detail, "seconds": round(seconds, 2)})
        print(f"{'ok  ' if passed else 'FAIL'} {name}: {detail} ({seconds:.1f} s)", flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps({"card": card(device), "found": found}, indent=1) + "\n")
    sys.exit(0 if all(one["passed"] for one in found) else 1)


def card(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    facts = torch.cuda.get_device_properties(0)
    return (
        f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {facts.multi_processor_count} multiprocessors, "
        f"cuda {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}"
    )


def checks_of(device: torch.device, quick: bool) -> dict[str, Callable[[], tuple[bool, str]]]:
    """Every check by name; each returns whether it passed, and what it found."""
    width, batch = (0.125, 4) if quick else (1.0, 64)
    found: dict[str, Callable[[], tuple[bool, str]]] = {
        "kernels": lambda: kernels(device),
        "poisson": lambda: poisson_bits(device, 4 if quick else 64),
        "energy counter": lambda: energy(device),
    }
    for precision in PRECISIONS:
        found[f"layers in {precision}"] = lambda p=precision: layers(device, p, 0.125 if quick else 0.25)
    for architecture, side, steps in (("vgg9", 32, 25), ("vgg11", 64, 30)):
        for precision in PRECISIONS:
            found[f"step of {architecture}, {precision}, T = {steps}, batch {batch}"] = (
                lambda a=architecture, s=side, t=steps, p=precision: training_step(device, a, s, t, p, width, batch)
            )
    return found


def kernels(device: torch.device) -> tuple[bool, str]:
    """The self-check of the backend; it fails where `name_for` would print a reason and use another backend."""
    name = "gpu" if device.type == "cuda" else "native"
    fault = checks.fault(import_module(f"bntt.spiking.kernels.{name}"), device)
    return fault is None and name_for(device) == name, fault or f"the {name} kernels agree with the plain ones"


def poisson_bits(device: torch.device, count: int) -> tuple[bool, str]:
    images = torch.randn(count, 3, 32, 32)
    samples, of_epoch = torch.arange(count) * 7919, key(3, "first light", 0)
    there = poisson(images.to(device), 25, of_epoch, samples.to(device)).cpu()
    here = plain.poisson((images / 2).clamp(-1, 1), 25, of_epoch, samples)
    differing = int((here != there).sum())
    return differing == 0, f"{differing} of {here.numel()} spikes differ from the CPU's"


def energy(device: torch.device) -> tuple[bool, str]:
    found = joules(device)
    return True, "no energy counter here" if found is None else f"{found:.0f} J since the driver was loaded"


def layers(device: torch.device, precision: str, width: float) -> tuple[bool, str]:
    """Compare each layer with the CPU's in float64, on the same inputs and with the same rounded weights."""
    dtype = PRECISIONS[precision]
    description = weight_layers("vgg9", (3, 32, 32), 10, width)
    network = SpikingNetwork(description, 5, norm="bntt")
    initialise(network, 0, 2.0)
    twin = copy.deepcopy(network)
    for parameter in twin.parameters():  # the same numbers on both sides
        parameter.data = parameter.data.to(dtype).float()
    network = copy.deepcopy(twin).double()
    place(twin, device)
    images = torch.randn(8, 3, 32, 32)
    spikes = poisson(images, 5, key(0, "first light", 1), torch.arange(8)).double()
    worst = [0.0, 0.0, 0.0]
    for name, layer in network.hidden().items():
        other = twin.hidden()[name]
        here = spikes.detach().requires_grad_()
        there = spikes.detach().to(device, dtype).requires_grad_()
        expected, result = layer(here), other(there)
        upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        expected.backward(upstream.double())
        result.backward(upstream.to(device))
        pairs = [(here.grad, there.grad)]
        pairs += [(a.grad, b.grad) for a, b in zip(layer.parameters(), other.parameters(), strict=True)]
        moments = [(layer.norm.running_mean, other.norm.running_mean), (layer.norm.running_var, other.norm.running_var)]
        flipped = (expected != result.double().cpu()).double().mean().item()
        errors = [flipped, max(relative(*pair) for pair in pairs), max(relative(*pair) for pair in moments)]
        worst = [max(pair) for pair in zip(worst, errors, strict=True)]
        spikes = expected.detach()
    detail = "spikes flipped {:.1e}, gradients off by {:.1e}, running moments by {:.1e} at most".format(*worst)
    return all(error <= bound for error, bound in zip(worst, BOUNDS[precision], strict=True)), detail


def relative(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((found.double().cpu() - expected).norm() / expected.norm())


def training_step(
    device: torch.device, architecture: str, side: int, steps: int, precision: str, width: float, batch: int
) -> tuple[bool, str]:
    """Time a second step, because the first compiles kernels; all weights must have changed and be finite."""
    network = SpikingNetwork(weight_layers(architecture, (3, side, side), 10, width), steps, norm="bntt")
    initialise(network, 0, 2.0)
    place(network, device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=True)
    images, classes = torch.randn(batch, 3, side, side, device=device), torch.arange(batch, device=device) % 10
    samples = torch.arange(batch, device=device)
    before = [p.detach().clone() for p in network.parameters()]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step(number: int) -> float:
        spikes = poisson(images, steps, key(0, "first light", number), samples, dtype=PRECISIONS[precision])
        loss = F.cross_entropy(network.logits(network(spikes)), classes)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.item()

    step(0)
    began = time.perf_counter()
    loss = step(1)
    seconds = time.perf_counter() - began
    moved = all(
        p.isfinite().all() and not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)
    )
    memory = f", peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device.type == "cuda" else ""
    detail = f"{seconds * 1e3:.1f} ms, {batch / seconds:.0f} images/s{memory}, loss {loss:.3f}"
    return moved and loss == loss, detail if moved else f"{detail}; some weights did not move or are not finite"


if __name__ == "__main__":
    main()
