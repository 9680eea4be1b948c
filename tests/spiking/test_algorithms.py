"""Algorithms 1 and 2 of the paper, line by line."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.spiking import randomness
from bntt.spiking.encoding import poisson
from bntt.spiking.networks import SpikingNetwork, WeightLayer
from bntt.spiking.neurons import LIF
from bntt.spiking.norms import BNTT

from .helpers import disturb, random, relative
from .naive import Spike

# -- Algorithm 1: the BNTT layer and its moving averages -----------------------------------------------------------


@pytest.mark.parametrize("tracking", ["variance", "deviation"])
@pytest.mark.parametrize("momentum", [0.1, 0.35])
def test_algorithm_1(tracking, momentum):
    """Lines 1 to 7 for three mini-batches.

    ``deviation``: as printed, the moving average is of the biased sigma. ``variance``: as released, of the unbiased
    variance, as PyTorch's batch norm keeps it.
    """
    steps, channels, m = 3, 2, 6
    norm = BNTT(channels, steps, tracking=tracking, momentum=momentum).double()
    disturb(norm, 0)
    mean_bar = norm.running_mean.tolist()
    variance_bar = norm.running_var.tolist()
    sigma_bar = norm.running_var.sqrt().tolist()
    for batch in range(3):
        x = 2 * random(batch, steps, m, channels) + 1
        y = norm(x)
        for t in range(steps):
            for c in range(channels):
                values = x[t, :, c].tolist()
                mean = sum(values) / m  # line 1
                variance = sum((v - mean) ** 2 for v in values) / m  # line 2
                hat = [(v - mean) / math.sqrt(variance + 1e-4) for v in values]  # line 3
                expected = [norm.gamma[t, c].item() * h for h in hat]  # line 4
                assert y[t, :, c].tolist() == pytest.approx(expected, rel=1e-11)
                mean_bar[t][c] = (1 - momentum) * mean_bar[t][c] + momentum * mean  # line 6
                sigma_bar[t][c] = (1 - momentum) * sigma_bar[t][c] + momentum * math.sqrt(variance)  # line 7
                variance_bar[t][c] = (1 - momentum) * variance_bar[t][c] + momentum * variance * m / (m - 1)
    expected = variance_bar if tracking == "variance" else [[s**2 for s in row] for row in sigma_bar]
    for t in range(steps):
        assert norm.running_mean[t].tolist() == pytest.approx(mean_bar[t], rel=1e-12)
        assert norm.running_var[t].tolist() == pytest.approx(expected[t], rel=1e-12)

    norm.eval()  # "used to normalize the test data at inference", and then moved no more
    x = random(9, steps, m, channels)
    scale = norm.gamma / (torch.tensor(expected, dtype=torch.float64) + 1e-4).sqrt()
    normalised = (x - torch.tensor(mean_bar, dtype=torch.float64)[:, None]) * scale[:, None]
    assert relative(norm(x).detach(), normalised.detach()) < 1e-12
    assert norm.running_mean[0].tolist() == pytest.approx(mean_bar[0], rel=1e-12)


def test_the_two_trackings_differ():
    """By Jensen's inequality and the unbiased factor; normalisation during training does not depend on them."""
    norms = [BNTT(1, 1, tracking=tracking).double() for tracking in ("variance", "deviation")]
    x = random(0, 1, 4, 1)
    assert torch.equal(norms[0](x), norms[1](x))
    assert norms[0].running_var.item() > norms[1].running_var.item()


# -- Algorithm 2: a training step ----------------------------------------------------------------------------------

LAYERS = [
    WeightLayer("conv1", 1, 3, 4, "A"),
    WeightLayer("fc1", 12, 6, None, None),
    WeightLayer("fc2", 6, 3, None, None),
]
LEAK, RATE, STEPS = 0.9, 0.2, 5


@pytest.mark.parametrize("classifier_norm", [True, False])
@pytest.mark.parametrize("readout", ["sum", "mean"])
def test_algorithm_2_one_training_step(classifier_norm, readout):
    """Encoding, all time-steps, loss on the accumulated voltage, gradients, W = W - eta dW and gamma likewise.

    Line 9 puts the norm on the classifier too; the released code does not. Both are offered.
    """
    images, labels = random(0, 4, 1, 4, 4), torch.tensor([0, 2, 1, 2])
    noise, samples = randomness.key(0, "noise"), torch.arange(4)
    network = SpikingNetwork(
        LAYERS, STEPS, neuron=lambda name: LIF(LEAK), readout=readout, classifier_norm=classifier_norm
    ).double()
    with torch.no_grad():
        for number, weight in enumerate(network.parameters()):
            weight.copy_(random(number, *weight.shape))
    disturb(network, 3)
    expected = step_by_hand(
        {k: v.clone() for k, v in network.state_dict().items()},
        images,
        labels,
        noise,
        samples,
        classifier_norm,
        readout,
    )

    o = poisson(images, STEPS, noise, samples)
    loss = F.cross_entropy(network.logits(network(o)), labels)
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=RATE).step()

    state = network.state_dict()
    assert state.keys() == expected.keys()
    assert ("classifier_norm.gamma" in state) == classifier_norm
    for name, value in expected.items():
        assert relative(state[name], value) < 1e-12, name


def step_by_hand(state, images, labels, noise, samples, classifier_norm, readout):
    """Algorithm 2, lines 2 to 13, for the three-layer network; returns the state after the update."""
    w = {name: state[name].requires_grad_() for name in state if name.endswith("weight")}
    bn = {}
    for prefix, kind in (
        ("layers.conv1.norm", nn.BatchNorm2d),
        ("layers.fc1.norm", nn.BatchNorm1d),
        ("classifier_norm", nn.BatchNorm1d),
    ):
        if prefix == "classifier_norm" and not classifier_norm:
            continue
        bn[prefix] = []
        for t in range(STEPS):  # "decouples the parameters along the time axis"
            module = kind(state[f"{prefix}.gamma"].shape[1], eps=1e-4).double()
            module.weight.data.copy_(state[f"{prefix}.gamma"][t])
            module.bias = None
            module.running_mean.copy_(state[f"{prefix}.running_mean"][t])
            module.running_var.copy_(state[f"{prefix}.running_var"][t])
            bn[prefix].append(module)

    u1 = u2 = voltage = 0.0
    for t in range(STEPS):  # line 3
        o = poisson(images, 1, noise, samples, start=t)[0]  # line 4
        u1 = LEAK * u1 + bn["layers.conv1.norm"][t](F.conv2d(o, w["layers.conv1.connection.weight"], padding=1))
        o = Spike.apply(u1, 1.0, 0.3)  # lines 5 to 7
        u1 = u1 - o.detach()
        o = F.avg_pool2d(o, 2).flatten(1)
        u2 = LEAK * u2 + bn["layers.fc1.norm"][t](F.linear(o, w["layers.fc1.connection.weight"]))
        o = Spike.apply(u2, 1.0, 0.3)
        u2 = u2 - o.detach()
        last = F.linear(o, w["classifier.weight"])
        voltage = voltage + (bn["classifier_norm"][t](last) if classifier_norm else last)  # line 9, no leak
    F.cross_entropy(voltage / STEPS if readout == "mean" else voltage, labels).backward()  # line 12

    after = {name: (value - RATE * value.grad).detach() for name, value in w.items()}
    for prefix, modules in bn.items():
        after[f"{prefix}.gamma"] = torch.stack([(m.weight - RATE * m.weight.grad).detach() for m in modules])
        after[f"{prefix}.running_mean"] = torch.stack([m.running_mean for m in modules])
        after[f"{prefix}.running_var"] = torch.stack([m.running_var for m in modules])
    return after
