"""Methods: ways to get a classifier from a dataset. One file each, found by folder.

A method file declares its options as the literal ``OPTIONS`` (and what it builds on as ``EXTENDS``) and defines

``train(task) -> Trained``
    Train or convert, and return the weights by name.
``classifier(run, data, weights) -> Classifier``
    The classifier that those weights make.

A method that sets ``NEEDS_START = True`` begins from another row's weights, which it finds in ``task.start``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.training.loop import Keeper, Outcome


@dataclass(frozen=True)
class Task:
    """What a method is given: the run, its data on the device, the keeper of its state, the weights to start from."""

    run: Run
    data: ImageData
    keeper: Keeper
    start: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.run.options)


@dataclass(frozen=True)
class Trained:
    """Weights by name, how training went, and facts worth recording (parameter count, decay budget, ...)."""

    weights: Mapping[str, Tensor]
    outcome: Outcome = field(default_factory=Outcome)
    facts: Mapping[str, Any] = field(default_factory=dict)
