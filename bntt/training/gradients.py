"""The gradients that reach each hidden layer at each time-step, on a fixed batch: ``gradients.csv``.

The option ``gradient_epochs`` of `surrogate`, and of the methods that extend it, asks for them. They are measured in
float32 with the moments of the batch. Measuring changes neither the training nor what the norms track.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from bntt.spiking.layers import SpikingLayer
from bntt.spiking.norms import TemporalNorm

COLUMNS = {
    "epoch": "Epochs that were done; 0 is before training.",
    "layer": "Hidden layer, conv1 first.",
    "time_step": "1..T.",
    "membrane": "Root mean square of the gradient of the membrane, over samples and neurons.",
    "gamma": "Root mean square over channels of the gradient of gamma; empty if gamma does not change with time.",
    "gamma_mean": "Mean over channels of the gradient of gamma; where it is negative, training raises gamma.",
    "scale": "Mean over channels of gamma itself.",
}
MEASURED = [column for column in COLUMNS if column not in ("epoch", "layer", "time_step")]
SAMPLES = 64  # training images of the batch, from the first on


def measure(layers: Mapping[str, SpikingLayer], loss: Callable[[], Tensor]) -> list[dict[str, Any]]:
    """One row per layer and time-step, without the column ``epoch``, of the gradients of ``loss()``.

    ``loss`` runs a network that has these ``layers``, over all time-steps at once. The gradient of a membrane u[t] is
    that of the current that enters it, behind the norm.
    """
    entering: dict[str, Tensor] = {}
    norms = {name: layer.norm for name, layer in layers.items() if layer.norm is not None}
    scales = {name: norm.gamma for name, norm in norms.items() if norm.gamma_per_step}
    with _untracked(norms.values()), ExitStack() as hooks, torch.enable_grad():
        for name, layer in layers.items():
            hooks.callback(_on_entering(layer, _keep(entering, name)).remove)
        found = torch.autograd.grad(loss(), [*(entering[name] for name in layers), *scales.values()])
    of_gammas = dict(zip(scales, found[len(layers) :], strict=True))
    rows = []
    for name, of_membrane in zip(layers, found, strict=False):
        columns = {"membrane": _root_mean_square(of_membrane)}
        if name in of_gammas:
            gradient, scale = of_gammas[name], scales[name].detach()
            columns |= {"gamma": _root_mean_square(gradient), "gamma_mean": gradient.mean(1), "scale": scale.mean(1)}
        for t in range(len(of_membrane)):
            values = {column: float(columns[column][t]) if column in columns else math.nan for column in MEASURED}
            rows.append({"layer": name, "time_step": t + 1, **values})
    return rows


def _root_mean_square(values: Tensor) -> Tensor:
    """Of each step of ``values [T, ...]``; in float64, as squares of small float32 numbers may vanish."""
    return values.double().flatten(1).square().mean(1).sqrt()


def _on_entering(layer: SpikingLayer, keep: Callable[[Tensor], None]) -> Any:
    """A hook that shows the current which enters the membranes: what leaves the norm, or what reaches the neuron."""
    if layer.norm is not None:
        return layer.norm.register_forward_hook(lambda module, given, made: keep(made))
    return layer.neuron.register_forward_pre_hook(lambda module, given: keep(given[0]))


def _keep(entering: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def keep(current: Tensor) -> None:
        entering[name] = current

    return keep


@contextmanager
def _untracked(norms: Iterable[TemporalNorm]) -> Iterator[None]:
    """A context in which norms do not track moments."""
    tracked = [(norm, norm.tracks) for norm in norms]
    try:
        for norm, _ in tracked:
            norm.tracks = False
        yield
    finally:
        for norm, tracks in tracked:
            norm.tracks = tracks
