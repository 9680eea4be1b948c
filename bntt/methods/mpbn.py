"""Membrane potential batch norm (MPBN): a second batch norm, on the membrane (Guo et al., ICCV 2023).

At step t the membrane u, after its leak and the normalised current, is normalised once more before it is compared with
the threshold theta. The reset acts on the membrane itself:

    u[t] = leak u[t-1] + norm(x[t])
    z[t] = gamma (u[t] - mean) / sqrt(var + eps) + beta         of each channel, over samples and positions
    o[t] = 1 if z[t] > theta, else 0
    u[t] = u[t] (1 - o[t])

There is one gamma, one beta and one pair of tracked moments for all steps: the batch norm is called T times, and each
call normalises by its own mini-batch and moves the tracked moments. At inference it costs nothing, because it is folded
into a threshold of each channel,

    theta' = (theta - beta) sqrt(var + eps) / gamma + mean

A neuron fires where u > theta' if gamma is positive, and where u < theta' if gamma is negative. With gamma = 0 it
always fires (beta > theta) or never. So the folding is exact for every gamma.

The source fixes these equations, the hard reset, eps 1e-5, momentum 0.1, and a norm of the current whose statistics
are pooled over T, with a scale that starts at 1 and a shift: `tdbn`. Its code has leak 0.25 and fires above half of its
V_th of 1. Chosen here: the form with one gamma per channel, not per neuron; the surrogate gradient of Eq. 8, in z; no
gradient through the reset; and no norm on the classifier. Training is in float32.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, fit_spiking, spiking_classifier
from bntt.spiking.networks import initialise, weight_layers
from bntt.spiking.stateful import State, Stateful, StatefulNetwork

TITLE = "Surrogate gradient, MPBN"
EXTENDS = ["bntt.training.loop", "bntt.spiking.networks", "bntt.spiking.encoding"]
OPTIONS = {
    "time_steps": {"default": 25, "min": 1, "help": "Number of time-steps T."},
    "norm": {
        "default": "tdbn",
        "choices": ["none", "bntt", "bn-pooled", "bn-repeated", "tdbn"],
        "help": "Temporal norm of the current of every hidden layer.",
    },
    "leak": {"default": 0.25, "min": 0.0, "max": 1.0, "help": "Factor on the membrane at every time-step."},
    "threshold": {"default": 0.5, "above": 0.0, "help": "Threshold of the normalised membrane."},
    "reset": {
        "default": "hard",
        "choices": ["soft", "hard"],
        "help": "What a spike does to the membrane: subtract the threshold (`soft`), or set it to zero (`hard`).",
    },
    "alpha": {"default": 0.3, "above": 0.0, "help": "Damping of the surrogate gradient, Eq. 8."},
    "readout": {
        "default": "mean",
        "choices": ["mean", "sum"],
        "help": "Logits: accumulated voltage divided by T, or not divided (Eq. 5).",
    },
    "gain": {"default": 2.0, "above": 0.0, "help": "Gain of the Xavier-uniform initial weights."},
}
EPS, MOMENTUM = 1e-5, 0.1


class Fire(torch.autograd.Function):
    """1 where z is above the threshold, else 0; the derivative is the triangle of Eq. 8."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: float, alpha: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.threshold, ctx.alpha = threshold, alpha
        return (z > threshold).to(z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        triangle = (z - ctx.threshold).abs_().mul_(-ctx.alpha / ctx.threshold).add_(ctx.alpha).clamp_(min=0)
        return triangle.mul_(grad), None, None


class MembraneNormLIF(Stateful):
    """Leaky neurons with a batch norm on the membrane, on currents ``[T, N, C, ...]``; folded at inference.

    The state is the membrane ``[N, C, ...]``. Gradients are computed in training only.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, leak: float, threshold: float, reset: str, alpha: float) -> None:
        super().__init__()
        self.leak, self.threshold, self.reset, self.alpha = leak, threshold, reset, alpha
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def temporal_scale(self) -> None:
        """None: the scale is the same at all steps. The optimiser knows a norm's parameters by this."""

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        fires = self._normalised_fires if self.training else self._folded_fires(x)
        u, spikes = x.new_zeros(x.shape[1:]) if state is None else state, []
        for current in x.unbind():
            u = self.leak * u + current
            spikes.append(fires(u))
            fired = spikes[-1].detach()
            u = u * (1 - fired) if self.reset == "hard" else u - self.threshold * fired
        return torch.stack(spikes), u

    def _normalised_fires(self, u: Tensor) -> Tensor:
        moments = self.running_mean, self.running_var
        z = F.batch_norm(u, *moments, self.gamma, self.beta, training=True, momentum=MOMENTUM, eps=EPS)
        return Fire.apply(z, self.threshold, self.alpha)

    def _folded_fires(self, x: Tensor) -> Any:
        sign, level = (a.to(x.dtype).reshape(-1, *[1] * (x.dim() - 3)) for a in self.folded())
        return lambda u: (sign * u > level).to(u.dtype)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Sign and level ``[C]``, in float64: at inference a neuron fires where ``sign * u > level``.

        They are sign(gamma) and sign(gamma) theta'. Where gamma is 0, the level is infinite, and the sign is 1.
        """
        gamma, beta, mean, variance = (a.double() for a in (self.gamma, self.beta, self.running_mean, self.running_var))
        sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma)
        level = sign * ((self.threshold - beta) * (variance + EPS).sqrt() / gamma + mean)
        always = torch.where(beta > self.threshold, -torch.inf, torch.inf).to(gamma)
        return sign, torch.where(gamma == 0, always, level)


def build(options: Mapping[str, Any], data: ImageData) -> StatefulNetwork:
    """The untrained network that the options describe."""
    return StatefulNetwork(
        weight_layers(options["architecture"], data.shape, data.classes, options["width"]),
        options["time_steps"],
        neuron=lambda layer: MembraneNormLIF(
            layer.outputs, options["leak"], options["threshold"], options["reset"], options["alpha"]
        ),
        norm=options["norm"],
        readout=options["readout"],
    )


def train(task: Task) -> Trained:
    """Surrogate-gradient training through all steps, with a cross-entropy loss on the accumulated voltage."""
    network = build(task.options, task.data)
    initialise(network, task.run.seed, task.options["gain"])
    return fit_spiking(task, network)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network, with its membrane norms folded into thresholds, as a classifier."""
    return spiking_classifier(build(run.options, data), run, data, weights)
