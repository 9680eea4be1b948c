"""Methods: ways to obtain a classifier from a dataset. Each method is one file in this folder.

A method file declares literals, which are read without importing it:

* ``OPTIONS``: its options, as `bntt.experiment.options` describes them. Every method has it, be it empty.
* ``EXTENDS``: a list of the modules that it builds on, whose options it takes over.
* ``TITLE``: what tables call it, such as ``"Surrogate gradient, {norm}"`` with the value of option ``norm``; without
  one they show its docstring's first line up to the first punctuation.
* ``NEEDS_START = True``: it begins from another row's weights, which are in ``task.start``: those of an ``ann`` row, or
  of the method that it names, as in ``NEEDS_START = "surrogate"``.
* ``NEEDS_EVENTS = True``: it works on the single events of recordings, which are in ``task.data``; see
  `bntt.data.images.Images.streams`. It runs on datasets that keep them.
* ``SEEDED = False``: nothing in it is random, so that all seeds give the same weights. If that depends on options, it
  gives the values with which seeds matter: ``SEEDED = {"decision": "forest"}``.
* ``DATA_PARALLEL = True``: it may train in several processes, each with a share of every batch. `fit` sums gradients
  and `bntt.spiking.norms` moments over them; nothing else in the training may depend on the other images of a batch.

It defines two functions:

* ``train(task) -> Trained``: train or convert, and return the weights by name.
* ``classifier(run, data, weights) -> Classifier``: the classifier with these weights.

What it must keep (``python -m bntt test METHOD`` checks each):

* The weights are a function of options, training and validation images, start and seed, and of nothing else: not of
  test images, nor of the state of any generator. Draw from `bntt.spiking.randomness`, keyed by ``task.run.seed``.
* The classifier is a function of options and weights: whatever was drawn or found in training belongs to the weights.
* A training in steps asks ``task.keeper`` after each whether to save, and begins from the state that it loads.
  `bntt.training.loop.fit` does.
* What the user can correct, such as data of a kind that the method does not take, is a UserError of one line. Any other
  error is reported as a mistake in the method's file.
* Neither data nor start nor weights are changed in place.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.spiking.encoding import encode
from bntt.spiking.layers import SpikingLayer
from bntt.spiking.networks import SpikingNetwork, place
from bntt.spiking.randomness import key, seed_torch
from bntt.spiking.stateful import StatefulNetwork, drops
from bntt.training import gradients
from bntt.training.loop import Keeper, Loss, Outcome, fit
from bntt.training.schedule import decay_budget, undriven


@dataclass(frozen=True)
class Task:
    """What a method gets: the run, its data on the device, the keeper of its state, the weights to start from."""

    run: Run
    data: ImageData
    keeper: Keeper
    start: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.run.options)


@dataclass(frozen=True)
class Trained:
    """Weights by name, the training's outcome, and facts to record (parameter count, decay budget, ...)."""

    weights: Mapping[str, Tensor]
    outcome: Outcome = field(default_factory=Outcome)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise TypeError for what could not be saved, here and not after hours of training."""
        for name, value in self.weights.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"weight {name!r} must be a tensor, not {value!r}")
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise TypeError(f"weight {name!r} must be a dense array, not {value.layout} of {value.dtype}")
        for name, value in self.facts.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise TypeError(f"fact {name!r} must be plain finite numbers and text, not {value!r}") from None


def fit_spiking(
    task: Task,
    network: SpikingNetwork | StatefulNetwork,
    *,
    loss: Loss | None = None,
    contributions: Callable[[Tensor], Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Trained:
    """Train an initialised spiking network on the task's data in its coding, and return what it came to.

    ``loss(contributions [T, N, classes], labels [N])`` is by default the cross-entropy of the logits. ``contributions``
    runs the network on spikes ``[T, N, ...]`` of type ``dtype``; by default it calls it. Dropout is seeded for each
    batch, see `seed_dropout`. The option ``gradient_epochs``, if the method has it, says after which epochs the
    gradients of the network's ``hidden()`` layers are measured; UserError if there are fewer epochs.
    """
    options, data, seed = task.options, task.data, task.run.seed
    place(network, data.mean.device)
    signed, run = options["coding"] == "signed", contributions or network

    def forward(unit: Tensor, samples: Tensor, noise: int) -> Tensor:
        seed_dropout(network, noise, samples)
        scaled = data.scaled(unit, signed)
        return run(encode(scaled, options["time_steps"], noise, samples, signed=signed, dtype=dtype))

    def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network.logits(output), labels)

    def of_batch(epochs: int) -> list[dict[str, Any]]:
        if epochs not in watched:
            return []
        network.train()
        samples = torch.arange(min(gradients.SAMPLES, len(data.train)), device=data.mean.device)
        scaled = data.scaled(data.train.unit(samples), signed)
        spikes = encode(scaled, options["time_steps"], key(seed, "gradient noise"), samples, signed=signed)
        layers = cast(Mapping[str, SpikingLayer], network.hidden())  # only methods with such networks have the option
        rows = gradients.measure(layers, lambda: criterion(network(spikes), data.train.labels[samples]))
        return [{"epoch": epochs, **row} for row in rows]

    criterion, watched = loss or cross_entropy, options.get("gradient_epochs", [])
    if watched and max(watched) > options["epochs"]:
        raise UserError(
            f"row {task.run.row}: gradient_epochs names {max(watched)}, and there are {options['epochs']} epochs"
        )
    name = task.run.name
    outcome = fit(network, forward, data, options, seed, task.keeper, name, criterion, network.logits, of_batch)
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters())}
    if network.norms() and options["optimiser"] == "sgd":
        facts["decay_budget"] = decay_budget(options, len(data.train))
        facts["undriven_gamma"] = undriven(options, len(data.train))
    return Trained(network.state_dict(), outcome, facts)


def seed_dropout(network: nn.Module, noise: int, samples: Tensor) -> None:
    """Seed PyTorch's generator for the dropout of a training batch, by the epoch's key and the batch's first sample.

    Without dropout nothing draws from it, and the device need not be waited for to know the sample.
    """
    if network.training and any(map(drops, network.modules())):
        seed_torch(key(noise, "dropout", int(samples[0])), samples.device)


def spiking_classifier(
    network: SpikingNetwork | StatefulNetwork, run: Run, data: ImageData, weights: Mapping[str, Tensor]
) -> SpikingClassifier:
    """An untrained network, given these weights, as a classifier of the data in the run's coding."""
    network.load_state_dict(weights)
    place(network, data.mean.device)
    return SpikingClassifier(network, run.options["coding"] == "signed")


def squared_error(network: SpikingNetwork | StatefulNetwork) -> Loss:
    """A loss for `fit_spiking`: squared error of logits and one-hot labels, summed over classes, mean over images."""

    def loss(contributions: Tensor, labels: Tensor) -> Tensor:
        logits = network.logits(contributions)
        return (logits - F.one_hot(labels, logits.shape[1])).square().sum(1).mean()

    return loss
