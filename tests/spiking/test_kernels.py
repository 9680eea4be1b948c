"""The four passes one by one against autograd through a plain differentiable formulation."""

import pytest
import torch

from bntt.spiking.kernels import Dynamics, backend_for, plain

from .helpers import native_or_skip, random, relative
from .naive import Neuron
from .rounding import UNIT

STEPS, ROWS, CHANNELS = 5, 9, 4
BACKENDS = [plain]
EVERY_DYNAMICS = [
    Dynamics(leak, threshold, hard, 0.7)
    for leak in (0.0, 0.9, 1.0)
    for threshold in (0.8, 1.0)
    for hard in (False, True)
]


def plain_neuron(dynamics):
    return Neuron(dynamics.leak, dynamics.threshold, "hard" if dynamics.hard_reset else "soft", dynamics.alpha)


@pytest.fixture(params=BACKENDS, ids=lambda module: module.__name__)
def kernels(request):
    return request.param


@pytest.fixture
def x():
    return 1.5 * random(0, STEPS, ROWS, CHANNELS) + 0.3


@pytest.fixture
def affine():
    return 0.5 + random(1, STEPS, CHANNELS).abs(), 0.3 * random(2, STEPS, CHANNELS)


def test_plain_serves_everything(x):
    assert backend_for(x) is plain


def test_moments(kernels, x):
    mean, variance = kernels.moments(x)
    expected_variance, expected_mean = torch.var_mean(x, 1, correction=0)
    torch.testing.assert_close(mean, expected_mean, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(variance, expected_variance, rtol=1e-13, atol=0)


def test_moments_do_not_cancel(kernels):
    """A small spread far from zero, in float32: mean of squares minus squared mean would leave nothing."""
    far = (random(3, 2, 1000, CHANNELS) * 0.1 + 1000).float()
    _, variance = kernels.moments(far)
    assert relative(variance.double(), far.double().var(1, correction=0)) < 1e-3


def test_moments_do_not_touch_the_current(kernels, x):
    before = x.clone()
    kernels.moments(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dynamics", EVERY_DYNAMICS, ids=str)
@pytest.mark.parametrize("normed", [True, False])
def test_scan(kernels, x, affine, dynamics, normed):
    scale, shift = affine if normed else (None, None)
    y = x * scale[:, None] + shift[:, None] if normed else x
    membrane = torch.zeros_like(x[0])
    spikes = kernels.scan(x, scale, shift, dynamics, membrane)
    expected, before = plain_neuron(dynamics).run(y)
    assert 0.05 < spikes.mean() < 0.8
    assert torch.equal(spikes, expected)
    fired = expected[-1]
    after = before[-1] * (1 - fired) if dynamics.hard_reset else before[-1] - dynamics.threshold * fired
    torch.testing.assert_close(membrane, after, rtol=1e-13, atol=1e-14)


def test_scan_goes_on_from_the_membrane_it_is_given(kernels, x):
    dynamics = EVERY_DYNAMICS[2]
    start = random(4, ROWS, CHANNELS)
    membrane = start.clone()
    spikes = kernels.scan(x[:1], None, None, dynamics, membrane)
    u = dynamics.leak * start + x[0]
    assert torch.equal(spikes[0], (u > dynamics.threshold).double())


@pytest.mark.parametrize("dynamics", EVERY_DYNAMICS, ids=str)
@pytest.mark.parametrize("centre", ["none", "mean", "other"])
def test_reverse_scan(kernels, x, affine, dynamics, centre):
    scale, shift = (a.clone().requires_grad_() for a in affine)
    y = x * scale[:, None] + shift[:, None]
    y.retain_grad()
    upstream = random(5, *x.shape)
    plain_neuron(dynamics).run(y)[0].backward(upstream)
    around = {"none": None, "mean": x.mean(1), "other": random(6, STEPS, CHANNELS)}[centre]
    dy, dscale, dshift = kernels.reverse_scan(x, around, *affine, dynamics, None, upstream)
    assert relative(dy, y.grad) < 1e-12
    assert relative(dshift, shift.grad) < 1e-12
    undone = dscale if around is None else dscale + around * dshift
    assert relative(undone, scale.grad) < 1e-12


@pytest.mark.parametrize("hard", [False, True])
def test_reverse_scan_at_the_threshold(kernels, hard):
    """A membrane of exactly theta did not fire: it is carried on, and so is the gradient."""
    x = torch.tensor([1.0, 0.25], dtype=torch.float64).reshape(2, 1, 1)
    upstream = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1)
    dy, _, _ = kernels.reverse_scan(x, None, None, None, Dynamics(0.5, 1.0, hard, 0.4), None, upstream)
    slope = 0.4 * 0.75  # at 0.5 * 1 + 0.25
    assert dy.flatten().tolist() == pytest.approx([0.5 * slope, slope])


@pytest.mark.parametrize("dynamics", EVERY_DYNAMICS, ids=str)
def test_reverse_scan_without_a_norm(kernels, x, dynamics):
    leaf, upstream = x.clone().requires_grad_(), random(5, *x.shape)
    plain_neuron(dynamics).run(leaf)[0].backward(upstream)
    dy, dscale, dshift = kernels.reverse_scan(x, None, None, None, dynamics, None, upstream)
    assert dscale is None and dshift is None
    assert relative(dy, leaf.grad) < 1e-12


def test_combine_is_the_gradient_through_affine_map_and_moments(kernels, x, affine):
    scale, _ = affine
    dy, dmean, dvariance = random(7, *x.shape), random(8, STEPS, CHANNELS), random(9, STEPS, CHANNELS)
    leaf = x.clone().requires_grad_()
    variance, mean = torch.var_mean(leaf, 1, correction=0)
    ((dy * scale[:, None] * leaf).sum() + (dmean * mean).sum() + (dvariance * variance).sum()).backward()
    found = kernels.combine(dy.clone(), x, scale, x.mean(1), dmean, dvariance)
    assert relative(found, leaf.grad) < 1e-12


@pytest.mark.parametrize("name", ["plain", "native"])
def test_combine_keeps_its_digits_far_from_zero(name):
    """With a mean of a thousand deviations in float32: ``slope * x + constant`` would lose three digits."""
    backend = plain if name == "plain" else native_or_skip()
    rows, channels = 50, 20  # a vector, and what is left over
    dy, x = random(0, STEPS, rows, channels).float(), (random(1, STEPS, rows, channels) + 1000).float()
    scale, dmean, dvariance = (random(seed, STEPS, channels).float() for seed in (2, 3, 4))
    dmean, dvariance = dmean * rows, dvariance * rows  # so that they count
    mean = x.mean(1)
    found = backend.combine(dy.clone(), x, scale, mean, dmean, dvariance).double()
    dy, x, scale, mean, dmean, dvariance = (a.double() for a in (dy, x, scale, mean, dmean, dvariance))
    terms = dy * scale[:, None], dmean[:, None] / rows, 2 * dvariance[:, None] / rows * (x - mean[:, None])
    # No term goes through more than eight roundings, whatever is fused.
    bound = 8 * UNIT * sum(term.abs() for term in terms)
    assert ((found - sum(terms)).abs() <= bound).all()


def test_combine_at_inference_and_without_a_norm(kernels, x, affine):
    scale, dy = affine[0], random(7, *x.shape)
    torch.testing.assert_close(kernels.combine(dy.clone(), x, scale, None, None, None), dy * scale[:, None])
    torch.testing.assert_close(kernels.combine(dy.clone(), x, None, None, None, None), dy)


@pytest.mark.parametrize("dynamics", EVERY_DYNAMICS, ids=str)
def test_all_four_together(kernels, x, dynamics):
    """The chain as the operator runs it, for batch norm written out, against autograd from end to end."""
    gamma, upstream = 0.5 + random(10, STEPS, CHANNELS).abs(), random(11, *x.shape)
    leaf, leaf_gamma = x.clone().requires_grad_(), gamma.clone().requires_grad_()
    variance, mean = torch.var_mean(leaf, 1, correction=0)
    hat = (leaf - mean[:, None]) / (variance + 1e-4).sqrt()[:, None]
    plain_neuron(dynamics).run(leaf_gamma[:, None] * hat)[0].backward(upstream)

    mean, variance = (m.requires_grad_() for m in kernels.moments(x))
    free = gamma.clone().requires_grad_()
    scale = free / (variance + 1e-4).sqrt()
    shift = -mean * scale
    dy, dscale, dshift = kernels.reverse_scan(
        x, mean.detach(), scale.detach(), shift.detach(), dynamics, None, upstream
    )
    dscale = dscale + mean.detach() * dshift
    dmean, dvariance, dgamma = torch.autograd.grad((scale, shift), (mean, variance, free), (dscale, dshift))
    dx = kernels.combine(dy, x, scale.detach(), mean.detach(), dmean, dvariance)
    assert relative(dx, leaf.grad) < 1e-11
    assert relative(dgamma, leaf_gamma.grad) < 1e-11
