"""BNTT with gamma trained alike at every time-step, although its gradient falls with time.

The gradient that reaches gamma[t] of a layer with m leaky membranes before the loss (its own and those above) falls
like P_m(T - t), see `bntt.training.paths`. Weight decay does not, so late gammas of shallow layers decay untrained.
With r[t] = P_m(T - t) / P_m(T - 1), the options change one of the two:

    gamma_updates: by-paths      g[t] / r[t]: the law's fall is divided out
    gamma_updates: normalised    g[t] rms(g) / rms(g[t]): every step moves as much as the one that moves most, where rms
                                 is over channels, and rms(g) is the largest of the layer's steps
    gamma_decay_shape: paths     decay r[t] gamma_decay: decay falls as the gradient does

No factor is above `LIMIT`. Everything else is `surrogate`'s. ``gradients.csv`` shows the gradients before any of this.
This method is of this project; docs/wave.md measures it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, surrogate
from bntt.spiking.networks import SpikingNetwork
from bntt.training.paths import driven
from bntt.training.schedule import gamma_decay

TITLE = "Surrogate gradient, {norm}, gamma evened over time"
EXTENDS = ["bntt.methods.surrogate"]
OPTIONS = {
    "norm": {
        "default": "bntt",
        "choices": ["bntt", "bn-pooled-step-gamma"],
        "help": "Temporal norm of every hidden layer; it has a gamma for each time-step and nothing else.",
    },
    "gamma_init": {"default": 1.0, "help": "Initial value of gamma at every time-step."},
    "gamma_updates": {
        "default": "plain",
        "choices": ["plain", "by-paths", "normalised"],
        "help": "What is done to the gradient of gamma, time-step by time-step.",
    },
    "gamma_decay_shape": {
        "default": "even",
        "choices": ["even", "paths"],
        "help": "Whether gamma decays alike at all time-steps, or as the gradient's law falls.",
    },
}
LIMIT = 1e4


def reshaped(gamma: Tensor, gradient: Tensor, updates: str, falls: Tensor, decay: float, decay_shape: str) -> Tensor:
    """The gradient ``[T, C]`` of ``gamma`` that the optimiser gets; it adds ``decay * gamma`` itself.

    ``falls [T]`` is r[t]. A step that no gradient reaches keeps its gradient, 0.
    """
    of_step = gradient
    if updates == "by-paths":
        of_step = gradient * (1 / falls).clamp(max=LIMIT)[:, None]
    elif updates == "normalised":
        sizes = gradient.square().mean(1, keepdim=True).sqrt()
        of_step = gradient * (sizes.max() / sizes).nan_to_num(1.0, posinf=1.0).clamp(max=LIMIT)
    if decay_shape == "paths":
        of_step = of_step + decay * (falls[:, None] - 1) * gamma.detach()
    return of_step


def _reshaping(falls: Tensor, options: Mapping[str, Any]) -> Callable[[Tensor], None]:
    """A hook on the gradient that the optimiser will read. (One on the tensor fires within the operator, too.)"""
    updates, shape, decay = options["gamma_updates"], options["gamma_decay_shape"], gamma_decay(dict(options))

    def reshape(gamma: Tensor) -> None:
        gradient = cast(Tensor, gamma.grad)
        gamma.grad = reshaped(gamma, gradient, updates, falls.to(gradient), decay, shape)

    return reshape


def train(task: Task) -> Trained:
    """Surrogate-gradient training with these gradients. UserError for an optimiser whose decay is not SGD's."""
    options = task.options
    if options["optimiser"] != "sgd":
        raise UserError(f"row {task.run.row}: even-gamma changes gradients for SGD, not for {options['optimiser']}")

    def prepare(network: SpikingNetwork) -> SpikingNetwork:
        norms = list(network.norms().values())
        for above, norm in enumerate(reversed(norms)):
            falls = torch.tensor(driven(above + 1, options["time_steps"], options["leak"]), dtype=torch.float64)
            nn.init.constant_(norm.gamma, options["gamma_init"])
            norm.gamma.register_post_accumulate_grad_hook(_reshaping(falls, options))
        return network

    trained = surrogate.train(task, prepare=prepare)
    if options["gamma_decay_shape"] == "even":
        return trained
    facts = {name: value for name, value in trained.facts.items() if name not in ("decay_budget", "undriven_gamma")}
    return replace(trained, facts=facts)  # of a decay that is alike at all steps


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network, which is one of `surrogate`, as a classifier."""
    return surrogate.classifier(run, data, weights)
