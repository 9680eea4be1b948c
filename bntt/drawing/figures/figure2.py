"""Figure 2: what a LIF neuron does with its input (a), and its approximate gradient (b). Computed, not measured."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec, SubplotSpec

from bntt.drawing import palette
from bntt.drawing.figures import style

if TYPE_CHECKING:
    from bntt.spiking.neurons import LIF

STEPS = 30
# Three synapses: weight, and the time-steps at which a spike arrives.
SYNAPSES = (
    (0.55, (2, 4, 9, 10, 16, 18, 19, 25)),
    (0.45, (3, 5, 9, 12, 18, 20, 21, 27)),
    (0.30, (4, 5, 10, 13, 17, 19, 22, 23)),
)


@style.styled
def draw(neuron: "LIF") -> Figure:
    """Figure 2: (a) membrane potential, input and output spikes of ``neuron``; (b) its gradient, by autograd."""
    figure = style.canvas(10.2, 4.1)
    grid = figure.add_gridspec(1, 2, width_ratios=[1.9, 1])
    _dynamics(figure, grid[0], neuron)
    _gradient(figure.add_subplot(grid[1]), neuron)
    style.caption(
        figure,
        f"Computed with this project's own LIF neuron: leak λ = {neuron.leak:g}, threshold θ = {neuron.threshold:g},",
        f"{neuron.reset} reset, α = {neuron.alpha:g}. (a) Eq. 4, with input from three synapses; the leak between two",
        "time-steps is drawn as continuous decay. (b) Eq. 8, by automatic differentiation through one time-step.",
    )
    return figure


def membrane(neuron: "LIF", current: np.ndarray) -> pd.DataFrame:
    """Membrane potential before and after each step's reset (Eq. 4): columns time_step, before, after, spike."""
    import torch

    state, rows = None, []
    for t, x in enumerate(torch.as_tensor(current), 1):
        before = (0.0 if state is None else neuron.leak * state.item()) + x.item()
        spikes, state = neuron.resume(x.reshape(1, 1, 1), None, t - 1, state)
        rows.append({"time_step": t, "before": before, "after": state.item(), "spike": int(spikes.item())})
    return pd.DataFrame(rows)


def gradient(neuron: "LIF", potentials: np.ndarray) -> np.ndarray:
    """Derivative of the spike with respect to the membrane potential (Eq. 8), by autograd over one step from rest."""
    import torch

    potential = torch.tensor(potentials, dtype=torch.float64).reshape(1, -1, 1).requires_grad_()
    neuron(potential).sum().backward()
    assert potential.grad is not None
    return potential.grad.flatten().numpy()


def _dynamics(figure: Figure, place: SubplotSpec, neuron: "LIF") -> None:
    parts = GridSpecFromSubplotSpec(3, 1, place, height_ratios=[0.5, 3, 1], hspace=0.02)
    middle = figure.add_subplot(parts[1])
    top, bottom = (figure.add_subplot(parts[k], sharex=middle) for k in (0, 2))
    current = np.zeros(STEPS, dtype=np.float32)
    for weight, arrivals in SYNAPSES:
        current[np.array(arrivals) - 1] += weight
    trace = membrane(neuron, current)
    fired = trace.loc[trace["spike"] == 1, "time_step"]

    top.set_title(f"(a) LIF neuron with {neuron.reset} reset")
    _raster(top, [fired], [palette.VERMILLION], [""])
    weights = [f"w = {weight:.2f}" for weight, _ in SYNAPSES]
    _raster(bottom, [times for _, times in SYNAPSES], [palette.BLUE] * len(SYNAPSES), weights)
    bottom.set_ylabel("Input\nspikes")
    top.set_ylabel("Output\nspikes")

    times, values = [0.0], [0.0]
    for step in trace.itertuples():
        between = np.linspace(0, 1, 20)
        times += [*(step.time_step - 1 + between), step.time_step, step.time_step]
        values += [*(values[-1] * neuron.leak**between), step.before, step.after]
    middle.plot(times, values, color=palette.INK, linewidth=1.3)
    middle.axhline(neuron.threshold, color=palette.VERMILLION, linestyle=(0, (5, 2)), linewidth=1.2)
    middle.text(STEPS + 0.4, 1.03 * neuron.threshold, "threshold θ", color=palette.VERMILLION, ha="right", va="bottom")
    over = trace[trace["spike"] == 1]
    middle.plot(over["time_step"], over["before"], "o", color=palette.VERMILLION, markersize=4.5)
    middle.set(ylabel="Membrane potential u", ylim=(min(0, min(values)) - 0.04, max(values) + 0.2))
    for axes in (top, middle):
        axes.tick_params(labelbottom=False)
    bottom.set(xlabel="Time-steps", xlim=(0, STEPS + 0.5))
    figure.align_ylabels([top, middle, bottom])


def _raster(axes: Axes, times: list[Any], colours: list[str], labels: list[str]) -> None:
    """Vertical marks for spikes, one line of them for each label, the first on top."""
    offsets = list(range(len(times)))[::-1]
    axes.eventplot(times, colors=colours, lineoffsets=offsets, linelengths=0.7, linewidths=1.8)
    axes.set_yticks(offsets, labels)
    axes.set_ylim(-0.6, len(times) - 0.4)
    axes.grid(False, axis="y")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _gradient(axes: Axes, neuron: "LIF") -> None:
    theta = neuron.threshold
    potentials = np.linspace(-0.5, 2.5, 601) * theta
    slope = gradient(neuron, potentials)
    axes.fill_between(potentials, slope, color=palette.BLUE, alpha=0.12, linewidth=0)
    axes.plot(potentials, slope, color=palette.BLUE)
    axes.axvline(theta, color=palette.VERMILLION, linestyle=(0, (5, 2)), linewidth=1.2)
    axes.set_title("(b) Approximate gradient")
    axes.set(xlabel="Membrane potential u", ylabel="Gradient of the spike, ∂o / ∂u")
    axes.set(xlim=(potentials[0], potentials[-1]), ylim=(-0.02 * slope.max(), 1.18 * slope.max()))
    axes.set_xticks([0, theta, 2 * theta], ["0", "θ", "2θ"])
    axes.set_yticks([0, slope.max() / 2, slope.max()], ["0", "α / 2", "α"])
