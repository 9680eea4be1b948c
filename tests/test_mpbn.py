"""The membrane batch norm: against a loop with PyTorch's own batch norm, and its folding into thresholds."""

import pytest
import torch
from torch import nn

from bntt.methods.mpbn import MembraneNormLIF
from bntt.spiking.networks import initialise, weight_layers
from bntt.spiking.stateful import StatefulNetwork

LAYERS = weight_layers("vgg5", (2, 8, 8), 3, 0.1)
STEPS = 6
SETTINGS = {"leak": 0.8, "threshold": 0.5, "alpha": 0.4}


class Spike(torch.autograd.Function):
    """1 where z > theta, and the triangle of Eq. 8 backwards, value by value."""

    @staticmethod
    def forward(ctx, z, theta, alpha):
        ctx.save_for_backward(z)
        ctx.theta, ctx.alpha = theta, alpha
        return torch.where(z > theta, 1.0, 0.0).to(z)

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        slope = ctx.alpha * torch.maximum(torch.zeros_like(z), 1 - torch.abs((z - ctx.theta) / ctx.theta))
        return grad * slope, None, None


def unfolded(bn, xs, reset, leak=0.8, threshold=0.5, alpha=0.4):
    """Spikes of currents ``[T, N, C, ...]`` with a batch norm that is called at every step."""
    u, spikes = torch.zeros_like(xs[0]), []
    for x in xs:
        u = leak * u + x
        spike = Spike.apply(bn(u), threshold, alpha)
        fired = spike.detach() > 0
        u = torch.where(fired, 0.0 if reset == "hard" else u - threshold, u)
        spikes.append(spike)
    return torch.stack(spikes)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(reset="hard", channels=6, rank=4, seed=0):
    """Our neuron, and PyTorch's batch norm with the same numbers; scales of both signs, and a zero."""
    neuron = MembraneNormLIF(channels, reset=reset, **SETTINGS).double()
    bn = (nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d)(channels).double()
    with torch.no_grad():
        neuron.gamma.copy_(random(seed, channels))
        neuron.gamma[::5] = torch.tensor([0.0, -0.9])
        neuron.beta.copy_(random(seed + 1, channels))
        neuron.running_mean.copy_(random(seed + 2, channels))
        neuron.running_var.copy_(random(seed + 3, channels).square() + 0.1)
    names = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
    numbers = {of_torch: neuron.state_dict()[ours].clone() for of_torch, ours in names.items()}
    bn.load_state_dict(numbers | {"num_batches_tracked": torch.tensor(0)})
    return neuron, bn


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("shape", [(STEPS, 5, 6, 4, 4), (STEPS, 9, 6)], ids=["images", "vectors"])
def test_in_training_it_is_the_loop_forward_and_backward_and_in_what_it_tracks(reset, shape):
    neuron, bn = pair(reset, rank=len(shape) - 1)
    x, y, upstream = random(4, *shape).requires_grad_(), random(4, *shape).requires_grad_(), random(5, *shape)
    spikes, _ = neuron(x)
    expected = unfolded(bn, y, reset)
    assert torch.equal(spikes, expected) and 0.05 < spikes.mean() < 0.95
    found = torch.autograd.grad(spikes, (x, neuron.gamma, neuron.beta), upstream)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (y, bn.weight, bn.bias), upstream))
    assert all(gradient.abs().max() > 0 for gradient in found)
    torch.testing.assert_close((neuron.running_mean, neuron.running_var), (bn.running_mean, bn.running_var))


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_folded_and_unfolded_agree_to_the_last_spike(reset, seed):
    neuron, bn = pair(reset, seed=seed)
    x = 2 * random(seed + 50, STEPS, 20, 6, 4, 4)
    spikes, _ = neuron.eval()(x)
    assert torch.equal(spikes, unfolded(bn.eval(), x, reset))
    assert 0.05 < spikes.mean() < 0.95
    assert set(neuron.folded()[0].tolist()) == {-1.0, 1.0}


def test_the_threshold_of_a_channel_that_the_source_gives():
    """v_th' = (v_th - beta) sqrt(var + eps) / gamma + mean; where gamma is 0, a neuron always fires, or never."""
    neuron = MembraneNormLIF(4, reset="hard", **SETTINGS).double()
    with torch.no_grad():
        neuron.gamma.copy_(torch.tensor([2.0, -2.0, 0.0, 0.0]))
        neuron.beta.copy_(torch.tensor([0.1, 0.1, 0.6, 0.5]))
        neuron.running_mean.fill_(3.0)
        neuron.running_var.fill_(4.0 - 1e-5)
    sign, level = neuron.folded()
    expected = torch.tensor([3.4, -2.6, -torch.inf, torch.inf], dtype=torch.float64)  # 0.4 * 2 / gamma + 3, signed
    torch.testing.assert_close(level, expected, rtol=1e-7, atol=0)
    assert sign.tolist() == [1, -1, 1, 1]


def test_a_whole_network_folded_and_unfolded():
    """In float64, through all layers, from one stretch of time to the next."""
    network = StatefulNetwork(
        LAYERS, STEPS, neuron=lambda layer: MembraneNormLIF(layer.outputs, reset="hard", **SETTINGS), norm="tdbn"
    ).double()
    initialise(network, 0, 2.0)
    spikes = (torch.rand(STEPS, 8, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    with torch.no_grad():
        for number, layer in enumerate(network.hidden().values()):
            layer.neuron.gamma.copy_(random(number, len(layer.neuron.gamma)))
    for _ in range(20):
        network(spikes)  # so that moments are tracked
    seen, state = {}, {}
    pieces = [
        network.eval().resume(piece, 3 * number, state, lambda name, step: seen.setdefault(name, []).append(step))
        for number, piece in enumerate(spikes.split(3))
    ]
    x = spikes
    for name, layer in network.hidden().items():
        bn = (nn.BatchNorm2d if layer.connection.weight.dim() == 4 else nn.BatchNorm1d)(
            len(layer.neuron.gamma)
        ).double()
        bn.weight, bn.bias = layer.neuron.gamma, layer.neuron.beta
        bn.running_mean, bn.running_var = layer.neuron.running_mean, layer.neuron.running_var
        current = layer.norm(layer.connection(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        fired = unfolded(bn.eval(), current, "hard").detach()
        assert 0.02 < fired.mean() < 0.98, name
        assert torch.equal(torch.cat([step.spikes for step in seen[name]]), fired), name
        for module in layer.after:
            fired = module(fired.flatten(0, 1)).unflatten(0, x.shape[:2])
        x = fired
    torch.testing.assert_close(torch.cat(pieces), network.classifier(x))


def test_the_optimiser_decays_its_scale_as_that_of_a_norm():
    assert MembraneNormLIF(3, reset="hard", **SETTINGS).temporal_scale() is None
