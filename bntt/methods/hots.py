"""A hierarchy of time surfaces and the nearest histogram, HOTS (Lagorce et al. 2016).

Three layers give each event the number of a prototype; `bntt.features.hots` has the equations. A layer's prototypes are
learned online on the events of training recordings, layer after layer. The signature of a recording is the histogram
h [N] of the last layer's numbers. The histogram of a class is the sum of those of its training recordings. A recording
has the class whose histogram is nearest, in one of the paper's distances, with p = h / sum(h) and q that of the class:

    normalised      |p - q|                       euclidean, of shares
    bhattacharyya   -log of sum of sqrt(p q)
    euclidean       |h - mean of the class|       of counts

Left open by the sources and chosen here: the first prototypes are the surfaces of events drawn by keyed randomness (the
first events, as published, are alike on a sensor where nothing happened yet); recordings come in a keyed order, until
``clustering_events`` have come; every event counts, also at the sensor's border; time surfaces begin anew with each
recording; the distance is Bhattacharyya's. The paper fixes time constants and sizes for each of its datasets; radii,
prototypes and tau here are those of the authors' later software.
"""

import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntt.classifiers import EventClassifier
from bntt.common.errors import UserError
from bntt.data.events.streams import Streams
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.features import checks, hots
from bntt.methods import Task, Trained
from bntt.spiking.randomness import key, permutation

TITLE = "HOTS"
NEEDS_EVENTS = True
EXTENDS = ["bntt.data.images"]
OPTIONS = {
    "radius": {"default": 2, "min": 0, "max": 16, "help": "Radius of the first layer's surfaces in pixels."},
    "radius_factor": {"default": 2, "min": 1, "max": 4, "help": "Factor on the radius from layer to layer."},
    "prototypes": {"default": 4, "min": 2, "max": 16, "help": "Prototypes of the first layer."},
    "prototypes_factor": {
        "default": 2, "min": 1, "max": 4, "help": "Factor on the number of prototypes from layer to layer; at most 16."
    },
    "tau": {"default": 10.0, "above": 0.0, "help": "Decay of the first layer's surfaces in milliseconds."},
    "tau_factor": {"default": 10.0, "above": 0.0, "help": "Factor on tau from layer to layer."},
    "layers": {"default": 3, "min": 1, "max": 5, "help": "Number of layers."},
    "rate": {"default": 0.01, "above": 0.0, "max": 1.0, "help": "First learning rate of a prototype."},
    "slowing": {
        "default": 20000.0, "above": 0.0, "help": "Number of events of a prototype after which its rate is halved."
    },
    "clustering_events": {
        "default": 200_000, "min": 16, "help": "Most events of the training recordings on which a layer learns."
    },
    "distance": {
        "default": "bhattacharyya",
        "choices": ["normalised", "bhattacharyya", "euclidean"],
        "help": "Distance between histograms.",
    },
}  # fmt: skip


def train(task: Task) -> Trained:
    """Learn the prototypes layer by layer, then the histograms of the classes."""
    options, data, began = task.options, task.data, time.perf_counter()
    streams, labels = data.train.streams(), data.train.labels.cpu().numpy()
    checks.every_class(labels, data.classes)
    layers = learn(streams, options, task.run.seed)
    found = histograms(streams, layers)
    classes = [found[labels == label] for label in range(data.classes)]
    sums = np.array([own.sum(0) for own in classes])
    means = sums / np.array([len(own) for own in classes])[:, None]
    weights = {f"layers.{number}.prototypes": torch.from_numpy(layer.prototypes) for number, layer in enumerate(layers)}
    weights |= {"histograms": torch.from_numpy(sums), "means": torch.from_numpy(means)}
    facts: dict[str, Any] = {
        "parameters": sum(value.numel() for value in weights.values()),
        "features": found.shape[1],
        "events": len(streams.words),
        "clustering_events": min(options["clustering_events"], len(streams.words)),
    }
    if len(data.validation):
        scores = classifier(task.run, data, weights).given(data, data.validation, torch.arange(len(data.validation)))
        facts["validation_accuracy"] = (scores.argmax(1) == data.validation.labels).double().mean().item() * 100
    return Trained(weights, facts=facts | {"feature_seconds": time.perf_counter() - began})


def learn(streams: Streams, options: Mapping[str, Any], seed: int) -> list[hots.Layer]:
    """The layers, learned on the first ``clustering_events`` events of the recordings in an order keyed by the seed.

    Raises UserError for a layer that is too large, and for fewer events than prototypes.
    """
    order = permutation(key(seed, "hots order"), len(streams)).numpy()
    chosen = _first(streams, order, options["clustering_events"])
    events = len(chosen.words)
    features, known, layers = hots.first_features(chosen), 2, list[hots.Layer]()
    for number, (count, radius, tau) in enumerate(_sizes(options, events)):
        if layers:
            features, known = hots.numbers(chosen, features, layers[-1]), len(layers[-1].prototypes)
        seeds = permutation(key(seed, "hots prototypes", number), events)[:count].tolist()
        first = [_surface(chosen, features, known, event, radius, tau) for event in seeds]
        layer, _ = hots.learned(chosen, features, hots.Layer(np.array(first), tau), options["rate"], options["slowing"])
        layers.append(layer)
    return layers


def _sizes(options: Mapping[str, Any], events: int) -> list[tuple[int, int, float]]:
    """Prototypes, radius and tau in microseconds of each layer; UserError for what is not possible."""
    sizes = []
    for number in range(options["layers"]):
        count = options["prototypes"] * options["prototypes_factor"] ** number
        radius = options["radius"] * options["radius_factor"] ** number
        tau = 1000 * options["tau"] * options["tau_factor"] ** number
        if count > hots.MOST:
            raise UserError(f"layer {number + 1} would have {count} prototypes, and {hots.MOST} are possible")
        if radius > 64:
            raise UserError(f"layer {number + 1} would have a radius of {radius} pixels, and 64 are possible")
        if events < count:
            raise UserError(f"{events} training events are too few for the {count} prototypes of layer {number + 1}")
        sizes.append((count, radius, tau))
    return sizes


def _first(streams: Streams, order: np.ndarray, events: int) -> Streams:
    """The recordings that hold the first events in this order; the last of them may be cut short."""
    ends = np.diff(streams.offsets)[order].cumsum()
    those = streams.take(order[: np.searchsorted(ends, events) + 1])
    return Streams(those.words[:events], np.unique(those.offsets.clip(max=events)), those.side)


def _surface(streams: Streams, features: np.ndarray, known: int, event: int, radius: int, tau: float) -> np.ndarray:
    """The time surface of one event of all."""
    begin = streams.offsets[np.searchsorted(streams.offsets, event, side="right") - 1]
    those = slice(begin, event + 1)
    return hots.surface(streams.words[those], features[those], known, radius, tau, streams.side)


def histograms(streams: Streams, layers: list[hots.Layer]) -> np.ndarray:
    """How many events of each recording have each number of the last layer, float64 ``[N, prototypes]``."""
    features = hots.first_features(streams)
    for layer in layers:
        features = hots.numbers(streams, features, layer)
    count = len(layers[-1].prototypes)
    found = [np.bincount(features[begin:end], minlength=count) for begin, end in pairwise(streams.offsets)]
    return np.array(found, float).reshape(-1, count)


def similarities(found: np.ndarray, sums: np.ndarray, means: np.ndarray, distance: str) -> np.ndarray:
    """Minus the distance ``[N, classes]`` of histograms ``[N, prototypes]`` from those of the classes.

    A recording without events has the same score for all classes.
    """
    p, q = (h / np.maximum(h.sum(-1, keepdims=True), 1) for h in (found, sums))
    if distance == "bhattacharyya":
        return np.log(np.maximum(np.sqrt(p[:, None] * q).sum(-1), 1e-300))
    here, there = (p, q) if distance == "normalised" else (found, means)
    return np.where(found.any(1, keepdims=True), -np.linalg.norm(here[:, None] - there, axis=-1), 0.0)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> EventClassifier:
    """The prototypes and histograms as a classifier; its scores are minus the distances from the classes."""
    options = run.options
    count = sum(name.endswith(".prototypes") for name in weights)
    layers = [
        hots.Layer(
            np.ascontiguousarray(weights[f"layers.{number}.prototypes"].cpu().numpy()),
            1000 * options["tau"] * options["tau_factor"] ** number,
        )
        for number in range(count)
    ]
    sums, means = (weights[name].cpu().numpy() for name in ("histograms", "means"))
    return EventClassifier(lambda streams: similarities(histograms(streams, layers), sums, means, options["distance"]))
