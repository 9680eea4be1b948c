"""Training in time chunks gives the same numbers, updates nothing twice, and refuses where it cannot be exact."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from .helpers import input_spikes, random, relative, vgg9

STEPS = 7
LABELS = torch.tensor([1, 0, 3])
UPSTREAM = random(2, STEPS, 3, 10)


def gradients(network, chunk):
    network.zero_grad()
    contributions = network(input_spikes(1, STEPS, 3, 3, 8, 8), chunk)
    # Beside the loss something of every step alone, so that the gradient is another at each.
    (F.cross_entropy(network.logits(contributions), LABELS) + (contributions * UPSTREAM).mean()).backward()
    moments = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    return contributions.detach(), {name: p.grad for name, p in network.named_parameters()}, moments


@pytest.mark.parametrize("chunk", [1, 3, 6])
@pytest.mark.parametrize(
    ("norm", "classifier_norm"),
    [("none", False), *product(["bntt", "bntt-shared-gamma", "bn-repeated"], [False, True])],
)
def test_chunks_change_no_number(norm, chunk, classifier_norm):
    settings = {"norm": norm, "steps": STEPS, "width": 1 / 8, "side": 8, "classifier_norm": classifier_norm}
    whole, expected, tracked = gradients(vgg9(**settings), None)
    pieces, found, also_tracked = gradients(vgg9(**settings), chunk)
    assert relative(pieces, whole) < 1e-12
    assert any(g.abs().max() > 0 for g in expected.values())
    for name, gradient in expected.items():
        assert relative(found[name], gradient) < 1e-10, name
    for name, moments in tracked.items():
        assert relative(also_tracked[name], moments) < 1e-12, name


@pytest.mark.parametrize("norm", ["bn-pooled", "bn-pooled-step-gamma", "tdbn", "tebn", "tab"])
def test_norms_that_pool_over_time_refuse(norm):
    network = vgg9(norm, STEPS, 1 / 8, 8)
    with pytest.raises(ValueError, match="pools over time-steps"):
        gradients(network, 3)
    gradients(network, STEPS)  # one chunk is no chunk


def test_a_second_pass_of_the_norms_is_counted_again_afterwards():
    network = vgg9("bntt", STEPS, 1 / 8, 8)
    _, _, first = gradients(network, 3)
    _, _, second = gradients(network, 3)
    assert all(not torch.equal(first[name], second[name]) for name in first)


def test_a_chunk_of_no_steps():
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        vgg9("bntt", STEPS, 1 / 8, 8)(input_spikes(1, STEPS, 3, 3, 8, 8), 0)
