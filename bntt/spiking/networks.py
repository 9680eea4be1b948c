"""The paper's networks as data, and the two kinds of classifier built from them: spiking and dense.

A network is described once, as a list of `WeightLayer`. The spiking network, the dense network of the baselines and the
energy accounting all use this list. All convolutions are 3 x 3 with stride 1 and padding 1. No layer has a bias. All
pooling is average pooling.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bntt.spiking.connections import precision, tensors_of
from bntt.spiking.kernels import eagerly, floating, ordinary
from bntt.spiking.layers import LayerStep, SpikingLayer, over_time
from bntt.spiking.neurons import LIF, at_inference
from bntt.spiking.norms import NORMS, TemporalNorm
from bntt.spiking.randomness import generator
from bntt.spiking.released import from_released as from_released

OPTIONS = {
    "architecture": {
        "default": "vgg9",
        "choices": ["vgg5", "vgg9", "vgg11", "vgg16", "dvs7", "cao5"],
        "help": "Network; ARCHITECTURES in bntt/spiking/networks.py lists the layers.",
    },
    "width": {"default": 1.0, "above": 0.0, "help": "Factor on the width of every hidden layer."},
}

# The first tuple: convolution widths, with "A" for 2 x 2 average pooling, "F" for 2 x 2 average pooling that drops an
# odd last row and column, and "G" for global average pooling. The second tuple: hidden fully connected widths.
# VGG9 and VGG11 are as in the released code (VGG11 has ten weight layers). VGG5 is as in the same laboratory's later
# baselines. VGG16 is as in Rathi et al. (2020), without their last pooling. DVS7 is as in Wu et al. (2019), for event
# data. CAO5 has the three convolutions and two linear layers of Cao et al. (2015), with 3 x 3 filters where they have
# 5 x 5 on crops of 24 x 24; its widths are chosen.
ARCHITECTURES: dict[str, tuple[tuple[int | str, ...], tuple[int, ...]]] = {
    "vgg5": ((64, "A", 128, 128, "A"), (1024,)),
    "vgg9": ((64, 64, "A", 128, 128, "A", 256, 256, 256, "A"), (1024,)),
    "vgg11": ((64, "A", 128, "A", 256, 256, "A", 512, 512, "A", 512, 512, "G"), (4096,)),
    "vgg16": (
        (64, 64, "A", 128, 128, "A", 256, 256, 256, "A", 512, 512, 512, "A", 512, 512, 512),
        (4096, 4096),
    ),
    "dvs7": ((128, 128, "F", 384, 384, "F"), (1024, 512)),
    "cao5": ((64, "A", 64, "A", 64, "A"), (64,)),
}


class WeightLayer(NamedTuple):
    """One layer with weights, named ``conv1``, ..., ``fc1``, ..., and the pooling after it."""

    name: str
    inputs: int  # channels or features
    outputs: int
    side: int | None  # height and width of its output; None for a fully connected layer
    pool: str | None  # "A", "F", "G" or None

    @property
    def is_convolution(self) -> bool:
        return self.side is not None

    @property
    def neurons(self) -> int:
        """Output neurons per image."""
        return self.outputs * (self.side or 1) ** 2

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer per image: k^2 O^2 Cin Cout, or Cin Cout (Appendix B)."""
        return 9 * self.side**2 * self.inputs * self.outputs if self.side else self.inputs * self.outputs

    def connection(self) -> nn.Module:
        if self.is_convolution:
            return nn.Conv2d(self.inputs, self.outputs, 3, padding=1, bias=False)
        return nn.Linear(self.inputs, self.outputs, bias=False)

    def pooling(self, last_convolution: bool) -> nn.Module | None:
        """The pooling after this layer, with the flattening that the first fully connected layer needs."""
        parts: list[nn.Module] = []
        if self.pool is not None:
            parts.append(nn.AdaptiveAvgPool2d(1) if self.pool == "G" else nn.AvgPool2d(2))
        if last_convolution:
            parts.append(nn.Flatten())
        return nn.Sequential(*parts) if parts else None


def weight_layers(
    architecture: str, shape: tuple[int, int, int], classes: int, width: float = 1.0
) -> list[WeightLayer]:
    """The layers of an architecture for images of ``shape = (C, H, W)``; the last layer is the classifier.

    ``width`` multiplies every hidden width. Raises ValueError for an unknown name, for images that are not square, and
    for sizes that the poolings cannot halve.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    convolutions, hidden = ARCHITECTURES[architecture]
    channels, side, other = shape
    if side != other:
        raise ValueError(f"images are square, got {side} x {other}")
    if min(channels, side, classes) < 1:
        raise ValueError(f"channels, side and classes are at least 1, got {channels}, {side} and {classes}")
    scaled = [w if isinstance(w, str) else max(1, round(w * width)) for w in convolutions]
    layers: list[WeightLayer] = []
    for position, outputs in enumerate(scaled):
        if isinstance(outputs, str):
            if outputs != "G" and (side % 2 if outputs == "A" else side < 2):
                raise ValueError(f"{architecture} cannot halve a side of {side}: use another image size")
            side = 1 if outputs == "G" else side // 2
            continue
        following = scaled[position + 1] if position + 1 < len(scaled) else None
        pool = following if isinstance(following, str) else None
        layers.append(WeightLayer(f"conv{len(layers) + 1}", channels, outputs, side, pool))
        channels = outputs
    features = channels * side**2
    for number, outputs in enumerate([*(max(1, round(w * width)) for w in hidden), classes], 1):
        layers.append(WeightLayer(f"fc{number}", features, outputs, None, None))
        features = outputs
    return layers


def initialise(network: nn.Module, seed: int, gain: float) -> None:
    """Xavier-uniform weights from the run's seed (gain 2 in the released code); norms keep their initial values."""
    draws = generator(seed, "initial weights")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=gain, generator=draws)


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device, channels-last, so that a convolution's output can be used as rows without a copy."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


class TemporalNetwork(nn.Module):
    """What feed-forward networks over time have in common: hidden layers, each with a norm or none, and a readout.

    A subclass fills ``layers`` with the hidden layers, by name in order of depth, and adds the classifier. Raises
    ValueError for an unknown norm or readout, and for fewer than 1 time-step.
    """

    def __init__(
        self, layers: list[WeightLayer], time_steps: int, norm: str | type[TemporalNorm] | None, readout: str
    ) -> None:
        super().__init__()
        if time_steps < 1:
            raise ValueError(f"time_steps is at least 1, not {time_steps}")
        if readout not in ("mean", "sum"):
            raise ValueError(f"readout is 'mean' or 'sum', not {readout!r}")
        if isinstance(norm, str) and norm not in NORMS:
            raise ValueError(f"unknown norm {norm!r}; there are {', '.join(NORMS)}")
        self.norm_class = NORMS[norm] if isinstance(norm, str) else norm
        self.description, self.time_steps, self.readout = layers, time_steps, readout
        self.layers = nn.ModuleDict()

    def logits(self, contributions: Tensor) -> Tensor:
        """The logits after all steps, ``[N, classes]``, from ``contributions [T, N, classes]`` (Eq. 5)."""
        return contributions.mean(0) if self.readout == "mean" else contributions.sum(0)

    def norms(self) -> dict[str, TemporalNorm]:
        """The temporal norm of every layer that has one, by layer name, in order of depth."""
        return {name: layer.norm for name, layer in self.layers.items() if layer.norm is not None}  # type: ignore[misc]

    def _show_classifier(self, observe: Callable[[str, LayerStep], None], x: Tensor, voltage: Tensor) -> None:
        """Call ``observe`` with the classifier's input and output ``[T, N, ...]``; it does not spike."""
        silent = torch.zeros_like(voltage)
        counts = silent.sum(2, dtype=torch.float64)
        observe(self.description[-1].name, LayerStep(x, voltage, None, counts, lambda: (voltage, silent)))


class SpikingNetwork(TemporalNetwork):
    """A feed-forward network of spiking layers with a readout that accumulates without leak.

    Parameters
    ----------
    layers
        From `weight_layers`.
    time_steps
        Number of time-steps T, for which the norms have parameters.
    norm
        A name in ``NORMS``, or a subclass of `TemporalNorm`.
    neuron
        A function from a layer's name to its neuron.
    readout
        ``mean``: the logits are the accumulated voltage divided by T, as in the released code. ``sum``: they are not
        divided (Eq. 5).
    classifier_norm
        Whether the classifier has a norm too (Algorithm 2, line 9). The released code has none.
    norm_settings
        Passed on to the norm: ``eps``, ``momentum``, ``tracking``; see `TemporalNorm`.

    Raises
    ------
    ValueError
        For an unknown norm or readout, for fewer than 1 time-step, and for ``classifier_norm`` without a norm.

    Notes
    -----
    Hooks. In ``network(spikes)``, forward and backward hooks and pre-hooks fire on the network, on its layers, on the
    connection, norm, neuron and pool of each, and on the classifier and its norm. What has a hook is called as a module
    of its own and not within the fused passes, so the output of such a norm is rounded to the currents' type. With
    ``chunk``, hooks of connections, norms, pools and the classifier fire for every chunk, and again in the backward
    pass, in which alone their backward hooks fire. In ``advance`` the same modules' hooks fire; in ``resume``, which
    computes no gradients, their forward hooks do. Hooks of layers and neurons do not fire in these three, as layers and
    neurons are not called but entered by their own ``advance`` and ``resume``; ``observe`` shows what they would see:
    inputs, currents, spikes, outputs and membranes.

    Compiling. `torch.compile` leaves the layers as they are, and compiles what is around them.
    """

    def __init__(
        self,
        layers: list[WeightLayer],
        time_steps: int,
        *,
        norm: str | type[TemporalNorm] | None = "bntt",
        neuron: Callable[[str], LIF] = lambda name: LIF(),
        readout: str = "mean",
        classifier_norm: bool = False,
        **norm_settings: Any,
    ) -> None:
        super().__init__(layers, time_steps, norm, readout)
        kind = self.norm_class
        if classifier_norm and kind is None:
            raise ValueError("classifier_norm puts the norm on the classifier too, and there is none: choose a norm")
        *hidden, classifier = layers
        for layer, following in zip(hidden, layers[1:], strict=True):
            of_layer = neuron(layer.name)
            self.layers[layer.name] = SpikingLayer(
                layer.connection(),
                kind(layer.outputs, time_steps, threshold=of_layer.threshold, **norm_settings) if kind else None,
                of_layer,
                layer.pooling(last_convolution=layer.is_convolution and not following.is_convolution),
            )
        self.classifier = classifier.connection()
        self.classifier_norm = (
            kind(classifier.outputs, time_steps, **norm_settings) if kind and classifier_norm else None
        )

    @eagerly
    def forward(self, spikes: Tensor, chunk: int | None = None) -> Tensor:
        """Contributions of each step to the logits, ``[T, N, classes]``, for input spikes ``[T, N, C, H, W]``.

        The network runs in the precision of the spikes, float32 or bfloat16, and its readout in the precision of its
        weights. With ``chunk`` less than T, only ``chunk`` steps are held in memory at once, and the backward pass runs
        each chunk of time again. The result and the gradients are the same up to rounding. Raises ValueError for a
        chunk of less than 1 step, and for a norm that pools over time-steps.
        """
        if chunk is not None and chunk < 1:
            raise ValueError(f"a time chunk has at least 1 step, not {chunk}")
        if chunk is not None and chunk < len(spikes):
            return self._in_chunks(spikes, chunk)
        for layer in self.layers.values():
            spikes = layer(spikes)
        return self._readout(spikes, None)

    def _in_chunks(self, spikes: Tensor, chunk: int) -> Tensor:
        tensors = list(tensors_of(self))
        if not ordinary(spikes, *tensors):
            raise ValueError("a program that is traced, exported or transformed runs all time-steps: leave out chunk")
        return _InChunks.apply(self, chunk, spikes, *(a for a in tensors if a.requires_grad))

    @eagerly
    def advance(self, spikes: Tensor, start: int, membranes: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """Contributions of steps ``start ..``, and the membranes after them, from the hidden layers' ``membranes``.

        Differentiable in the spikes and the membranes. A membrane is ``[M, C]``, or None at the start of a sequence.
        """
        left = []
        for layer, membrane in zip(self.hidden().values(), membranes, strict=True):
            spikes, after = layer.advance(spikes, start, membrane)
            left.append(after)
        return self._readout(spikes, start), left

    def _voltage(self, spikes: Tensor) -> Tensor:
        """The classifier's output voltage, in the precision of its weights."""
        return over_time(self.classifier, spikes.to(precision(self.classifier)))

    def _readout(self, spikes: Tensor, start: int | None) -> Tensor:
        voltage = self._voltage(spikes)
        return voltage if self.classifier_norm is None else self.classifier_norm(voltage, start)

    @eagerly
    @torch.no_grad()
    def resume(
        self,
        spikes: Tensor,
        start: int,
        state: dict[str, Tensor | None],
        observe: Callable[[str, LayerStep], None] | None = None,
    ) -> Tensor:
        """Contributions of steps ``start ..``, ``[T, N, classes]``, for inference on long sequences in bounded memory.

        It runs in the precision of the weights, whatever the type of the spikes. ``state`` maps layer names to
        membranes. Pass an empty dictionary with the first piece of a sequence and the same dictionary with the next
        ones; it is updated. ``observe`` is called with the name and the `LayerStep` of every layer.
        """
        for name, layer in self.hidden().items():
            step = layer.resume(spikes, start, state.get(name))
            state[name] = step.membrane
            if observe is not None:
                observe(name, step)
            spikes = step.output
        voltage = self._voltage(spikes)
        if observe is not None:
            self._show_classifier(observe, spikes, voltage)
        if self.classifier_norm is None:
            return voltage
        return at_inference(self.classifier_norm, voltage, start)

    def hidden(self) -> dict[str, SpikingLayer]:
        """The spiking layers by name, in order of depth."""
        return cast(dict[str, SpikingLayer], dict(self.layers.items()))


class _InChunks(torch.autograd.Function):
    """A spiking network on chunks of time, of which only the membranes between chunks are kept.

    Back-propagation through time visits the chunks from the last to the first. It runs each chunk again from its first
    membranes, and passes the gradient of these membranes to the chunk before.
    """

    @staticmethod
    def forward(ctx: Any, network: SpikingNetwork, chunk: int, spikes: Tensor, *parameters: Tensor) -> Tensor:
        ctx.network, ctx.pieces, ctx.parameters, ctx.starts = network, spikes.split(chunk), parameters, []
        membranes: Sequence[Tensor | None] = [None] * len(network.layers)
        contributions = []
        for number, piece in enumerate(ctx.pieces):
            ctx.starts.append(membranes)
            contribution, membranes = network.advance(piece, number * chunk, membranes)
            contributions.append(contribution)
        return torch.cat(contributions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        chunk, totals = len(ctx.pieces[0]), [torch.zeros_like(p) for p in ctx.parameters]
        carried: list[Tensor] = []
        norms = [module for module in ctx.network.modules() if isinstance(module, TemporalNorm)]
        try:
            for norm in norms:
                norm.tracks = False  # the moments of this batch were counted in the forward pass
            for number in reversed(range(len(ctx.pieces))):
                start = number * chunk
                membranes = [m if m is None else m.detach().requires_grad_() for m in ctx.starts[number]]
                with torch.enable_grad():
                    contribution, left = ctx.network.advance(ctx.pieces[number], start, membranes)
                wanted = [m for m in membranes if m is not None]
                outputs, upstream = [contribution], [grad[start : start + chunk]]
                if carried:
                    outputs, upstream = [*outputs, *left], [*upstream, *carried]
                found = torch.autograd.grad(outputs, [*wanted, *ctx.parameters], upstream, allow_unused=True)
                carried = list(found[: len(wanted)])
                for total, part in zip(totals, found[len(wanted) :], strict=True):
                    if part is not None:
                        total += part
        finally:
            for norm in norms:
                norm.tracks = True
        return None, None, None, *totals


class DenseNetwork(nn.Module):
    """The same layers with ReLU: the ANN of the paper's comparison, and the network from which conversions start.

    ``batch_norm`` adds an ordinary batch norm after each hidden connection. ``dropout`` is the probability with which
    hidden activations are dropped.
    """

    def __init__(self, layers: list[WeightLayer], *, batch_norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.description = layers
        *hidden, classifier = layers
        self.layers = nn.ModuleDict()
        for layer, following in zip(hidden, layers[1:], strict=True):
            kind = nn.BatchNorm2d if layer.is_convolution else nn.BatchNorm1d
            pool = layer.pooling(last_convolution=layer.is_convolution and not following.is_convolution)
            parts = {
                "connection": layer.connection(),
                "norm": kind(layer.outputs) if batch_norm else None,
                "activation": nn.ReLU(),
                "dropout": nn.Dropout(dropout) if dropout else None,
                "pool": pool,
            }
            self.layers[layer.name] = nn.Sequential()
            for name, part in parts.items():
                if part is not None:
                    self.layers[layer.name].add_module(name, part)
        self.classifier = classifier.connection()

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of scaled images ``[N, C, H, W]``, which are of the weights' type or integers."""
        images = floating(images, "images", precision(self))
        for layer in self.layers.values():
            images = layer(images)
        return self.classifier(images)
