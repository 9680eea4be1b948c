"""Spike-based backpropagation (Lee et al. 2020, Frontiers in Neuroscience 14:119), from scratch.

**Forward.** Per neuron, with leak l = 0.99 and threshold 1, in steps t = 1..T:

    u[t] = l u'[t-1] + x[t];   s[t] = 1 if u[t] > threshold, else 0;   u'[t] = 0 if it fired, else u[t]

Each 2 x 2 average is followed by a neuron of its own, a *spiking pool*, without leak and with threshold 0.75, so only
spikes travel. Behind every hidden layer, before its pool, is dropout with one mask for all steps. The classifier does
not fire. It accumulates v[t] = l (v[t-1] + W s[t]), and the output is v[T] / T. Weights are drawn from
N(0, 2 / fan-in), and there are no biases.

**Gradient.** Over T steps, a neuron without leak fires about sum(x) / threshold times, so a spike's derivative is
1 / threshold if the neuron fired, and 0 otherwise. A leak takes away what the trace
LF[t] = l LF[t-1] + s[t], the sum over spikes k of exp(-(t - t_k) / tau) with 1 / tau = -ln l, says. Divided by the
spike count, its slope in time corrects the derivative to

    1 / threshold * (1 + ln(l) LF[T] / (s[1] + ... + s[T]))

(paper, derivative of the LIF neuron's activity). The authors' program applies it in time as follows, and so does this
file. The derivative acts at the steps with a spike. Where the neuron fires, the hard reset cuts the path through its
membrane. Elsewhere the path is whole and has slope 1: *the leak is applied to the membrane's value but not to its
gradient*, because the correction stands for it. So the gradient of a current is that of the neuron's next spike, at
that step or later, times the derivative above; it is 0 if no spike follows. Spiking pools pass the gradient on alike,
with slope 1 for a spike, without 1 / threshold. The classifier's leak is left out of the gradient too.

**Loss.** Squared error between v[T] / T and the one-hot label, summed over classes, mean over images. The authors sum
it over the images of a batch, so their learning rate 0.0033 and weight decay 5e-4 at batch size 16 are, exactly,
0.0528 and 3.125e-5 here. They pass no momentum to SGD, and divide the rate by 5 after epochs 70, 100 and 125 of 150.

**Open, or different here.** The paper's equations leave out how the derivative is applied in time, which is taken from
the program. Input spikes are those of all methods of this suite, for comparison. The authors' pixels fire with
probability |x - mean| / 0.55, which is 0.9 times as often.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, fit_spiking, spiking_classifier, squared_error
from bntt.spiking.networks import WeightLayer, weight_layers
from bntt.spiking.randomness import generator
from bntt.spiking.stateful import FixedDropout, Stateful, StatefulNetwork, pooled

TITLE = "Spike-based backprop"
EXTENDS = ["bntt.training.loop", "bntt.spiking.networks", "bntt.spiking.encoding"]
OPTIONS = {
    "time_steps": {"default": 100, "min": 1, "help": "Number of time-steps T."},
    "leak": {"default": 0.99, "above": 0.0, "max": 1.0, "help": "Factor l on the membrane from step to step."},
    "threshold": {"default": 1.0, "above": 0.0, "help": "Firing threshold."},
    "pool_threshold": {
        "default": 0.75,
        "above": 0.0,
        "help": "Firing threshold of spiking pools, for averages of spikes.",
    },
    "dropout": {
        "default": 0.2,
        "min": 0.0,
        "max": 0.9,
        "help": "Dropout probability of hidden neurons, with one mask for all steps.",
    },
}


class Neuron(Stateful):
    """A neuron with hard reset and Lee et al.'s gradient, on currents ``[T, N, ...]``; the state is the membrane.

    With ``corrected``, a spike's derivative is that of the leaky neuron (module's docstring); otherwise, as for spiking
    pools, it is 1. It refers to the steps that are given at once.
    """

    def __init__(self, leak: float, threshold: float, corrected: bool) -> None:
        super().__init__()
        self.leak, self.threshold, self.corrected = leak, threshold, corrected

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        membrane = torch.zeros_like(x[0]) if state is None else state
        return _Fire.apply(x, membrane, self.leak, self.threshold, self.corrected)


class _Fire(torch.autograd.Function):
    """Spikes ``[T, N, ...]`` and the membrane after them ``[N, ...]``, of currents and a membrane."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, membrane: Tensor, leak: float, threshold: float, corrected: bool
    ) -> tuple[Tensor, Tensor]:
        spikes, u = torch.empty_like(x), membrane.clone()
        trains = any(ctx.needs_input_grad)
        traced = torch.zeros_like(u) if trains and corrected else None
        for current, spike in zip(x, spikes, strict=True):
            u.mul_(leak).add_(current)
            torch.gt(u, threshold, out=spike)
            u.masked_fill_(spike.bool(), 0)
            if traced is not None:
                traced.mul_(leak).add_(spike)
        if trains:
            slope = None
            if traced is not None:
                slope = (1 + math.log(leak) * traced / spikes.sum(0).clamp_min(1)) / threshold
            ctx.save_for_backward(spikes.bool(), slope)
        return spikes, u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_spikes: Tensor, of_membrane: Tensor) -> tuple[Tensor | None, ...]:
        fired, slope = ctx.saved_tensors
        of_x = torch.empty_like(of_spikes)
        later = of_membrane
        for now, spike, upstream in zip(*(reversed(a.unbind()) for a in (of_x, fired, of_spikes)), strict=True):
            later = torch.where(spike, upstream if slope is None else upstream * slope, later, out=now)
        return of_x, later, None, None, None


class LeakyReadout(Stateful):
    """From the classifier's currents to what each step adds to a leaky accumulator: ``v[t] - v[t-1]``.

    Their sum over t steps is v[t], so the mean readout gives v[t] / t. The gradient is as without leak.
    """

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.leak = leak

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        voltage = torch.zeros_like(x[0]) if state is None else state
        with torch.no_grad():
            added = torch.empty_like(x)
            for current, change in zip(x, added, strict=True):
                after = self.leak * (voltage + current)
                change.copy_(after - voltage)
                voltage = after
        return x + (added - x).detach(), voltage


def build(options: Mapping[str, Any], data: ImageData) -> StatefulNetwork:
    """The untrained network that the options describe."""

    def after(layer: WeightLayer) -> list[nn.Module]:
        pools = pooled(layer)
        spiking = [Neuron(1.0, options["pool_threshold"], corrected=False)] if pools else []
        return [FixedDropout(options["dropout"]), *pools, *spiking]

    return StatefulNetwork(
        weight_layers(options["architecture"], data.shape, data.classes, options["width"]),
        options["time_steps"],
        neuron=lambda layer: Neuron(options["leak"], options["threshold"], corrected=True),
        after=after,
        head=[LeakyReadout(options["leak"])],
    )


def initialise(network: nn.Module, seed: int) -> None:
    """Weights from N(0, 2 / fan-in), from the run's seed."""
    draws = generator(seed, "initial weights")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / module.weight[0].numel()), generator=draws)


def train(task: Task) -> Trained:
    """Back-propagation with the gradient and the loss of the module's docstring."""
    network = build(task.options, task.data)
    initialise(network, task.run.seed)
    return fit_spiking(task, network, loss=squared_error(network))


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network as a classifier, whose logits after t steps are v[t] / t."""
    return spiking_classifier(build(run.options, data), run, data, weights)
