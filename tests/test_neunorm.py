"""STBP, NeuNorm and voting: against loops that autograd differentiates, by hand, and against SpikingJelly."""

import pytest
import torch
from tiny import images
from torch.nn import functional as F

from bntt.classifiers import SpikingClassifier
from bntt.methods import neunorm
from bntt.spiking.encoding import encode
from bntt.spiking.networks import initialise

OPTIONS = {"architecture": "vgg5", "width": 0.1, "time_steps": 6, "decay": 0.6, "threshold": 0.4,
           "surrogate_width": 0.9, "trace_decay": 0.8, "votes": 4, "dropout": 0.0}  # fmt: skip


def rectangle(u, threshold, width):
    """Spikes by arithmetic whose derivative is the rectangle: a ramp's slope, and the step's value."""
    ramp = ((u - threshold) / width).clamp(-0.5, 0.5)
    return ramp + ((u > threshold).to(u.dtype) - ramp).detach()


def naive_neuron(x, decay, threshold, width):
    u, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for now in x:
        u = decay * u * (1 - s) + now
        s = rectangle(u, threshold, width)
        spikes.append(s)
    return torch.stack(spikes)


def network(**changed):
    """A network in float64 with weights of NeuNorm, and input spikes for it, ``[6, 4, 1, 8, 8]``."""
    made = neunorm.build(OPTIONS | changed, images()).double()
    initialise(made, 3, 3.0)
    draws = torch.Generator().manual_seed(1)
    for name, weight in made.named_parameters():
        if "after" in name:
            weight.data = torch.randn(weight.shape, generator=draws, dtype=torch.float64)
    return made, (torch.rand(6, 4, 1, 8, 8, generator=draws) < 0.6).double()


def naive(made, spikes):
    """Votes at every step, ``[T, N, classes]``, by one loop over time and layers."""
    membranes, fired, traces, votes = {}, {}, {}, []
    for x in spikes:
        for layer in made.description:
            last = layer is made.description[-1]
            weight = made.classifier.weight if last else made.layers[layer.name].connection.weight
            current = F.conv2d(x, weight, padding=1) if layer.is_convolution else x.flatten(1) @ weight.T
            u = 0.6 * membranes.get(layer.name, 0.0) * (1 - fired.get(layer.name, 0.0)) + current
            x = rectangle(u, 0.4, 0.9)
            membranes[layer.name], fired[layer.name] = u, x
            if layer.is_convolution:
                trace = 0.8 * traces.get(layer.name, 0.0) + 0.2 / layer.outputs * x.mean(1, keepdim=True)
                traces[layer.name] = trace
                x = x - made.layers[layer.name].after[0].weight * trace
            if layer.pool:
                x = (x[:, :, ::2] + x[:, :, 1::2]).unflatten(3, (-1, 2)).sum(4) / 4
        votes.append(torch.stack([x[:, 4 * c : 4 * c + 4].sum(1) / 4 for c in range(3)], 1))
    return torch.stack(votes)


def test_the_network_and_all_its_gradients_are_those_of_the_naive_loop():
    made, spikes = network()
    draws = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for output in (made(spikes), naive(made, spikes)):
        made.zero_grad()
        (output * draws).sum().backward()
        results.append((output.detach(), {name: p.grad.clone() for name, p in made.named_parameters()}))
    torch.testing.assert_close(*results)
    assert 0 < results[0][0].mean() < 1
    assert all(gradient.abs().max() > 0 for gradient in results[0][1].values())


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_classifier_answers_with_the_mean_votes_of_the_steps_so_far(chunk):
    made, _ = network()
    data, samples = images(), torch.arange(4)
    scaled = data.test.unit(samples).double()
    votes = naive(made, encode(scaled, 6, 7, samples, signed=False)).detach()
    expected = torch.stack([votes[: t + 1].mean(0) for t in range(6)])
    pieces = SpikingClassifier(made, False, chunk).running_logits(scaled, samples, 7)
    torch.testing.assert_close(torch.cat([logits for _, logits in pieces]), expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_neurons_gradient_is_that_of_autograd_through_a_loop(seed):
    draws = torch.Generator().manual_seed(seed)
    decay, threshold, width = (0.1 + torch.rand(3, generator=draws) * torch.tensor([0.9, 0.7, 1.5])).tolist()
    x = torch.randn(9, 40, generator=draws, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(9, 40, generator=draws, dtype=torch.float64)
    results = []
    for spikes in (
        neunorm.Neuron(decay, threshold, width)(x)[0],
        naive_neuron(x, decay, threshold, width),
    ):
        results.append((spikes.detach(), *torch.autograd.grad(spikes, x, upstream)))
    torch.testing.assert_close(*results)


def test_two_stretches_of_time_are_one_also_in_the_gradient():
    neuron = neunorm.Neuron(0.7, 0.5, 1.0)
    x = torch.randn(8, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    whole, _ = neuron(x)
    first, state = neuron(x[:3])
    second, _ = neuron(x[3:], state)
    upstream = torch.randn(8, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pieces = torch.cat([first, second])
    torch.testing.assert_close(pieces, whole)
    gradients = [torch.autograd.grad(output, x, upstream)[0] for output in (pieces, whole)]
    torch.testing.assert_close(*gradients)


def test_a_neuron_by_hand():
    """Decay 1/2, threshold 1: u = 1 (does not fire), 1.25 (fires), 0.75, 1.375 (fires)."""
    x = torch.tensor([[1.0], [0.75], [0.75], [1.0]])
    spikes, left = neunorm.Neuron(0.5, 1.0, 1.0)(x)
    assert spikes.flatten().tolist() == [0, 1, 0, 1]
    assert left.item() == 0


def test_the_trace_by_hand():
    """Two channels, one pixel, k2 = 1/2, so v / F = 1/8: 2, 0 and 1 spikes give traces 1/4, 1/8 and 3/16."""
    layer = neunorm.NeuNorm(2, 1, 0.5)
    layer.weight.data = torch.tensor([1.0, -2.0])[:, None, None]
    spikes = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])[:, None, :, None, None]
    output, trace = layer(spikes)
    assert output.flatten(1).tolist() == [[0.75, 1.5], [-0.125, 0.25], [0.8125, 0.375]]
    assert trace.item() == 3 / 16


def test_the_trace_of_incessant_spikes_tends_to_one_over_the_channels():
    """Which k2 + v F = 1 means."""
    _, trace = neunorm.NeuNorm(5, 3, 0.9)(torch.ones(400, 2, 5, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(trace, torch.full((2, 1, 3, 3), 0.2, dtype=torch.float64))


@pytest.mark.parametrize(("channels", "side", "decay"), [(6, 4, 0.9), (3, 5, 0.5)])
def test_neunorm_is_spikingjellys_forward_and_backward(channels, side, decay):
    reason = "SpikingJelly, the independent implementation, is not installed"
    library = pytest.importorskip("spikingjelly.activation_based", reason=reason)
    from spikingjelly.activation_based import functional, layer

    assert library
    theirs = layer.NeuNorm(channels, side, side, decay, step_mode="m").double()
    ours = neunorm.NeuNorm(channels, side, decay).double()
    ours.weight.data = theirs.w.data.clone()
    draws = torch.Generator().manual_seed(4)
    spikes = (torch.rand(7, 2, channels, side, side, generator=draws) < 0.4).double().requires_grad_()
    upstream = torch.randn(spikes.shape, generator=draws, dtype=torch.float64)
    results = []
    for output, weight in ((ours(spikes)[0], ours.weight), (theirs(spikes), theirs.w)):
        results.append((output.detach(), *torch.autograd.grad(output, (spikes, weight), upstream)))
    functional.reset_net(theirs)
    torch.testing.assert_close(*results)


def test_voting_is_the_mean_of_neighbouring_outputs():
    spikes = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]])
    assert neunorm.Voting(2)(spikes).tolist() == [[0.5, 1.0, 1.0], [0.0, 0.5, 0.0]]
    assert neunorm.Voting(3)(spikes)[0].tolist() == pytest.approx([2 / 3, 1])


def test_neunorm_is_behind_convolutions_dropout_behind_fully_connected_layers_and_outputs_vote():
    made = neunorm.build(OPTIONS | {"votes": 10, "dropout": 0.3}, images())
    kinds = {name: [type(module).__name__ for module in layer.after] for name, layer in made.hidden().items()}
    assert kinds == {
        "conv1": ["NeuNorm", "Sequential"],
        "conv2": ["NeuNorm"],
        "conv3": ["NeuNorm", "Sequential", "Flatten"],
        "fc1": ["FixedDropout"],
    }
    assert made.layers["conv3"].after[0].weight.shape == (13, 4, 4)
    assert made.layers["fc1"].after[0].probability == 0.3
    assert made.description[-1].outputs == made.classifier.out_features == 30


def test_the_loss_is_the_squared_error_summed_over_classes_and_averaged_over_images(monkeypatch):
    from types import SimpleNamespace

    given = {}
    monkeypatch.setattr(neunorm, "fit_spiking", lambda task, network, loss: given.update(loss=loss))
    options = OPTIONS | {"gain": 1.0}
    neunorm.train(SimpleNamespace(options=options, data=images(), run=SimpleNamespace(seed=0)))
    votes = torch.tensor([[[0.5, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.5, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    loss = given["loss"](votes, torch.tensor([1, 2]))
    assert loss.item() == pytest.approx((0.25 + 0.25) / 2)
