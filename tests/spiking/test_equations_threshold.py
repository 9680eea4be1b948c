"""Eqs. 13 to 16: a norm at inference as a threshold that changes with time. When that holds, and its exact form."""

import pytest
import torch

from bntt.spiking.neurons import LIF
from bntt.spiking.norms import BNTT

from .helpers import random, relative

STEPS, LEAK, EPS = 12, 0.9, 1e-4


def norm_with(mean, scale, variance=None, channels=1):
    """A BNTT at inference with these tracked means and with gamma / sqrt(var + eps) = scale, each ``[T]``."""
    variance = torch.linspace(0.5, 2, STEPS, dtype=torch.float64) if variance is None else variance
    norm = BNTT(channels, STEPS).double().eval()
    norm.running_mean.copy_(mean[:, None].expand_as(norm.running_mean))
    norm.running_var.copy_(variance[:, None].expand_as(norm.running_var))
    norm.gamma.data.copy_((scale * (variance + EPS).sqrt())[:, None].expand_as(norm.gamma))
    return norm


def membranes(lif, x, norm):
    """The membrane after every step, ``[T, N, C]``."""
    membrane, found = None, []
    for t in range(len(x)):
        _, membrane = lif.resume(x[t : t + 1], norm, t, membrane)
        found.append(membrane.clone())
    return torch.stack(found)


CONSTANT = torch.full((STEPS,), 1.6, dtype=torch.float64)
VARYING = torch.linspace(0.8, 1.6, STEPS, dtype=torch.float64)
ZERO = torch.zeros(STEPS, dtype=torch.float64)
NOT_ZERO = ZERO + 0.2
QUIET = LIF(LEAK, threshold=1e9)  # Eqs. 13 to 15 speak of membranes that have not been reset


def test_equation_13_needs_only_a_zero_mean():
    """At t = 1 the membrane is the scale times that without a norm."""
    x = random(0, STEPS, 20, 1)
    plain = membranes(QUIET, x, None)[0]
    assert relative(membranes(QUIET, x, norm_with(ZERO, VARYING))[0], VARYING[0] * plain) < 1e-14
    assert relative(membranes(QUIET, x, norm_with(NOT_ZERO, VARYING))[0], VARYING[0] * plain) > 0.05


def test_equation_14_needs_equal_scales_too():
    x = random(1, STEPS, 20, 1)
    plain = membranes(QUIET, x, None)[1]
    equal_at_first = VARYING.clone()
    equal_at_first[0] = equal_at_first[1]
    assert relative(membranes(QUIET, x, norm_with(ZERO, equal_at_first))[1], VARYING[1] * plain) < 1e-14
    assert relative(membranes(QUIET, x, norm_with(ZERO, VARYING))[1], VARYING[1] * plain) > 0.02


def test_equation_15_is_exact_for_zero_mean_and_constant_scale():
    """At every t. The variance may change as long as gamma changes with it: only their quotient matters."""
    x = random(2, STEPS, 20, 1)
    plain = membranes(QUIET, x, None)
    assert relative(membranes(QUIET, x, norm_with(ZERO, CONSTANT)), 1.6 * plain) < 1e-14


@pytest.mark.parametrize(("mean", "scale"), [(NOT_ZERO, CONSTANT), (ZERO, VARYING)], ids=["mean", "scale"])
def test_equation_15_is_an_approximation_otherwise(mean, scale):
    x = random(3, STEPS, 20, 1)
    plain = membranes(QUIET, x, None)
    assert relative(membranes(QUIET, x, norm_with(mean, scale)), scale[:, None, None] * plain) > 0.05


def test_equation_16_under_the_conditions_of_15():
    """A threshold of theta sqrt(var + eps) / gamma in place of the norm: the same spikes, resets included."""
    x = random(4, STEPS, 200, 1)
    with_norm = LIF(LEAK, 1.0)(x, norm_with(ZERO, CONSTANT))
    without = LIF(LEAK, 1.0 / 1.6)(x)
    assert 0.05 < with_norm.mean() < 0.6
    assert torch.equal(with_norm, without)


def exact_form(x, norm, leak, threshold):
    """Threshold theta / s[t], leak lambda s[t-1] / s[t], input x - mean[t], reset by theta / s[t]."""
    scale = norm.gamma.detach() / (norm.running_var + norm.eps).sqrt()
    u, spikes = torch.zeros_like(x[0]), []
    for t in range(len(x)):
        carried = leak * scale[t - 1] / scale[t] if t else 0.0
        u = carried * u + (x[t] - norm.running_mean[t])
        spikes.append((u > threshold / scale[t]).to(x.dtype))
        u = u - spikes[-1] * threshold / scale[t]
    return torch.stack(spikes)


@pytest.mark.parametrize("threshold", [1.0, 0.6])
def test_equation_16_exact_form_is_the_norm_at_inference(threshold):
    """With any means, variances and positive gammas, per channel."""
    channels = 5
    draws = torch.Generator().manual_seed(5)
    norm = BNTT(channels, STEPS).double().eval()
    norm.gamma.data.copy_(0.2 + 1.5 * torch.rand(STEPS, channels, generator=draws))
    norm.running_var.copy_(0.2 + 2 * torch.rand(STEPS, channels, generator=draws))
    norm.running_mean.copy_(torch.randn(STEPS, channels, generator=draws) / 3)
    x = 1.5 * random(6, STEPS, 2000, channels)
    spikes = LIF(LEAK, threshold)(x, norm)
    expected = exact_form(x, norm, LEAK, threshold)
    assert 0.05 < spikes.mean() < 0.6
    assert torch.equal(spikes, expected)


def test_equation_16_as_printed_gets_spikes_wrong_when_the_conditions_fail():
    """Only the threshold moved, as the paper writes: not the same spikes."""
    x = 1.5 * random(7, STEPS, 2000, 1)
    norm = norm_with(NOT_ZERO, VARYING)
    printed = x.new_zeros(x.shape)
    u = torch.zeros_like(x[0])
    for t in range(STEPS):
        u = LEAK * u + x[t]
        printed[t] = (u > 1 / VARYING[t]).to(x.dtype)
        u = u - printed[t] / VARYING[t]
    assert (LIF(LEAK)(x, norm) != printed).double().mean() > 0.01
