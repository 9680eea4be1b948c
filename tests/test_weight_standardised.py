"""Weight standardisation: its formula by loops, its gradients, and the network that is saved."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bntt.methods.weight_standardised import StandardisedNetwork, standardised
from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers

LAYERS = weight_layers("vgg5", (2, 8, 8), 3, 0.1)


def by_hand(weight, gain):
    """Channel by channel, in numpy."""
    made = np.empty_like(weight)
    for channel, values in enumerate(weight):
        fan_in = values.size
        variance = ((values - values.sum() / fan_in) ** 2).sum() / fan_in
        made[channel] = gain[channel] * (values - values.sum() / fan_in) / math.sqrt(max(fan_in * variance, 1e-4))
    return made


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7)])
def test_the_weights_are_those_of_the_formula(shape):
    draws = np.random.default_rng(0)
    weight, gain = draws.normal(1.0, 3.0, shape), draws.normal(size=shape[0])
    found = standardised(torch.from_numpy(weight), torch.from_numpy(gain)).numpy()
    np.testing.assert_allclose(found, by_hand(weight, gain), rtol=1e-12, atol=1e-14)
    axes = tuple(range(1, len(shape)))
    np.testing.assert_allclose(found.mean(axes), 0, atol=1e-14)
    np.testing.assert_allclose(found.var(axes), gain**2 / weight[0].size, rtol=1e-12)
    moved = standardised(torch.from_numpy(7 * weight - 2), torch.from_numpy(gain)).numpy()
    np.testing.assert_allclose(moved, found, rtol=1e-10, atol=1e-13)  # whatever scale and mean the free weights have


def test_a_channel_of_equal_weights_gives_zeros():
    assert (standardised(torch.full((2, 3), 0.7), torch.ones(2)).abs() < 1e-4).all()


def test_gradients_are_those_of_finite_differences():
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, 2, 2, generator=draws, dtype=torch.float64).requires_grad_()
    gain = torch.rand(3, generator=draws, dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(standardised, (weight, gain))


def spikes(steps=5):
    return (torch.rand(steps, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()


def networks():
    """A standardised network, and a plain one that has the standardised weights."""
    network = SpikingNetwork(LAYERS, 5, norm="none").double()
    initialise(network, 0, 2.0)
    plain = SpikingNetwork(LAYERS, 5, norm="none").double()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    for name in weights.keys() - {"classifier.weight"}:
        weights[name] = by_hand(weights[name], np.full(len(weights[name]), 3.0))
    plain.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return StandardisedNetwork(network, 3.0).double(), plain


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_network_is_the_plain_one_with_these_weights_and_learns_what_lies_behind_them(chunk):
    """Gradients of free weights and gains are those of the plain weights, by the chain rule."""
    network, plain = networks()
    upstream = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    made = []
    for each in (network, plain):
        output = each(spikes(), chunk)
        output.backward(upstream)
        made.append(output.detach())
    torch.testing.assert_close(*made)
    assert made[0].abs().max() > 0
    for name, free in network.free.items():
        gain = network.gains[name]
        variable = free.detach().clone().requires_grad_(), gain.detach().clone().requires_grad_()
        of_plain = plain.hidden()[name].connection.weight.grad
        expected = torch.autograd.grad(standardised(*variable), variable, of_plain)
        torch.testing.assert_close((free.grad, gain.grad), expected)
        assert of_plain.abs().max() > 0


def test_the_fused_passes_see_ordinary_connections_and_the_optimiser_sees_what_is_learned():
    network, _ = networks()
    network(spikes())
    connections = [layer.connection for layer in network.network.hidden().values()]
    assert [type(connection) for connection in connections] == [nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.Linear]
    assert not any(list(connection.parameters()) for connection in connections)
    layers = ("conv1", "conv2", "conv3", "fc1")
    expected = {f"{kind}.{layer}" for kind in ("free", "gains") for layer in layers} | {"network.classifier.weight"}
    assert {name for name, _ in network.named_parameters()} == expected
    assert hasattr(network.gains, "temporal_scale")  # so that gains decay as norms do
