"""Norms and neurons as ordinary modules in a network of the user's own, fused or one after the other."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.spiking.layers import OverTime, SpikingLayer
from bntt.spiking.neurons import IF, LIF
from bntt.spiking.norms import BNTT, NORMS

from .helpers import disturb, input_spikes, random, relative

CLASSES = {name: norm for name, norm in NORMS.items() if norm is not None}
STEPS = 6


def norm_of(name, channels=3, seed=0, dtype=torch.float64):
    norm = CLASSES[name](channels, STEPS).to(dtype)
    disturb(norm, seed)
    return norm


def gradients(output, upstream, *tensors):
    return torch.autograd.grad(output, tensors, upstream)


# -- fused and unfused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(STEPS, 7, 3), (STEPS, 2, 3, 4, 5)], ids=["vectors", "images"])
def test_norm_then_neuron_equals_both_at_once(name, training, shape):
    """In values, in the gradients of currents and parameters, and in what is tracked."""
    apart, together = norm_of(name).train(training), norm_of(name).train(training)
    x, y = (2 * random(1, *shape) + 0.3).requires_grad_(), (2 * random(1, *shape) + 0.3).requires_grad_()
    upstream, lif = random(2, *shape), LIF(0.9)
    one_by_one, fused = lif(apart(x)), lif(y, together)
    assert 0.05 < fused.mean() < 0.95
    assert torch.equal(one_by_one, fused)
    expected = gradients(one_by_one, upstream, x, *apart.parameters())
    found = gradients(fused, upstream, y, *together.parameters())
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 1e-12
    for a, b in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("training", [True, False])
def test_frozen_norm_parameters(name, training):
    """The current's gradient is what it was; the parameters get none."""
    free, frozen = norm_of(name).train(training), norm_of(name).train(training).requires_grad_(False)
    x, y = random(1, STEPS, 5, 3).requires_grad_(), random(1, STEPS, 5, 3).requires_grad_()
    upstream, lif = random(2, STEPS, 5, 3), LIF()
    (expected,) = gradients(lif(x, free), upstream, x)
    (found,) = gradients(lif(y, frozen), upstream, y)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_one_frozen_parameter_of_two():
    free, part = norm_of("tebn"), norm_of("tebn")
    part.gamma.requires_grad_(False)
    x, lif = random(1, STEPS, 5, 3), LIF()
    lif(x, free).backward(random(2, STEPS, 5, 3))
    lif(x, part).backward(random(2, STEPS, 5, 3))
    assert part.gamma.grad is None
    assert torch.equal(part.step_weight.grad, free.step_weight.grad) and torch.equal(part.beta.grad, free.beta.grad)


def test_a_current_that_needs_no_gradient():
    norm, lif = norm_of("bntt"), LIF()
    lif(random(1, STEPS, 5, 3), norm).backward(random(2, STEPS, 5, 3))
    assert norm.gamma.grad.abs().max() > 0


def test_gradients_accumulate_over_two_passes():
    norm, lif, x, upstream = norm_of("bntt"), LIF(), random(1, STEPS, 5, 3), random(2, STEPS, 5, 3)
    lif(x, norm).backward(upstream)
    once = norm.gamma.grad.clone()
    lif(x, norm).backward(upstream)
    torch.testing.assert_close(norm.gamma.grad, 2 * once)


def test_backward_twice_through_one_pass():
    norm, lif = norm_of("bntt"), LIF()
    x, upstream = random(1, STEPS, 5, 3).requires_grad_(), random(2, STEPS, 5, 3)
    spikes = lif(x, norm)
    first = torch.autograd.grad(spikes, [x, norm.gamma], upstream, retain_graph=True)
    second = torch.autograd.grad(spikes, [x, norm.gamma], upstream)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", CLASSES)
def test_without_gradients_wanted(name):
    norm, x = norm_of(name), random(1, STEPS, 5, 3)
    expected = LIF()(x, copy.deepcopy(norm)).detach()
    with torch.no_grad():
        spikes = LIF()(x, norm)
    assert not spikes.requires_grad and torch.equal(spikes, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_currents_keep_their_precision(dtype):
    """The tiny arithmetic is done in float64 all the same."""
    norm = norm_of("bntt", dtype=torch.float32)
    x = random(1, STEPS, 5, 3).to(dtype).requires_grad_()
    for spikes in (LIF()(x, norm), LIF()(norm(x))):
        assert spikes.dtype == dtype
        spikes.sum().backward()
    assert x.grad.dtype == dtype and norm.gamma.grad.dtype == torch.float32


# -- memory layout, order and company of samples -------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_or_not(training):
    x = 2 * random(1, STEPS * 4, 3, 5, 4)
    upstream, lif = random(2, STEPS, 4, 3, 5, 4), LIF()
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        current = x.contiguous(memory_format=layout).unflatten(0, (STEPS, 4)).requires_grad_()
        norm = norm_of("bntt").train(training)
        spikes = lif(current, norm)
        results.append((spikes, *gradients(spikes, upstream, current, norm.gamma)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_an_expanded_or_strided_current():
    x = 2 * random(1, STEPS, 4, 6, 5, 5)
    lif = LIF()
    assert torch.equal(lif(x[:, :, ::2, 1:, :3]), lif(x[:, :, ::2, 1:, :3].contiguous()))
    constant = x[:1].expand(STEPS, -1, -1, -1, -1)
    assert torch.equal(lif(constant), lif(constant.contiguous()))


def test_the_current_is_left_as_it_was():
    x = 2 * random(1, STEPS, 4, 3)
    before, norm = x.clone(), norm_of("bntt")
    current = x.requires_grad_()
    LIF()(current, norm).backward(random(2, STEPS, 4, 3))
    LIF()(current).backward(random(2, STEPS, 4, 3))
    assert torch.equal(current.detach(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # with and without the fused and event-driven kernels
def test_a_membrane_to_start_from_is_left_as_it_was(dtype):
    """So that a sequence can go on from it more than once."""
    layer = SpikingLayer(nn.Linear(6, 3, bias=False), norm_of("bntt").eval(), LIF()).to(dtype)
    x, current = input_spikes(1, STEPS, 4, 6, dtype=dtype), random(2, STEPS, 4, 3, dtype=dtype)
    membrane = random(3, 4, 3, dtype=dtype)
    before = membrane.clone()
    for run in (
        lambda: layer.resume(x, 0, membrane).membrane,
        lambda: layer.advance(x, 0, membrane)[1],
        lambda: layer.neuron.resume(current, layer.norm, 0, membrane)[1],
        lambda: layer.neuron.advance(current, layer.norm, 0, membrane)[1],
    ):
        first, second = run(), run()
        assert torch.equal(membrane, before) and not torch.equal(first, before)
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", CLASSES)
def test_permuted_samples_in_training(name):
    """Batch statistics do not know the order."""
    order = torch.tensor([3, 0, 4, 1, 2])
    x = 2 * random(1, STEPS, 5, 3, 2, 2)
    assert torch.equal(LIF()(x[:, order], norm_of(name)), LIF()(x, norm_of(name))[:, order])


@pytest.mark.parametrize("name", CLASSES)
def test_samples_do_not_meet_at_inference(name):
    norm, x = norm_of(name).eval(), 2 * random(1, STEPS, 5, 3, 2, 2)
    alone = torch.cat([LIF()(x[:, n : n + 1], norm) for n in range(5)], 1)
    assert torch.equal(alone, LIF()(x, norm))


# -- a network of one's own ----------------------------------------------------------------------------------------


def own_network():
    return nn.Sequential(
        OverTime(nn.Conv2d(1, 8, 3, padding=1, bias=False)),
        BNTT(8, STEPS),
        LIF(leak=0.9),
        OverTime(nn.Sequential(nn.AvgPool2d(2), nn.Flatten())),
        OverTime(nn.Linear(32, 16)),
        IF(reset="hard"),
        OverTime(nn.Linear(16, 2)),
    )


def test_own_network_learns_and_is_saved():
    """Bars that lie or stand, in noise: an ordinary training with an ordinary optimiser."""
    torch.manual_seed(0)
    network = own_network()
    images = torch.zeros(40, 1, 4, 4)
    labels = torch.arange(40) % 2
    for n in range(40):
        line = (n // 2) % 4
        images[n, 0, line, :] = 1.0 * (labels[n] == 0)
        images[n, 0, :, line] += 1.0 * (labels[n] == 1)
    x = images.expand(STEPS, -1, -1, -1, -1) + 0.1 * random(0, STEPS, 40, 1, 4, 4, dtype=torch.float32)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = F.cross_entropy(network(x).mean(0), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]

    network.eval()
    again = own_network().eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x), network(x))
    assert torch.equal(copy.deepcopy(network)(x), network(x))


def test_a_spiking_layer_is_its_parts_in_order():
    """Connection, norm, neuron, pool."""
    conv, norm, pool = nn.Conv2d(2, 3, 3, padding=1).double(), norm_of("bntt").eval(), nn.AvgPool2d(2)
    layer, x = SpikingLayer(conv, norm, LIF(), pool).eval(), input_spikes(1, STEPS, 2, 2, 4, 4)
    current = torch.stack([conv(o) for o in x])
    spikes = LIF()(current, norm)
    expected = torch.stack([pool(s) for s in spikes])
    assert torch.equal(layer(x), expected)

    first = layer.resume(x[:2], 0, None)
    last = layer.resume(x[2:], 2, first.membrane)
    assert torch.equal(last.input, x[2:])
    assert torch.equal(torch.cat([first.spikes, last.spikes]), spikes)
    assert torch.equal(torch.cat([first.output, last.output]), expected)
    torch.testing.assert_close(torch.cat([first.current, last.current]), current)
