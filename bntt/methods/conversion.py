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
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained
from bntt.methods._balancing import HELD, Silent, balance, classifier_of, copied, signed_of, with_thresholds
from bntt.spiking.networks import SpikingNetwork
from bntt.spiking.randomness import key
from bntt.training.loop import Outcome

TITLE = "ANN-SNN conversion, {reset} reset"
NEEDS_START = True
EXTENDS = ["bntt.data.images", "bntt.spiking.networks", "bntt.spiking.encoding", "bntt.methods._balancing"]
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
    classifier = SpikingClassifier(network, signed_of(options, data), rates=data.recordings)
    images = data.validation
    samples = torch.arange(min(options["tune_images"], len(images)), device=data.mean.device)
    most = max(layer.neurons for layer in network.description)
    right = 0
    for batch in samples.split(max(1, HELD // (most * classifier.chunk))):
        scaled = classifier.scaled(data, images.unit(batch))
        *_, (_, running) = classifier.running_logits(scaled, batch, noise)
        right += int((running[-1].argmax(1) == images.labels[batch]).sum())
    return 100 * right / len(samples)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The converted network, with its thresholds, as a classifier."""
    return classifier_of(run.options, data, weights)
