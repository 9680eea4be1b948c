"""The dense network (ANN): ReLU, average pooling, no bias; by default it has no norm, so that it can be converted.

It is trained on the expected values of the input spikes that the converted network gets. With ``batch_norm`` it is a
dense control that has a norm, as BNTT has (rows named ``ann-bn``). The paper has no such control.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bntt.classifiers import DenseClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, seed_dropout
from bntt.spiking.encoding import rates
from bntt.spiking.networks import DenseNetwork, initialise, place, weight_layers
from bntt.training.loop import fit

TITLE = "Dense network, {batch_norm}"
EXTENDS = ["bntt.training.loop", "bntt.spiking.networks", "bntt.spiking.encoding"]
OPTIONS = {
    "batch_norm": {
        "default": False,
        "help": "Batch norm after every hidden layer; such a network cannot be converted here.",
    },
    "dropout": {"default": 0.2, "min": 0.0, "max": 0.9, "help": "Dropout probability of hidden activations."},
    "gain": {"default": 1.4142135, "above": 0.0, "help": "Gain of the Xavier-uniform initial weights."},
}


def build(options: Mapping[str, Any], data: ImageData) -> DenseNetwork:
    """The untrained network that the options describe."""
    layers = weight_layers(options["architecture"], data.shape, data.classes, options["width"])
    return DenseNetwork(layers, batch_norm=options["batch_norm"], dropout=options["dropout"])


def train(task: Task) -> Trained:
    """Ordinary training. The dropout masks are keyed by the epoch and the first sample of the batch."""
    options, data, seed = task.options, task.data, task.run.seed
    network = build(options, data)
    initialise(network, seed, options["gain"])
    place(network, data.mean.device)
    signed = options["coding"] == "signed"

    def forward(unit: Tensor, samples: Tensor, noise: int) -> Tensor:
        seed_dropout(network, noise, samples)
        return network(rates(data.scaled(unit, signed), signed))

    outcome = fit(network, forward, data, options, seed, task.keeper, task.run.name)
    return Trained(network.state_dict(), outcome, {"parameters": sum(p.numel() for p in network.parameters())})


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> DenseClassifier:
    """The trained network as a classifier."""
    network = build(run.options, data)
    network.load_state_dict(weights)
    place(network, data.mean.device)
    return DenseClassifier(network, run.options["coding"] == "signed")
