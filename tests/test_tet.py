"""The TET loss, by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bntt.methods import tet
from bntt.methods.tet import tet_loss


def by_hand(outputs, labels, share, mean):
    """Step by step and image by image, from the definition."""
    steps, samples, classes = outputs.shape
    entropy = square = 0.0
    for t in range(steps):
        for n in range(samples):
            largest = max(outputs[t, n])
            partition = sum(math.exp(o - largest) for o in outputs[t, n])
            entropy -= outputs[t, n, labels[n]] - largest - math.log(partition)
            square += sum((o - mean) ** 2 for o in outputs[t, n])
    return (1 - share) * entropy / (steps * samples) + share * square / (steps * samples * classes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("share", "mean"), [(1e-3, 1.0), (0.0, 1.0), (1.0, -2.0), (0.3, 0.5)])
def test_the_loss_is_that_of_its_definition(seed, share, mean):
    draws = np.random.default_rng(seed)
    outputs, labels = 3 * draws.normal(size=(4, 5, 3)), draws.integers(3, size=5)
    found = tet_loss(torch.from_numpy(outputs), torch.from_numpy(labels), share, mean)
    assert found.item() == pytest.approx(by_hand(outputs, labels, share, mean), rel=1e-12)


def test_its_gradient_at_every_step():
    """(softmax - one-hot) / (T N) of each step's own output, and the pull to the mean."""
    draws = np.random.default_rng(0)
    values, labels = draws.normal(size=(4, 5, 3)), draws.integers(3, size=5)
    outputs = torch.from_numpy(values).requires_grad_()
    tet_loss(outputs, torch.from_numpy(labels), 0.2, 1.0).backward()
    softmax = np.exp(values) / np.exp(values).sum(2, keepdims=True)
    expected = 0.8 * (softmax - np.eye(3)[labels]) / 20 + 0.2 * 2 * (values - 1.0) / 60
    np.testing.assert_allclose(outputs.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_the_outputs_of_the_steps_have_the_logits_as_their_mean(monkeypatch, readout):
    monkeypatch.setattr(tet.surrogate, "train", lambda task, loss: loss)
    options = {"time_steps": 4, "readout": readout, "tet_lambda": 0.2, "tet_mean": 1.0}
    draws = np.random.default_rng(0)
    contributions, labels = torch.from_numpy(draws.normal(size=(4, 5, 3))), torch.from_numpy(draws.integers(3, size=5))
    logits = contributions.mean(0) if readout == "mean" else contributions.sum(0)
    outputs = contributions if readout == "mean" else 4 * contributions
    torch.testing.assert_close(outputs.mean(0), logits)
    found = tet.train(SimpleNamespace(options=options))(contributions, labels)
    assert found.item() == pytest.approx(by_hand(outputs.numpy(), labels.numpy(), 0.2, 1.0), rel=1e-12)
