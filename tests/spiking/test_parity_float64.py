"""Whole VGG9 in float64 against the naive loop: identical spikes, gradients, and what training leaves behind."""

import pytest
import torch
from torch.nn import functional as F

from bntt.spiking.norms import NORMS

from .helpers import NEURON, count_flips, input_spikes, naive_twin, record_spikes, relative, vgg9
from .naive import HIDDEN, NAIVE_NORMS


def train_both(network, naive, side, samples, steps):
    """``steps`` updates of both by SGD on the same inputs; spikes are compared in each, gradients in the first."""
    spikes = record_spikes(network)
    labels = torch.arange(samples) % 10
    optimisers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (network, naive)]
    for step in range(steps):
        x = input_spikes(100 + step, network.time_steps, samples, 3, side, side, dtype=torch.float64)
        for optimiser in optimisers:
            optimiser.zero_grad()
        logits, expected = network.logits(network(x)), naive(x)
        flips = count_flips(spikes, naive)
        assert not any(flips.values()), f"step {step + 1}: spikes differ: {flips}"
        assert relative(logits.detach(), expected.detach()) < 1e-12
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(expected, labels).backward()
        if step == 0:
            compare_gradients(network, naive)
        for optimiser in optimisers:
            optimiser.step()
    return spikes


def compare_gradients(network, naive):
    expected = naive.gradients()
    ours = {name: p.grad for name, p in network.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        assert gradient is not None and expected[name].abs().max() > 0, f"{name}: no gradient to compare"
        assert relative(gradient, expected[name].reshape(gradient.shape)) < 1e-10, name


def compare_values(network, naive, tolerance):
    """Weights, norm parameters and tracked moments under the same names."""
    expected = naive.values()
    ours = network.state_dict()
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert relative(ours[name], value.reshape(ours[name].shape)) < tolerance, name


@torch.no_grad()
def compare_inference(network, naive, side, samples):
    """Logits and spikes of both with their tracked moments, ours in one pass and resumed after an uneven cut."""
    network.eval(), naive.eval()
    x = input_spikes(7, network.time_steps, samples, 3, side, side)
    spikes = record_spikes(network)
    ours, expected = network.logits(network(x)), naive(x)
    assert not any(count_flips(spikes, naive).values())
    assert relative(ours, expected) < 1e-9

    seen, state, cut = {name: [] for name in HIDDEN}, {}, network.time_steps // 3

    def observe(name, step):
        seen.get(name, []).append(step.spikes)

    first = network.resume(x[:cut], 0, state, observe)
    second = network.resume(x[cut:], cut, state, observe)
    assert not any(count_flips({name: torch.cat(parts) for name, parts in seen.items()}, naive).values())
    assert relative(network.logits(torch.cat([first, second])), expected) < 1e-9


def assert_alive(spikes):
    """A comparison of silent layers would prove nothing."""
    for name, s in spikes.items():
        assert 0.001 < s.mean() < 0.999, f"{name} fires {s.mean():.4f}"


def prove(norm, steps, width, side, samples, updates=10, neuron=NEURON, **options):
    network = vgg9(norm, steps, width, side, neuron=neuron, **options)
    naive = naive_twin(network, norm, neuron)
    spikes = train_both(network, naive, side, samples, updates)
    assert_alive(spikes)
    compare_values(network, naive, 1e-9)
    compare_inference(network, naive, side, samples)


def test_the_naive_loop_knows_every_norm():
    assert NAIVE_NORMS.keys() == NORMS.keys()


@pytest.mark.parametrize("norm", NORMS)
def test_small(norm):
    prove(norm, steps=5, width=1 / 8, side=8, samples=6)


@pytest.mark.parametrize("norm", ["none", "bntt"])
@pytest.mark.parametrize(
    "change",
    [
        {"reset": "hard"},
        {"leak": 1.0},
        {"leak": 0.5},
        {"threshold": 0.7},
        {"alpha": 0.9},
    ],
    ids=str,
)
def test_other_neurons(norm, change):
    prove(norm, steps=5, width=1 / 8, side=8, samples=6, updates=2, neuron=NEURON | change)


def test_readout_that_is_not_divided():
    prove("bntt", steps=5, width=1 / 8, side=8, samples=6, updates=2, readout="sum")


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_ten_updates_over_25_time_steps(norm):
    prove(norm, steps=25, width=0.25, side=16, samples=4)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_full_size(norm):
    """The paper's CIFAR-10 network as it is: full width, 32 x 32, T = 25."""
    prove(norm, steps=25, width=1.0, side=32, samples=2, updates=1)
