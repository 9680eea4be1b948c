"""The released code's state dict loads: the same answers from the same weights.

`Released` has the module names of the authors' VGG9 and VGG11 and runs them as their forward does.
"""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.common.errors import UserError
from bntt.spiking.networks import SpikingNetwork, from_released, weight_layers
from bntt.spiking.neurons import LIF

from .helpers import input_spikes, random, relative

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
def test_released_weights_give_the_released_answers(architecture, plan):
    theirs = released(plan)
    ours = SpikingNetwork(weight_layers(architecture, (3, SIDE, SIDE), 10, WIDTH), STEPS, neuron=lambda name: LIF(LEAK))
    ours.double().eval()
    ours.load_state_dict(from_released(theirs.state_dict()))
    x = input_spikes(9, STEPS, 4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected, found = theirs(x), ours.logits(ours(x))
    assert expected.abs().max() > 0.01
    assert relative(found, expected) < 1e-12


def small(steps=2):
    """The released code's entries of a network with two convolutions."""
    state = {
        "conv1.weight": random(1, 2, 3, 3, 3),
        "conv2.weight": random(2, 4, 2, 3, 3),
        "fc1.weight": random(3, 5, 16),
        "fc2.weight": random(4, 10, 5),
    }
    for layer, channels in (("bntt1", 2), ("bntt2", 4), ("bntt_fc", 5)):
        for t in sorted(range(steps), key=str):
            for entry in ("weight", "running_mean", "running_var"):
                state[f"{layer}.{t}.{entry}"] = torch.full((channels,), float(t))
            state[f"{layer}.{t}.num_batches_tracked"] = torch.tensor(7)
    return state


@pytest.mark.parametrize(
    "prefix", ["module.", "module.module.", "_orig_mod.", "_orig_mod.module.", "net.", "module.model._orig_mod."]
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1)}}}},
        lambda state: {"epoch": 3, "net": {"model": state}, "args": None},
    ],
    ids=["bare", "checkpoint", "nested"],
)
def test_wrappers_are_taken_off(prefix, wrap):
    expected, found = from_released(small()), from_released(wrap({prefix + key: a for key, a in small().items()}))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_wrapper_within_a_name():
    state = {key.replace("conv2.", "conv2._orig_mod."): value for key, value in small().items()}
    assert list(from_released(state)) == list(from_released(small()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"conv1.bias": torch.zeros(2)}, "conv1.bias"),
        ({"bntt2.1.bias": torch.ones(4)}, "bntt2.1.bias"),
        ({"fc2.bias": torch.ones(10)}, "fc2.bias"),
        ({"fc3.weight": torch.ones(10, 10)}, "fc3.weight"),
        ({"bntt3.0.weight": torch.ones(4)}, "conv3.weight"),
        ({"attention.weight": torch.ones(1)}, "attention.weight"),
        ({"conv4.weight": torch.ones(4, 4, 3, 3)}, "conv3.weight"),
        ({"conv2.weight": None}, "conv2.weight"),
        ({"fc1.weight": None}, "fc1.weight"),
        ({"fc2.weight": None}, "fc2.weight"),
        ({"bntt2.0.running_var": None}, "bntt2.0.running_var"),
        ({"bntt_fc.1.weight": None}, "bntt_fc.1.weight"),
        (
            {f"bntt2.1.{entry}": None for entry in ("weight", "running_mean", "running_var", "num_batches_tracked")},
            "bntt2 has 1",
        ),
        ({"bntt2.2.weight": torch.ones(4)}, "bntt2 has 3 time-steps"),
        ({"conv2.weight": torch.ones(4, 3, 3, 3)}, "conv2.weight"),
        ({"conv1.weight": torch.ones(2, 3, 5, 5)}, "conv1.weight"),
        ({"bntt1.1.weight": torch.ones(3)}, "bntt1.1.weight"),
        ({"fc1.weight": torch.ones(5, 15)}, "fc1.weight"),
        ({"fc2.weight": torch.ones(10, 6)}, "fc2.weight"),
        ({"fc2.weight": torch.ones(10, 5, dtype=torch.int64)}, "fc2.weight"),
        ({"fc2.weight": [1.0]}, "fc2.weight"),
        ({"module.conv1.weight": torch.ones(2, 3, 3, 3)}, "conv1.weight is there twice"),
    ],
    ids=str,
)
def test_what_cannot_be_represented_is_refused_by_name(change, named):
    state = {key: value for key, value in {**small(), **change}.items() if value is not None}
    with pytest.raises(UserError, match=re.escape(named)):
        from_released(state)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "empty"),
        (None, "NoneType"),
        ("weights.pt", "torch.load"),
        (Path("weights.pt"), "torch.load"),
        (nn.Linear(1, 1), "whole|state_dict"),
        ({"model": nn.Linear(1, 1)}, "'model' is a whole Linear"),
        ({"weight": torch.ones(1)}, "'weight'"),
        ({"a": small(), "b": small()}, "2 state dicts"),
    ],
    ids=["empty", "none", "text", "path", "module", "module inside", "other", "two"],
)
def test_what_is_no_state_dict_of_the_released_code(given, named):
    with pytest.raises(UserError, match=named) as error:
        from_released(given)
    assert "\n" not in str(error.value)


def test_another_number_of_time_steps_does_not_load():
    network = SpikingNetwork(weight_layers("vgg9", (3, SIDE, SIDE), 10, WIDTH), STEPS + 1)
    with pytest.raises(RuntimeError, match=r"layers\.conv1\.norm\.gamma"):
        network.load_state_dict(from_released(released(VGG9).state_dict()))


def test_more_than_nine_time_steps_stay_in_order():
    """Entries are sorted by number: step 10 does not come after step 1."""
    for name, value in from_released(small(12)).items():
        if ".norm." in name:
            assert value[:, 0].tolist() == list(range(12)), name
