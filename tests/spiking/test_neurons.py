"""What holds of every LIF and IF neuron, whatever the currents; and that the reset passes no gradient."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bntt.spiking.neurons import IF, LIF, as_rows, from_rows
from bntt.spiking.norms import BNTT

from .helpers import disturb, random
from .naive import Neuron

shapes = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)) | st.tuples(
    st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)
)
seeds = st.integers(0, 2**31)
leaks = st.floats(0, 1)
thresholds = st.floats(0.1, 3)
resets = st.sampled_from(["soft", "hard"])


# -- properties ----------------------------------------------------------------------------------------------------


@given(shapes, seeds, leaks, thresholds, resets)
def test_spikes_are_zero_or_one_and_shaped_like_the_current(shape, seed, leak, threshold, reset):
    x = 2 * random(seed, *shape)
    spikes = LIF(leak, threshold, reset)(x)
    assert spikes.shape == x.shape and spikes.dtype == x.dtype
    assert ((spikes == 0) | (spikes == 1)).all()


@given(shapes, seeds, leaks, thresholds, resets)
def test_a_plain_loop_agrees(shape, seed, leak, threshold, reset):
    """In spikes and in gradients."""
    x = 2 * random(seed, *shape)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = random(seed + 1, *shape)
    spikes = LIF(leak, threshold, reset, 0.7)(ours)
    expected, _ = Neuron(leak, threshold, reset, 0.7).run(theirs)
    assert torch.equal(spikes, expected)
    spikes.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


@given(shapes, seeds, thresholds)
def test_soft_reset_conserves_charge_without_leak(shape, seed, threshold):
    """What came in is what was fired, at the threshold a spike, and what is left."""
    x = random(seed, *shape)
    spikes, membrane = IF(threshold).resume(x, None, 0, None)
    left = from_rows(membrane[None], x[:1])[0]
    torch.testing.assert_close(x.sum(0), threshold * spikes.sum(0) + left, rtol=0, atol=1e-12)


@given(shapes, seeds, leaks, resets, st.booleans(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_any_cut_of_time_gives_one_result(shape, seed, leak, reset, with_norm, cuts):
    """Going on from the membrane of the piece before is the same, bit for bit, as one pass."""
    x = 2 * random(seed, *shape)
    norm = None
    if with_norm:
        norm = BNTT(shape[2], shape[0]).double().eval()
        disturb(norm, seed % 1000)
    lif = LIF(leak, 1.0, reset)
    whole, last = lif.resume(x, norm, 0, None)
    edges = [0, *(t for t in range(1, shape[0]) if cuts[t]), shape[0]]
    membrane, pieces = None, []
    for start, end in itertools.pairwise(edges):
        spikes, membrane = lif.resume(x[start:end], norm, start, membrane)
        pieces.append(spikes)
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(membrane, last)
    assert torch.equal(lif(x, norm), whole)


@given(seeds, leaks, resets)
def test_samples_do_not_meet(seed, leak, reset):
    x = 2 * random(seed, 5, 4, 2, 3, 3)
    lif = LIF(leak, 1.0, reset)
    assert torch.equal(torch.cat([lif(x[:, n : n + 1]) for n in range(4)], 1), lif(x))


@given(shapes)
def test_rows_and_back(shape):
    """Channels innermost, samples and positions in order."""
    x = random(0, *shape)
    rows = as_rows(x)
    assert rows.shape == (shape[0], x[0].numel() // shape[2], shape[2]) and rows.is_contiguous()
    assert torch.equal(from_rows(rows, x), x)
    assert torch.equal(rows[-1, 0], x[-1, 0].reshape(shape[2], -1)[:, 0])


def test_a_channels_last_current_becomes_rows_without_a_copy():
    x = random(0, 6, 4, 3, 3).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 3))
    assert as_rows(x).data_ptr() == x.data_ptr()


# -- no gradient through the reset ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "expected"), [("soft", 0.8), ("hard", 0.0)])
def test_reset_passes_no_gradient(reset, expected):
    """Two steps, a spike at the first, a loss on the second: du[2] / dx[1] is the leak (soft), or nothing (hard)."""
    leak = 0.8
    x = torch.tensor([1.25, 0.6], dtype=torch.float64).reshape(2, 1, 1).requires_grad_()
    spikes = LIF(leak, 1.0, reset)(x)
    assert spikes[0] == 1
    spikes[1].backward()
    membrane = 0.6 + leak * (0.25 if reset == "soft" else 0)
    assert x.grad.flatten().tolist() == pytest.approx([expected * 0.3 * membrane, 0.3 * membrane])

    through = x.detach().clone().requires_grad_()
    Neuron(leak, 1.0, reset, detach=False).run(through)[0][1].backward()
    assert abs(through.grad[0] - x.grad[0]) > 0.01  # so this test would notice


def test_hard_reset_passes_the_gradient_where_there_was_no_spike():
    x = torch.tensor([0.5, 0.6], dtype=torch.float64).reshape(2, 1, 1).requires_grad_()
    LIF(0.8, 1.0, "hard")(x)[1].backward()
    assert x.grad.flatten().tolist() == pytest.approx([0.8 * 0.3 * 1.0, 0.3 * 1.0])


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"leak": 1.01}, "leak"),
        ({"leak": -0.1}, "leak"),
        ({"leak": float("nan")}, "leak"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"reset": "Soft"}, "reset"),
    ],
    ids=str,
)
def test_impossible_neurons(settings, word):
    with pytest.raises(ValueError, match=word):
        LIF(**settings)


def test_a_current_without_time_or_batch_is_refused():
    with pytest.raises(ValueError, match=r"\[T, N, C, \.\.\.\].*\(3, 4\)"):
        LIF()(torch.zeros(3, 4))
