"""Poisson coding: rates, signs, and that a spike depends on nothing but what it is for."""

import itertools
import math

import pytest
import torch

from bntt.spiking import randomness
from bntt.spiking.encoding import poisson, rates
from bntt.spiking.randomness import key

PIXELS = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0, 1.2, 1.99, 2.0, 2.7]
VALUES = [*PIXELS, *(-p for p in PIXELS[1:])]


def images_of(values, samples=50, side=8):
    """One channel for each value."""
    return torch.tensor(values).reshape(1, -1, 1, 1).expand(samples, -1, side, side)


def images(samples, seed=0):
    return torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def expected_rate(value, signed):
    """P of a spike and its sign: min(1, |x| / 2) as released; the pixel itself, between 0 and 1, as the text says."""
    if signed:
        return min(1.0, abs(value) / 2), math.copysign(1.0, value)
    return min(1.0, max(0.0, value)), 1.0


@pytest.mark.parametrize("signed", [True, False])
def test_rates_are_binomial_for_every_pixel_value(signed):
    steps = 20
    x = images_of(VALUES)
    spikes = poisson(x, steps, key(0, "rates"), torch.arange(len(x)), signed=signed)
    n = spikes[:, :, 0].numel()
    for c, value in enumerate(VALUES):
        p, sign = expected_rate(value, signed)
        fired = spikes[:, :, c]
        assert ((fired == 0) | (fired == sign)).all()
        deviation = fired.abs().double().mean().item() - p
        assert abs(deviation) <= 5 * math.sqrt(p * (1 - p) / n), f"{value}: off by {deviation}"


@pytest.mark.parametrize("signed", [True, False])
def test_certain_pixels(signed):
    """P = 1 always fires, P = 0 never."""
    always = 2.0 if signed else 1.0
    x = images_of([always, always + 1, 0.0], samples=400)
    spikes = poisson(x, 30, key(1), torch.arange(len(x)), signed=signed)
    assert (spikes[:, :, :2] == 1).all() and (spikes[:, :, 2] == 0).all()
    if signed:
        assert (poisson(-x, 30, key(1), torch.arange(len(x)))[:, :, :2] == -1).all()
    else:
        assert (poisson(-x, 30, key(1), torch.arange(len(x)), signed=False) == 0).all()


def test_rates_are_the_expected_spikes():
    x = torch.tensor([-3.0, -2.0, -0.5, 0.0, 0.4, 2.0, 5.0])
    assert torch.equal(rates(x, signed=True), torch.tensor([-1, -1, -0.25, 0, 0.2, 1, 1]))
    assert torch.equal(rates(x, signed=False), torch.tensor([0, 0, 0, 0, 0.4, 1, 1]))


@pytest.mark.parametrize("signed", [True, False])
def test_shape_and_type(signed):
    for dtype in (torch.float32, torch.float64):
        spikes = poisson(images(4).to(dtype), 7, key(2), torch.arange(4), signed=signed)
        assert spikes.shape == (7, 4, 3, 8, 8) and spikes.dtype == dtype
        assert set(spikes.unique().tolist()) == ({-1, 0, 1} if signed else {0, 1})


def test_a_spike_belongs_to_its_pixel():
    """The draw of sample n, time-step t and pixel p, in this order, is that of the stream at t * pixels + p."""
    x, steps, samples = images(3), 4, torch.tensor([11, 5, 8])
    draws = randomness.uniform(key(3), samples, steps * 3 * 8 * 8).reshape(3, steps, 3, 8, 8).transpose(0, 1)
    expected = (draws < (x / 2).abs()) * x.sign()
    assert torch.equal(poisson(x, steps, key(3), samples), expected)


def test_a_draw_must_be_below_the_probability():
    """A probability equal to the draw does not fire, one step of 2^-24 above it does: P = 0 is never, P = 1 always."""
    samples = torch.arange(3)
    draws = randomness.uniform(key(3), samples, 64).reshape(3, 1, 8, 8)
    assert not poisson(draws, 1, key(3), samples, signed=False).any()
    assert poisson(draws + 2**-24, 1, key(3), samples, signed=False).all()


# -- independent of batch, order and cut ---------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_company_order_and_cut_do_not_matter(signed):
    x, samples, k = images(6), torch.tensor([40, 3, 1000, 0, 17, 2]), key(4, "test noise")

    def encode(picked, steps=9, start=0):
        return poisson(x[picked], steps, k, samples[picked], signed=signed, start=start)

    every = torch.arange(6)
    whole = encode(every)
    for n in range(6):
        assert torch.equal(encode([n]), whole[:, n : n + 1])
    assert torch.equal(encode(every.flip(0)), whole.flip(1))
    assert torch.equal(torch.cat([encode(every, 2), encode(every, 4, 2), encode(every, 3, 6)]), whole)


def test_channels_last_images():
    x = images(4)
    expected = poisson(x, 5, key(5), torch.arange(4))
    assert torch.equal(poisson(x.contiguous(memory_format=torch.channels_last), 5, key(5), torch.arange(4)), expected)


def test_no_random_state_is_read_or_moved():
    torch.manual_seed(0)
    first = poisson(images(2), 5, key(6), torch.arange(2))
    state = torch.get_rng_state()
    second = poisson(images(2), 5, key(6), torch.arange(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)


# -- different things draw differently -----------------------------------------------------------------------------


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1].item()


def test_samples_steps_pixels_and_keys_are_uncorrelated():
    """At a rate of one half, where a correlation shows most."""
    x = torch.ones(40, 3, 16, 16)
    a, b = (poisson(x, 20, key(seed, "noise"), torch.arange(40)) for seed in (0, 1))
    pairs = {
        "samples": (a[:, :-1], a[:, 1:]),
        "steps": (a[:-1], a[1:]),
        "columns": (a[..., :-1], a[..., 1:]),
        "rows": (a[..., :-1, :], a[..., 1:, :]),
        "channels": (a[:, :, :-1], a[:, :, 1:]),
        "keys": (a, b),
        "sample against step": (a[:-1, 1:], a[1:, :-1]),
    }
    for name, (one, other) in pairs.items():
        assert abs(correlation(one, other)) < 5 / math.sqrt(one.numel()), name


def test_epochs_and_purposes_draw_anew():
    parts = [(0, "training noise", 0), (0, "training noise", 1), (1, "training noise", 0), (0, "test noise", 0)]
    keys = [key(*p) for p in parts]
    spikes = [poisson(images(2), 5, k, torch.arange(2)) for k in keys]
    for a, b in itertools.combinations(spikes, 2):
        assert not torch.equal(a, b)


def test_no_time():
    with pytest.raises(ValueError, match="time_steps is at least 1, not 0"):
        poisson(images(1), 0, 0, torch.arange(1))
