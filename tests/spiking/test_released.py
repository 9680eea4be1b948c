"""The released code's state dict loads: the same answers from the same weights.

`Released` has the module names of the authors' VGG9 and VGG11 and runs them as their forward does.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.spiking.networks import SpikingNetwork, from_released, weight_layers
from bntt.spiking.neurons import LIF

from .helpers import input_spikes, relative

STEPS, LEAK, WIDTH, SIDE = 5, 0.95, 1 / 8, 16
VGG9 = ((8, 8, 16, 16, 32, 32, 32), {2: "A", 4: "A", 7: "A"}, 128, 32 * 2 * 2)
VGG11 = ((8, 16, 32, 32, 64, 64, 64, 64), {1: "A", 2: "A", 4: "A", 6: "A", 8: "G"}, 512, 64)


class Released(nn.Module):
    def __init__(self, convolutions, pools, hidden, features):
        super().__init__()
        self.pools, self.depth = pools, len(convolutions)
        channels = 3
        for number, outputs in enumerate(convolutions, 1):
            setattr(self, f"conv{number}", nn.Conv2d(channels, outputs, 3, 1, 1, bias=False))
            setattr(self, f"bntt{number}", self._norms(nn.BatchNorm2d, outputs))
            channels = outputs
        self.fc1 = nn.Linear(features, hidden, bias=False)
        self.bntt_fc = self._norms(nn.BatchNorm1d, hidden)
        self.fc2 = nn.Linear(hidden, 10, bias=False)

    @staticmethod
    def _norms(kind, channels):
        norms = nn.ModuleList([kind(channels, eps=1e-4, momentum=0.1, affine=True) for _ in range(STEPS)])
        for norm in norms:
            norm.bias = None
        return norms

    def forward(self, x):
        membranes, voltage = {}, 0.0

        def fire(name, current):
            membranes[name] = LEAK * membranes.get(name, 0.0) + current
            scaled = membranes[name] / 1.0 - 1.0
            reset = torch.zeros_like(scaled)
            reset[scaled > 0] = 1.0
            membranes[name] = membranes[name] - reset
            return (scaled > 0).to(scaled.dtype)

        for t in range(STEPS):
            o = x[t]
            for number in range(1, self.depth + 1):
                o = getattr(self, f"conv{number}")(o)
                o = fire(f"conv{number}", getattr(self, f"bntt{number}")[t](o))
                pool = self.pools.get(number)
                if pool:
                    o = F.avg_pool2d(o, 2) if pool == "A" else F.adaptive_avg_pool2d(o, 1)
            o = fire("fc1", self.bntt_fc[t](self.fc1(o.flatten(1))))
            voltage = voltage + self.fc2(o)
        return voltage / STEPS


def released(plan):
    torch.manual_seed(0)
    network = Released(*plan).double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=2)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
    with torch.no_grad():  # so that the tracked moments are those of this network
        for step in range(4):
            network(input_spikes(step, STEPS, 6, 3, SIDE, SIDE))
    return network.eval()


@pytest.mark.parametrize(("architecture", "plan"), [("vgg9", VGG9), ("vgg11", VGG11)])
@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "data-parallel"])
def test_released_weights_give_the_released_answers(architecture, plan, prefix):
    theirs = released(plan)
    ours = SpikingNetwork(weight_layers(architecture, (3, SIDE, SIDE), 10, WIDTH), STEPS, neuron=lambda name: LIF(LEAK))
    ours.double().eval()
    ours.load_state_dict(from_released({prefix + name: value for name, value in theirs.state_dict().items()}))
    x = input_spikes(9, STEPS, 4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected, found = theirs(x), ours.logits(ours(x))
    assert expected.abs().max() > 0.01
    assert relative(found, expected) < 1e-12


def test_more_than_nine_time_steps_stay_in_order():
    """Entries are sorted by number: step 10 does not come after step 1."""
    state = {"conv1.weight": torch.zeros(1, 1, 3, 3), "fc1.weight": torch.zeros(1, 1), "fc2.weight": torch.zeros(1, 1)}
    for layer in ("bntt1", "bntt_fc"):
        for t in sorted(range(12), key=str):
            for entry in ("weight", "running_mean", "running_var"):
                state[f"{layer}.{t}.{entry}"] = torch.tensor([float(t)])
    for name, value in from_released(state).items():
        if ".norm." in name:
            assert value.flatten().tolist() == list(range(12)), name
