"""ANN-to-SNN conversion by threshold balancing, layer by layer or channel by channel.

The weights of an ``ann`` row are kept, and each ReLU becomes an integrate-and-fire neuron without leak. Event
recordings are coded like images, by the share of frames with an event.

**Balancing** goes from the input on; each threshold is found while the layers before spike at theirs, on Poisson
spikes of training images. ``x[t, n, c, ...]`` is the weighted input current of a layer.

* ``network``: a layer has one threshold, ``th = scale * P(x)``. P is a percentile over all steps, images and neurons;
  as published it is the 100th, the maximum. With hard reset this is Spike-Norm (Sengupta et al. 2019). With soft reset,
  which keeps the part of the membrane above the threshold, it is RMP-SNN (Han et al. 2020).
* ``local``: a channel has its own threshold, ``th[c] = scale * P(x[:, :, c])``, so that a strong channel does not
  silence the weak ones. Channel-wise thresholds are common in later work; this rule is the one of ``network``, applied
  to each channel. A channel without a positive percentile gets the largest threshold of its layer.

**What is copied.** A neuron with threshold th fires at the rate ``min(1, relu(x) / th)``. With one threshold per layer
every activation of a layer is divided by the same number, which no argmax notices, so the weights stay as they are.
With one per channel, a spike of channel c stands for ``th[c]``. So the next layer's weights from c are multiplied by
``th[c]``, and its currents are those of the dense network. A neuron's spikes do not change if its threshold and its
current are divided by the same number. So the weights into c are divided by ``th[c]``, and all thresholds are 1:

    W'[l][o, i] = W[l][o, i] * th[l - 1][i] / th[l][o],    th = 1 for the input and the classifier

The output voltage over T then tends to the dense network's logits.

**Scale.** Han et al. multiply thresholds by a factor of at most 1: a lower threshold answers earlier, and above rate 1
it saturates. They tune it by network and dataset; its values, and the data on which it is chosen, are open. So it is an
option, 1 by default. As a layer is balanced after the ones before it were scaled, every layer's rates rise by 1 / scale
once, and not by a power that grows with depth.

**Tuning** (``tune: validation``) is what a fair comparison at few steps needs, as the maximum of all currents is an
outlier. Each percentile in `PERCENTILES` and scale in `SCALES` is tried, on the first ``tune_images`` validation
images, with ``tune_steps`` steps, or T if that is less. The best accuracy wins; among equals, the higher percentile,
then the higher scale, which are nearer to the published rule. ``train.json`` records the accuracy of every pair.
"""

import copy
import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import product
from typing import Any

import torch
from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained
from bntt.spiking.encoding import poisson, rates
from bntt.spiking.kernels import spikes_held_in
from bntt.spiking.layers import SpikingLayer, over_time
from bntt.spiking.networks import SpikingNetwork, place, weight_layers
from bntt.spiking.neurons import IF
from bntt.spiking.randomness import key
from bntt.training.loop import Outcome

TITLE = "ANN-SNN conversion, {reset} reset"
NEEDS_START = True
EXTENDS = ["bntt.data.images", "bntt.spiking.networks", "bntt.spiking.encoding"]
OPTIONS = {
    "time_steps": {"default": 2500, "min": 1, "help": "Number of time-steps T of inference."},
    "reset": {
        "default": "hard",
        "choices": ["hard", "soft"],
        "help": "`hard`: Sengupta 2019; `soft`: RMP, Han 2020.",
    },
    "balancing": {
        "default": "network",
        "choices": ["network", "local"],
        "help": "`network`: one threshold for a layer, as published; `local`: one for each of its channels.",
    },
    "calibration_images": {
        "default": 512,
        "min": 1,
        "help": "Number of un-augmented training images on which the thresholds are found.",
    },
    "calibration_steps": {"default": 100, "min": 1, "help": "Number of time-steps of the threshold balancing."},
    "percentile": {
        "default": 100.0,
        "above": 0.0,
        "max": 100.0,
        "help": "Percentile of the currents that becomes the threshold; 100 is their maximum, as published.",
    },
    "threshold_scale": {
        "default": 1.0,
        "above": 0.0,
        "help": "Factor on every threshold; Han 2020 tunes one of at most 1.",
    },
    "tune": {
        "default": None,
        "type": "str",
        "choices": ["validation"],
        "help": "`validation`: `percentile` and `threshold_scale` are those with the best accuracy on validation "
        "images, from the grid in bntt/methods/conversion.py; null: they are as given.",
    },
    "tune_images": {"default": 256, "min": 1, "help": "Number of validation images for `tune`, from the first on."},
    "tune_steps": {"default": 100, "min": 1, "help": "Number of time-steps for `tune`, or T if that is less."},
}
PERCENTILES = (100.0, 99.99, 99.9, 99.5, 99.0)
SCALES = (1.0, 0.7, 0.4, 0.2)
HELD = 2**26  # currents of one layer held at once, a quarter of a gigabyte; changes no number


class Silent(Exception):
    """The named layer gets no positive current, so it cannot have a threshold."""

    def __str__(self) -> str:
        return f"layer {self.args[0]} has no positive current on the calibration images, so no threshold can be found"


def build(options: Mapping[str, Any], data: ImageData, thresholds: Mapping[str, float]) -> SpikingNetwork:
    """A network of IF neurons without norms, with the given thresholds by layer (1 where none is given)."""
    layers = weight_layers(options["architecture"], data.shape, data.classes, options["width"])
    return SpikingNetwork(
        layers,
        options["time_steps"],
        norm=None,
        neuron=lambda name: IF(thresholds.get(name, 1.0), options["reset"]),
        readout="sum",
    )


def copied(task: Task, options: Mapping[str, Any]) -> SpikingNetwork:
    """The network with the weights of the start row, and all thresholds 1.

    Raises UserError if the start row has norms, biases or other shapes.
    """
    network = build(options, task.data, {})
    copy_weights(task, network)
    place(network, task.data.mean.device)
    return network.eval()


def copy_weights(task: Task, network: torch.nn.Module) -> None:
    """Load the weights of the start row; raises UserError if it has norms, biases or other shapes."""
    weights = {name: value for name, value in task.start.items() if name.endswith(".weight")}
    if len(weights) != len(task.start):
        extra = next(name for name in task.start if name not in weights)
        raise UserError(
            f"row {task.run.row} cannot start from row {task.run.start}: it has {extra}, and only networks "
            "without norms and biases are converted; start from an `ann` row with batch_norm: false"
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"row {task.run.row} cannot start from row {task.run.start}: architecture, width and image_size "
            "of the two rows must be the same"
        ) from None


def train(task: Task) -> Trained:
    """Copy the weights, then set the thresholds. Nothing is trained by gradient.

    Raises UserError as `copied` and `tuned` do. Without a positive current in a layer, the outcome is diverged.
    """
    options, data, noise = task.options, task.data, key(task.run.seed, "calibration")
    network = copied(task, options)
    facts: dict[str, Any] = {}
    try:
        if options["tune"] is not None:
            best = facts["tuned"] = tuned(network, data, options, task.run.seed)
            options |= {name: best[name] for name in ("percentile", "threshold_scale")}
        thresholds = balance(network, data, options, noise)
    except Silent as silent:
        return Trained({}, Outcome(diverged=str(silent)), facts)
    facts |= {"parameters": sum(p.numel() for p in network.parameters()), "thresholds": thresholds}
    if options["balancing"] == "local":  # they are in the weights, and all thresholds are 1
        return Trained(network.state_dict(), facts=facts)
    return Trained(with_thresholds(network.state_dict(), thresholds), facts=facts)


Thresholds = dict[str, Any]  # by layer: a number, or with `local` a list of one for each channel


@torch.no_grad()
def balance(network: SpikingNetwork, data: ImageData, options: Mapping[str, Any], noise: int) -> Thresholds:
    """Find the thresholds layer by layer, put them into the network, and return them by layer.

    With ``balancing: local`` a layer has a list of one for each channel; they are put into the weights. Raises Silent
    for a layer without a positive current.
    """
    local = options["balancing"] == "local"
    samples = torch.arange(min(options["calibration_images"], len(data.train)), device=data.mean.device)
    most = max(layer.neurons for layer in network.description)
    batches = samples.split(max(1, HELD // (most * options["calibration_steps"])))
    share = 1 - Fraction(str(options["percentile"])) / 100  # exact
    thresholds: Thresholds = {}
    balanced: list[SpikingLayer] = []
    held: Tensor | None = None  # input spikes of the last balanced layer, if one batch has all images
    for name, layer in network.hidden().items():
        rank, largest = None, torch.zeros(0, device=data.mean.device)
        for batch in batches:
            spikes = _input_spikes(data, options, batch, noise) if held is None else held
            for before in balanced if held is None else balanced[-1:]:
                spikes = before.resume(spikes, 0, None).output
            held = spikes if len(batches) == 1 else None
            currents = over_time(layer.connection, spikes.to(data.mean.dtype))
            currents = currents.movedim(2, 0).flatten(1) if local else currents.flatten()[None]  # [channels or 1, all]
            if rank is None:  # the threshold is the rank-th largest current
                rank = max(1, math.ceil(currents.shape[1] // len(batch) * len(samples) * share))
                largest = largest.expand(len(currents), 0)
            if rank == 1:  # topk takes ten times as long
                largest = torch.cat([largest, currents.amax(1, keepdim=True)], 1).amax(1, keepdim=True)
                continue
            candidates = torch.cat([largest, currents], 1)
            largest = candidates.topk(min(rank, candidates.shape[1]), 1).values
        found = [value * options["threshold_scale"] for value in largest[:, -1].tolist()]
        if not max(found) > 0:
            raise Silent(name)
        if local:
            thresholds[name] = [value if value > 0 else max(found) for value in found]
            rescale(network, name, thresholds[name])
        else:
            layer.neuron.threshold = thresholds[name] = found[0]
        balanced.append(layer)
    return thresholds


@torch.no_grad()
def rescale(network: SpikingNetwork, name: str, thresholds: list[float]) -> None:
    """Divide the weights into each channel of a hidden layer by its threshold; multiply those out of it."""
    names = [layer.name for layer in network.description]
    position = names.index(name)
    into, out = list(network.parameters())[position : position + 2]  # a layer's only parameters are its weights
    of_channel = torch.tensor(thresholds, dtype=torch.float64, device=into.device)
    into.copy_(into / of_channel.reshape(-1, *[1] * (into.dim() - 1)))
    positions = out.shape[1] // len(of_channel)  # of a channel, in the features of the first linear layer
    of_input = of_channel.repeat_interleave(positions)
    out.copy_(out * of_input.reshape(1, -1, *[1] * (out.dim() - 2)))


def tuned(network: SpikingNetwork, data: ImageData, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The pair of percentile and scale that answers best on validation images, and the accuracies of the whole grid.

    An accuracy is null where a layer gets no positive current. Raises UserError without validation images, and if the
    row says percentile or scale itself; raises Silent if no pair has thresholds.
    """
    if not len(data.validation):
        raise UserError(
            f"tune: validation needs validation images, and {data.name} has none; hold some training images out, "
            "with held_out"
        )
    for name, published in (("percentile", 100.0), ("threshold_scale", 1.0)):
        if options[name] != published:
            raise UserError(f"tune: validation chooses {name} itself: leave out {name} {options[name]:g}")
    silent: Silent | None = None
    grid: list[dict[str, Any]] = []
    for percentile, scale in product(PERCENTILES, SCALES):
        tried = copy.deepcopy(network)
        point = {"percentile": percentile, "threshold_scale": scale, "accuracy": None}
        try:
            balance(tried, data, {**options, **point}, key(seed, "calibration"))
            point["accuracy"] = _validated(tried, data, options, key(seed, "tuning noise"))
        except Silent as found:
            silent = found
        grid.append(point)
    reached = [point for point in grid if point["accuracy"] is not None]
    if silent is not None and not reached:
        raise silent
    best = max(reached, key=lambda point: point["accuracy"])  # the first of equals
    return best | {"images": min(options["tune_images"], len(data.validation)), "steps": _steps(options), "grid": grid}


def _steps(options: Mapping[str, Any]) -> int:
    """The number of time-steps of tuning."""
    return min(options["tune_steps"], options["time_steps"])


def _validated(network: SpikingNetwork, data: ImageData, options: Mapping[str, Any], noise: int) -> float:
    """Accuracy in per cent on the validation images for tuning, after the steps of tuning."""
    steps = _steps(options)
    network.time_steps = steps
    classifier = SpikingClassifier(network, _signed(options, data), rates=data.recordings)
    images = data.validation
    samples = torch.arange(min(options["tune_images"], len(images)), device=data.mean.device)
    most = max(layer.neurons for layer in network.description)
    right = 0
    for batch in samples.split(max(1, HELD // (most * classifier.chunk))):
        scaled = classifier.scaled(data, images.unit(batch))
        *_, (_, running) = classifier.running_logits(scaled, batch, noise)
        right += int((running[-1].argmax(1) == images.labels[batch]).sum())
    return 100 * right / len(samples)


def _input_spikes(data: ImageData, options: Mapping[str, Any], batch: Tensor, noise: int) -> Tensor:
    """Poisson spikes of training images."""
    unit, signed = data.train.unit(batch), _signed(options, data)
    scaled = rates(unit, signed) if data.recordings else data.scaled(unit, signed)
    held_in = spikes_held_in(data.mean)
    return poisson(scaled, options["calibration_steps"], noise, batch, signed=signed, dtype=held_in)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The converted network, with its thresholds, as a classifier."""
    return classifier_of(run.options, data, weights)


def classifier_of(options: Mapping[str, Any], data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """A network of IF neurons with these weights, and the thresholds among them, as a classifier."""
    learned, thresholds = parted(weights)
    network = build(options, data, thresholds)
    network.load_state_dict(learned)
    place(network, data.mean.device)
    return SpikingClassifier(network, _signed(options, data), rates=data.recordings)


def parted(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What a run saved, as weights by name and thresholds by layer."""
    suffix = ".threshold"
    thresholds = {name.split(".")[1]: value.item() for name, value in weights.items() if name.endswith(suffix)}
    return {name: value for name, value in weights.items() if not name.endswith(suffix)}, thresholds


def with_thresholds(weights: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> dict[str, Tensor]:
    """The inverse of `parted`: what a run saves."""
    named = {f"layers.{name}.threshold": torch.tensor(value) for name, value in thresholds.items()}
    return {**weights, **named}


def _signed(options: Mapping[str, Any], data: ImageData) -> bool:
    """Whether input spikes are signed; those of recordings are not, because shares of frames are not z-scored."""
    return options["coding"] == "signed" and not data.recordings
