"""The interface of a trained classifier for measurements: from images to the running logits of every time-step.

A method makes one of these classes from its weights. All but the spiking one have a single time-step.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bntt.data.events.streams import Streams
from bntt.data.images import ImageData, Images
from bntt.spiking.encoding import encode, rates
from bntt.spiking.kernels import spikes_held_in
from bntt.spiking.layers import LayerStep
from bntt.spiking.networks import DenseNetwork, WeightLayer
from bntt.spiking.norms import TemporalNorm

Observer = Callable[[int, str, LayerStep], None]


class Resumable(Protocol):
    """A spiking network as a classifier needs it: `SpikingNetwork`, or a `StatefulNetwork` of any neuron."""

    description: list[WeightLayer]
    time_steps: int
    readout: str

    def resume(
        self,
        spikes: Tensor,
        start: int,
        state: dict[str, Any],
        observe: Callable[[str, LayerStep], None] | None = None,
    ) -> Tensor:
        """Contributions of steps ``start ..`` to the logits, ``[T, N, classes]``; ``state`` is updated."""

    def norms(self) -> dict[str, TemporalNorm]:
        """The temporal norm of every layer that has one."""

    def eval(self) -> nn.Module:
        """Switch to inference."""


class SpikingClassifier:
    """A spiking network on Poisson-coded images, or on the frames of recordings.

    With ``rates``, recordings are Poisson-coded too; the rate is the share of frames with an event.
    """

    spiking = True
    not_spiking = ""  # why there are no spikes to count

    def __init__(self, network: Resumable, signed: bool, chunk: int = 25, rates: bool = False) -> None:
        network.eval()
        self.network, self.signed, self.chunk, self.rates = network, signed, chunk, rates

    @property
    def time_steps(self) -> int:
        return self.network.time_steps

    @property
    def layers(self) -> list[WeightLayer]:
        return self.network.description

    def scaled(self, data: ImageData, unit: Tensor) -> Tensor:
        return rates(unit, self.signed) if self.rates else data.scaled(unit, self.signed)

    def given(self, data: ImageData, part: Images, samples: Tensor) -> Tensor:
        return self.scaled(data, part.unit(samples))

    @torch.no_grad()
    def running_logits(
        self, scaled: Tensor, samples: Tensor, key: int, observe: Observer | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(start, logits [t, N, classes])`` by chunks; ``logits[i]`` is the output after start + i + 1 steps.

        ``observe(start, layer, step)`` gets the `LayerStep` of each layer and chunk. Memory does not grow with T.
        """
        state: dict[str, Any] = {}
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
    not_spiking = "a dense network has no spikes"

    def __init__(self, network: DenseNetwork, signed: bool) -> None:
        self.network, self.signed = network.eval(), signed

    @property
    def layers(self) -> list[WeightLayer]:
        return self.network.description

    def scaled(self, data: ImageData, unit: Tensor) -> Tensor:
        return data.scaled(unit, self.signed)

    def given(self, data: ImageData, part: Images, samples: Tensor) -> Tensor:
        return self.scaled(data, part.unit(samples))

    @torch.no_grad()
    def running_logits(
        self, scaled: Tensor, samples: Tensor, key: int, observe: Observer | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        yield 0, self.network(rates(scaled, self.signed))[None]

    def gammas(self) -> dict[str, Tensor]:
        return {}


class EventClassifier:
    """A classifier of recordings by features of their single events; ``decide`` gives its scores.

    ``decide(streams) -> float [N, classes]`` gets the recordings to classify. There is one time-step, and there are no
    layers whose spikes or operations could be counted as those of a network.
    """

    spiking = False
    rates = False
    time_steps = 1
    layers: tuple[WeightLayer, ...] = ()
    not_spiking = "features of single events have no layers of neurons with time-steps"

    def __init__(self, decide: Callable[[Streams], np.ndarray]) -> None:
        self.decide = decide

    def given(self, data: ImageData, part: Images, samples: Tensor) -> Tensor:
        """The scores ``[N, classes]`` of recordings of a part, where its labels are."""
        scores = np.asarray(self.decide(part.streams(samples)), np.float64)
        return torch.from_numpy(scores).to(part.labels.device)

    def scaled(self, data: ImageData, unit: Tensor) -> Tensor:
        """Raise TypeError: these classifiers see events, and not frames."""
        raise TypeError("a classifier of single events is given events, not frames")

    def running_logits(
        self, scaled: Tensor, samples: Tensor, key: int, observe: Observer | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        yield 0, scaled[None]

    def gammas(self) -> dict[str, Tensor]:
        return {}


Classifier = SpikingClassifier | DenseClassifier | EventClassifier
