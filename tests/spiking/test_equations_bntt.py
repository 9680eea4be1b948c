"""Eqs. 1, 2 and 9 to 12: normalisation at every time-step and its gradients, against arithmetic done by hand."""

import math

import pytest
import torch
from torch import nn

from bntt.spiking.layers import SpikingLayer
from bntt.spiking.neurons import LIF
from bntt.spiking.norms import BNTT

from .helpers import disturb, input_spikes, random, relative

EPS = 1e-4


def statistics(values):
    """Eq. 1: mean and biased variance of a list."""
    mean = sum(values) / len(values)
    return mean, sum((x - mean) ** 2 for x in values) / len(values)


def bntt(channels, steps, seed=0):
    norm = BNTT(channels, steps).double()
    disturb(norm, seed)
    return norm


# -- Eqs. 1, 2 and 9: forwards -------------------------------------------------------------------------------------


def test_equations_1_and_2_per_time_step_and_channel():
    """Moments over samples and positions of each step and channel; gamma multiplies, nothing shifts."""
    norm = bntt(2, 3)
    x = 2 * random(1, 3, 4, 2, 1, 2) + 5
    y = norm(x)
    for t in range(3):
        for c in range(2):
            values = x[t, :, c].flatten().tolist()
            mean, variance = statistics(values)
            gamma = norm.gamma[t, c].item()
            expected = [gamma * (v - mean) / math.sqrt(variance + EPS) for v in values]
            assert y[t, :, c].flatten().tolist() == pytest.approx(expected, rel=1e-11)


def test_equation_2_epsilon_is_inside_the_root():
    """Where the variance is no larger than epsilon it shows."""
    x = torch.tensor([[0.0], [0.02]], dtype=torch.float64).reshape(1, 2, 1)  # variance 1e-4, the same as epsilon
    assert BNTT(1, 1).double()(x).flatten().tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], rel=1e-12)
    norm = BNTT(1, 1, eps=3e-4).double()
    assert norm(x).flatten().tolist() == pytest.approx([-0.5, 0.5], rel=1e-12)


def run_by_hand(x, scale, mean, leak, threshold):
    """Eq. 9 for one neuron: leak, add the normalised current, fire, reset softly. Spikes and membranes after reset."""
    u, spikes, membranes = 0.0, [], []
    for current, s, m in zip(x, scale, mean, strict=True):
        u = leak * u + s * (current - m)
        spikes.append(float(u > threshold))
        u -= threshold * spikes[-1]
        membranes.append(u)
    return spikes, membranes


@pytest.mark.parametrize("training", [True, False])
def test_equation_9(training):
    """Batch moments in training, tracked moments at inference."""
    steps, samples, leak, threshold = 8, 5, 0.9, 0.8
    norm, lif = bntt(2, steps).train(training), LIF(leak, threshold)
    x = random(2, steps, samples, 2)
    tracked = norm.running_mean.clone(), norm.running_var.clone()
    spikes = lif(x, norm)
    assert 0.05 < spikes.mean() < 0.6
    for c in range(2):
        moments = [
            statistics(x[t, :, c].tolist()) if training else (tracked[0][t, c].item(), tracked[1][t, c].item())
            for t in range(steps)
        ]
        scale = [norm.gamma[t, c].item() / math.sqrt(moments[t][1] + EPS) for t in range(steps)]
        for n in range(samples):
            by_hand, _ = run_by_hand(x[:, n, c].tolist(), scale, [m for m, _ in moments], leak, threshold)
            assert spikes[:, n, c].tolist() == by_hand


def test_equation_9_membrane_at_inference():
    steps, leak, threshold = 8, 0.9, 0.8
    norm, lif = bntt(2, steps).eval(), LIF(leak, threshold)
    x = random(3, steps, 3, 2)
    membrane = None
    for t in range(steps):
        _, membrane = lif.resume(x[t : t + 1], norm, t, membrane)
        for n in range(3):
            for c in range(2):
                scale = [(norm.gamma[s, c] / (norm.running_var[s, c] + EPS).sqrt()).item() for s in range(t + 1)]
                _, by_hand = run_by_hand(
                    x[: t + 1, n, c].tolist(), scale, norm.running_mean[: t + 1, c].tolist(), leak, threshold
                )
                assert membrane[n, c].item() == pytest.approx(by_hand[-1], abs=1e-13)


# -- Eqs. 10 to 12: backwards --------------------------------------------------------------------------------------


def equation_11(du_of, normalised, variance):
    """Right-hand side of Eq. 11 for every i; ``du_of[j]`` stands where the paper writes du_i / dx^_j."""
    m, root = len(normalised), math.sqrt(variance + EPS)
    total = sum(du_of)
    weighted = sum(d * h for d, h in zip(du_of, normalised, strict=True))
    return [(m * du_of[i] - total - normalised[i] * weighted) / (m * root) for i in range(m)]


def normalise(values):
    mean, variance = statistics(values)
    return [(v - mean) / math.sqrt(variance + EPS) for v in values], variance


def test_equation_11_as_printed_is_the_diagonal_of_the_jacobian():
    """du_i / dx^_j is gamma for j = i and 0 otherwise; what Eq. 11 then gives is du_i / dx_i, one entry of m x m."""
    m = 6
    norm = BNTT(1, 1).double()
    norm.gamma.data.fill_(1.7)
    x = random(5, m)
    jacobian = torch.autograd.functional.jacobian(lambda v: norm(v.reshape(1, m, 1)).flatten(), x)
    hat, variance = normalise(x.tolist())
    for i in range(m):
        printed = (m * 1.7 - 1.7 - hat[i] * 1.7 * hat[i]) / (m * math.sqrt(variance + EPS))
        assert jacobian[i, i].item() == pytest.approx(printed, rel=1e-12)
    off_diagonal = jacobian - jacobian.diagonal().diag()
    assert off_diagonal.abs().max() > 0.1  # so the diagonal alone is not the gradient


def membrane_gradient(x, norm, lif, upstream):
    """dL/du^t of every neuron, by autograd through our neuron run on the norm's output."""
    y = norm(x).detach().requires_grad_()
    lif(y).backward(upstream)
    return y.grad


def test_equation_11_with_dL_for_du_is_the_gradient():
    """Put dL/du_j^t for du_i^t: the formula is then dL/dx_i^t, as autograd has it through norm and neuron."""
    steps, m = 4, 7
    norm, lif = bntt(2, steps), LIF(0.9)
    x = random(6, steps, m, 2).requires_grad_()
    upstream = random(7, steps, m, 2)
    lif(x, norm).backward(upstream)
    du = membrane_gradient(x.detach(), norm, lif, upstream)
    for t in range(steps):
        for c in range(2):
            hat, variance = normalise(x[t, :, c].tolist())
            gamma = norm.gamma[t, c].item()
            expected = equation_11([gamma * g for g in du[t, :, c].tolist()], hat, variance)
            assert x.grad[t, :, c].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-13)


def test_equation_12_gamma_of_every_step_and_channel():
    """The sum over the batch of dL/du_i^t times the normalised input."""
    steps, m = 4, 7
    norm, lif = bntt(2, steps), LIF(0.9)
    x, upstream = random(8, steps, m, 2), random(9, steps, m, 2)
    lif(x, norm).backward(upstream)
    du = membrane_gradient(x, norm, lif, upstream)
    for t in range(steps):
        for c in range(2):
            hat, _ = normalise(x[t, :, c].tolist())
            expected = sum(g * h for g, h in zip(du[t, :, c].tolist(), hat, strict=True))
            assert norm.gamma.grad[t, c].item() == pytest.approx(expected, rel=1e-11)


def test_equation_10_weight_gradient():
    """The sum over steps and samples of dL/dx_i^t (Eq. 11 with dL/du, BPTT by hand) times the input spikes."""
    steps, m, leak = 5, 4, 0.8
    o, upstream = input_spikes(10, steps, m, 3), random(11, steps, m, 1)
    layer = SpikingLayer(nn.Linear(3, 1, bias=False), BNTT(1, steps), LIF(leak)).double()
    layer.connection.weight.data = torch.tensor([[0.9, -0.4, 1.3]], dtype=torch.float64)
    disturb(layer, 1)
    layer(o).backward(upstream)

    w, gamma = layer.connection.weight.flatten().tolist(), layer.norm.gamma.flatten().tolist()
    x = [[sum(a * b for a, b in zip(w, o[t, i].tolist(), strict=True)) for i in range(m)] for t in range(steps)]
    hats, variances = zip(*(normalise(row) for row in x), strict=True)
    u = [[0.0] * m for _ in range(steps)]  # membranes before reset
    residue = [0.0] * m
    for t in range(steps):
        for i in range(m):
            u[t][i] = leak * residue[i] + gamma[t] * hats[t][i]
            residue[i] = u[t][i] - (u[t][i] > 1)
    expected, later = [0.0] * 3, [0.0] * m
    for t in reversed(range(steps)):
        slopes = [0.3 * max(0.0, 1 - abs(v - 1)) for v in u[t]]
        du = [upstream[t, i, 0].item() * slopes[i] + leak * later[i] for i in range(m)]
        dx = equation_11([gamma[t] * g for g in du], hats[t], variances[t])
        for i in range(m):
            expected = [g + dx[i] * s for g, s in zip(expected, o[t, i].tolist(), strict=True)]
        later = du
    assert relative(layer.connection.weight.grad.flatten(), torch.tensor(expected, dtype=torch.float64)) < 1e-11
