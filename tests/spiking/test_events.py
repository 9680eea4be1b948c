"""The event-driven layer: the dense layer's spikes, and the same bits however it is cut or chooses its loop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.spiking.kernels import Dynamics
from bntt.spiking.layers import SpikingLayer, _has_taps, over_time
from bntt.spiking.neurons import IF, LIF
from bntt.spiking.norms import BNTT

from .helpers import NEURON, disturb, input_spikes, native_or_skip, random, vgg9
from .naive import Neuron
from .rounding import bounds

native = native_or_skip()

# steps, samples, height, width, inputs, outputs, taps, halve
SHAPES = [
    (5, 2, 4, 4, 3, 10, 9, False),
    (4, 3, 6, 4, 16, 64, 9, True),
    (3, 2, 5, 7, 19, 33, 9, False),
    (6, 1, 8, 8, 64, 130, 9, True),
    (3, 2, 1, 1, 5, 3, 9, False),
    (7, 5, 1, 1, 100, 70, 1, False),
    (2, 1, 1, 1, 1, 1, 1, False),
    (2, 2, 2, 2, 8, 16, 1, True),
]
DYNAMICS = [Dynamics(0.95, 1.0, False, 0.3), Dynamics(1.0, 0.8, True, 0.3)]


def problem(shape, density=0.2, dtype=torch.float32, normed=True, seed=0):
    steps, samples, height, width, inputs, outputs, taps, _ = shape
    draws = torch.Generator().manual_seed(seed)
    values = torch.randint(-4, 5, (steps, samples, height, width, inputs), generator=draws) / 4
    spikes = values * (torch.rand(values.shape, generator=draws) < density)
    weight = random(seed + 1, taps, inputs, outputs, dtype=torch.float32) / (taps * inputs * density) ** 0.5
    affine = (None, None)
    if normed:
        affine = (random(2, steps, outputs).abs().float() + 0.5, 0.2 * random(3, steps, outputs).float())
    return spikes.to(dtype), weight, *affine, random(4, samples * height * width, outputs).float()


def run(numbers, dynamics, halve, dense_above=None):
    spikes, weight, scale, shift, membrane = numbers
    after = membrane.clone()
    output, counts, density = native.event_layer(spikes, weight, scale, shift, dynamics, after, halve, dense_above)
    return output, after, counts, density


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("dynamics", DYNAMICS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_equations_in_float64(shape, dynamics, normed):
    halve, taps = shape[7], shape[6]
    spikes, weight, scale, shift, membrane = numbers = problem(shape, normed=normed)
    maps = spikes.double().flatten(0, 1).movedim(-1, 1)
    side = 3 if taps == 9 else 1
    kernel = weight.double().reshape(side, side, *weight.shape[1:]).permute(3, 2, 0, 1)
    neuron = Neuron(dynamics.leak, dynamics.threshold, "hard" if dynamics.hard_reset else "soft")

    def run_in_float64():
        """The spikes, then what no rounding may move far: the membranes that decided, and those left behind."""
        current = F.conv2d(maps, kernel, padding=side // 2).movedim(1, -1).unflatten(0, spikes.shape[:2])
        if normed:
            current = current * scale.double()[:, None, None, None] + shift.double()[:, None, None, None]
        u, fired, before = membrane.double().reshape(current[0].shape), [], []
        for step in current:
            u, spike, charged = neuron.step(u, step)
            fired.append(spike)
            before.append(charged)
        return torch.stack(fired), torch.stack(before), u

    expected, before, u = run_in_float64()
    reach, of_last = bounds(lambda: run_in_float64()[1:])
    near = ((before - dynamics.threshold).abs() <= reach).any(0)  # for which rounding may decide: not judged
    assert near.double().mean() < 0.01
    output, after, counts, density = run(numbers, dynamics, halve)
    assert density == pytest.approx(spikes.count_nonzero().item() / spikes.numel())
    assert ((counts - expected.flatten(2).sum(2)).abs() <= near.flatten(1).sum(1)).all()
    assert ((after.double().reshape(u.shape) - u).abs()[~near] <= of_last).all()
    if halve:
        expected, near = average(expected), average(near[None].double())[0] > 0
    assert torch.equal(output.double()[:, ~near], expected[:, ~near])


def average(maps):
    """Over 2 x 2 of maps ``[T, N, H, W, C]``."""
    return F.avg_pool2d(maps.flatten(0, 1).movedim(-1, 1), 2).movedim(1, -1).unflatten(0, maps.shape[:2])


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_bit_depends_on_the_loop_the_type_the_cut_or_the_threads(shape, density):
    halve = shape[7]
    spikes, weight, scale, shift, membrane = numbers = problem(shape, density or 0.1)
    if density == 0:
        spikes.zero_()
    expected = run(numbers, DYNAMICS[0], halve)[:3]

    def same(found):
        return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    for dense_above in (-1.0, 2.0):
        assert same(run(numbers, DYNAMICS[0], halve, dense_above)[:3])
    output, *rest = run((spikes.bfloat16(), *numbers[1:]), DYNAMICS[0], halve)[:3]
    assert output.dtype == torch.bfloat16 and same((output.float(), *rest))
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert same(run(numbers, DYNAMICS[0], halve)[:3])
    torch.set_num_threads(1)

    cut = len(spikes) // 2
    first = run(
        (spikes[:cut], weight, scale[:cut].contiguous(), shift[:cut].contiguous(), membrane), DYNAMICS[0], halve
    )
    last = run((spikes[cut:], weight, scale[cut:].contiguous(), shift[cut:].contiguous(), first[1]), DYNAMICS[0], halve)
    assert same((torch.cat([first[0], last[0]]), last[1], torch.cat([first[2], last[2]])))

    rows = len(membrane) // spikes.shape[1]
    one_by_one = [
        run(
            (spikes[:, n : n + 1].contiguous(), weight, scale, shift, membrane[n * rows : (n + 1) * rows]),
            DYNAMICS[0],
            halve,
        )
        for n in range(spikes.shape[1])
    ]
    outputs, membranes, counts, _ = zip(*one_by_one, strict=True)
    assert same((torch.cat(outputs, 1), torch.cat(membranes), torch.cat(counts, 1)))


def test_arguments_that_make_no_sense():
    spikes, weight, scale, shift, membrane = problem(SHAPES[0])
    with pytest.raises(ValueError, match="event-driven layer"):
        native.event_layer(spikes, weight[:4].contiguous(), scale, shift, DYNAMICS[0], membrane, False)
    for change in ("weight", "scale", "membrane"):
        given = {"weight": weight, "scale": scale, "membrane": membrane}
        given[change] = given[change][..., :-1].contiguous()
        with pytest.raises(ValueError, match="must be"):
            native.event_layer(spikes, given["weight"], given["scale"], shift, DYNAMICS[0], given["membrane"], False)
    with pytest.raises(ValueError, match="contiguous"):
        native.event_layer(spikes.transpose(2, 3), weight, scale, shift, DYNAMICS[0], membrane, False)


# -- in the layers and the network ---------------------------------------------------------------------------------


CONNECTIONS = {
    "convolution": (nn.Conv2d(4, 24, 3, padding=1, bias=False), (6, 3, 4, 6, 6), True),
    "product": (nn.Linear(40, 24, bias=False), (6, 3, 40), True),
    "strided": (nn.Conv2d(4, 24, 3, padding=1, stride=2, bias=False), (6, 3, 4, 6, 6), False),
    "one by one": (nn.Conv2d(4, 24, 1, bias=False), (6, 3, 4, 6, 6), False),
    "with a bias": (nn.Linear(40, 24), (6, 3, 40), False),
}


@pytest.mark.parametrize("neuron", [LIF(0.9), IF(0.8, "hard")], ids=str)
@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_layer_does_the_same_with_and_without_events(name, neuron, monkeypatch):
    connection, shape, served = CONNECTIONS[name]
    with torch.no_grad():
        for seed, parameter in enumerate(connection.parameters(), 12):
            parameter.copy_(random(seed, *parameter.shape) / parameter[0].numel() ** 0.5)
    norm = BNTT(24, 6)
    disturb(norm, 0)
    pool = nn.AvgPool2d(2) if name == "convolution" else None
    layer = SpikingLayer(connection, norm, neuron, pool).eval()
    x = input_spikes(1, *shape, dtype=torch.float32)
    assert _has_taps(connection) == served

    twin = copy.deepcopy(layer).double()

    @torch.no_grad()
    def membranes_in_float64():
        """Those that decide, which `resume` keeps to itself."""
        current = twin.norm(over_time(twin.connection, x.double()))
        return [Neuron(neuron.leak, neuron.threshold, neuron.reset).run(current)[1]]

    (reach,) = bounds(membranes_in_float64)
    assert (membranes_in_float64()[0] - neuron.threshold).abs().min() > reach, (
        "another seed: rounding decides whether a neuron fires"
    )
    found = layer.resume(x.bfloat16(), 0, None)
    monkeypatch.setenv("BNTT_KERNELS", "plain")
    expected = layer.resume(x, 0, None)
    assert expected.spike_counts.sum() > 0
    assert torch.equal(found.output.float(), expected.output.float())
    assert torch.equal(found.spike_counts, expected.spike_counts)
    assert (found.membrane - expected.membrane).abs().max() <= 2 * reach
    assert torch.equal(found.current, expected.current)
    assert torch.equal(found.spikes.float(), expected.spikes.float())


def test_changed_weights_are_noticed():
    layer = SpikingLayer(nn.Linear(8, 5, bias=False), None, LIF())
    x = torch.ones(3, 2, 8)
    with torch.no_grad():
        layer.connection.weight.fill_(1.0)
        assert layer.resume(x, 0, None).output.all()
        layer.connection.weight.fill_(-1.0)
        assert not layer.resume(x, 0, None).output.any()
        layer.connection.weight = nn.Parameter(torch.ones(5, 8))
        assert layer.resume(x, 0, None).output.all()


def test_a_network_answers_the_same_with_and_without_events(monkeypatch):
    """Every bit: weights, scales and shifts are such that no sum is ever rounded, on any processor."""
    network = vgg9("bntt", 6, 1 / 4, 16, dtype=torch.float32, neuron=NEURON | {"leak": 0.5, "threshold": 0.5}).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            fraction = 32 if name.endswith("weight") else 4
            tensor.copy_((tensor * fraction).round() / fraction)
        for layer in network.layers.values():
            layer.norm.running_var.fill_(1.0)
            layer.norm.eps = 0.0
    x = input_spikes(1, 6, 4, 3, 16, 16, dtype=torch.float32)
    state: dict = {}
    found = torch.cat([network.resume(x[:2], 0, state), network.resume(x[2:], 2, state)])
    monkeypatch.setenv("BNTT_KERNELS", "plain")
    with torch.no_grad():
        expected = network(x)
        exact = network.double()(x.double())
    assert expected.abs().max() > 0.1
    assert torch.equal(found, expected) and torch.equal(expected.double(), exact)
