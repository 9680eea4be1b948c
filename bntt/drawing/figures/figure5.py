"""Figure 5: how the gammas of a layer are distributed at each time-step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bntt.common.text import number
from bntt.drawing import palette
from bntt.drawing.figures import style
from bntt.paper import figures as paper
from bntt.results.collect import select
from bntt.results.waves import clear_peak, marked

LAYERS = ("conv1", "conv4", "conv7")  # rows 1, 2, 3 of the paper
BINS = 30
HEIGHT = 0.84  # of the highest bar; neighbouring time-steps are 1 apart


@style.styled
def draw(gamma: pd.DataFrame, summary: pd.DataFrame, row: str = "bntt", layers: Sequence[str] = LAYERS) -> Figure:
    """Figure 5: for each of ``layers``, a panel of histograms of gamma over channels, one for each time-step.

    Each histogram stands at its time-step; time runs to the right, as in Figures 1 and 3. The channels of several
    seeds are pooled. A line shows the mean; the histogram at its peak has another colour, if it is a clear one. Gammas
    within 1 % of what decay alone makes of them are the grey part of a bar.
    """
    of_row = select(gamma.assign(undriven=marked(gamma, summary)), row=row)
    parts = {layer: part for layer in layers if len(of_row) and len(part := select(of_row, layer=layer))}
    of_paper = style.one_dataset(summary) == paper.DATASET

    steps = int(of_row["time_step"].max()) if parts else paper.STEPS
    figure = style.canvas(max(7.0, 0.38 * steps + 1.2), 2.15 * len(layers) + 0.9)
    figure.suptitle(f"Histograms of γ: {style.labelled(summary, row)}", fontsize=11)
    panels = figure.subplots(len(layers), 1, sharex=bool(parts), sharey=bool(parts), squeeze=False).flatten()
    drawn = of_row.loc[of_row["layer"].isin(layers), "gamma"]
    edges = np.linspace(min(0.0, drawn.min()), max(0.1, drawn.max()), BINS + 1)
    for axes, layer in zip(panels, layers, strict=True):
        if layer in parts:
            printed = paper.PEAK_STEPS.get(layer) if of_paper and steps == paper.STEPS else None
            _histograms(axes, layer, parts[layer], edges, printed)
        else:
            axes.set_title(layer, loc="left")
            missing = f"no layer {layer}" if parts else style.gap(summary, row) or "no γ that changes with time"
            style.empty_panel(axes, missing)
    if parts:
        last = [axes for axes, layer in zip(panels, layers, strict=True) if layer in parts][-1]
        last.set_xlabel("Time-steps")
        last.tick_params(labelbottom=True)
    drawn_too = {one.get_gid() for axes in panels for one in axes.get_children()}
    style.caption(
        figure,
        style.data_sentence(summary, [row]),
        "One histogram over channels for each time-step; its bars point right and are scaled to the highest bar. "
        f"Line: mean γ{'; its peak is the histogram in another colour' if 'peak' in drawn_too else ''}."
        if parts
        else "",
        "Grey: γ within 1 % of the value that decay alone gives it." if "undriven" in drawn_too else "",
        "Dotted: the paper's peak." if "paper" in drawn_too else "",
    )
    return figure


def histograms(gamma: pd.DataFrame, edges: np.ndarray) -> pd.DataFrame:
    """Number of channels in each bin, for the gammas of one layer: time-steps by bins."""
    counts = {step: np.histogram(part, edges)[0] for step, part in gamma.groupby("time_step")["gamma"]}
    return pd.DataFrame.from_dict(counts, orient="index")


def _histograms(axes: Axes, layer: str, gamma: pd.DataFrame, edges: np.ndarray, printed: int | None) -> None:
    mean = gamma.groupby("time_step")["gamma"].mean()
    peak = clear_peak(mean)
    counts, alone = histograms(gamma, edges), histograms(gamma[gamma["undriven"]], edges)
    for step, bars in counts.iterrows():
        foot = step - HEIGHT / 2
        colour = palette.VERMILLION if step == peak else palette.BLUE
        axes.vlines(foot, edges[0], edges[-1], color=palette.FAINT, linewidth=0.6, zorder=1)
        axes.stairs(
            foot + HEIGHT * bars.to_numpy() / max(bars.max(), 1),
            edges,
            baseline=foot,
            orientation="horizontal",
            fill=True,
            color=colour,
            alpha=1.0 if step == peak else 0.55,
            gid="peak" if step == peak else None,
        )
        if step in alone.index:
            undriven = foot + HEIGHT * alone.loc[step].to_numpy() / max(bars.max(), 1)
            axes.stairs(undriven, edges, baseline=foot, orientation="horizontal", fill=True, color=palette.GREY,
                        gid="undriven")  # fmt: skip
    axes.plot(mean.index, mean, "o-", color=palette.INK, linewidth=1, markersize=3.2, markeredgecolor="white",
              markeredgewidth=0.5)  # fmt: skip
    if printed is not None:
        axes.axvline(printed, color=palette.GREY, linestyle=(0, (1, 1.5)), linewidth=1.2, gid="paper")
    low, high, end = (number(value) for value in (mean.min(), mean.max(), mean.iloc[-1]))
    course = f"has no clear peak, is {low} to {high}" if peak is None else f"peaks at t = {peak} with {high}"
    axes.set_title(f"{layer}: mean γ {course}, ends with {end}", loc="left")
    axes.set_ylabel("γ", rotation=0, labelpad=8)
    axes.set(xlim=(0.35, len(mean) + 0.65), xticks=mean.index)
    axes.grid(False, axis="x")
    axes.tick_params(axis="x", length=0)
