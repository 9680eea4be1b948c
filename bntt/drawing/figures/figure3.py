"""Figure 3: the mean gamma of each layer in each time-step, and the step of early exit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bntt.common.text import DASH, counted, number
from bntt.drawing import palette
from bntt.drawing.figures import style
from bntt.paper import figures as paper
from bntt.results.collect import at_threshold, select
from bntt.results.waves import clear_peak, marked

COLOURS = "mako"  # low values are dark, so that the yellow line is visible where gamma is small


def layer_means(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of ``value`` over channels (and seeds) for one row: layers by time-steps."""
    return frame.groupby(["layer", "time_step"], sort=False)[value].mean().unstack("time_step").sort_index(axis=1)


def peaks(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """For each layer, the time-step at which the mean of ``value`` (gamma or spikes) is largest, a column per row.

    The word ``none`` stands for a mean without a clear peak; see `clear_peak`.
    """
    means = {row: layer_means(select(frame, row=row), value) for row in style.paper_first(frame["row"])}
    of_rows = {row: one.apply(lambda curve: clear_peak(curve.dropna()) or "none", axis=1) for row, one in means.items()}
    return pd.DataFrame(of_rows).rename_axis(index="layer").fillna(DASH)


@style.styled
def draw(
    gamma: pd.DataFrame,
    early_exit: pd.DataFrame,
    summary: pd.DataFrame,
    rows: Sequence[str] = ("bntt",),
    threshold: float = paper.THRESHOLD,
) -> Figure:
    """Figure 3: heat maps of mean gamma, with the values as text, and the exit step as a yellow dotted line.

    All panels share one colour scale. With several seeds, gamma is their mean, and each seed's exit has a line. A cell
    is hatched if at least half of its gammas, over channels and seeds, are within 1 % of what decay alone makes them.
    """
    gamma = gamma.assign(undriven=marked(gamma, summary))
    maps = {row: layer_means(of_row, "gamma") for row in rows if len(of_row := select(gamma, row=row))}
    maps = {row: one.round(2) + 0.0 for row, one in maps.items()}  # so that a mean of -0.001 is written as 0.00
    of_paper = style.one_dataset(summary) == paper.DATASET

    steps = max((one.shape[1] for one in maps.values()), default=paper.STEPS)
    layers = max((one.shape[0] for one in maps.values()), default=8)
    heights = [0.29 * layers + 0.75 if row in maps else 1.0 for row in rows]
    figure = style.canvas(max(7.0, 0.41 * steps + 1.9), sum(heights) + 0.8)
    if maps:
        figure.suptitle(f"Threshold: {threshold:g}", fontsize=11)
    grid = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)
    panels = dict(zip(rows, grid.flatten(), strict=True))
    values = np.concatenate([[0.0, 0.1], *(one.to_numpy().ravel() for one in maps.values())])
    scale = Normalize(np.nanmin(values), np.nanmax(values))
    for row, axes in panels.items():
        axes.grid(False)
        if row not in maps:
            axes.set_title(style.labelled(summary, row), fontsize=9.5)
            style.empty_panel(axes, style.gap(summary, row) or "no γ that changes with time")
            continue
        _heat_map(axes, maps[row], scale)
        _hatch(axes, layer_means(select(gamma, row=row), "undriven") >= 0.5)
        ends, words = exits(select(early_exit, row=row), threshold)
        for end in ends:
            axes.axvline(end, color=palette.YELLOW, linestyle=(0, (1.2, 1)), linewidth=2.4, gid="exit")
        if of_paper and steps == paper.STEPS:
            axes.axvline(paper.EXIT_STEP, color="white", linestyle=(0, (4, 3)), linewidth=1, gid="paper")
        name = style.labelled(summary, row)
        axes.set_title("; ".join(filter(None, [f"{name}: {words}", _decay_budget(summary, row)])), fontsize=9.5)
    if maps:
        panels[list(maps)[-1]].set_xlabel("Time-steps")
        figure.colorbar(
            ScalarMappable(scale, seaborn.color_palette(COLOURS, as_cmap=True)),
            ax=[panels[row] for row in maps],
            label="Average γ",
            aspect=14 * len(maps),
            pad=0.01,
        )
    several = any(select(gamma, row=row)["seed"].nunique() > 1 for row in maps)
    lines = {one.get_gid() for axes in panels.values() for one in [*axes.lines, *axes.patches]}
    style.caption(
        figure,
        style.data_sentence(summary, rows),
        f"γ: mean over channels{' and seeds' if several else ''}." if maps else "",
        f"Yellow dotted line: early exit; after it, γ of every layer stays below {threshold:g}."
        if "exit" in lines
        else "",
        "Decay budget: sum of learning rate times weight decay on γ, over 1 - momentum."
        if any(_decay_budget(summary, row) for row in maps)
        else "",
        "Hatched: at least half of the γ are within 1 % of the value that decay alone gives them."
        * ("undriven" in lines),
        f"White dashed line: the paper's exit, t = {paper.EXIT_STEP}." if "paper" in lines else "",
    )
    return figure


def exits(early_exit: pd.DataFrame, threshold: float) -> tuple[list[int], str]:
    """The distinct exit steps of a row's seeds at a threshold, and a text that also counts seeds without an exit."""
    if early_exit.empty:
        return [], "exit not measured"
    at = at_threshold(early_exit, threshold)
    if at.empty:
        return [], f"exit not measured at {threshold:g}"
    ends = sorted({int(step) for step in at.loc[at["exits"] == 1, "exit_step"]})
    words = [f"early exit at t = {' or '.join(map(str, ends))}"] if ends else []
    if len(never := at[at["exits"] == 0]):
        words.append("no exit" + (f" for {len(never)} of {counted(len(at), 'seed')}" if ends else ""))
    return ends, ", ".join(words)


def _heat_map(axes: Axes, means: pd.DataFrame, scale: Normalize) -> None:
    cells: Any = {"linewidths": 0.3, "linecolor": "#ffffff40", "xticklabels": True, "yticklabels": True}
    printed: Any = {"annot": means.map(number), "fmt": "", "annot_kws": {"fontsize": 7}}
    seaborn.heatmap(means, ax=axes, cmap=COLOURS, norm=scale, cbar=False, **printed, **cells)
    axes.set(xlabel="", ylabel="Layer")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)


def _hatch(axes: Axes, cells: pd.DataFrame) -> None:
    for layer, step in np.argwhere(cells.to_numpy()):
        axes.add_patch(
            Rectangle((step, layer), 1, 1, fill=False, hatch="////", edgecolor="#ffffff50", linewidth=0, gid="undriven")
        )


def _decay_budget(summary: pd.DataFrame, row: str) -> str:
    budget = pd.to_numeric(select(summary, row=row)["decay_budget"]).mean()
    return "" if pd.isna(budget) else f"decay budget {budget:.1f} e-folds"
