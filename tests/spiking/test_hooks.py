"""Which hooks of the modules in a `SpikingNetwork` fire, as its documentation says, and that they change no number."""

from collections import Counter

import pytest
import torch
from torch import nn

from bntt.spiking.layers import SpikingLayer
from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers
from bntt.spiking.neurons import LIF
from bntt.spiking.norms import BNTT

from .helpers import input_spikes, random, relative

STEPS = 4
REGISTER = {
    "forward_pre": lambda module, f: module.register_forward_pre_hook(lambda *_: f()),
    "forward": lambda module, f: module.register_forward_hook(lambda *_: f()),
    "backward_pre": lambda module, f: module.register_full_backward_pre_hook(lambda *_: f()),
    "backward": lambda module, f: module.register_full_backward_hook(lambda *_: f()),
}
PARTS = ["connection", "norm", "neuron", "pool", "pool.0", "layer"]


def network(dtype=torch.float64):
    layers = weight_layers("vgg5", (3, 8, 8), 5, 1 / 16)
    made = SpikingNetwork(layers, STEPS, norm="bntt", classifier_norm=True, neuron=lambda name: LIF(0.9))
    initialise(made, 0, 3.0)
    return made.to(dtype)


def part(module, name):
    return module.layers["conv3"].get_submodule("" if name == "layer" else name)


def results(module, x, chunk=None):
    out = module(x, chunk)
    out.backward(random(1, *out.shape).to(out))
    return [out.detach(), *(p.grad for p in module.parameters()), *module.buffers()]


@pytest.mark.parametrize("kind", REGISTER)
@pytest.mark.parametrize("name", PARTS)
def test_hooks_fire_and_change_nothing(name, kind):
    x, calls, hooked = input_spikes(0, STEPS, 3, 3, 8, 8), [], network()
    REGISTER[kind](part(hooked, name), lambda: calls.append(name))
    found = results(hooked, x)
    assert calls == [name]
    for a, b in zip(found, results(network(), x), strict=True):
        assert relative(a, b) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", REGISTER)
def test_hooks_of_a_connection_in_half_precision(kind, dtype):
    """As in training in bfloat16: weights are rounded as without hooks, and keep float32 gradients."""
    x, hooked, calls = input_spikes(0, STEPS, 3, 3, 8, 8).to(dtype), network(torch.float32), []
    REGISTER[kind](part(hooked, "connection"), lambda: calls.append(1))
    found, expected = results(hooked, x), results(network(torch.float32), x)
    assert calls == [1] and torch.equal(found[0], expected[0])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and relative(a.double(), b.double()) < 1e-2


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("connection", [nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))])
def test_any_connection_and_pool_take_spikes_of_any_precision(connection, dtype, weights):
    layer = SpikingLayer(connection, BNTT(8, STEPS), LIF(), nn.Conv2d(8, 2, 3, stride=2)).to(weights)
    out = layer(input_spikes(0, STEPS, 2, 3, 9, 9).to(dtype))
    out.float().sum().backward()
    assert out.dtype == dtype and out.isfinite().all() and out.count_nonzero()
    assert all(p.grad.dtype == weights and p.grad.isfinite().all() for p in layer.pool.parameters())


@pytest.mark.parametrize("kind", REGISTER)
def test_hooks_of_the_classifier_and_its_norm(kind):
    module, calls = network(), Counter()
    for name in ("classifier", "classifier_norm", ""):
        REGISTER[kind](module.get_submodule(name), lambda name=name: calls.update([name]))
    results(module, input_spikes(0, STEPS, 3, 3, 8, 8))
    assert calls == {"classifier": 1, "classifier_norm": 1, "": 1}


def counted(module):
    """Counts of the hooks that fire from now on, by part and kind."""
    calls = Counter()
    for name in PARTS:
        for kind, register in REGISTER.items():
            register(part(module, name), lambda name=name, kind=kind: calls.update([(name, kind)]))
    for kind, register in REGISTER.items():
        register(module.classifier, lambda kind=kind: calls.update([("classifier", kind)]))
    return calls


CALLED = ["connection", "norm", "pool", "pool.0", "classifier"]
FORWARD, BACKWARD = ("forward_pre", "forward"), ("backward_pre", "backward")


def test_in_chunks_as_documented():
    """Two chunks, which the backward pass runs again."""
    module = network()
    calls = counted(module)
    found = results(module, input_spikes(0, STEPS, 3, 3, 8, 8), 2)
    assert calls == {(name, kind): 4 for name in CALLED for kind in FORWARD} | {
        (name, kind): 2 for name in CALLED for kind in BACKWARD
    }
    for a, b in zip(found, results(network(), input_spikes(0, STEPS, 3, 3, 8, 8), 2), strict=True):
        assert relative(a, b) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_in_resume_as_documented(dtype):
    """Two pieces. In either mode the norms use what they tracked, and stay in their mode."""
    module, x = network(dtype), input_spikes(0, STEPS, 3, 3, 8, 8).to(dtype)
    calls, seen, state = counted(module), [], {}
    out = [module.resume(x[:2], 0, state, lambda name, step: seen.append(step)), module.resume(x[2:], 2, state)]
    assert calls == {(name, kind): 2 for name in CALLED for kind in FORWARD}
    assert module.layers["conv3"].norm.training and seen[2].spikes.shape == seen[2].current.shape
    assert relative(torch.cat(out), network(dtype).resume(x, 0, {})) < (1e-12 if dtype == torch.float64 else 1e-5)


def test_what_a_hook_returns_counts():
    module, x = network(), input_spikes(0, STEPS, 3, 3, 8, 8)
    module.layers["conv1"].norm.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    assert module(x).abs().max() == 0 or module.layers["conv2"].norm.running_mean.abs().max() == 0
    assert module.layers["conv2"].norm.running_mean.abs().max() == 0
    module.layers["conv1"].norm._forward_hooks.clear()
    module.layers["conv1"].norm.register_full_backward_pre_hook(lambda _, grad: (torch.zeros_like(grad[0]),))
    module(x).sum().backward()
    assert module.layers["conv1"].connection.weight.grad.abs().max() == 0


def test_hooks_of_all_modules():
    names, module = Counter(), network()
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: names.update([type(m).__name__]))
    try:
        module(input_spikes(0, STEPS, 3, 3, 8, 8))
    finally:
        handle.remove()
    assert names == Counter(type(m).__name__ for m in module.modules() if not isinstance(m, nn.ModuleDict))


def test_a_norm_with_a_forward_of_its_own():
    class Silent(BNTT):
        def forward(self, x, start=None):
            return super().forward(x, start) * 0

    layer = SpikingLayer(nn.Linear(3, 4, bias=False), Silent(4, STEPS), LIF())
    x = input_spikes(0, STEPS, 5, 3, dtype=torch.float32)
    assert layer(x).sum() == 0 and layer.resume(x, 0, None).output.sum() == 0


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2, divisor_override=3), nn.AvgPool2d(2, ceil_mode=True), nn.MaxPool2d(2)]
)
def test_a_pool_that_is_not_the_mean_of_four(pool):
    layer = SpikingLayer(nn.Conv2d(3, 4, 3, padding=1, bias=False), None, LIF(), pool)
    x = input_spikes(0, STEPS, 5, 3, 4, 4, dtype=torch.float32)
    spikes = layer.resume(x, 0, None).spikes
    expected = torch.stack([pool(s) for s in spikes])
    assert torch.equal(layer(x), expected) and torch.equal(layer.resume(x, 0, None).output, expected)
