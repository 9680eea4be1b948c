"""Surrogate-gradient training of a spiking network from scratch, with any temporal norm or none (Algorithm 2)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, fit_spiking, spiking_classifier
from bntt.spiking.kernels import computes_in_bfloat16, name_for
from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers
from bntt.spiking.neurons import LIF
from bntt.spiking.norms import NORMS, TSBN, TemporalNorm
from bntt.training.loop import Loss

TITLE = "Surrogate gradient, {norm}"
EXTENDS = ["bntt.training.loop", "bntt.spiking.networks", "bntt.spiking.encoding"]
DATA_PARALLEL = True
OPTIONS: dict[str, dict[str, Any]] = {
    "time_steps": {"default": 25, "min": 1, "help": "Number of time-steps T."},
    "norm": {
        "default": "bntt",
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
        "help": "Temporal norm of every hidden layer.",
    },
    "window": {"default": 3, "min": 1, "help": "Time-steps whose statistics the norm `tsbn` pools."},
    "classifier_norm": {
        "default": False,
        "help": "Norm on the classifier too (Algorithm 2, line 9); the released code has none.",
    },
    "tracking": {
        "default": "variance",
        "choices": ["variance", "deviation"],
        "help": "The norm's moving average is of the variance, as in the released code, or of Algorithm 1's sigma.",
    },
    "leak": {"default": 0.95, "min": 0.0, "max": 1.0, "help": "Lambda of Eq. 4."},
    "threshold": {"default": 1.0, "above": 0.0, "help": "Firing threshold theta."},
    "reset": {
        "default": "soft",
        "choices": ["soft", "hard"],
        "help": "What a spike does to the membrane: subtract the threshold (`soft`), or set it to zero (`hard`).",
    },
    "alpha": {"default": 0.3, "above": 0.0, "help": "Damping of the surrogate gradient, Eq. 8."},
    "readout": {
        "default": "mean",
        "choices": ["mean", "sum"],
        "help": "Logits: accumulated voltage divided by T, as in the released code, or not divided (Eq. 5).",
    },
    "precision": {
        "default": "auto",
        "choices": ["auto", "bf16", "fp32"],
        "help": "Type of spikes and currents in training; `auto`: bf16 if the device has instructions for it, else "
        "fp32. Membranes, sums, weights and evaluation are always fp32.",
    },
    "time_chunk": {
        "default": None,
        "type": "int",
        "min": 1,
        "help": "Number of time-steps held in memory at once; the backward pass runs each chunk again. null: all. "
        "Changes numbers by rounding only. Not possible with norms that pool over time.",
    },
    "gain": {
        "default": 2.0,
        "above": 0.0,
        "help": "Gain of the Xavier-uniform initial weights; the released code has 2.",
    },
    "gradient_epochs": {
        "default": [],
        "type": "int",
        "min": 0,
        "help": "Numbers of epochs after which the gradients that reach each layer and time-step are measured on a "
        "fixed batch of training images; 0 is before training. They change nothing.",
    },
}


def build(options: Mapping[str, Any], data: ImageData, norm: type[TemporalNorm] | None = None) -> SpikingNetwork:
    """The untrained network that the options describe; ``norm``, a `TemporalNorm` class, replaces the one they name."""
    kind = norm or NORMS[options["norm"]]
    return SpikingNetwork(
        weight_layers(options["architecture"], data.shape, data.classes, options["width"]),
        options["time_steps"],
        norm=kind,
        neuron=lambda name: LIF(options["leak"], options["threshold"], options["reset"], options["alpha"]),
        readout=options["readout"],
        classifier_norm=options["classifier_norm"],
        tracking=options["tracking"],
        **({"window": options["window"]} if kind is not None and issubclass(kind, TSBN) else {}),
    )


def train(
    task: Task,
    norm: type[TemporalNorm] | None = None,
    loss: Loss | None = None,
    prepare: Callable[[SpikingNetwork], Any] = lambda network: network,
) -> Trained:
    """Back-propagation through all T steps, with a cross-entropy loss on the accumulated voltage (Algorithm 2).

    ``norm`` and ``loss`` replace the norm and the loss; see `build` and `fit_spiking`. ``prepare`` gets the network
    with its initial weights, and returns the one to train, which takes ``(spikes, chunk)``, too. Raises UserError if
    ``norm`` replaces one that the row chose.
    """
    options, device = task.options, task.data.mean.device
    chosen, default = options["norm"], OPTIONS["norm"]["default"]
    if norm is not None and chosen in NORMS and chosen != default:
        raise UserError(
            f"row {task.run.row}: norm {chosen} would have no effect, as method {task.run.method} has a norm of its "
            f"own: leave norm at its default, {default}"
        )
    initial = build(options, task.data, norm)
    initialise(initial, task.run.seed, options["gain"])
    network = prepare(initial)
    precision = options["precision"]
    if precision == "auto":
        precision = "bf16" if computes_in_bfloat16(device) else "fp32"

    def contributions(spikes: Tensor) -> Tensor:
        return network(spikes, options["time_chunk"] if network.training else None)

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    trained = fit_spiking(task, network, loss=loss, contributions=contributions, dtype=dtype)
    facts = {"precision": precision, "kernels": name_for(device)}
    return replace(trained, facts={**trained.facts, **facts})


def classifier(
    run: Run, data: ImageData, weights: Mapping[str, Tensor], norm: type[TemporalNorm] | None = None
) -> SpikingClassifier:
    """The trained network, with its tracked moments, as a classifier."""
    return spiking_classifier(build(run.options, data, norm), run, data, weights)
