"""A linear support vector machine on features of recordings, with C chosen on the validation part, kept as tensors.

One hyperplane for each class against the rest, with squared hinge loss (scikit-learn's LinearSVC, which uses LIBLINEAR,
Fan et al. 2008). All features are divided by one number, after which the mean squared norm of the training features is
1; so one grid of C fits features of any unit.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntt.common.errors import UserError
from bntt.spiking.randomness import key

GRID = (0.01, 0.1, 1.0, 10.0, 100.0)  # values of C
ITERATIONS = 5000


def fit(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
    seed: int,
    grid: Sequence[float] = GRID,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``weight [classes, F]`` and ``bias [classes]``, float64, and facts: C, accuracy and whether it converged.

    Each part is features ``[N, F]`` and labels ``[N]``. C is the value with the highest validation accuracy, and the
    smallest of equals. It is trained on the training part alone. Raises UserError if a class has no training
    recordings, or if there is no validation part.
    """
    from scipy.sparse import csr_matrix
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    (features, labels), (others, answers) = train, validation
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise UserError(f"class {missing[0]} has no training recordings; raise train_limit")
    if not len(answers):
        raise UserError("C is chosen on validation recordings, and there are none; set held_out")
    given = csr_matrix(features, dtype=np.float64)
    unit = float(np.sqrt(given.multiply(given).sum() / len(labels))) or 1.0
    best: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    for c in sorted(grid):
        machine = LinearSVC(C=c, max_iter=ITERATIONS, random_state=key(seed, "svm") % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is recorded
            machine.fit(given / unit, labels)
        weight, bias = machine.coef_ / unit, machine.intercept_
        if classes == 2:  # one hyperplane is enough, and the library gives one
            weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
        weights = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
        accuracy = float((scores(weights, others).argmax(1) == answers).mean())
        if best is None or accuracy > best[1]["validation_accuracy"] / 100:
            converged = bool(np.max(machine.n_iter_) < ITERATIONS)
            best = weights, {"c": c, "validation_accuracy": 100 * accuracy, "converged": converged}
    assert best is not None
    return best


def scores(weights: Mapping[str, Tensor], features: np.ndarray) -> np.ndarray:
    """The distances to the classes' hyperplanes, float64 ``[N, classes]``, unnormalised."""
    weight, bias = weights["weight"].cpu().numpy(), weights["bias"].cpu().numpy()
    return features.astype(np.float64) @ weight.T + bias
