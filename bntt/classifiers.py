"""The interface of a trained classifier for measurements: from images to the running logits of every time-step.

A method makes one of these two classes from its weights. A dense classifier has one time-step.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bntt.data.images import ImageData
from bntt.spiking.encoding import encode, rates
from bntt.spiking.kernels import spikes_held_in
from bntt.spiking.layers import LayerStep
from bntt.spiking.networks import DenseNetwork, SpikingNetwork, WeightLayer

Observer = Callable[[int, str, LayerStep], None]


class SpikingClassifier:
    """A spiking network on Poisson-coded images, or on the frames of recordings.

    With ``rates``, recordings are Poisson-coded too; the rate is the share of frames with an event.
    """

    spiking = True

    def __init__(self, network: SpikingNetwork, signed: bool, chunk: int = 25, rates: bool = False) -> None:
        self.network, self.signed, self.chunk, self.rates = network.eval(), signed, chunk, rates

    @property
    def time_steps(self) -> int:
        return self.network.time_steps

    @property
    def layers(self) -> list[WeightLayer]:
        return self.network.description

    def scaled(self, data: ImageData, unit: Tensor) -> Tensor:
        return rates(unit, self.signed) if self.rates else data.scaled(unit, self.signed)

    @torch.no_grad()
    def running_logits(
        self, scaled: Tensor, samples: Tensor, key: int, observe: Observer | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(start, logits [t, N, classes])`` by chunks; ``logits[i]`` is the output after start + i + 1 steps.

        ``observe(start, layer, step)`` gets the `LayerStep` of each layer and chunk. Memory does not grow with T.
        """
        state: dict[str, Tensor] = {}
        held_in = spikes_held_in(scaled)
        voltage = torch.zeros((), device=scaled.device)
        for start in range(0, self.time_steps, self.chunk):
            steps = min(self.chunk, self.time_steps - start)
            spikes = encode(scaled, steps, key, samples, signed=self.signed, start=start, dtype=held_in)
            watch = None if observe is None else partial(observe, start)
            running = self.network.resume(spikes, start, state, watch).cumsum(0) + voltage
            voltage = running[-1]
            if self.network.readout == "mean":
                running = running / torch.arange(start + 1, start + steps + 1, device=running.device)[:, None, None]
            yield start, running

    def gammas(self) -> dict[str, Tensor]:
        """Learned scale ``[T, C]`` of each layer whose norm has one for each time-step; empty if none has."""
        scales = {name: norm.temporal_scale() for name, norm in self.network.norms().items()}
        return {name: scale for name, scale in scales.items() if scale is not None}


class DenseClassifier:
    """A dense network. Its input is the expected value of the spikes that its conversion would get."""

    spiking = False
    rates = False
    time_steps = 1

    def __init__(self, network: DenseNetwork, signed: bool) -> None:
        self.network, self.signed = network.eval(), signed

    @property
    def layers(self) -> list[WeightLayer]:
        return self.network.description

    def scaled(self, data: ImageData, unit: Tensor) -> Tensor:
        return data.scaled(unit, self.signed)

    @torch.no_grad()
    def running_logits(
        self, scaled: Tensor, samples: Tensor, key: int, observe: Observer | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        yield 0, self.network(rates(scaled, self.signed))[None]

    def gammas(self) -> dict[str, Tensor]:
        return {}


Classifier = SpikingClassifier | DenseClassifier
