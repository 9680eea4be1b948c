"""Figure 1: the average number of spikes of each layer in each time-step."""

import textwrap
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bntt.common.text import listed
from bntt.drawing.figures import style
from bntt.results.collect import select
from bntt.results.dead import silent_layers

PANELS = ("conversion", "surrogate", "bntt")  # (a), (b), (c) of the paper
_LINES = ["-", (0, (5, 1.5)), (0, (1, 1.1)), (0, (5, 1.5, 1, 1.5))]


@style.styled
def draw(spikes: pd.DataFrame, summary: pd.DataFrame, rows: Sequence[str] = PANELS) -> Figure:
    """Figure 1: a panel for each row, a line for each layer, over the row's own T.

    With several seeds: mean, and a band of one standard deviation. Dots mark the peaks of layers that rise and fall.
    A panel names the layers that never spike.
    """
    lines, columns = style.panel_grid(len(rows))
    figure = style.canvas(3.55 * columns + 0.9, 3.0 * lines + 0.45)
    layers = style.layers_by_depth(spikes[spikes["row"].isin(rows)])
    colours = colormaps["plasma"]
    looks: dict[str, tuple[Any, Any]] = {  # deeper layers are brighter
        layer: (colours(0.85 * depth / max(len(layers) - 1, 1)), _LINES[depth % len(_LINES)])
        for depth, layer in enumerate(layers)
    }
    panels = style.panels(figure, len(rows))
    for position, (axes, row) in enumerate(zip(panels, rows, strict=True)):
        letter = ascii_lowercase[position % 26] * (1 + position // 26)  # ... y, z, aa, bb
        axes.set_title(f"({letter}) {style.labelled(summary, row)}")
        if (of_row := select(spikes, row=row)).empty:
            style.empty_panel(axes, style.gap(summary, row) or "no time-steps: this row does not spike")
        elif not (of_row["spikes"] > 0).any():
            style.empty_panel(axes, "no spike in any layer")
        else:
            _panel(axes, of_row, looks)
        if position % columns == 0:
            axes.set_ylabel("Average number of spikes\n(per neuron and time-step)")
    if any(axes.lines for axes in panels):
        handles = [Line2D([], [], color=c, linestyle=s, label=k) for k, (c, s) in looks.items()]
        figure.legend(handles=handles, title="Layer", loc="outside right center")
    drawn = {part.get_gid() for axes in panels for part in axes.get_children()}
    heights = {axes.get_ylim() for axes in panels if axes.lines}
    style.caption(
        figure,
        style.data_sentence(summary, rows),
        "Mean over seeds, bands: ± 1 s.d." if "band" in drawn else "",
        "Dots: peaks of layers that end below half their peak." if "peak" in drawn else "",
        "The panels' vertical axes differ." if len(heights) > 1 else "",
    )
    return figure


def _panel(axes: Axes, spikes: pd.DataFrame, looks: dict[str, tuple[Any, Any]]) -> None:
    means = style.over_seeds(spikes, ["layer", "time_step"], "spikes")
    for layer, of_layer in means.groupby("layer", sort=False):
        colour, line = looks[str(layer)]
        steps, mean, std = of_layer["time_step"], of_layer["mean"], of_layer["std"]
        axes.plot(steps, mean, color=colour, linestyle=line, linewidth=1.4, label=layer)
        if std.notna().any():
            axes.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0, gid="band")
        peak = mean.idxmax()
        if mean.iloc[-1] < mean[peak] / 2:
            dot: Any = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
            axes.plot(steps[peak], mean[peak], "o", color=colour, zorder=3, gid="peak", **dot)
    steps = int(spikes["time_step"].max())
    axes.set(xlabel="Time-steps", xlim=(0.5 if steps < 60 else 0, steps + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(bottom=0)
    if silent := silent_layers(means.assign(spikes=means["mean"])):
        words = f"no spike in {listed(silent)}"
        axes.set_title("\n".join([axes.get_title(), *textwrap.wrap(words, 40)]))
