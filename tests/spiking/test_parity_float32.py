"""float32 against the naive loop in float64: layer by layer, then how far the whole network drifts.

Through a whole network a spike that float32 rounding moves across the threshold changes all that follows, so
equality end to end is a statement about float64. Here each layer gets the inputs that the loop's layer received, and
each of its three parts is judged on equal numbers, within what rounding allows there (see `rounding`): the connection
on the inputs, norm and neuron on the currents, the weights' gradient on the currents' gradient. So a current that
rounding moved is not held against the norm that divides it by a small deviation.
"""

import copy

import pytest
import torch
from torch.nn import functional as F

from bntt.spiking.connections import connect
from bntt.spiking.norms import NORMS

from .helpers import NEURON, count_flips, input_spikes, naive_twin, random, record_spikes, vgg9
from .naive import HIDDEN, NaiveLayer, Neuron
from .rounding import bounds, of_products

SEEDS = range(5)


class Tally:
    """What became of the layers compared: spikes in all, that differ, neurons too near to judge; errors over bounds."""

    def __init__(self):
        self.spikes = self.flips = self.neurons = self.near = 0
        self.worst = {}

    def compare_layer(self, name, network, naive, norm, seed):
        """One layer of ours in float32 and of the loop in float64 on the inputs that the naive network's layer had."""
        layer, loop = network.layers[name], naive_layer(network, name, norm)
        x = torch.stack(naive.inputs[name])
        current = connect(layer.connection, x)
        current.retain_grad()
        spikes = layer.neuron(current, layer.norm)
        weight, inputs, given = loop.weight.detach(), x.double(), current.detach().double()

        true = product(inputs, weight)
        bound = of_products(true, product(inputs.abs(), weight.abs()), weight[0].numel())
        self.judge(f"{name} current", given - true, bound)

        twin = copy.deepcopy(layer).double()  # tells how far rounding carries in what ours computes
        loop.currents = [c.clone().requires_grad_() for c in given]
        expected, membranes = loop.neuron.run(torch.stack(loop.normalised(loop.currents)))

        @torch.no_grad()
        def run():
            return loop.neuron.run(given if twin.norm is None else twin.norm(given))

        fired, charged = run()

        def membranes_of_ours():
            again, found = run()
            return [torch.where((again == fired).all(0), found, charged)]  # a neuron that flipped is near in any case

        (reach,) = bounds(membranes_of_ours)
        near = ((membranes - NEURON["threshold"]).abs() < reach).any(0)
        differ = spikes != expected
        assert not (differ & ~near).any(), f"{name}: spikes differ that are further than {reach:.1e} from the threshold"
        self.spikes += spikes.numel()
        self.flips += int(differ.sum())
        self.neurons += near.numel()
        self.near += int(near.sum())

        # The same gradient arrives at both, and none at neurons for which rounding may decide.
        upstream = random(seed, *spikes.shape, dtype=torch.float32) * ~near
        spikes.backward(upstream)
        expected.backward(upstream.double())

        def gradients_in_float64():
            twin.zero_grad()
            leaf = given.clone().requires_grad_()
            twin.neuron(leaf, twin.norm).backward(upstream.double())
            return list(gradients_of_ours(leaf, twin).values())

        ours = gradients_of_ours(current, layer)
        truth = [t.reshape(o.shape) for o, t in zip(ours.values(), gradients(loop), strict=True)]
        for (what, found), true, bound in zip(ours.items(), truth, bounds(gradients_in_float64), strict=True):
            self.judge(f"{name} gradient of {what}", found.double() - true, torch.tensor(bound))

        arrived = current.grad.double()
        true = weight_gradient(inputs, weight, arrived)
        bound = of_products(true, weight_gradient(inputs.abs(), weight, arrived.abs()), arrived[:, :, 0].numel())
        self.judge(f"{name} gradient of weight", layer.connection.weight.grad.double() - true, bound)

    def judge(self, what, error, bound):
        assert (error.abs() <= bound).all(), f"{what}: off by {error.abs().max():.1e}, rounding by {bound.max():.1e}"
        # Where the bound is 0, so is the error: nothing was added up.
        part, share = what.split(" ", 1)[1], (error.abs() / bound).nan_to_num(0.0).max().item()
        self.worst[part] = max(self.worst.get(part, 0.0), share)

    def report(self):
        shares = ", ".join(f"{what} {share:.2f}" for what, share in self.worst.items())
        print(
            f"{self.spikes} neuron-steps, {self.flips} spikes differ; errors over what rounding allows: {shares}; "
            f"{self.near / self.neurons:.2%} of the neurons not judged, since rounding may decide"
        )
        assert self.near <= self.neurons / 20, "too few neurons are judged"


def naive_layer(network, name, norm):
    state, prefix = {key: value.double() for key, value in network.state_dict().items()}, f"layers.{name}.norm."
    numbers = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    return NaiveLayer(state[f"layers.{name}.connection.weight"], norm, numbers, network.time_steps, Neuron(**NEURON))


def product(x, weight):
    """What the connection makes of inputs ``[T, N, ...]``."""
    flat = x.flatten(0, 1)
    out = F.conv2d(flat, weight, padding=1) if weight.dim() == 4 else F.linear(flat, weight)
    return out.unflatten(0, x.shape[:2])


def weight_gradient(x, weight, arrived):
    leaf = weight.clone().requires_grad_()
    return torch.autograd.grad(product(x, leaf), leaf, arrived)[0]


def gradients_of_ours(current, layer):
    """Of a layer's currents, then of its norm's parameters, by name."""
    parameters = [] if layer.norm is None else sorted(layer.norm.named_parameters())
    return {"current": current.grad} | {name: parameter.grad.clone() for name, parameter in parameters}


def gradients(layer):
    """The same of a naive layer."""
    yield torch.stack([c.grad for c in layer.currents])
    for _, tensors in sorted(layer.norm.entries().items()):
        if isinstance(tensors[0], torch.nn.Parameter):
            yield torch.stack([t.grad for t in tensors])


def prove(norm, steps, width, side, samples, seeds):
    tally = Tally()
    for seed in seeds:
        network = vgg9(norm, steps, width, side, seed, torch.float32)
        naive = naive_twin(network, norm)
        with torch.no_grad():
            naive(input_spikes(seed, steps, samples, 3, side, side, dtype=torch.float32))
        for name in HIDDEN:
            tally.compare_layer(name, network, naive, norm, seed)
    tally.report()
    return tally


@pytest.mark.parametrize("norm", NORMS)
def test_layer_by_layer_small(norm):
    prove(norm, steps=6, width=1 / 8, side=16, samples=4, seeds=[0])


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_layer_by_layer_over_25_time_steps(norm):
    tally = prove(norm, steps=25, width=0.25, side=16, samples=8, seeds=[0])
    assert tally.spikes > 2e6


@pytest.mark.slow
def test_layer_by_layer_at_full_size():
    prove("bntt", steps=25, width=1.0, side=32, samples=4, seeds=[0])


@pytest.mark.slow
def test_flips_end_to_end_are_counted():
    """No bound is possible; the count is printed, and what both learn from the same inputs is still alike."""
    for seed in SEEDS:
        network = vgg9("bntt", 25, 0.25, 32, seed, torch.float32)
        naive = naive_twin(network, "bntt")
        spikes = record_spikes(network)
        x = input_spikes(seed, 25, 4, 3, 32, 32, dtype=torch.float32)
        labels = torch.arange(4)
        with torch.no_grad():
            losses = [F.cross_entropy(network.logits(network(x)), labels), F.cross_entropy(naive(x), labels)]
        flips = count_flips(spikes, naive)
        total = sum(s.numel() for s in spikes.values())
        print(f"seed {seed}: {sum(flips.values())} of {total} spikes differ end to end: {flips}")
        assert losses[0] == pytest.approx(losses[1].item(), rel=0.2)
