"""SpikingJelly 2.0.0, an independent library, gives the same spikes from the same numbers."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from bntt.spiking.layers import SpikingLayer
from bntt.spiking.neurons import LIF
from bntt.spiking.norms import BNTT

from .helpers import disturb, input_spikes, relative

STEPS, LEAK, WIDTHS = 12, 0.95, (3, 6, 8, 10)


class Theirs(nn.Module):
    """Three blocks of convolution, BatchNormThroughTime2d and LIFNode, the second followed by average pooling.

    ``decay_input=False`` adds the input in full, ``v_reset=None`` is the soft reset. Their neuron fires at
    ``v >= threshold``, ours at ``v > threshold``: that membranes never tie is asserted below.
    """

    def __init__(self, ours):
        super().__init__()
        self.blocks = nn.ModuleList()
        for block in ours:
            conv = nn.Conv2d(*block.connection.weight.shape[1::-1], 3, padding=1, bias=False).double()
            conv.load_state_dict(block.connection.state_dict())
            norm = layer.BatchNormThroughTime2d(STEPS, block.norm.channels, eps=1e-4, momentum=0.1).double()
            for t, bn in enumerate(norm.bn_list):
                bn.weight.data.copy_(block.norm.gamma[t])
                bn.running_mean.copy_(block.norm.running_mean[t])
                bn.running_var.copy_(block.norm.running_var[t])
            lif = neuron.LIFNode(1 / (1 - LEAK), decay_input=False, v_threshold=1.0, v_reset=None, detach_reset=True)
            self.blocks.append(nn.ModuleList([conv, norm, lif, block.pool or nn.Identity()]))

    def forward(self, x):
        """Spikes of every block, ``[T, N, ...]`` each."""
        functional.reset_net(self)
        spikes = [[] for _ in self.blocks]
        for o in x:
            for (conv, norm, lif, pool), fired in zip(self.blocks, spikes, strict=True):
                before = lif.v
                current = norm(conv(o))
                o = lif(current)
                membrane = before * LEAK + current
                assert (membrane - 1).abs().min() > 1e-12, "a membrane ties with the threshold; choose another seed"
                fired.append(o)
                o = pool(o)
        return [torch.stack(fired) for fired in spikes]


@pytest.fixture
def pair():
    torch.manual_seed(0)
    blocks = nn.ModuleList(
        SpikingLayer(nn.Conv2d(a, b, 3, padding=1, bias=False), BNTT(b, STEPS), LIF(LEAK), pool)
        for a, b, pool in zip(WIDTHS[:-1], WIDTHS[1:], (None, nn.AvgPool2d(2), None), strict=True)
    ).double()
    disturb(blocks, 1)
    return blocks, Theirs(blocks)


def run(blocks, x):
    spikes = []
    handles = [b.neuron.register_forward_hook(lambda _, __, out: spikes.append(out)) for b in blocks]
    for block in blocks:
        x = block(x)
    for handle in handles:
        handle.remove()
    return spikes


@pytest.mark.parametrize("training", [True, False])
def test_identical_spikes(pair, training):
    ours, theirs = pair
    ours.train(training), theirs.train(training)
    x = input_spikes(2, STEPS, 5, 3, 12, 12)
    for number, (a, b) in enumerate(zip(run(ours, x), theirs(x), strict=True), 1):
        assert 0.005 < b.mean() < 0.9, "too quiet or too busy to prove anything"
        assert torch.equal(a, b), f"block {number}: {(a != b).sum()} of {a.numel()} spikes differ"


def test_identical_spikes_with_the_moments_that_training_tracked(pair):
    ours, theirs = pair
    with torch.no_grad():
        for step in range(3):
            x = input_spikes(10 + step, STEPS, 5, 3, 12, 12)
            run(ours, x), theirs(x)
    for block, (_, norm, _, _) in zip(ours, theirs.blocks, strict=True):
        assert relative(block.norm.running_mean, torch.stack([bn.running_mean for bn in norm.bn_list])) < 1e-12
        assert relative(block.norm.running_var, torch.stack([bn.running_var for bn in norm.bn_list])) < 1e-12
    ours.eval(), theirs.eval()
    x = input_spikes(20, STEPS, 5, 3, 12, 12)
    assert all(torch.equal(a, b) for a, b in zip(run(ours, x), theirs(x), strict=True))
