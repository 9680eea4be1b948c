"""Figure 6: accuracy and exit step against the threshold on gamma."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bntt.drawing import palette
from bntt.drawing.figures import style
from bntt.paper import figures as paper
from bntt.results.collect import select

HEADROOM = 0.25  # above the accuracies, so that their curve does not run along that of the exit steps


@style.styled
def draw(
    early_exit: pd.DataFrame, summary: pd.DataFrame, rows: Sequence[str] = ("bntt",), images: int | None = None
) -> Figure:
    """Figure 6: accuracy (left axis) and exit step (right axis) against the threshold, a panel for each row.

    Error bars are one standard deviation over seeds; with a single seed, one binomial standard error, if the number of
    test ``images`` is given. Open symbols: the rule gives no exit, so all T steps are used.
    """
    lines, columns = style.panel_grid(len(rows))
    figure = style.canvas(max(5.6, 4.7 * columns), 3.5 * lines + 0.8)
    curves: dict[Axes, pd.DataFrame] = {}
    for axes, row in zip(style.panels(figure, len(rows)), rows, strict=True):
        axes.set_title(style.labelled(summary, row))
        if (of_row := select(early_exit, row=row)).empty:
            style.empty_panel(axes, style.gap(summary, row) or "no γ that changes with time")
        else:
            curves[axes] = _panel(axes, of_row, images)
    points = pd.concat(curves.values()) if curves else pd.DataFrame(columns=["mean", "error", "count"])
    low, high = (points["mean"] - points["error"]).min(), (points["mean"] + points["error"]).max()
    for axes in curves:  # the same axis, so that rows can be compared
        style.accuracy_axis(axes, low, high, HEADROOM)
    dataset = style.one_dataset(summary)
    chance = any([style.chance_line(axes, dataset) for axes in curves])
    drawn = {handle.get_label(): handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]}
    if drawn:
        handles = [drawn[label] for label in sorted(drawn, key=str)]  # the curves, then the paper's threshold
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    marked = {line.get_gid() for axes in figure.axes for line in axes.lines}
    style.caption(
        figure,
        style.data_sentence(summary, rows),
        "Open symbols: no exit, since γ of some layer reaches the threshold at the last step; all T steps are used."
        if "no exit" in marked
        else "",
        style.errors_sentence(points["count"], images),
        style.chance_sentence(chance, dataset),
    )
    return figure


def _panel(axes: Axes, early_exit: pd.DataFrame, images: int | None) -> pd.DataFrame:
    """Both curves of one row. Returns that of the accuracy, as `over_seeds`, with the ``error`` of each point."""
    accuracy = style.over_seeds(early_exit, "threshold", "accuracy")
    step = style.over_seeds(early_exit, "threshold", "exit_step")
    exits = early_exit.groupby("threshold", sort=False)["exits"].min().reset_index(drop=True) == 1
    errors = style.accuracy_errors(accuracy, images)

    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.grid(False)
    curves = (
        (axes, accuracy, errors, palette.BLUE, "o", "-", "Accuracy"),
        (right, step, step["std"].fillna(0), palette.VERMILLION, "s", (0, (5, 1.5)), "Early exit time"),
    )
    for side, curve, bars, colour, marker, line, label in curves:
        x, y = curve["threshold"], curve["mean"]
        side.errorbar(x, y, yerr=bars, color=colour, linestyle=line, marker=marker, label=label)
        if not exits.all():
            side.plot(x[~exits], y[~exits], marker, color=colour, markerfacecolor="white", zorder=5, gid="no exit")
        side.tick_params(axis="y", colors=colour)
    axes.axvline(paper.THRESHOLD, color=palette.GREY, linestyle=(0, (1, 1.2)), linewidth=1.4, gid="paper",
                 label=f"Paper's threshold, {paper.THRESHOLD:g}")  # fmt: skip

    axes.set_xlabel("Threshold for γ")
    axes.set_ylabel("Accuracy (%)", color=palette.BLUE)
    right.set_ylabel("Early exit time (time-steps)", color=palette.VERMILLION)
    right.set_ylim(0, 1.08 * step["mean"].max())
    right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    return accuracy.assign(error=errors)
