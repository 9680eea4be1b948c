"""Spike-based backpropagation: neuron, pools, readout and gradient, by hand and against loops without the package."""

import math

import numpy as np
import pytest
import torch
from tiny import images
from torch.nn import functional as F

from bntt.classifiers import SpikingClassifier
from bntt.methods import lee
from bntt.spiking.encoding import encode

OPTIONS = {"architecture": "vgg5", "width": 0.1, "time_steps": 12, "leak": 0.9, "threshold": 0.8,
           "pool_threshold": 0.3, "dropout": 0.0}  # fmt: skip


def network(**changed):
    """A network in float64 whose neurons fire, and input spikes for it, ``[12, 4, 1, 8, 8]``."""
    made = lee.build(OPTIONS | changed, images()).double()
    lee.initialise(made, 3)
    for weight in made.parameters():
        weight.data *= 1.5
    draws = torch.Generator().manual_seed(1)
    return made, (torch.rand(12, 4, 1, 8, 8, generator=draws) < 0.6).double()


def naive(made, spikes, decay, leak=0.9, slope=1.0):
    """The classifier's leaky accumulator after every step, layer by layer within each step; differentiable.

    Autograd follows Lee et al.'s rule through it, but for the correction of a leaky neuron's slope.
    """

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u, height, slope):
            ctx.save_for_backward(u > height)
            ctx.slope = slope
            return (u > height).to(u.dtype)

        @staticmethod
        def backward(ctx, upstream):
            (fired,) = ctx.saved_tensors
            return upstream * fired * ctx.slope, None, None

    membranes, voltage, found = {}, 0.0, []
    for x in spikes:
        for layer in made.description[:-1]:
            weight = made.layers[layer.name].connection.weight
            current = F.conv2d(x, weight, padding=1) if layer.is_convolution else x.flatten(1) @ weight.T
            u = membranes.get(layer.name, 0.0) + current
            x = Spike.apply(u, 0.8, slope)
            kept = u * (1 - x.detach())
            membranes[layer.name] = decay(kept, leak)
            if layer.pool:
                name = f"pool of {layer.name}"
                u = membranes.get(name, 0.0) + (x[:, :, ::2] + x[:, :, 1::2]).unflatten(3, (-1, 2)).sum(4) / 4
                x = Spike.apply(u, 0.3, 1.0)
                membranes[name] = u * (1 - x.detach())
        voltage = decay(voltage + x @ made.classifier.weight.T, leak)
        found.append(voltage)
    return torch.stack(found)


def value_only(u, leak):
    """The leak acts on the value; its slope is 1."""
    return u + (leak * u - u).detach()


def test_the_network_is_the_naive_loop_and_its_running_logits_are_the_leaky_accumulator():
    made, spikes = network()
    expected = naive(made, spikes, lambda u, leak: leak * u)
    torch.testing.assert_close(made(spikes).cumsum(0), expected)
    assert expected.abs().min() > 0
    torch.testing.assert_close(made.logits(made(spikes)), expected[-1] / 12)


@pytest.mark.parametrize("chunk", [1, 5, 12])
def test_a_classifier_answers_after_t_steps_with_the_accumulator_divided_by_t(chunk):
    made, _ = network()
    data, samples = images(), torch.arange(4)
    scaled = data.test.unit(samples).double()
    spikes = encode(scaled, 12, 7, samples, signed=False)
    expected = naive(made, spikes, lambda u, leak: leak * u) / torch.arange(1, 13)[:, None, None]
    pieces = SpikingClassifier(made, False, chunk).running_logits(scaled, samples, 7)
    torch.testing.assert_close(torch.cat([logits for _, logits in pieces]), expected.detach())


@pytest.mark.parametrize("corrected", [True, False])
def test_the_gradient_of_all_weights_is_that_of_the_naive_loop(corrected):
    """Through spiking pools and readout, over the whole sequence: without leak, and with it but not corrected."""
    leak, slope = (1.0, 1 / 0.8) if corrected else (0.9, 1.0)
    made, spikes = network(leak=leak)
    for layer in made.hidden().values():
        layer.neuron.corrected = corrected
    draws = torch.randn(12, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for running in (made(spikes).cumsum(0), naive(made, spikes, value_only, leak, slope)):
        made.zero_grad()
        (running * draws).sum().backward()
        results.append([parameter.grad.clone() for parameter in made.parameters()])
    torch.testing.assert_close(*results)
    assert all(gradient.abs().max() > 0 for gradient in results[0])


def test_a_neuron_over_four_steps_by_hand():
    """Leak 1/2, threshold 1: u = 0.8, 1.3 (fires), 0.5, 1.25 (fires), and after it 0.2, which stays."""
    x = torch.tensor([0.8, 0.9, 0.5, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    spikes, membrane = lee.Neuron(0.5, 1.0, True)(x[:, None])
    assert spikes[:, 0].tolist() == [0, 1, 0, 1, 0]
    assert membrane.item() == pytest.approx(0.2)
    spikes[:, 0].backward(torch.tensor([100.0, 2.0, 100.0, 3.0, 100.0], dtype=torch.float64))
    trace = 0.5**3 + 0.5  # at the last step, of spikes three steps and one step ago
    slope = 1 - math.log(2) * trace / 2
    np.testing.assert_allclose(x.grad.numpy(), [2 * slope, 2 * slope, 3 * slope, 3 * slope, 0], rtol=1e-12)


def test_a_neuron_that_fires_at_its_threshold_does_not_and_one_that_never_fires_has_no_gradient():
    x = torch.full((6, 1), 1.0, dtype=torch.float64, requires_grad=True)
    spikes, membrane = lee.Neuron(1.0, 6.0, True)(x)
    spikes.sum().backward()
    assert spikes.sum().item() == 0
    assert membrane.item() == 6
    assert x.grad.abs().sum().item() == 0


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_currents_gradient_is_that_of_the_next_spike(corrected, seed):
    """Over whole sequences, from spike times alone; and through the membrane at both ends."""
    draws = np.random.default_rng(seed)
    leak, threshold, steps = draws.uniform(0.3, 1), draws.uniform(0.3, 2), 40
    x = draws.normal(0.2, 0.8, (steps, 50))
    start, upstream, of_left = draws.normal(0, 0.3, 50), draws.normal(size=(steps, 50)), draws.normal(size=50)
    current = torch.tensor(x, requires_grad=True)
    before = torch.tensor(start, requires_grad=True)
    spikes, left = lee.Neuron(leak, threshold, corrected)(current, before)
    torch.autograd.backward([spikes, left], [torch.tensor(upstream), torch.tensor(of_left)])
    for neuron in range(50):
        u, fired = start[neuron], []
        for t in range(steps):
            u = leak * u + x[t, neuron]
            fired.append(u > threshold)
            u = 0.0 if fired[-1] else u
        assert spikes[:, neuron].tolist() == fired
        assert left[neuron].item() == pytest.approx(u, rel=1e-9)
        times, slope = np.flatnonzero(fired), 1.0
        if corrected and len(times):
            slope = (1 + math.log(leak) * (leak ** (steps - 1 - times)).mean()) / threshold
        expected = []
        for t in range(steps):
            following = times[times >= t]
            expected.append(slope * upstream[following[0], neuron] if len(following) else of_left[neuron])
        np.testing.assert_allclose(current.grad[:, neuron], expected, rtol=1e-9)
        assert before.grad[neuron].item() == pytest.approx(expected[0], rel=1e-9)


def test_a_spiking_pool_by_hand():
    """It adds averages of four spikes without leak, fires above 0.75, and forgets what is above."""
    made = lee.build(OPTIONS | {"pool_threshold": 0.75}, images())
    _, average, pool = made.layers["conv1"].after
    spikes = torch.zeros(12, 1, 1, 2, 2)
    # 0.75, 1 (fires), 1 (fires), 0.5, 0.75, 1 (fires); 0.75, which stays for four steps, and 1 (fires)
    for t, count in enumerate([3, 1, 4, 2, 1, 1, 3, 0, 0, 0, 0, 1]):
        spikes[t].view(-1)[:count] = 1
    fired, membrane = pool(average(spikes.flatten(0, 1)).unflatten(0, (12, 1)))
    assert fired.flatten().tolist() == [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert membrane.item() == 0


def test_dropout_is_behind_every_hidden_layer_and_before_its_pool():
    made = lee.build(OPTIONS | {"dropout": 0.4}, images())
    kinds = {name: [type(module).__name__ for module in layer.after] for name, layer in made.hidden().items()}
    assert kinds == {
        "conv1": ["FixedDropout", "Sequential", "Neuron"],
        "conv2": ["FixedDropout"],
        "conv3": ["FixedDropout", "Sequential", "Neuron", "Flatten"],
        "fc1": ["FixedDropout"],
    }
    assert {layer.after[0].probability for layer in made.hidden().values()} == {0.4}


def test_initial_weights_have_the_deviation_of_their_fan_in_and_depend_on_the_seed():
    made, other = (lee.build(OPTIONS | {"width": 1.0}, images()) for _ in range(2))
    lee.initialise(made, 0), lee.initialise(other, 1)
    for name, weight in made.named_parameters():
        fan_in = weight[0].numel()
        assert abs(weight.std().item() * math.sqrt(fan_in / 2) - 1) < 4 / math.sqrt(weight.numel())
        assert not torch.equal(weight, other.get_parameter(name))


def test_the_loss_is_the_squared_error_summed_over_classes_and_averaged_over_images(monkeypatch):
    from types import SimpleNamespace

    given = {}
    monkeypatch.setattr(lee, "fit_spiking", lambda task, network, loss: given.update(loss=loss))
    lee.train(SimpleNamespace(options=OPTIONS, data=images(), run=SimpleNamespace(seed=0)))
    contributions = torch.zeros(2, 2, 3)
    contributions[0, 0] = torch.tensor([2.0, 4.0, 0.0])  # the mean of two steps is 1, 2, 0
    loss = given["loss"](contributions, torch.tensor([1, 2]))
    assert loss.item() == pytest.approx((1 + 1 + 1) / 2)
