"""The figures of docs/wave.md: the law, predicted and measured steps, and rows that differ in the decay of gamma.

As the paper's figures, they are pure functions from measured frames. `bntt.results.wave_study` says what is compared.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bntt.common.text import counted, number
from bntt.drawing import palette
from bntt.drawing.figures import style
from bntt.results.collect import select
from bntt.results.law import leaky_layers
from bntt.training.paths import driven

FLOOR = 1e-9  # of gradients as shares of the first; the law's smallest share here is above it


def _by_depth(layers: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each layer, dark for the first; the lightest ones would be lost on white."""
    return dict(zip(layers, seaborn.color_palette("viridis", round(1.15 * len(layers))), strict=False))


@style.styled
def draw_law(gradients: pd.DataFrame, leaks: Mapping[str, float]) -> Figure:
    """The gradient of gamma before training, as a share of that of the first step, and the law, a panel for each row.

    ``leaks`` names the rows and their leaks. Gradients are means over seeds of the logarithm.
    """
    before = select(gradients, epoch=0)
    figure = style.canvas(3.5 * min(len(leaks), 4) + 0.8, 3.9)
    panels = figure.subplots(1, len(leaks), sharey=True, squeeze=False).flatten()
    seeds = 0
    for axes, (row, leak) in zip(panels, leaks.items(), strict=True):
        axes.set_title(f"leak {leak:g} ({row})")
        axes.set(xlabel="Time-steps", yscale="log")
        of_row = select(before, row=row)
        if of_row.empty:
            style.empty_panel(axes, "no result yet")
            continue
        seeds = max(seeds, of_row["seed"].nunique())
        depths = leaky_layers(of_row["layer"])
        colours = _by_depth(list(depths))
        for layer, m in depths.items():
            colour = colours[layer]
            by_seed = select(of_row, layer=layer).pivot(index="time_step", columns="seed", values="gamma")
            curve = np.log(by_seed).mean(axis=1)
            shares = np.exp(curve - curve.iloc[0]).clip(lower=FLOOR)
            axes.plot(shares.index, shares, "o", color=colour, markersize=3, label=layer)
            axes.plot(shares.index, driven(m, len(shares), leak), color=colour, linewidth=1.1)
    panels[0].set_ylabel("rms ∂L/∂γ, relative to t = 1")
    handles, labels = max((axes.get_legend_handles_labels() for axes in panels), key=lambda one: len(one[1]))
    if handles:
        columns = min(len(handles), 4 * len(panels))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, handletextpad=0.1, columnspacing=1.0)
    style.caption(
        figure,
        f"Data: n = {counted(seeds, 'seed')}, before training." if seeds else "",
        "Dots: root mean square over channels of the gradient that reaches γ on a fixed batch. Lines: the law, "
        "P_m(T − t) / P_m(T − 1), with m leaky layers between the current and the loss; nothing is fitted.",
    )
    return figure


MARKERS = "osD^"
SETTINGS = (palette.VERMILLION, palette.BLUE, palette.GREEN, palette.INK)
VERSIONS = {
    "absolute": "Measured first gradients:\none constant",
    "first step": "Law, size from the first step:\none constant",
    "relative": "Law, shape alone:\none constant a layer",
    "same step": "No law:\nthe same step",
    "same share": "No law:\nthe same share of T",
}


@style.styled
def draw_steps(steps: pd.DataFrame, outcome: str, versions: Sequence[str]) -> Figure:
    """Measured against predicted steps of `bntt.results.wave_study.predicted`, a panel for each of the ``versions``.

    ``outcome`` says in words what the step is.
    """
    lines, columns = style.panel_grid(len(versions))
    figure = style.canvas(3.5 * columns + 0.6, 4.2 * lines + 0.9)
    panels = style.panels(figure, len(versions))
    most = max(steps[[*versions, "measured"]].max().max() if len(steps) else 0, 1) + 1
    looks = dict(zip(dict.fromkeys(steps["row"]), product(MARKERS, SETTINGS), strict=False))
    for axes, version in zip(panels, versions, strict=True):
        error = (steps[version] - steps["measured"]).abs().median()
        axes.plot([0, most], [0, most], color=palette.GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        for row, part in steps.groupby("row", sort=False):
            marker, colour = looks[str(row)]
            axes.plot(part[version], part["measured"], marker, color=colour, label=row, alpha=0.85)
        axes.set_title(f"{VERSIONS[version]}\nmedian error {number(error, 1)} steps")
        axes.set(xlabel="Predicted step", xlim=(-0.7, most), ylim=(-0.7, most), aspect="equal")
    for axes in panels[::columns]:
        axes.set_ylabel(f"Measured step: {outcome}")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), 6))
    style.caption(
        figure,
        f"One mark for each layer and setting: {len(steps)}. Means over seeds. Constants are fitted on the centre "
        "alone, which is not shown. Dashed: predicted and measured agree.",
    )
    return figure


@style.styled
def draw_rows(
    quartiles: pd.DataFrame, spikes: pd.DataFrame, anytime: pd.DataFrame, summary: pd.DataFrame, rows: Sequence[str]
) -> Figure:
    """Mean gamma, spikes and accuracy against time-steps, with a line for each row; means over layers and seeds."""
    figure = style.canvas(12.0, 4.4)
    panels = figure.subplots(1, 3)
    looks = style.looks(rows)
    of_panels = (
        (panels[0], quartiles, "mean", "Mean γ over layers"),
        (panels[1], spikes, "spikes", "Spikes per neuron and step, mean over layers"),
        (panels[2], anytime, "accuracy", "Accuracy after t steps (%)"),
    )
    for axes, frame, value, label in of_panels:
        axes.set(xlabel="Time-steps", ylabel=label)
        for row in rows:
            if len(of_row := select(frame, row=row)):
                _line(axes, of_row, value, looks[row], row)
    panels[2].set_ylim(top=min(101, panels[2].get_ylim()[1]))
    handles, labels = panels[2].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), 5))
    style.caption(figure, style.data_sentence(summary, rows, in_paper=False), "Bands: ± 1 s.d. over seeds.")
    return figure


def _line(axes: Axes, frame: pd.DataFrame, value: str, look: style.Look, label: str) -> None:
    of_seeds = frame.groupby(["time_step", "seed"])[value].mean().groupby("time_step").agg(["mean", "std"])
    steps, mean, std = of_seeds.index, of_seeds["mean"], of_seeds["std"].fillna(0)
    axes.plot(steps, mean, color=look.color, linestyle=look.linestyle, marker=look.marker, markevery=4, label=label)
    axes.fill_between(steps, mean - std, mean + std, color=look.color, alpha=0.18, linewidth=0)
