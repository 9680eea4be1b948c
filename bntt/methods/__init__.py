"""Methods: ways to obtain a classifier from a dataset. Each method is one file in this folder.

A method file declares its options as the literal ``OPTIONS``. It lists the modules that it builds on, whose options it
takes over, as the literal ``EXTENDS``. The literal ``TITLE`` is what tables call it, such as ``"Surrogate gradient,
{norm}"`` with the value of option ``norm``; without one they show its docstring's first line up to the first
punctuation. It defines two functions:

* ``train(task) -> Trained``: train or convert, and return the weights by name.
* ``classifier(run, data, weights) -> Classifier``: the classifier with these weights.

What the user can correct is a UserError. Any other error is reported as a mistake in the method's file.

A method that sets ``NEEDS_START = True`` begins from another row's weights, which are in ``task.start``.
A method that sets ``NEEDS_EVENTS = True`` works on the single events of recordings, which are in ``task.data``: see
`bntt.data.images.Images.streams`. It runs on datasets that keep them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.training.loop import Keeper, Outcome


@dataclass(frozen=True)
class Task:
    """What a method gets: the run, its data on the device, the keeper of its state, the weights to start from."""

    run: Run
    data: ImageData
    keeper: Keeper
    start: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.run.options)


@dataclass(frozen=True)
class Trained:
    """Weights by name, the training's outcome, and facts to record (parameter count, decay budget, ...)."""

    weights: Mapping[str, Tensor]
    outcome: Outcome = field(default_factory=Outcome)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise TypeError for what could not be saved, here and not after hours of training."""
        for name, value in self.weights.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"weight {name!r} must be a tensor, not {value!r}")
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise TypeError(f"weight {name!r} must be a dense array, not {value.layout} of {value.dtype}")
        for name, value in self.facts.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise TypeError(f"fact {name!r} must be plain finite numbers and text, not {value!r}") from None
