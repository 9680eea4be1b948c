"""What several of the proofs need: networks with parameters away from their initial values, inputs, comparisons."""

from importlib import import_module

import pytest
import torch

from bntt.spiking.kernels import Unavailable
from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers
from bntt.spiking.neurons import LIF

from .naive import HIDDEN, NaiveVGG9, Neuron

NEURON = {"leak": 0.95, "threshold": 1.0, "reset": "soft", "alpha": 0.3}


def native_or_skip():
    """The native kernels. Without a compiler the calling module is skipped; whatever else goes wrong is a failure."""
    try:
        return import_module("bntt.spiking.kernels.native")
    except Unavailable as reason:
        if "no C++ compiler" not in str(reason):
            raise
        pytest.skip(str(reason), allow_module_level=True)


def random(seed, *shape, dtype=torch.float64):
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def input_spikes(seed, *shape, dtype=torch.float64):
    """Signed spikes as from Poisson coding: -1, 0 or 1."""
    u = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((u > 0.75).to(dtype) - (u < 0.25).to(dtype)).to(dtype)


def disturb(module, seed):
    """Move the parameters and tracked moments of every norm away from their initial values."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
            u = torch.rand(tensor.shape, generator=draws, dtype=torch.float64).to(tensor)
            if name.endswith(("gamma", "step_weight", "root_weight", "running_var")):
                tensor.mul_(0.6 + 0.8 * u)
            elif name.endswith(("beta", "log_weight", "running_mean")):
                tensor.add_(0.6 * u - 0.3)


def vgg9(norm, steps, width, side, seed=0, dtype=torch.float64, neuron=NEURON, **options):
    """Our VGG9 with ten classes, disturbed."""
    network = SpikingNetwork(
        weight_layers("vgg9", (3, side, side), 10, width),
        steps,
        norm=norm,
        neuron=lambda name: LIF(**neuron),
        **options,
    )
    initialise(network, seed, 3.0)  # enough for every layer to fire without a norm too
    network.to(dtype)
    disturb(network, seed)
    return network


def naive_twin(network, norm, neuron=NEURON):
    """The naive loop with the numbers of one of our networks."""
    return NaiveVGG9(network.state_dict(), norm, network.time_steps, Neuron(**neuron), network.readout == "mean")


def record_spikes(network):
    """A dict that holds every hidden layer's spikes ``[T, N, ...]`` of the latest forward pass."""
    spikes = {}
    for name, layer in network.layers.items():
        layer.neuron.register_forward_hook(lambda _, __, out, name=name: spikes.__setitem__(name, out.detach()))
    return spikes


def count_flips(ours, naive):
    """How many spikes differ, per hidden layer."""
    return {name: int((ours[name] != torch.stack(naive.spikes[name])).sum()) for name in HIDDEN}


def relative(a, b):
    """Largest difference, relative to the largest entry of the reference ``b``."""
    scale = b.abs().max().item()
    difference = (a - b).abs().max().item()
    return difference / scale if scale else difference
