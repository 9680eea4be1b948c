"""Connections in the precision of the spikes: the same numbers as torch's own, and what is kept as bytes is exact."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bntt.spiking import connections
from bntt.spiking.connections import connect
from bntt.spiking.kernels import plain

from .helpers import random, relative


def spikes(*shape, quarters=True):
    u = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(0)).double()
    return u / 4 if quarters else (u > 2).double()


CONNECTIONS = [
    (nn.Conv2d(3, 5, 3, padding=1, bias=False), (2, 3, 3, 6, 6)),
    (nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2, bias=False), (2, 3, 4, 9, 9)),
    (nn.Conv2d(4, 6, 3, stride=(2, 3), padding=(1, 0), bias=False), (2, 3, 4, 8, 8)),  # the stride leaves some over
    (nn.Conv2d(3, 5, (1, 3), padding="valid", bias=False), (2, 3, 3, 6, 6)),
    (nn.Conv2d(3, 5, 3, padding=1), (2, 3, 3, 6, 6)),  # a bias: run by torch itself
    (nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular", bias=False), (2, 3, 3, 6, 6)),
    (nn.Linear(8, 5, bias=False), (2, 3, 8)),
    (nn.Linear(8, 5), (2, 3, 8)),
]


@pytest.mark.parametrize("piece", [1, 2**24])
@pytest.mark.parametrize("quarters", [False, True])
@pytest.mark.parametrize(("connection", "shape"), CONNECTIONS, ids=lambda value: str(value))
def test_gradients(connection, shape, quarters, piece, monkeypatch):
    """Of spikes, which are kept as bytes, and of other numbers, which are not."""
    monkeypatch.setattr(connections, "PIECE", piece)
    monkeypatch.setattr(plain, "CACHED", piece)
    connection = copy.deepcopy(connection).double()
    ours, theirs = ((spikes(*shape) if quarters else random(2, *shape)).requires_grad_() for _ in range(2))
    expected = connection(theirs.flatten(0, 1)).unflatten(0, shape[:2])
    upstream = random(1, *expected.shape)
    expected.backward(upstream)
    weight_gradient = connection.weight.grad.clone()
    connection.zero_grad()
    current = connect(connection, ours)
    current.backward(upstream)
    assert torch.equal(current, expected)
    assert relative(ours.grad, theirs.grad) < 1e-13
    assert relative(connection.weight.grad, weight_gradient) < 1e-13


def test_the_precision_is_that_of_the_spikes():
    """bfloat16 weights where they are used, float32 gradients where they are kept."""
    connection = nn.Conv2d(8, 16, 3, padding=1, bias=False)
    x = spikes(2, 3, 8, 6, 6).bfloat16().requires_grad_()
    current = connect(connection, x)
    rounded = connection.weight.bfloat16().double()
    expected = F.conv2d(x.detach().double().flatten(0, 1), rounded, padding=1).unflatten(0, (2, 3))
    assert current.dtype == torch.bfloat16 and relative(current.double(), expected) < 2**-8
    current.float().square().sum().backward()
    assert connection.weight.grad.dtype == torch.float32 and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_called(kind):
    connection, calls = nn.Linear(8, 5, bias=False), []
    getattr(connection, kind)(lambda *given: calls.append(1))
    connect(connection, spikes(2, 3, 8).float())
    assert calls == [1]
