"""A spiking layer: connection, temporal norm, neuron and pooling, each applied to all time-steps at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from bntt.spiking.connections import as_module, connect, hooked, precision
from bntt.spiking.kernels import accumulator, eagerly, event_layer_for, floating, ordinary
from bntt.spiking.neurons import LIF, as_rows, called
from bntt.spiking.norms import TemporalNorm


def over_time(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a stateless module to every step of ``x [T, N, ...]``, as one batch of T * N; returns ``[T, N, ...]``."""
    return as_module(module, x.flatten(0, 1)).unflatten(0, x.shape[:2])


@dataclass
class LayerStep:
    """Inputs and outputs of one layer over a stretch of time-steps; arrays are ``[T, N, ...]`` unless noted.

    The event-driven path does not keep the currents and the spikes before pooling; they are computed again on first
    access.
    """

    input: Tensor
    output: Tensor  # spikes after pooling
    membrane: Tensor | None  # [M, C] of a `SpikingLayer` after the last step, from which the next stretch continues
    spike_counts: Tensor  # [T, N], of all neurons, before pooling
    again: Callable[[], tuple[Tensor, Tensor]]  # computes current and spikes

    @cached_property
    def _made(self) -> tuple[Tensor, Tensor]:
        return self.again()

    @property
    def current(self) -> Tensor:
        return self._made[0]

    @property
    def spikes(self) -> Tensor:
        return self._made[1]


class OverTime(nn.Module):
    """``OverTime(nn.Conv2d(...))`` makes an ordinary module take and return ``[T, N, ...]``."""

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
        self,
        connection: nn.Module,
        norm: TemporalNorm | None,
        neuron: LIF,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.connection, self.norm, self.neuron, self.pool = connection, norm, neuron, pool
        self._rearranged: tuple[Tensor, tuple[int, int] | None, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies: their weights change on their own, so they rearrange them on their own."""
        return vars(self) | {"_rearranged": None}

    @eagerly
    def forward(self, x: Tensor) -> Tensor:
        """Output spikes ``[T, N, ...]`` of input spikes ``[T, N, ...]``, from membranes at 0; differentiable."""
        current = connect(self.connection, x)
        halve, rest = self._split_pool(current)
        return _pooled(rest, self.neuron(current, self.norm, halve=halve))

    @eagerly
    def advance(self, x: Tensor, start: int, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `forward`, on steps ``start ..`` of a sequence and from ``membrane [M, C]`` (None: at 0).

        Returns the output spikes and the membrane after the last step; differentiable in both arguments.
        """
        current = connect(self.connection, x)
        if membrane is None:
            membrane = torch.zeros_like(as_rows(current[:1])[0], dtype=accumulator(current.dtype))
        halve, rest = self._split_pool(current)
        spikes, membrane = self.neuron.advance(current, self.norm, start, membrane, halve=halve)
        return _pooled(rest, spikes), membrane

    @eagerly
    @torch.no_grad()
    def resume(self, x: Tensor, start: int, membrane: Tensor | None) -> LayerStep:
        """Inference on steps ``start ..``, continuing from ``membrane [M, C]``, in the precision of the weights.

        On a CPU with native kernels, 3 x 3 convolutions and matrix products visit only the spikes and skip the zeros.
        """

        x = floating(x, "spikes", precision(self.connection))

        def densely() -> tuple[Tensor, Tensor, Tensor]:
            current = connect(self.connection, x.to(precision(self.connection, x.dtype)))
            spikes, after = self.neuron.resume(current, self.norm, start, membrane)
            return current, spikes, after

        by_events = self._by_events(x, start, membrane)
        if by_events is not None:
            output, after, counts = by_events
            return LayerStep(x, output, after, counts, lambda: densely()[:2])
        current, spikes, after = densely()
        counts = spikes.flatten(2).sum(2, dtype=accumulator(spikes.dtype)).double()
        return LayerStep(x, _pooled(self.pool, spikes), after, counts, lambda: (current, spikes))

    def _by_events(self, x: Tensor, start: int, membrane: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
        """Output, membrane and spike counts ``[T, N]``; None where the event-driven layer cannot be used."""
        event_layer = event_layer_for(x)
        weight = self._taps()
        if event_layer is None or weight is None or x.dim() != (5 if len(weight) == 9 else 3):
            return None
        if hooked(self.neuron) or (self.norm is not None and called(self.norm)):
            return None
        maps = x.movedim(2, -1).contiguous() if x.dim() == 5 else x[:, :, None, None].contiguous()
        outputs = weight.shape[2]
        scale = shift = None
        if self.norm is not None:
            scale, shift = (a.float().contiguous() for a in self.norm.inference_affine(start, len(x)))
        if membrane is None:
            after = x.new_zeros(maps[0, ..., 0].numel(), outputs, dtype=torch.float32)
        else:
            after = membrane.to(torch.float32, copy=True)
        halve, rest = self._split_pool(x)
        output, counts, _ = event_layer(maps, weight, scale, shift, self.neuron.dynamics, after, halve)
        output = output.movedim(-1, 2) if x.dim() == 5 else output[:, :, 0, 0]
        return _pooled(rest, output), after, counts

    def _taps(self) -> Tensor | None:
        """The connection's weights in the event-driven layer's order; rearranged again only if they changed."""
        if not _has_taps(self.connection):
            return None
        weight = cast(Tensor, self.connection.weight)
        if not ordinary(weight):
            return None
        state = None if weight.is_inference() else (weight._version, weight.data_ptr())  # None: it may have changed
        kept = self._rearranged
        if kept is None or kept[0] is not weight or state is None or kept[1] != state:
            taps = weight.T[None] if weight.dim() == 2 else weight.permute(2, 3, 1, 0).flatten(0, 1)
            kept = self._rearranged = (weight, state, taps.detach().contiguous())
        return kept[2]

    def _split_pool(self, current: Tensor) -> tuple[bool, nn.Module | None]:
        """Whether the pooling begins with 2 x 2 averages, which the neuron then computes; and the rest of it."""
        parts = list(self.pool) if isinstance(self.pool, nn.Sequential) else [self.pool]
        halves = (
            type(parts[0]) is nn.AvgPool2d
            and not any(hooked(part) for part in (self.neuron, self.pool, parts[0]) if part is not None)
            and (parts[0].kernel_size, parts[0].stride, parts[0].padding, parts[0].divisor_override) == (2, 2, 0, None)
            and current.dim() == 5
            and not any(side % 2 for side in current.shape[3:])
        )
        if not halves:
            return False, self.pool
        return True, nn.Sequential(*parts[1:]) if len(parts) > 1 else None


def _pooled(pool: nn.Module | None, spikes: Tensor) -> Tensor:
    return spikes if pool is None else over_time(pool, spikes)


def _has_taps(connection: nn.Module) -> bool:
    """Whether the event-driven layer supports this connection."""
    if hooked(connection) or getattr(connection, "bias", None) is not None:
        return False
    if type(connection) is nn.Conv2d:
        settings = (connection.kernel_size, connection.stride, connection.padding, connection.dilation)
        known = settings == ((3, 3), (1, 1), (1, 1), (1, 1)) and connection.groups == 1
        return known and connection.padding_mode == "zeros" and connection.weight.dtype == torch.float32
    return type(connection) is nn.Linear and connection.weight.dtype == torch.float32
