"""Eqs. 3 to 8: the neuron, the loss and back-propagation through time, against arithmetic done by hand."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.spiking.layers import SpikingLayer
from bntt.spiking.networks import SpikingNetwork, WeightLayer
from bntt.spiking.neurons import IF, LIF

from .helpers import input_spikes, random


def sequence(*currents):
    """Currents ``[T, 1, 1]`` of a single neuron."""
    return torch.tensor(currents, dtype=torch.float64).reshape(-1, 1, 1)


def fire(neuron, *currents):
    """Spikes as a list, and the membrane after the last step."""
    spikes, membrane = neuron.resume(sequence(*currents), None, 0, None)
    return spikes.flatten().tolist(), membrane.item()


# -- Eq. 3: the continuous membrane, and its Euler discretisation --------------------------------------------------


def test_equation_3_euler_step_is_a_leak_and_a_scaled_current():
    """tau dU/dt = -U + R I: one Euler step leaks by 1 - dt / tau and adds dt / tau R I."""
    tau, resistance, dt = 20.0, 3.0, 0.5
    inputs = [0.4, 0.0, 1.1, -0.7, 0.2]
    u = 0.0
    for current in inputs:
        u += dt / tau * (-u + resistance * current)
    lif = LIF(leak=1 - dt / tau, threshold=1e9)
    _, membrane = fire(lif, *(dt / tau * resistance * current for current in inputs))
    assert membrane == pytest.approx(u, rel=1e-14)


def test_equation_3_is_approached_as_the_step_shrinks():
    """Constant input: U(t) = R I (1 - exp(-t / tau)); the error halves with the step, first order as Euler's is."""
    tau, drive, duration = 10.0, 2.0, 15.0
    exact = drive * (1 - math.exp(-duration / tau))

    def error(steps):
        dt = duration / steps
        _, membrane = fire(LIF(leak=1 - dt / tau, threshold=1e9), *[dt / tau * drive] * steps)
        return abs(membrane - exact)

    errors = [error(steps) for steps in (100, 200, 400, 800)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.02)


# -- Eq. 4: the discrete neuron ------------------------------------------------------------------------------------


def test_equation_4_by_hand():
    """Leak 1/2, threshold 1, soft reset; every number below is exact in binary."""
    spikes, membrane = fire(LIF(leak=0.5), 0.75, 1.0, 0.5, 1.0, -2.0)
    assert spikes == [0, 1, 0, 1, 0]
    # 0.75; 0.375 + 1 = 1.375 -> 0.375; 0.1875 + 0.5 = 0.6875; 0.34375 + 1 = 1.34375 -> 0.34375; 0.171875 - 2
    assert membrane == -1.828125


def test_equation_4_leak_comes_before_the_current():
    """u = leak * u + x, not leak * (u + x)."""
    _, membrane = fire(LIF(leak=0.5, threshold=10), 3.0, 4.0)
    assert membrane == 5.5


def test_the_threshold_must_be_exceeded():
    """At the threshold exactly: no spike, as released."""
    above = math.nextafter(1.0, 2.0)
    assert fire(LIF(), 1.0) == ([0], 1.0)
    assert fire(LIF(), above)[0] == [1]
    assert fire(LIF(threshold=0.75), 0.75)[0] == [0]
    assert fire(LIF(threshold=0.75), math.nextafter(0.75, 1.0))[0] == [1]


def test_soft_reset_carries_the_residue_over():
    spikes, membrane = fire(IF(), 2.5, 0.0, 0.0)  # 2.5 -> 1.5 -> 0.5
    assert (spikes, membrane) == ([1, 1, 0], 0.5)
    spikes, membrane = fire(IF(threshold=2.0), 5.0, 0.0, 0.0)
    assert (spikes, membrane) == ([1, 1, 0], 1.0)


def test_hard_reset_forgets_it():
    spikes, membrane = fire(IF(reset="hard"), 2.5, 0.0, 0.75)
    assert (spikes, membrane) == ([1, 0, 0], 0.75)


def test_one_spike_a_step_at_most():
    assert fire(IF(), 7.0)[0] == [1]


def test_if_has_no_leak():
    assert fire(IF(threshold=10.0), *[0.125] * 16) == ([0] * 16, 2.0)


# -- Eqs. 5 and 7: loss and its gradient at the output -------------------------------------------------------------


TINY = [WeightLayer("fc1", 3, 4, None, None), WeightLayer("fc2", 4, 3, None, None)]


def test_equation_5_loss_of_the_accumulated_voltage():
    network = SpikingNetwork(TINY, 4, norm="none", readout="sum")
    contributions = random(0, 4, 1, 3)
    u = [sum(contributions[t, 0, k].item() for t in range(4)) for k in range(3)]
    by_hand = -math.log(math.exp(u[1]) / sum(math.exp(v) for v in u))
    assert F.cross_entropy(network.logits(contributions), torch.tensor([1])).item() == pytest.approx(by_hand, rel=1e-13)


@pytest.mark.parametrize(("readout", "divisor"), [("sum", 1), ("mean", 4)])
def test_equation_7_gradient_is_softmax_minus_label(readout, divisor):
    """For the voltage of every step alike, since the readout does not leak; divided by T if the logits are."""
    network = SpikingNetwork(TINY, 4, norm="none", readout=readout)
    contributions = random(1, 4, 2, 3).requires_grad_()
    F.cross_entropy(network.logits(contributions), torch.tensor([2, 0]), reduction="sum").backward()
    for sample, label in enumerate((2, 0)):
        u = [contributions[:, sample, k].sum().item() / divisor for k in range(3)]
        for k in range(3):
            softmax = math.exp(u[k]) / sum(math.exp(v) for v in u)
            expected = (softmax - (k == label)) / divisor
            for t in range(4):
                assert contributions.grad[t, sample, k].item() == pytest.approx(expected, abs=1e-15)


# -- Eq. 6: gradients accumulated over time ------------------------------------------------------------------------


def slope_by_hand(u, threshold=1.0, alpha=0.3):
    return alpha * max(0.0, 1 - abs((u - threshold) / threshold))


def test_equation_6_hidden_layer():
    """The weight gradient is the sum over steps of dL/do do/du du/dw, du/dw itself accumulating what leaked on."""
    steps, leak = 6, 0.9
    o = input_spikes(3, steps, 1, 2)
    upstream = random(4, steps, 1, 1)
    layer = SpikingLayer(nn.Linear(2, 1, bias=False).double(), None, LIF(leak))
    layer.connection.weight.data = torch.tensor([[0.8, -0.9]], dtype=torch.float64)
    layer(o).backward(upstream)

    w = layer.connection.weight.flatten().tolist()
    u, trace, expected, spikes = 0.0, [0.0, 0.0], [0.0, 0.0], 0
    for t in range(steps):
        inputs = o[t, 0].tolist()
        u = leak * u + w[0] * inputs[0] + w[1] * inputs[1]
        trace = [leak * e + i for e, i in zip(trace, inputs, strict=True)]  # du/dw, with no gradient through the reset
        factor = upstream[t].item() * slope_by_hand(u)
        expected = [g + factor * e for g, e in zip(expected, trace, strict=True)]
        if u > 1:
            u -= 1
            spikes += 1
    assert spikes and all(expected)
    assert layer.connection.weight.grad.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_equation_6_output_layer():
    """dL/du at the last step, times the output spikes of all steps."""
    network = SpikingNetwork(TINY, 5, norm="none", readout="sum").double()
    for weight in network.parameters():
        weight.data.mul_(3)
    x, seen = input_spikes(5, 5, 2, 3), []
    network.layers["fc1"].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    logits = network.logits(network(x))
    F.cross_entropy(logits, torch.tensor([0, 2]), reduction="sum").backward()
    error = logits.detach().softmax(1) - F.one_hot(torch.tensor([0, 2]), 3)
    expected = sum(torch.outer(error[n], seen[0][t, n]) for t in range(5) for n in range(2))
    assert seen[0].sum() > 0
    torch.testing.assert_close(network.classifier.weight.grad, expected, rtol=1e-12, atol=1e-15)


# -- Eq. 8: the surrogate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_equation_8_slope_on_a_grid(threshold, alpha, reset):
    """A triangle of height alpha at the threshold that ends at 0 and twice the threshold."""
    membranes = [threshold * k / 16 for k in range(-8, 49)]
    x = torch.tensor(membranes, dtype=torch.float64).reshape(1, -1, 1).requires_grad_()
    LIF(0.9, threshold, reset, alpha)(x).sum().backward()
    slopes = x.grad.flatten().tolist()
    assert slopes == pytest.approx([slope_by_hand(u, threshold, alpha) for u in membranes], abs=1e-15)
    assert max(slopes) == slopes[membranes.index(threshold)] == pytest.approx(alpha)
    assert slopes[membranes.index(0.0)] == slopes[membranes.index(2 * threshold)] == 0
    assert slopes[0] == slopes[-1] == 0
