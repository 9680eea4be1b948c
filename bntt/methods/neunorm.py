"""STBP with NeuNorm and population voting (Wu et al. 2019, "Direct training for spiking neural networks", AAAI).

**Neuron.** In steps t = 1..T, with current x, decay k1 and threshold:

    u[t] = k1 u[t-1] (1 - s[t-1]) + x[t];   s[t] = 1 if u[t] > threshold, else 0

Its gradient (STBP) is the ordinary one, through the leak and through the reset, where the derivative of a spike is a
rectangle of width a and area 1: ds/du = 1 / a if |u - threshold| < a / 2, else 0.

**NeuNorm** stands behind the neurons of a convolution with F channels, before the pooling. An auxiliary neuron at every
pixel collects the spikes of all channels, and a learned weight w ``[F, H, W]`` takes its trace from their output:

    trace[t] = k2 trace[t-1] + (v / F) (s[t, 1] + ... + s[t, F]);   output[t, f] = s[t, f] - w[f] trace[t]

with k2 + v F = 1. So the trace is at most 1 / F. The outputs are real numbers, of which few are 0.

**Voting.** The output layer has ``votes`` neurons for each class, which spike. The logit of a class is the mean of its
neurons' spikes, over them and over time. The loss is the squared error between these and the one-hot label, summed over
classes, mean over images. The optimiser is Adam's kind with rate 2.5e-3 (``optimiser: adam``). The measurements see
the output layer's current, and so do not count these spikes.

**Open, or different here.** The decay, threshold and a of recordings could not be verified: the defaults, 0.25, 0.5 and
1, are those of the authors' program for MNIST, which has no NeuNorm. No initial w is published: it is 0 here, where a
network is one without NeuNorm. Which layers have NeuNorm and dropout is not said: here NeuNorm is behind every
convolution, and dropout, with one mask for all steps, behind every hidden fully connected layer. Initial weights are
Xavier-uniform with gain 2; with 1, deep layers of a small network do not fire. Wu et al. feed the real pixels of images
to the first convolution; here all methods get the same Poisson spikes. Recordings are given as frames, as theirs are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bntt.classifiers import SpikingClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained, fit_spiking, spiking_classifier, squared_error
from bntt.spiking.networks import WeightLayer, initialise, weight_layers
from bntt.spiking.stateful import FixedDropout, Stateful, StatefulNetwork, pooled

TITLE = "STBP + NeuNorm"
EXTENDS = ["bntt.training.loop", "bntt.spiking.networks", "bntt.spiking.encoding"]
OPTIONS = {
    "time_steps": {"default": 20, "min": 1, "help": "Number of time-steps T."},
    "decay": {"default": 0.25, "min": 0.0, "max": 1.0, "help": "Factor k1 on the membrane from step to step."},
    "threshold": {"default": 0.5, "above": 0.0, "help": "Firing threshold."},
    "surrogate_width": {"default": 1.0, "above": 0.0, "help": "Width a of the rectangle that replaces ds/du."},
    "trace_decay": {
        "default": 0.9,
        "min": 0.0,
        "max": 1.0,
        "help": "Factor k2 on NeuNorm's trace from step to step; at 1 the trace stays 0, and there is no NeuNorm.",
    },
    "votes": {"default": 10, "min": 1, "help": "Output neurons for each class."},
    "dropout": {
        "default": 0.5,
        "min": 0.0,
        "max": 0.9,
        "help": "Dropout probability of hidden fully connected neurons, with one mask for all steps.",
    },
    "gain": {"default": 2.0, "above": 0.0, "help": "Gain of the Xavier-uniform initial weights."},
}


class Neuron(Stateful):
    """Wu et al.'s neuron on currents ``[T, N, ...]``; the state is the membrane after its reset, (1 - s) u."""

    def __init__(self, decay: float, threshold: float, width: float) -> None:
        super().__init__()
        self.decay, self.threshold, self.width = decay, threshold, width

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        membrane = torch.zeros_like(x[0]) if state is None else state
        return _Fire.apply(x, membrane, self.decay, self.threshold, self.width)


class _Fire(torch.autograd.Function):
    """Spikes ``[T, N, ...]`` and the reset membrane after them ``[N, ...]``, of currents and such a membrane."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, membrane: Tensor, decay: float, threshold: float, width: float
    ) -> tuple[Tensor, Tensor]:
        spikes, potentials = torch.empty_like(x), torch.empty_like(x)
        left = membrane
        for current, spike, u in zip(x, spikes, potentials, strict=True):
            torch.add(current, left, alpha=decay, out=u)
            torch.gt(u, threshold, out=spike)
            left = u.masked_fill(spike.bool(), 0)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(potentials)
        ctx.settings = decay, threshold, width
        return spikes, left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_spikes: Tensor, of_left: Tensor) -> tuple[Tensor | None, ...]:
        (potentials,) = ctx.saved_tensors
        decay, threshold, width = ctx.settings
        of_x = torch.empty_like(of_spikes)
        later = of_left  # the gradient of the reset membrane (1 - s) u
        for now, u, upstream in zip(*(reversed(a.unbind()) for a in (of_x, potentials, of_spikes)), strict=True):
            slope = ((u - threshold).abs_() < width / 2).to(u.dtype).div_(width)
            torch.addcmul(later.masked_fill(u > threshold, 0), upstream - later * u, slope, out=now)
            later = decay * now
        return of_x, later, None, None, None


class NeuNorm(Stateful):
    """Spikes ``[T, N, F, H, W]`` less what the auxiliary neuron of their pixel inhibits; its trace is the state."""

    def __init__(self, channels: int, side: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.share = (1 - decay) / channels**2  # v / F
        self.weight = nn.Parameter(torch.zeros(channels, side, side))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        traces, trace = [], state
        for collected in (self.share * x.sum(2, keepdim=True)).unbind():
            trace = collected if trace is None else self.decay * trace + collected
            traces.append(trace)
        return x - self.weight * torch.stack(traces), traces[-1]


class Voting(nn.Module):
    """The mean of the outputs of each class, ``[N, classes]``, from ``[N, classes * votes]``, class by class."""

    def __init__(self, votes: int) -> None:
        super().__init__()
        self.votes = votes

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.votes)).mean(2)


def build(options: Mapping[str, Any], data: ImageData) -> StatefulNetwork:
    """The untrained network that the options describe, whose last layer has ``votes`` neurons for each class."""

    def neuron(_: WeightLayer | None = None) -> Neuron:
        return Neuron(options["decay"], options["threshold"], options["surrogate_width"])

    def after(layer: WeightLayer) -> list[nn.Module]:
        if layer.side is None:
            return [FixedDropout(options["dropout"])]
        return [NeuNorm(layer.outputs, layer.side, options["trace_decay"]), *pooled(layer)]

    outputs = data.classes * options["votes"]
    return StatefulNetwork(
        weight_layers(options["architecture"], data.shape, outputs, options["width"]),
        options["time_steps"],
        neuron=neuron,
        after=after,
        head=[neuron(), Voting(options["votes"])],
    )


def train(task: Task) -> Trained:
    """Spatio-temporal back-propagation with the loss of the module's docstring."""
    network = build(task.options, task.data)
    initialise(network, task.run.seed, task.options["gain"])
    return fit_spiking(task, network, loss=squared_error(network))


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> SpikingClassifier:
    """The trained network as a classifier, whose logits after t steps are the mean of the votes of these steps."""
    return spiking_classifier(build(run.options, data), run, data, weights)
