"""What methods that begin from a dense network share: its weights in a network of IF neurons, and their thresholds.

`bntt.methods.conversion` has the equations, and the options that the methods do not share.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data.images import ImageData
from bntt.methods import Task
from bntt.spiking.encoding import poisson, rates
from bntt.spiking.kernels import spikes_held_in
from bntt.spiking.layers import SpikingLayer, over_time
from bntt.spiking.networks import SpikingNetwork, place, weight_layers
from bntt.spiking.neurons import IF

OPTIONS = {
    "calibration_images": {
        "default": 512,
        "min": 1,
        "help": "Number of un-augmented training images on which the thresholds are found.",
    },
}
HELD = 2**26  # currents of one layer held at once, a quarter of a gigabyte; changes no number
KEPT = 2**28  # input spikes kept from one layer to the next, at most a gigabyte; changes no number


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
    kept: dict[int, Tensor] = {}  # by batch, its input spikes of the layer before which ``passed`` were balanced
    passed, fits = 0, False
    for name, layer in network.hidden().items():
        rank, largest = None, torch.zeros(0, device=data.mean.device)
        for number, batch in enumerate(batches):
            spikes = kept[number] if number in kept else _input_spikes(data, options, batch, noise)
            for before in balanced[passed:]:
                spikes = before.resume(spikes, 0, None).output
            fits = spikes[:, 0].numel() * len(samples) <= KEPT
            if fits:
                kept[number] = spikes
            currents = over_time(layer.connection, spikes.to(data.mean.dtype)).movedim(2, -1)  # as they are in memory
            currents = currents.flatten(0, -2).T if local else currents.flatten()[None]  # [channels or 1, all]
            if rank is None:  # the threshold is the rank-th largest current
                rank = max(1, math.ceil(currents.shape[1] // len(batch) * len(samples) * share))
                largest = largest.expand(len(currents), 0)
            if rank == 1:  # topk takes ten times as long
                largest = torch.cat([largest, currents.amax(1, keepdim=True)], 1).amax(1, keepdim=True)
                continue
            candidates = torch.cat([largest, currents], 1)
            largest = candidates.topk(min(rank, candidates.shape[1]), 1).values
        passed = len(balanced) if fits else passed
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


def _input_spikes(data: ImageData, options: Mapping[str, Any], batch: Tensor, noise: int) -> Tensor:
    """Poisson spikes of training images."""
    unit, signed = data.train.unit(batch), signed_of(options, data)
    scaled = rates(unit, signed) if data.recordings else data.scaled(unit, signed)
    held_in = spikes_held_in(data.mean)
    return poisson(scaled, options["calibration_steps"], noise, batch, signed=signed, dtype=held_in)


def classifier_of(options: Mapping[str, Any], data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """A network of IF neurons with these weights, and the thresholds among them, as a classifier."""
    learned, thresholds = parted(weights)
    network = build(options, data, thresholds)
    network.load_state_dict(learned)
    place(network, data.mean.device)
    return SpikingClassifier(network, signed_of(options, data), rates=data.recordings)


def parted(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What a run saved, as weights by name and thresholds by layer."""
    suffix = ".threshold"
    thresholds = {name.split(".")[1]: value.item() for name, value in weights.items() if name.endswith(suffix)}
    return {name: value for name, value in weights.items() if not name.endswith(suffix)}, thresholds


def with_thresholds(weights: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> dict[str, Tensor]:
    """The inverse of `parted`: what a run saves."""
    named = {f"layers.{name}.threshold": torch.tensor(value) for name, value in thresholds.items()}
    return {**weights, **named}


def signed_of(options: Mapping[str, Any], data: ImageData) -> bool:
    """Whether input spikes are signed; those of recordings are not, because shares of frames are not z-scored."""
    return options["coding"] == "signed" and not data.recordings
