"""Figure 4: spike counts of each layer (a) and accuracy under noise (b), all methods side by side."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from bntt.common.text import counted, listed, number
from bntt.drawing.figures import style
from bntt.results.collect import last_step, select
from bntt.results.realisations import CASE, spreads

ROWS = ("bntt", "surrogate", "conversion", "ann")  # of the paper
_SPACES = {"pixel": "added to images in [0, 1], then clipped", "normalised": "added to images after scaling, unclipped"}


@style.styled
def draw(
    spikes: pd.DataFrame,
    anytime: pd.DataFrame,
    noise: pd.DataFrame,
    summary: pd.DataFrame,
    rows: Sequence[str] = ROWS,
    images: int | None = None,
) -> Figure:
    """Figure 4: (a) spikes per neuron over all T, log axis; (b) accuracy against the noise's standard deviation.

    Error bars are one standard deviation over seeds. With a single seed, those of (b) are one binomial standard error,
    if the number of test ``images`` is given.
    """
    rows = style.paper_first(rows)
    names = {row: style.labelled(summary, row) for row in rows}
    figure = style.canvas(11.5, 5.1)
    left, right = figure.subplots(1, 2)
    dead = _spike_counts(left, spikes, anytime, names)
    counts = _accuracy_under_noise(right, noise, names, images, measured=anytime["row"].isin(rows).any())
    dataset = style.one_dataset(summary)
    chance = bool(counts) and style.chance_line(right, dataset)
    spaces = [_SPACES.get(space, space) for space in noise["space"].unique()]
    bars = any(len(curve.lines[2]) for curve in left.containers)
    style.caption(
        figure,
        style.data_sentence(summary, rows),
        "(a) Sum over all T steps; legend: accuracy / T." if left.containers else "",
        "Error bars: ± 1 s.d. over seeds." if bars else "",
        "Open triangles: layers without a spike." if dead else "",
        f"(b) Gaussian noise, {' or '.join(spaces)}; rows with the same seed see the same noisy images."
        if spaces
        else "",
        style.errors_sentence(counts, images),
        style.chance_sentence(chance, dataset),
    )
    return figure


@style.styled
def draw_spaces(realisations: pd.DataFrame, summary: pd.DataFrame, rows: Sequence[str] = ROWS) -> Figure:
    """Panel (b) for noise in both spaces, from ``noise_draws.csv``: mean over realisations and seeds, in two panels.

    Error bars are one standard deviation over seeds of the mean over realisations. The thin line behind each curve
    spans the lowest to the highest of all realisations and seeds.
    """
    rows = [row for row in style.paper_first(rows) if len(select(realisations, row=row))]
    names = {row: style.labelled(summary, row) for row in rows}
    looks = style.looks(rows)
    figure = style.canvas(10.5, 4.6)
    panels = figure.subplots(1, len(_SPACES), sharey=True)
    for axes, (space, words) in zip(panels, _SPACES.items(), strict=True):
        axes.set(title=f"Noise {words}", xlabel="Noise stddev σ")
        of_space = select(realisations, space=space)
        for row in rows:
            of_row = select(of_space, row=row)
            of_sigma = of_row.groupby("sigma")["accuracy"]
            of_seeds = of_row.groupby(["sigma", "seed"])["accuracy"].mean().groupby("sigma")
            axes.vlines(of_sigma.min().index, of_sigma.min(), of_sigma.max(), color=looks[row].color, linewidth=0.6)
            bars = of_seeds.std().fillna(0)
            axes.errorbar(bars.index, of_seeds.mean(), yerr=bars, label=names[row], **looks[row]._asdict())
    panels[0].set_ylabel("Accuracy (%)")
    chance = any([style.chance_line(axes, style.one_dataset(summary)) for axes in panels])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(len(handles), 1))
    draws, seeds = realisations["draw"].nunique(), realisations["seed"].nunique()
    style.caption(
        figure,
        style.data_sentence(summary, rows),
        f"Mean over {counted(draws, 'realisation')} of the noise and over seeds.",
        "Error bars: ± 1 s.d. over seeds of this mean over realisations." if seeds > 1 else "",
        "Thin lines: from the lowest to the highest of all." if draws * seeds > 1 else "",
        style.chance_sentence(chance, style.one_dataset(summary)),
    )
    return figure


def realisation_table(realisations: pd.DataFrame) -> pd.DataFrame:
    """`draw_spaces` in numbers: accuracy by space and sigma, and in brackets its deviation over realisations alone.

    The deviation is within seeds: the root of the mean over seeds of the variance over realisations.
    """
    means = realisations.groupby(CASE, sort=False)["accuracy"].mean()
    within = spreads(realisations).set_index(CASE)["within"].reindex(means.index)
    cells = pd.Series(
        [f"{number(mean, 1)} ({number(spread, 1)})" for mean, spread in zip(means, within, strict=True)], means.index
    ).unstack("row")
    return cells[style.paper_first(cells.columns)].rename_axis(columns=None)


def spike_count_table(spikes: pd.DataFrame) -> pd.DataFrame:
    """Panel (a) in numbers: spikes per neuron over all T, mean over seeds, layers by rows."""
    return _table(spike_counts(spikes), "layer", "spikes")


def noise_table(noise: pd.DataFrame) -> pd.DataFrame:
    """Panel (b) in numbers: accuracy in per cent, mean over seeds, noise levels by rows."""
    return _table(last_step(noise), "sigma", "accuracy")


def _table(frame: pd.DataFrame, index: str, value: str) -> pd.DataFrame:
    means = frame.groupby([index, "row"], sort=False)[value].mean().unstack("row")
    return means[style.paper_first(means.columns)].rename_axis(columns=None)


def spike_counts(spikes: pd.DataFrame) -> pd.DataFrame:
    """Spike count R: spikes per neuron over all time-steps, a line for each row, seed and layer."""
    return spikes.groupby(["row", "seed", "layer"], sort=False)["spikes"].sum().reset_index()


def _spike_counts(axes: Axes, spikes: pd.DataFrame, anytime: pd.DataFrame, names: Mapping[str, str]) -> bool:
    """Panel (a). Returns whether it marks a layer without a spike, which a log axis cannot show."""
    axes.set_title("(a)")
    spiking = [row for row in names if len(select(spikes, row=row))]
    if not spiking:
        style.empty_panel(axes, "no spiking row has a result yet")
        return False
    counts, looks, dead = spike_counts(spikes[spikes["row"].isin(spiking)]), style.looks(names), False
    if not (counts["spikes"] > 0).any():
        style.empty_panel(axes, f"no spike in any layer of {listed(spiking)}")
        return False
    layers = style.layers_by_depth(counts)
    for row in spiking:
        of_row = style.over_seeds(select(counts, row=row), "layer", "spikes")
        x = of_row["layer"].map(layers.index)
        fired = of_row["mean"] > 0
        several = (of_row["count"] > 1).any()
        axes.errorbar(
            x,
            of_row["mean"].where(fired),
            yerr=of_row["std"].fillna(0) if several else None,
            label=f"{names[row]} ({_accuracy_and_steps(select(anytime, row=row))})",
            **looks[row]._asdict(),
        )
        if len(silent := x[~fired]):
            dead = True
            axes.plot(silent, [0.02] * len(silent), "v", transform=axes.get_xaxis_transform(), markersize=7,
                      markerfacecolor="none", color=looks[row].color, clip_on=False)  # fmt: skip
    axes.set_yscale("log")
    slanted = len(layers) > 9  # or the names would run into each other
    axes.set_xticks(range(len(layers)), layers, rotation=60 if slanted else 0)
    axes.set(xlabel="Layers", ylabel="Spike rate (spikes per neuron over all T)")
    _legend(axes, 2, below=0.27 if slanted else 0.14)
    return dead


def _legend(axes: Axes, columns: int, below: float = 0.14) -> None:
    """A legend below the axes, where it covers no line; ``below`` is a share of their height."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -below), ncols=columns)


def _accuracy_and_steps(anytime: pd.DataFrame) -> str:
    """A row's accuracy and steps, as in the paper's legend: ``90.5% / 25 steps``."""
    if anytime.empty:
        return "accuracy not measured"
    last = last_step(anytime)
    return f"{last['accuracy'].mean():.1f}% / {counted(last['time_step'].max(), 'step')}"


def _accuracy_under_noise(
    axes: Axes, noise: pd.DataFrame, names: Mapping[str, str], images: int | None, measured: bool
) -> list[int]:
    """Panel (b), after all time-steps of each row. Returns the numbers of seeds of the points drawn.

    ``measured`` is whether any row was evaluated. Recordings have no Gaussian noise.
    """
    axes.set_title("(b)")
    present = [row for row in names if len(select(noise, row=row))]
    if not present:
        style.empty_panel(axes, "accuracy under noise was not measured" if measured else "no row has a result yet")
        return []
    looks, counts, reached = style.looks(names), [], []
    for row in present:
        of_row = style.over_seeds(last_step(select(noise, row=row)), "sigma", "accuracy")
        errors = style.accuracy_errors(of_row, images)
        axes.errorbar(of_row["sigma"], of_row["mean"], yerr=errors, label=names[row], **looks[row]._asdict())
        counts += of_row["count"].tolist()
        reached += [*(of_row["mean"] - errors), *(of_row["mean"] + errors)]
    axes.set(xlabel="Noise stddev σ", ylabel="Accuracy (%)")
    axes.xaxis.set_major_locator(MultipleLocator(0.1))
    style.accuracy_axis(axes, min(reached), max(reached))
    _legend(axes, 3)
    return counts
