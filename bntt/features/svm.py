"""A linear support vector machine on features of recordings, with C chosen on the validation part, kept as tensors.

One hyperplane for each class against the rest, with squared hinge loss (scikit-learn's LinearSVC, which uses LIBLINEAR,
Fan et al. 2008). All features are divided by one number, after which the mean squared norm of the training features is
1; so one grid of C fits features of any unit.

Where there are more features than recordings, features are rotated into the space that the training recordings span,
and the hyperplanes back. With a penalty on the hyperplanes' length this changes nothing but the time.

All of it runs on one thread: by their number numpy's and SciPy's libraries (BLAS) choose the order of sums, and so the
point at which the solver stops.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bntt.features import checks
from bntt.spiking.randomness import key, permutation

GRID = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # values of C
ITERATIONS = 5000
FOLDS = 5  # of the cross-validation


def fit(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
    grid: Sequence[float] = GRID,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``weight [classes, F]`` and ``bias [classes]``, float64, and facts: C, accuracy and whether it converged.

    Each part is features ``[N, F]`` and labels ``[N]``. C is the value with the highest validation accuracy, and the
    smallest of equals; without a validation part, the accuracy of a cross-validation of the training part counts. The
    hyperplanes are those of the whole training part. UserError if a class has no training recordings.
    """
    import sklearn.svm  # noqa: F401  # loads the libraries whose threads are limited

    checks.every_class(train[1], classes)
    with threadpool_limits(1, "blas"):
        return _fit(train, validation, classes, grid)


def _fit(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
    grid: Sequence[float],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    features, labels = np.asarray(train[0], np.float64), train[1]
    unit = float(np.sqrt((features**2).sum(1).mean())) or 1.0
    basis = _basis(features)

    def rotated(given: np.ndarray) -> np.ndarray:
        return (given if basis is None else given @ basis) / unit

    features = rotated(features)
    if len(validation[1]):
        judged = rotated(np.asarray(validation[0], np.float64))
        splits, name = [(features, labels, judged, validation[1])], "validation_accuracy"
    else:
        fold = permutation(key("folds"), len(labels)).numpy() % FOLDS
        parts = [(fold != number, fold == number) for number in range(FOLDS)]
        splits = [(features[kept], labels[kept], features[left], labels[left]) for kept, left in parts]
        name = "cross_validation_accuracy"

    def accuracy(c: float) -> float:
        right = 0
        for given, of_given, judged, truth in splits:
            weights, _ = _hyperplanes(given, of_given, classes, c)
            right += int((scores(weights, judged).argmax(1) == truth).sum())
        return 100 * right / sum(len(truth) for *_, truth in splits)

    found = {c: accuracy(c) for c in sorted(grid)}
    best = max(found, key=lambda c: found[c])
    weights, converged = _hyperplanes(features, labels, classes, best)
    normal = weights["weight"].numpy()
    weights["weight"] = torch.from_numpy((normal if basis is None else normal @ basis.T) / unit).contiguous()
    return weights, {"c": best, name: found[best], "converged": converged}


def _basis(features: np.ndarray) -> np.ndarray | None:
    """Orthonormal columns ``[F, rank]`` that span recordings ``[N, F]``; None for all axes, where F is at most N."""
    if features.shape[1] <= len(features):
        return None
    values, vectors = np.linalg.eigh(features @ features.T)
    kept = values > values.max() * 1e-12
    if not kept.any():  # all features are 0
        return np.eye(features.shape[1], 1)
    return features.T @ (vectors[:, kept] / np.sqrt(values[kept]))


def _hyperplanes(features: np.ndarray, labels: np.ndarray, classes: int, c: float) -> tuple[dict[str, Tensor], bool]:
    """Weights and biases, and whether the solver converged. A class without recordings is never chosen."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    machine = LinearSVC(C=c, max_iter=ITERATIONS, dual=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is recorded
        machine.fit(features, labels)
    normal, offset = machine.coef_, machine.intercept_
    if len(machine.classes_) == 2:  # one hyperplane is enough, and the library gives one
        normal, offset = np.concatenate([-normal, normal]), np.concatenate([-offset, offset])
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -1e9)
    weight[machine.classes_], bias[machine.classes_] = normal, offset
    weights = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
    return weights, bool(np.max(machine.n_iter_) < ITERATIONS)


def scores(weights: Mapping[str, Tensor], features: np.ndarray) -> np.ndarray:
    """The distances to the classes' hyperplanes, float64 ``[N, classes]``, unnormalised."""
    weight, bias = weights["weight"].cpu().numpy(), weights["bias"].cpu().numpy()
    with threadpool_limits(1, "blas"):
        return features.astype(np.float64) @ weight.T + bias
