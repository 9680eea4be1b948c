"""Hybrid training (Rathi et al. 2020): a converted network is trained on with a surrogate gradient.

Source: N. Rathi, G. Srinivasan, P. Panda, K. Roy, "Enabling deep spiking neural networks with hybrid conversion and
spike timing dependent backpropagation", ICLR 2020, and its public code. It starts from an `ann` row and has two parts.

**Conversion.** Weights are copied and thresholds balanced layer by layer, by the maximum of the currents as in
`conversion` with soft reset, which is the neuron's reset here. All of them are then multiplied by ``threshold_scale``.
They stay fixed.

**Training** by back-propagation through all T steps, with Adam (AMSGrad), on the cross-entropy of the output, which
accumulates its current over the steps and is not divided by T. A layer answers one step later than its input: a spike
uses the membrane from before this step's current. For currents ``I = W s`` of ``[N, ...]`` at each step,

    s[t] = 1 where u[t - 1] > th, else 0
    u[t] = leak u[t - 1] + I[t] - th s[t],    u[-1] = 0

so a network of L hidden layers sees nothing in its first L steps, and without leak it is the converted network with
soft reset, L steps later. No gradient flows through the reset. The derivative of s[t] with respect to u[t - 1] / th is

    linear:  alpha max(0, 1 - |u[t - 1] / th - 1|)
    stdb:    alpha exp(-beta d),    d = number of steps since the neuron's last spike

and a neuron that has not spiked counts as silent for `NEVER` steps before the first, as in the public code. That code
computes `stdb` as alpha exp(-d)^beta, of which float32 makes 0 for d above 103; here it is not 0. Dropout has one mask
for all steps of a batch, behind every hidden layer that is not pooled; here it has one probability, where the public
code has 0.5 behind fully connected layers. The public code scales images differently for its dense and its spiking
network; here both get the same. On event recordings, thresholds are found on Poisson spikes, and the spiking network is
trained and tested on the frames.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, fit_spiking, spiking_classifier
from bntt.methods._balancing import Silent, balance, copied, copy_weights, parted, with_thresholds
from bntt.spiking.networks import WeightLayer, weight_layers
from bntt.spiking.randomness import key
from bntt.spiking.stateful import FixedDropout, State, Stateful, StatefulNetwork, pooled
from bntt.training.loop import Outcome

TITLE = "Hybrid"
NEEDS_START = True
EXTENDS = ["bntt.training.loop", "bntt.spiking.networks", "bntt.spiking.encoding", "bntt.methods._balancing"]
OPTIONS = {
    "time_steps": {
        "default": 200,
        "min": 1,
        "help": "Number of time-steps T. The first ones give no output: every hidden layer answers one step later.",
    },
    "surrogate": {
        "default": "linear",
        "choices": ["linear", "stdb"],
        "help": "Derivative of a spike: by the distance of the membrane from the threshold, or by the time since the "
        "last spike.",
    },
    "alpha": {"default": 0.3, "above": 0.0, "help": "Height of the derivative of a spike."},
    "beta": {"default": 0.01, "min": 0.0, "help": "Decay by time-step of the derivative `stdb`."},
    "leak": {"default": 1.0, "min": 0.0, "max": 1.0, "help": "Share of the membrane that a step keeps; 1: no leak."},
    "dropout": {
        "default": 0.2,
        "min": 0.0,
        "max": 0.9,
        "help": "Probability with which a neuron is dropped for all time-steps of a batch.",
    },
    "calibration_steps": {"default": 1000, "min": 1, "help": "Number of time-steps of the threshold balancing."},
    "threshold_scale": {
        "default": 0.7,
        "above": 0.0,
        "help": "Factor on every threshold, after all thresholds are found.",
    },
    "optimiser": {"default": "adam", "choices": ["sgd", "adam"], "help": "`adam`: AMSGrad, as published; or `sgd`."},
    "learning_rate": {"default": 1e-4, "above": 0.0, "help": "Base learning rate."},
    "epochs": {"default": 50, "min": 1, "help": "Passes over the training images after the conversion."},
    "milestones": {
        "default": [0.6, 0.8, 0.9],
        "min": 0.0,
        "max": 1.0,
        "help": "Shares of the epochs at which the learning rate is divided.",
    },
    "decay_factor": {"default": 5.0, "above": 0.0, "help": "Divisor of the learning rate at each milestone."},
}
NEVER = 999  # steps of silence before the first


class Delayed(Stateful):
    """The neuron of the module's docstring, on currents ``[T, N, ...]``; its state is the membrane and the silence."""

    def __init__(self, threshold: float, leak: float, surrogate: str, alpha: float, beta: float) -> None:
        super().__init__()
        self.threshold, self.leak, self.surrogate, self.alpha, self.beta = threshold, leak, surrogate, alpha, beta

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        membrane, silence = (torch.zeros_like(x), torch.full_like(x, NEVER)) if state is None else state
        fired = (membrane > self.threshold).to(x.dtype)
        slope = self.slope(membrane.detach(), silence) / self.threshold
        spikes = fired + slope * (membrane - membrane.detach())
        membrane = self.leak * membrane + x - self.threshold * fired
        return spikes, (membrane, torch.where(fired > 0, 1, silence + 1))

    def slope(self, membrane: Tensor, silence: Tensor) -> Tensor:
        """The derivative of a spike with respect to membrane / threshold."""
        if self.surrogate == "stdb":
            return self.alpha * torch.exp(-self.beta * silence)
        return self.alpha * (1 - (membrane / self.threshold - 1).abs()).clamp(min=0)


def build(options: Mapping[str, Any], data: ImageData, thresholds: Mapping[str, float]) -> StatefulNetwork:
    """The network with these thresholds by layer (1 where none is given)."""
    neuron = {name: options[name] for name in ("leak", "surrogate", "alpha", "beta")}

    def after(layer: WeightLayer) -> list[nn.Module]:
        return pooled(layer) or [FixedDropout(options["dropout"])]

    return StatefulNetwork(
        weight_layers(options["architecture"], data.shape, data.classes, options["width"]),
        options["time_steps"],
        neuron=lambda layer: Delayed(thresholds.get(layer.name, 1.0), **neuron),
        after=after,
        readout="sum",
    )


def train(task: Task) -> Trained:
    """Copy the weights, find the thresholds, then train the weights.

    Raises UserError if the start row has norms, biases or other shapes. Without a positive current in a layer, the
    outcome is diverged.
    """
    options, data = task.options, task.data
    published = {"reset": "soft", "balancing": "network", "percentile": 100.0, "threshold_scale": 1.0}
    converted = copied(task, options | published)
    try:
        found = balance(converted, data, options | published, key(task.run.seed, "calibration"))
    except Silent as silent:
        return Trained({}, Outcome(diverged=str(silent)))
    thresholds = {name: threshold * options["threshold_scale"] for name, threshold in found.items()}
    network = build(options, data, thresholds)
    copy_weights(task, network)
    trained = fit_spiking(task, network)
    facts = {**trained.facts, "thresholds": thresholds}
    return replace(trained, weights=with_thresholds(trained.weights, thresholds), facts=facts)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network, with its thresholds, as a classifier."""
    learned, thresholds = parted(weights)
    return spiking_classifier(build(run.options, data, thresholds), run, data, learned)
