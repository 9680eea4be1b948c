"""Histograms of averaged time surfaces and a linear support vector machine, HATS (Sironi et al. 2018).

`bntt.features.hats` has the equations: for each cell of K x K pixels, polarity and offset within rho pixels, the mean
over events of sum exp(-(t_i - t_j) / tau) over the events of the last ``window``. A recording has
``cells^2 * 2 * (2 rho + 1)^2`` features.

Left open by the sources and chosen here: an event does not count itself; events of neighbouring cells do not count; the
mean is over the events of the cell and polarity, and an empty one is 0; how C is chosen (`bntt.features.svm`).
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from bntt.classifiers import EventClassifier
from bntt.common.errors import UserError
from bntt.data.events.aedat import SIDE
from bntt.data.events.streams import Streams
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.features import svm
from bntt.features.hats import Surface, surfaces
from bntt.methods import Task, Trained

TITLE = "HATS + linear SVM"
NEEDS_EVENTS = True
SEEDED = False
EXTENDS = ["bntt.data.images"]
OPTIONS = {
    "cell": {"default": 10, "min": 1, "max": 128, "help": "Side K of a cell in pixels."},
    "radius": {"default": 3, "min": 0, "max": 16, "help": "Radius rho of a time surface in pixels."},
    "window": {"default": 100.0, "above": 0.0, "help": "Time for which an event counts, in milliseconds."},
    "tau": {"default": 1e6, "above": 0.0, "help": "Decay of a time surface in milliseconds."},
    "penalties": {
        "default": [0.1, 1.0, 10.0, 100.0, 1000.0],
        "above": 0.0,
        "help": "Candidates for the penalty C of the SVM.",
    },
}


def train(task: Task) -> Trained:
    """Compute the features of the training recordings, and a hyperplane for each class; UserError without penalties."""
    options, data, began = task.options, task.data, time.perf_counter()
    if not options["penalties"]:
        raise UserError(f"row {task.run.row}: penalties is empty; name one candidate for C at least")
    parts = [(features(part.streams(), options), part.labels.cpu().numpy()) for part in (data.train, data.validation)]
    seconds = time.perf_counter() - began
    weights, chosen = svm.fit(parts[0], parts[1], data.classes, options["penalties"])
    facts = {
        "parameters": sum(value.numel() for value in weights.values()),
        "features": weights["weight"].shape[1],
        "events": len(data.train.streams().words),
        "feature_seconds": seconds,
    }
    return Trained(weights, facts=facts | chosen)


def features(streams: Streams, options: Mapping[str, Any]) -> np.ndarray:
    """The averaged surfaces of recordings, float32 ``[N, features]``."""
    constants = Surface(options["cell"], options["radius"], 1000 * options["window"], 1000 * options["tau"])
    found = surfaces(streams, constants)
    return found.reshape(len(streams), math.prod(found.shape[1:]))


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> EventClassifier:
    """The distances to the hyperplanes; UserError if ``cell`` and ``radius`` do not belong to the weights."""
    expected = math.prod(Surface(run.options["cell"], run.options["radius"]).shape(SIDE))
    if weights["weight"].shape[1] != expected:
        raise UserError(
            f"row {run.row} cannot load it: the weights are for {weights['weight'].shape[1]} features, and its cell "
            f"and radius give {expected}; train it again"
        )
    return EventClassifier(lambda streams: svm.scores(weights, features(streams, run.options)))
