"""Temporal efficient training (TET): a loss on the output of every time-step (Deng et al., ICLR 2022).

With the outputs o[t], ``[N, classes]``, and the labels y, the loss is

    (1 - lambda) mean_t cross_entropy(o[t], y) + lambda mean (o[t] - phi)^2

and the second mean is over steps, images and classes. Everything else is `surrogate`'s: any temporal norm, or none.

The source fixes the loss; lambda = 1e-3 and phi = 1.0 are the defaults of the released script. It leaves open what o[t]
is where a readout accumulates voltage. Here o[t] are the contributions of each step, scaled so that their mean over
time is the logits. The training accuracy in the history is that of these logits, as in evaluation.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, surrogate

TITLE = "Surrogate gradient, TET loss, {norm}"
EXTENDS = ["bntt.methods.surrogate"]
DATA_PARALLEL = True
OPTIONS = {
    "tet_lambda": {
        "default": 1e-3,
        "min": 0.0,
        "max": 1.0,
        "help": "Share of the loss that draws every output to `tet_mean`; the released script has 1e-3.",
    },
    "tet_mean": {"default": 1.0, "help": "Value to which outputs are drawn; the released script has 1.0."},
}


def tet_loss(outputs: Tensor, labels: Tensor, share: float, mean: float) -> Tensor:
    """The loss of ``outputs [T, N, classes]`` and ``labels [N]``; ``share`` is lambda, ``mean`` is phi."""
    entropy = F.cross_entropy(outputs.flatten(0, 1), labels.repeat(len(outputs)))
    return (1 - share) * entropy + share * (outputs - mean).square().mean()


def train(task: Task) -> Trained:
    """Surrogate-gradient training with this loss."""
    options = task.options
    factor = options["time_steps"] if options["readout"] == "sum" else 1

    def loss(contributions: Tensor, labels: Tensor) -> Tensor:
        return tet_loss(factor * contributions, labels, options["tet_lambda"], options["tet_mean"])

    return surrogate.train(task, loss=loss)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network, which is one of `surrogate`, as a classifier."""
    return surrogate.classifier(run, data, weights)
