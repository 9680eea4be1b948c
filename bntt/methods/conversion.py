"""ANN-to-SNN conversion by layer-by-layer threshold balancing.

The weights of an ``ann`` row are kept. The threshold of a layer is the largest weighted input current that it gets
while the layers before it spike at their thresholds. With hard reset this is Spike-Norm (Sengupta et al. 2019). With
soft reset, which keeps the part of the membrane above the threshold, it is RMP-SNN (Han et al. 2020). Neurons do not
leak. Event recordings are coded like images, by the share of frames with an event.
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
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained
from bntt.spiking.encoding import poisson, rates
from bntt.spiking.kernels import spikes_held_in
from bntt.spiking.layers import over_time
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
    "threshold_scale": {"default": 1.0, "above": 0.0, "help": "Factor on every threshold."},
}
HELD = 2**26  # currents of one layer held at once, a quarter of a gigabyte; changes no number


class Silent(Exception):
    """The named layer gets no positive current, so it cannot have a threshold."""


def build(options: Mapping[str, Any], data: ImageData, thresholds: dict[str, float]) -> SpikingNetwork:
    """A network of IF neurons without norms, with the given thresholds by layer (1 where none is given yet)."""
    layers = weight_layers(options["architecture"], data.shape, data.classes, options["width"])
    return SpikingNetwork(
        layers,
        options["time_steps"],
        norm=None,
        neuron=lambda name: IF(thresholds.get(name, 1.0), options["reset"]),
        readout="sum",
    )


def train(task: Task) -> Trained:
    """Copy the weights, then set the thresholds, layer by layer from the input on. Nothing is trained by gradient.

    Raises UserError if the start row has norms, biases or other shapes. Without a positive current in a layer, the
    outcome is diverged.
    """
    options, data = task.options, task.data
    weights = {name: value for name, value in task.start.items() if name.endswith(".weight")}
    if len(weights) != len(task.start):
        extra = next(name for name in task.start if name not in weights)
        raise UserError(
            f"row {task.run.row} cannot start from row {task.run.start}: it has {extra}, and only networks "
            "without norms and biases are converted; start from an `ann` row with batch_norm: false"
        )
    network = build(options, data, {})
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"row {task.run.row} cannot start from row {task.run.start}: architecture, width and image_size "
            "of the two rows must be the same"
        ) from None
    place(network, data.mean.device)
    network.eval()
    try:
        thresholds = balance(network, data, options, key(task.run.seed, "calibration"))
    except Silent as layer:
        reason = f"layer {layer} has no positive current on the calibration images, so no threshold can be found"
        return Trained({}, Outcome(diverged=reason))
    out = network.state_dict() | {f"layers.{name}.threshold": torch.tensor(value) for name, value in thresholds.items()}
    return Trained(out, facts={"parameters": sum(p.numel() for p in network.parameters()), "thresholds": thresholds})


@torch.no_grad()
def balance(network: SpikingNetwork, data: ImageData, options: Mapping[str, Any], noise: int) -> dict[str, float]:
    """Set and return the thresholds by layer; each is found while the layers before it spike at their thresholds."""
    signed = _signed(options, data)
    held_in = spikes_held_in(data.mean)
    samples = torch.arange(min(options["calibration_images"], len(data.train)), device=data.mean.device)
    thresholds: dict[str, float] = {}
    most = max(layer.neurons for layer in network.description)
    batch_size = max(1, HELD // (most * options["calibration_steps"]))
    for name in network.hidden():
        rank, largest = None, torch.zeros(0, device=data.mean.device)
        for batch in samples.split(batch_size):
            unit = data.train.unit(batch)
            scaled = rates(unit, signed) if data.recordings else data.scaled(unit, signed)
            spikes = poisson(scaled, options["calibration_steps"], noise, batch, signed=signed, dtype=held_in)
            for before, layer in network.hidden().items():
                if before == name:
                    currents = over_time(layer.connection, spikes.to(data.mean.dtype))
                    break
                spikes = layer.resume(spikes, 0, None).output
            if rank is None:  # the threshold is the rank-th largest current
                total = currents[:, 0].numel() * len(samples)
                rank = max(1, math.ceil(total * (1 - Fraction(str(options["percentile"])) / 100)))  # exact
            if rank == 1:  # topk takes ten times as long
                largest = torch.cat([largest, currents.amax()[None]]).amax()[None]
                continue
            candidates = torch.cat([largest, currents.flatten()])
            largest = candidates.topk(min(rank, len(candidates))).values
        threshold = largest[-1].item() * options["threshold_scale"]
        if not threshold > 0:
            raise Silent(name)
        network.hidden()[name].neuron.threshold = thresholds[name] = threshold
    return thresholds


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The converted network, with its thresholds, as a classifier."""
    suffix = ".threshold"
    thresholds = {name.split(".")[1]: value.item() for name, value in weights.items() if name.endswith(suffix)}
    network = build(run.options, data, thresholds)
    network.load_state_dict({name: value for name, value in weights.items() if not name.endswith(suffix)})
    place(network, data.mean.device)
    return SpikingClassifier(network, _signed(run.options, data), rates=data.recordings)


def _signed(options: Mapping[str, Any], data: ImageData) -> bool:
    """Whether input spikes are signed; those of recordings are not, because shares of frames are not z-scored."""
    return options["coding"] == "signed" and not data.recordings
