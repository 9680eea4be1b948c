"""Histograms of averaged time surfaces and a linear support vector machine, HATS (Sironi et al. 2018).

`bntt.features.hats` has the equations: for each cell of K x K pixels, polarity and offset within rho pixels, the mean
over events of sum exp(-(t_i - t_j) / tau) over the events of the last ``window``. A recording has
``cells^2 * 2 * (2 rho + 1)^2`` features x. Scores are ``x @ coefficients.T + intercepts``: one linear SVM for each
class against the others, with squared hinge loss and penalty C.

Left open by the sources and chosen here: an event does not count itself; events of neighbouring cells do not count; the
mean is over the events of the cell and polarity, and an empty one is 0; features are divided by the root mean square
length of the training recordings' features, one number, so that C has one meaning on all datasets. C is the one of
``penalties`` with the best accuracy on the validation recordings, the smallest of equals; without such recordings it is
that of a cross-validation of three parts of the training recordings.

Features are rotated into the space that the training recordings span before the SVM, and its coefficients back. With a
penalty on their length that changes nothing but the time: fewer numbers than features.
"""

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntt.classifiers import EventClassifier
from bntt.common.errors import UserError
from bntt.data.events.streams import Streams
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.features.hats import Surface, surfaces
from bntt.methods import Task, Trained
from bntt.spiking.randomness import key, permutation

NEEDS_EVENTS = True
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
    "iterations": {"default": 3000, "min": 1, "help": "Most iterations of the SVM's solver."},
}
FOLDS = 3  # of the cross-validation


def train(task: Task) -> Trained:
    """Compute the features, choose C, and fit the SVM on the training recordings, in an order of the run's seed."""
    options, data, began = task.options, task.data, time.perf_counter()
    if not options["penalties"]:
        raise UserError(f"row {task.run.row}: penalties needs at least one value")
    labels = data.train.labels.cpu().numpy()
    if len(np.unique(labels)) < 2:
        raise UserError(f"row {task.run.row}: an SVM needs training recordings of two classes at least")
    streams = data.train.streams(torch.arange(len(data.train)))
    found = features(streams, options).astype(np.float64)
    length = np.sqrt((found**2).sum(1).mean()) or 1.0
    known = features(data.validation.streams(torch.arange(len(data.validation))), options).astype(np.float64)
    seconds = time.perf_counter() - began
    basis = _basis(found)
    x, judged = found @ basis / length, known @ basis / length
    seed = key(task.run.seed, "svm") % 2**31
    splits = [(x, labels, judged, data.validation.labels.cpu().numpy())] if len(judged) else _folds(x, labels, seed)
    accuracies = [_accuracy(splits, penalty, seed, options["iterations"]) for penalty in sorted(options["penalties"])]
    penalty = sorted(options["penalties"])[int(np.argmax(accuracies))]
    coefficients, intercepts, converged = _svm(x, labels, data.classes, penalty, seed, options["iterations"])
    weights = {
        "coefficients": torch.from_numpy(coefficients @ basis.T / length).contiguous(),
        "intercepts": torch.from_numpy(intercepts),
    }
    facts = {
        "parameters": sum(value.numel() for value in weights.values()),
        "features": found.shape[1],
        "events": len(streams.words),
        "feature_seconds": seconds,
        "penalty": penalty,
        "validation_accuracy" if len(judged) else "cross_validation_accuracy": max(accuracies),
        "converged": converged,
    }
    return Trained(weights, facts=facts)


def features(streams: Streams, options: Mapping[str, Any]) -> np.ndarray:
    """The averaged surfaces of recordings, float32 ``[N, features]``."""
    constants = Surface(options["cell"], options["radius"], 1000 * options["window"], 1000 * options["tau"])
    found = surfaces(streams, constants)
    return found.reshape(len(streams), math.prod(found.shape[1:]))


def _basis(found: np.ndarray) -> np.ndarray:
    """Orthonormal columns ``[features, rank]`` that span the recordings ``[N, features]``."""
    values, vectors = np.linalg.eigh(found @ found.T)
    kept = values > values.max() * 1e-12
    return found.T @ (vectors[:, kept] / np.sqrt(values[kept]))


def _folds(x: np.ndarray, labels: np.ndarray, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Recordings and labels to fit and to judge, for each part of the cross-validation."""
    part = permutation(key(seed, "folds"), len(x)).numpy() % FOLDS
    return [(x[part != one], labels[part != one], x[part == one], labels[part == one]) for one in range(FOLDS)]


def _accuracy(splits: list[tuple[np.ndarray, ...]], penalty: float, seed: int, iterations: int) -> float:
    """Mean accuracy over the splits; a class that a split lacks gets the lowest score."""
    found = []
    for x, labels, judged, truth in splits:
        classes = 1 + int(max(labels.max(), truth.max()))
        coefficients, intercepts, _ = _svm(x, labels, classes, penalty, seed, iterations)
        found.append(((judged @ coefficients.T + intercepts).argmax(1) == truth).mean())
    return float(np.mean(found))


def _svm(
    x: np.ndarray, labels: np.ndarray, classes: int, penalty: float, seed: int, iterations: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Coefficients ``[classes, x's columns]``, intercepts ``[classes]``, and whether the solver converged.

    A class without recordings has the lowest intercept, so it is never chosen.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    coefficients, intercepts = np.zeros((classes, x.shape[1])), np.full(classes, -1e9)
    present = np.unique(labels)
    if len(present) == 1:
        intercepts[present] = 0
        return coefficients, intercepts, True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        machine = LinearSVC(C=penalty, random_state=seed, max_iter=iterations, dual=True).fit(x, labels)
    if len(present) == 2:  # scikit-learn keeps one machine for two classes: the second against the first
        coefficients[present] = np.concatenate([-machine.coef_, machine.coef_])
        intercepts[present] = np.concatenate([-machine.intercept_, machine.intercept_])
    else:
        coefficients[present], intercepts[present] = machine.coef_, machine.intercept_
    return coefficients, intercepts, not any(issubclass(one.category, ConvergenceWarning) for one in caught)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> EventClassifier:
    """The linear machines as a classifier."""
    coefficients, intercepts = (weights[name].cpu().numpy() for name in ("coefficients", "intercepts"))
    return EventClassifier(lambda streams: features(streams, run.options) @ coefficients.T + intercepts)
