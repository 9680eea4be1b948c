"""A spiking layer: connection, temporal norm, neuron, pooling, each over all time-steps at once."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bntt.spiking.connections import connect, hooked
from bntt.spiking.kernels import accumulator
from bntt.spiking.neurons import LIF, as_rows
from bntt.spiking.norms import TemporalNorm


def over_time(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a module without memory to every step of ``[T, N, ...]``, as one batch of T * N."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class LayerStep(NamedTuple):
    """What one layer saw and did over a stretch of time; arrays are ``[T, N, ...]``."""

    input: Tensor
    current: Tensor
    spikes: Tensor
    output: Tensor  # spikes after pooling
    membrane: Tensor  # [M, C], to go on from


class OverTime(nn.Module):
    """``OverTime(nn.Conv2d(...))``: an ordinary module that takes and returns ``[T, N, ...]``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return over_time(self.module, x)


class SpikingLayer(nn.Module):
    """connection -> temporal norm -> neuron -> pool, on spikes ``[T, N, ...]``.

    Pooling averages spikes, so the next layer sees fractions, as in the paper's networks. ``byte_input`` says that
    what the layer is given are spikes or 2 x 2 averages of spikes, which are then kept for the backward pass as bytes.
    """

    connection: nn.Module
    norm: TemporalNorm | None
    neuron: LIF
    pool: nn.Module | None

    def __init__(
        self,
        connection: nn.Module,
        norm: TemporalNorm | None,
        neuron: LIF,
        pool: nn.Module | None = None,
        byte_input: bool = False,
    ) -> None:
        super().__init__()
        self.connection, self.norm, self.neuron, self.pool = connection, norm, neuron, pool
        self.byte_input = byte_input

    def forward(self, x: Tensor) -> Tensor:
        """Differentiable, from zero state."""
        current = connect(self.connection, x, self.byte_input)
        halve, rest = self._split_pool(current)
        return _pooled(rest, self.neuron(current, self.norm, halve=halve))

    def advance(self, x: Tensor, start: int, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same on steps ``start ..`` of a sequence, from ``membrane`` (None: at rest); differentiable in both."""
        current = connect(self.connection, x, self.byte_input)
        if membrane is None:
            membrane = torch.zeros_like(as_rows(current[:1])[0], dtype=accumulator(current.dtype))
        halve, rest = self._split_pool(current)
        spikes, membrane = self.neuron.advance(current, self.norm, start, membrane, halve=halve)
        return _pooled(rest, spikes), membrane

    @torch.no_grad()
    def resume(self, x: Tensor, start: int, membrane: Tensor | None) -> LayerStep:
        """Inference on steps ``start ..``, going on from ``membrane``."""
        current = connect(self.connection, x)
        spikes, membrane = self.neuron.resume(current, self.norm, start, membrane)
        return LayerStep(x, current, spikes, _pooled(self.pool, spikes), membrane)

    def _split_pool(self, current: Tensor) -> tuple[bool, nn.Module | None]:
        """Whether the pooling begins with 2 x 2 averages, which the neuron then makes itself; and the rest of it."""
        parts = list(self.pool) if isinstance(self.pool, nn.Sequential) else [self.pool]
        halves = (
            isinstance(parts[0], nn.AvgPool2d)
            and not (hooked(self.neuron) or hooked(parts[0]))
            and (parts[0].kernel_size, parts[0].stride, parts[0].padding) == (2, 2, 0)
            and current.dim() == 5
            and not any(side % 2 for side in current.shape[3:])
        )
        if not halves:
            return False, self.pool
        return True, nn.Sequential(*parts[1:]) if len(parts) > 1 else None


def _pooled(pool: nn.Module | None, spikes: Tensor) -> Tensor:
    return spikes if pool is None else over_time(pool, spikes)
