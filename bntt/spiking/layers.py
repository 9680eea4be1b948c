"""A spiking layer: connection, temporal norm, neuron, pooling, each over all time-steps at once."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bntt.spiking.neurons import LIF
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

    Pooling averages spikes, so the next layer sees fractions, as in the paper's networks.
    """

    connection: nn.Module
    norm: TemporalNorm | None
    neuron: LIF
    pool: nn.Module | None

    def __init__(
        self, connection: nn.Module, norm: TemporalNorm | None, neuron: LIF, pool: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.connection, self.norm, self.neuron, self.pool = connection, norm, neuron, pool

    def forward(self, x: Tensor) -> Tensor:
        """Differentiable, from zero state."""
        return self._pooled(self.neuron(over_time(self.connection, x), self.norm))

    @torch.no_grad()
    def resume(self, x: Tensor, start: int, membrane: Tensor | None) -> LayerStep:
        """Inference on steps ``start ..``, going on from ``membrane``."""
        current = over_time(self.connection, x)
        spikes, membrane = self.neuron.resume(current, self.norm, start, membrane)
        return LayerStep(x, current, spikes, self._pooled(spikes), membrane)

    def _pooled(self, spikes: Tensor) -> Tensor:
        return spikes if self.pool is None else over_time(self.pool, spikes)
