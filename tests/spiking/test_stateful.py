"""Networks of any neuron, against the fused networks and by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.classifiers import SpikingClassifier
from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers
from bntt.spiking.neurons import LIF
from bntt.spiking.stateful import FixedDropout, Stateful, StatefulNetwork, pooled, through

LAYERS = weight_layers("vgg5", (1, 8, 8), 3, 0.1)


class SoftLIF(Stateful):
    """The paper's neuron, with Eq. 8 as the derivative of a spike and no gradient through the reset."""

    def step(self, x, u):
        u = x if u is None else 0.95 * u + x
        d = (u - 1).clamp(-1, 1)
        ramp = 0.3 * (d - d * d.abs() / 2)
        fired = (u > 1).to(x.dtype)
        return fired + (ramp - ramp.detach()), u - fired


class Counter(Stateful):
    """Adds the number of steps that it has seen."""

    def step(self, x, seen):
        seen = 0 if seen is None else seen
        return x + seen, seen + 1


def pair(norm, **settings):
    """A stateful and a fused network with the same weights, in float64."""
    one = StatefulNetwork(LAYERS, 12, neuron=lambda layer: SoftLIF(), norm=norm, **settings).double()
    other = SpikingNetwork(LAYERS, 12, norm=norm, neuron=lambda name: LIF(0.95), **settings).double()
    initialise(other, 0, 2.0)
    one.load_state_dict(other.state_dict())
    return one, other


def spikes(steps=12):
    return (torch.rand(steps, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()


@pytest.mark.parametrize("norm", ["none", "bntt", "tdbn", "bn-repeated"])
@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_with_the_papers_neuron_it_is_the_fused_network_forward_and_backward(norm, readout):
    one, other = pair(norm, readout=readout)
    labels, results = torch.tensor([0, 1, 2, 0]), []
    for network in (one, other):
        contributions = network(spikes())
        F.cross_entropy(network.logits(contributions), labels).backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        results.append((contributions.detach(), gradients, dict(network.named_buffers())))
    torch.testing.assert_close(*results)
    assert any(gradient.abs().max() > 0 for gradient in results[0][1].values())


@pytest.mark.parametrize("pieces", [[12], [5, 7], [1] * 12])
def test_inference_in_pieces_is_inference_at_once_and_is_observed_alike(pieces):
    one, other = pair("bntt")
    one(spikes()), other(spikes())  # so that moments are tracked
    made = []
    for network, division in ((one.eval(), pieces), (other.eval(), [12])):
        state, outputs, start = {}, [], 0
        seen = {name: [] for name in [layer.name for layer in LAYERS]}
        for piece in spikes().split(division):

            def watch(name, step, seen=seen):
                seen[name].append((step.input, step.output, step.spike_counts))

            outputs.append(network.resume(piece, start, state, watch))
            start += len(piece)
        joined = {name: [torch.cat(parts) for parts in zip(*steps, strict=True)] for name, steps in seen.items()}
        made.append((torch.cat(outputs), joined))
    torch.testing.assert_close(*made)


def test_a_classifier_takes_it_as_it_takes_the_fused_network():
    one, other = (network.float() for network in pair("none"))
    images, samples = torch.rand(4, 1, 8, 8), torch.arange(4)
    running = [
        torch.cat([logits for _, logits in SpikingClassifier(network, False, 5).running_logits(images, samples, 3)])
        for network in (one, other)
    ]
    torch.testing.assert_close(*running)


def test_modules_behind_the_neuron_and_behind_the_classifier_keep_their_states():
    def after(layer):
        return [Counter(), *pooled(layer)]

    network = StatefulNetwork(LAYERS, 6, neuron=lambda layer: SoftLIF(), after=after, head=[Counter()]).double().eval()
    initialise(network, 0, 2.0)
    whole = network(spikes(6))
    state = {}
    pieces = [network.resume(piece, 3 * number, state) for number, piece in enumerate(spikes(6).split(3))]
    torch.testing.assert_close(torch.cat(pieces), whole)
    bare = StatefulNetwork(LAYERS, 6, neuron=lambda layer: SoftLIF(), after=after).double().eval()
    bare.load_state_dict(network.state_dict())
    expected = bare(spikes(6)) + torch.arange(6.0, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(whole, expected)


def test_the_mask_of_dropout_is_the_same_at_all_steps_and_another_for_each_batch():
    dropout, x = FixedDropout(0.4), torch.ones(5, 1000, 2)
    y, mask = dropout(x)
    assert torch.equal(y, y[:1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, (torch.ones(()) / (1 - 0.4)).item()}
    assert 0.5 < (y[0] > 0).float().mean() < 0.7
    assert torch.equal(dropout(x, mask)[0], y)
    assert not torch.equal(dropout(x)[0], y)
    assert torch.equal(dropout.eval()(x)[0], x)


def test_a_stateless_module_is_applied_at_every_step():
    x = torch.randn(3, 2, 4)
    y, states = through([nn.ReLU(), Counter()], x, [None, None])
    assert torch.equal(y, x.relu() + torch.arange(3.0)[:, None, None])
    assert states == [None, 3]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"time_steps": 0}, "at least 1"), ({"readout": "max"}, "'mean' or 'sum'"), ({"norm": "bn"}, "unknown norm")],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        StatefulNetwork(LAYERS, **{"time_steps": 3, "neuron": lambda layer: SoftLIF()} | settings)
    with pytest.raises(ValueError, match="less than 1"):
        FixedDropout(1.0)
    with pytest.raises(NotImplementedError, match="step"):
        Stateful()(torch.ones(1, 1))
