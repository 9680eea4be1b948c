"""Weight standardisation: the well-trained control without a norm (Qiao et al. 2019; scaled as in Brock et al. 2021).

The weights of an output channel c of a hidden layer are a learned array v[c], standardised over its fan-in of F values,
times a learned gain g[c]:

    w[c] = g[c] (v[c] - mean v[c]) / sqrt(F var v[c])

so they have mean 0 and variance g[c]^2 / F, whatever v[c] is. Nothing depends on the data, the batch or the time-step.
The saved weights are w, as plain weights, and the trained network is one of `surrogate`.

The sources fix the standardisation, the gain per channel, and that F var is at least 1e-4. Chosen here: there are no
biases, as in the paper's networks; the classifier is not standardised, as in Brock et al.; v starts as `surrogate`'s
weights do, and g at the same ``gain``; the gains decay as the scales of norms do (``gamma_decay``). By default there is
no norm; with one, its currents come from standardised weights.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, surrogate
from bntt.spiking.networks import SpikingNetwork

TITLE = "Surrogate gradient, weight standardisation, {norm}"
EXTENDS = ["bntt.methods.surrogate"]
DATA_PARALLEL = True
OPTIONS = {
    "norm": {
        "default": "none",
        "choices": [
            "none",
            "bntt",
            "bntt-shared-gamma",
            "bn-pooled",
            "bn-pooled-step-gamma",
            "bn-repeated",
            "tdbn",
            "tebn",
            "tab",
            "tab-released",
            "tsbn",
        ],
        "help": "Temporal norm of every hidden layer, besides the standardised weights.",
    },
    "gain": {
        "default": 2.0,
        "above": 0.0,
        "help": "Initial gain of every output channel, and gain of the Xavier-uniform initial weights.",
    },
}
LEAST = 1e-4  # of F var v, as in Brock et al.


class Gains(nn.ParameterDict):
    """The learned gain of each output channel, ``[C]``, by layer."""

    def temporal_scale(self) -> None:
        """None: a gain is a scale that does not change with time. The optimiser knows a norm's parameters by this."""


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    """Weights ``[C, ...]`` with mean 0 and variance ``gain^2 / fan-in`` in every channel of ``gain [C]``."""
    within = tuple(range(1, weight.dim()))
    variance, mean = torch.var_mean(weight, within, correction=0, keepdim=True)
    scale = gain.reshape(mean.shape) / (weight[0].numel() * variance).clamp(min=LEAST).sqrt()
    return (weight - mean) * scale


class StandardisedNetwork(nn.Module):
    """A spiking network whose hidden weights are functions of free weights and gains, computed at every call.

    The gains start at ``start``. The weights are attributes of ordinary convolutions and linear layers, which the fused
    passes use. What is learned lies outside the network, which would otherwise take it for tensors of its own.
    """

    def __init__(self, network: SpikingNetwork, start: float) -> None:
        super().__init__()
        self.network, self.free, self.gains = network, nn.ParameterDict(), Gains()
        self.logits, self.norms, self.hidden = network.logits, network.norms, network.hidden
        for name, layer in network.hidden().items():
            self.free[name] = layer.connection.get_parameter("weight").detach()
            self.gains[name] = torch.full((len(self.free[name]),), start)
            del layer.connection.weight

    def forward(self, spikes: Tensor, chunk: int | None = None) -> Tensor:
        """As `SpikingNetwork.forward`."""
        for name, layer in self.network.hidden().items():
            layer.connection.weight = standardised(self.free[name], self.gains[name])
        return self.network(spikes, chunk)


def train(task: Task) -> Trained:
    """Surrogate-gradient training of free weights and gains; returns the plain network with standardised weights."""
    trained = surrogate.train(task, prepare=lambda network: StandardisedNetwork(network, task.options["gain"]))
    plain = surrogate.build(task.options, task.data)
    learned = trained.weights
    weights = {name: learned[f"network.{name}"] for name in plain.state_dict() if f"network.{name}" in learned}
    for name in plain.hidden():
        weights[f"layers.{name}.connection.weight"] = standardised(learned[f"free.{name}"], learned[f"gains.{name}"])
    facts = {**trained.facts, "parameters": sum(p.numel() for p in plain.parameters())}
    return replace(trained, weights=weights, facts=facts)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network, which is one of `surrogate`, as a classifier."""
    return surrogate.classifier(run, data, weights)
