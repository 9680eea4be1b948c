"""Networks of any neuron: layers whose parts carry a state through time, written step by step.

The fused layers of `bntt.spiking.layers` run the paper's neuron. Other papers have other neurons, pools that spike,
dropout that stays the same over time, and norms behind the neuron. Here each of them is a `Stateful` module of a few
lines in PyTorch's operations, with a gradient of its own where a paper has one. A `StatefulNetwork` puts them behind
the connections of a `WeightLayer` list, and is measured as a `SpikingNetwork` is. It is slower and runs in float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bntt.spiking.connections import precision
from bntt.spiking.layers import LayerStep, over_time
from bntt.spiking.networks import TemporalNetwork, WeightLayer
from bntt.spiking.neurons import at_inference
from bntt.spiking.norms import TemporalNorm

State = Any  # None at the start of a sequence; otherwise a tensor, or a tuple or dictionary of tensors


class Stateful(nn.Module):
    """A module on sequences ``[T, N, ...]`` whose state at the end of one stretch of time begins the next.

    A subclass defines ``step(x, state) -> (y, state)`` for one time-step, ``x [N, ...]``. Where that does not do, as
    for a gradient that depends on later steps, it overrides ``forward``.
    """

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Output ``[N, ...]`` of one time-step, and the state after it; ``state`` is None before the first."""
        raise NotImplementedError(f"{type(self).__name__} defines neither step nor forward")

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Output ``[T, N, ...]`` of a stretch of time, and the state after it."""
        outputs = []
        for now in x.unbind():
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs), state


class FixedDropout(Stateful):
    """Dropout with one mask for all time-steps of a batch (Lee et al. 2020, Rathi et al. 2020); none at inference.

    The mask is drawn at the first step, from PyTorch's generator, which the method seeds for each batch. What is kept
    is divided by ``1 - probability``.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the probability of dropout is at least 0 and less than 1, not {probability}")
        self.probability = probability

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        if not self.training or self.probability == 0:
            return x, None
        if state is None:
            state = (torch.rand_like(x[0], dtype=torch.float32) >= self.probability) / (1 - self.probability)
        return x * state.to(x.dtype), state


def drops(module: nn.Module) -> bool:
    """Whether a module is dropout that draws from PyTorch's generator in training."""
    if isinstance(module, FixedDropout):
        return module.probability > 0
    return isinstance(module, nn.Dropout) and module.p > 0


class StatefulLayer(nn.Module):
    """connection -> temporal norm, if there is one -> neuron -> what follows it, on sequences ``[T, N, ...]``."""

    def __init__(
        self, connection: nn.Module, norm: TemporalNorm | None, neuron: Stateful, after: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.connection, self.norm, self.neuron = connection, norm, neuron
        self.after = nn.ModuleList(after)

    def forward(self, x: Tensor) -> Tensor:
        """Output ``[T, N, ...]`` of input ``[T, N, ...]``, from the start of a sequence; differentiable."""
        current = over_time(self.connection, x)
        spikes, _ = self.neuron(current if self.norm is None else self.norm(current))
        return through(self.after, spikes, [None] * len(self.after))[0]

    @torch.no_grad()
    def resume(self, x: Tensor, start: int, state: State) -> tuple[LayerStep, State]:
        """Inference on steps ``start ..`` of a longer sequence: what the layer did, and its state after them."""
        of_neuron, *of_others = [None] * (1 + len(self.after)) if state is None else state
        current = over_time(self.connection, x)
        driven = current if self.norm is None else at_inference(self.norm, current, start)
        spikes, of_neuron = self.neuron(driven, of_neuron)
        output, of_others = through(self.after, spikes, of_others)
        counts = spikes.ne(0).flatten(2).sum(2).double()
        return LayerStep(x, output, None, counts, lambda: (current, spikes)), [of_neuron, *of_others]


class StatefulNetwork(TemporalNetwork):
    """A feed-forward network of stateful layers, on the layers of `weight_layers`.

    Parameters
    ----------
    layers
        From `weight_layers`.
    time_steps
        Number of time-steps T.
    neuron
        A function from a hidden layer's description to its neuron.
    after
        A function from a hidden layer's description to the modules behind its neuron, stateful or not. By default the
        layer's average pooling. The flattening before the first fully connected layer is added.
    norm
        A name in ``NORMS``, or a subclass of `TemporalNorm`, or None.
    head
        Modules behind the classifier, such as voting over groups of outputs.
    readout
        ``mean``: the logits are the sum of all steps' contributions divided by T; ``sum``: it is not divided.
    """

    def __init__(
        self,
        layers: list[WeightLayer],
        time_steps: int,
        *,
        neuron: Callable[[WeightLayer], Stateful],
        after: Callable[[WeightLayer], Sequence[nn.Module]] | None = None,
        norm: str | type[TemporalNorm] | None = None,
        head: Sequence[nn.Module] = (),
        readout: str = "mean",
    ) -> None:
        super().__init__(layers, time_steps, norm, readout)
        *hidden, classifier = layers
        for layer, following in zip(hidden, layers[1:], strict=True):
            behind = pooled(layer) if after is None else list(after(layer))
            if layer.is_convolution and not following.is_convolution:
                behind.append(nn.Flatten())
            of_norm = self.norm_class(layer.outputs, time_steps) if self.norm_class else None
            self.layers[layer.name] = StatefulLayer(layer.connection(), of_norm, neuron(layer), behind)
        self.classifier = classifier.connection()
        self.head = nn.ModuleList(head)

    def forward(self, spikes: Tensor) -> Tensor:
        """Contributions of each step to the logits, ``[T, N, classes]``, for input spikes ``[T, N, C, H, W]``."""
        x = spikes.to(precision(self))
        for layer in self.layers.values():
            x = layer(x)
        return through(self.head, over_time(self.classifier, x), [None] * len(self.head))[0]

    @torch.no_grad()
    def resume(
        self,
        spikes: Tensor,
        start: int,
        state: dict[str, State],
        observe: Callable[[str, LayerStep], None] | None = None,
    ) -> Tensor:
        """As `SpikingNetwork.resume`: contributions of steps ``start ..``; ``state`` is empty at first, and updated."""
        x = spikes.to(precision(self))
        for name, layer in self.hidden().items():
            step, state[name] = layer.resume(x, start, state.get(name))
            if observe is not None:
                observe(name, step)
            x = step.output
        voltage = over_time(self.classifier, x)
        if observe is not None:
            self._show_classifier(observe, x, voltage)
        output, state["head"] = through(self.head, voltage, state.get("head") or [None] * len(self.head))
        return output

    def hidden(self) -> dict[str, StatefulLayer]:
        """The hidden layers by name, in order of depth."""
        return dict(self.layers.items())  # type: ignore[arg-type]


def pooled(layer: WeightLayer) -> list[nn.Module]:
    """The average pooling of a layer, if it has one, without the flattening."""
    pooling = layer.pooling(last_convolution=False)
    return [] if pooling is None else [pooling]


def through(
    modules: Sequence[nn.Module] | nn.ModuleList, x: Tensor, states: Sequence[State]
) -> tuple[Tensor, list[State]]:
    """``x [T, N, ...]`` through modules one after the other, and their states; one without a state has None."""
    left = []
    for module, state in zip(modules, states, strict=True):
        if isinstance(module, Stateful):
            x, state = module(x, state)
        else:
            x, state = over_time(module, x), None
        left.append(state)
    return x, left
