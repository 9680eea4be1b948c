"""What the figures share: their look, the names and looks of rows, means over seeds, captions and saving.

Every row has its own colour, marker and line style, so that figures can also be read when they are printed in black
and white.
"""

import contextlib
import functools
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bntt.common.files import write_atomically
from bntt.common.text import counted
from bntt.drawing.palette import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION
from bntt.paper import figures as paper
from bntt.results.collect import select
from bntt.results.dead import AT_CHANCE, SILENT, chance, chance_level

RC: Any = {  # matplotlib settings
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "errorbar.capsize": 2,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.8,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
}


SPAN = 6.0  # an accuracy axis spans at least so many points, so that noise does not look like a trend


class Look(NamedTuple):
    """How all figures draw a row; the fields are named as in matplotlib."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[float, ...]]


_LOOKS = {
    "bntt": Look(VERMILLION, "o", "-"),
    "surrogate": Look(BLUE, "s", (0, (5, 1.5))),
    "conversion": Look(GREEN, "^", (0, (5, 1.5, 1, 1.5))),
    "ann": Look(INK, "D", (0, (1, 1.2))),
}
_FURTHER = [
    Look(ORANGE, "v", (0, (3, 1))),
    Look(SKY, "P", (0, (3, 1, 1, 1))),
    Look(PURPLE, "X", (0, (1, 1.2))),
    Look("#8c6d31", "<", (0, (7, 2))),
    Look("#4d4d9f", ">", "-"),
    Look("#999999", "*", (0, (5, 1.5, 1, 1.5, 1, 1.5))),
]


def looks(rows: Iterable[str]) -> dict[str, Look]:
    """A look for each row. The paper's rows keep theirs; others take the next free one, in order."""
    rows = list(rows)
    further = [row for row in rows if row not in _LOOKS]
    return {row: _LOOKS.get(row) or _FURTHER[further.index(row) % len(_FURTHER)] for row in rows}


def pictures(rows: Iterable[str]) -> list[list[str]]:
    """The rows of each picture, so that no two in one look alike: all in one, if there are looks for all.

    Else the first has the paper's rows, and each further one ``bntt`` and as many others as there are looks.
    """
    ordered = paper_first(rows)
    further = [row for row in ordered if row not in _LOOKS]
    if len(further) <= len(_FURTHER):
        return [ordered]
    parts = [further[start : start + len(_FURTHER)] for start in range(0, len(further), len(_FURTHER))]
    own = [row for row in ordered if row in _LOOKS]
    return [own, *([*(row for row in own if row == "bntt"), *part] for part in parts)]


def layers_by_depth(frame: pd.DataFrame) -> list[str]:
    """The layers of all rows, each row's in its order; where networks differ in depth, the deepest one's come first."""
    of_rows = [list(dict.fromkeys(part["layer"])) for _, part in frame.groupby("row", sort=False)]
    return list(dict.fromkeys(layer for layers in sorted(of_rows, key=len, reverse=True) for layer in layers))


def paper_first(rows: Iterable[str]) -> list[str]:
    """Rows in the order of the paper's legends, then the other rows."""
    rows = list(dict.fromkeys(rows))
    return [row for row in paper.ROWS if row in rows] + [row for row in rows if row not in paper.ROWS]


# -- frames ------------------------------------------------------------------------------------------------------


def drawn_dataset(datasets: Sequence[str]) -> str:
    """The dataset that the figures are drawn for: the paper's, CIFAR-10, if it is among them, else the first."""
    return paper.DATASET if paper.DATASET in datasets else datasets[0]


def rows_with_gamma(gamma: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """The rows whose gamma a figure shows: those that have one, ``bntt``, and its variants without a result."""
    waiting = summary.loc[summary["status"] != "done", "row"]
    variants = waiting[waiting.str.startswith("bntt-")]
    wanted = {"bntt", *gamma["row"], *variants}
    return paper_first(["bntt", *(row for row in summary["row"] if row in wanted)])


def over_seeds(frame: pd.DataFrame, by: str | list[str], value: str) -> pd.DataFrame:
    """Mean, standard deviation (NaN for a single seed) and number of seeds of ``value``, in the order of the frame."""
    return frame.groupby(by, sort=False)[value].agg(["mean", "std", "count"]).reset_index()


def accuracy_errors(curve: pd.DataFrame, images: int | None) -> list[float]:
    """Half-widths of the error bars of an accuracy in per cent, as `over_seeds` gives it: the standard deviation.

    For one seed, the binomial standard error over the test images; 0 if their number is not known.
    """
    return [
        std if count > 1 else math.sqrt(max(mean * (100 - mean), 0) / images) if images else 0.0
        for mean, std, count in curve[["mean", "std", "count"]].itertuples(index=False)
    ]


def accuracy_axis(axes: Axes, lowest: float, highest: float, headroom: float = 0.0) -> None:
    """Fit the vertical axis to accuracies between these two: at least SPAN wide, and a rim; ticks are in 0 to 100.

    ``headroom`` is a share of the span that stays free above.
    """
    low, high = max(lowest, 0.0), min(highest, 100.0)
    wider = max(0.0, SPAN - (high - low)) / 2
    shift = max(0.0, wider - low) - max(0.0, high + wider - 100)
    low, high = low - wider + shift, high + wider + shift
    span = high - low
    axes.set_ylim(low - 0.08 * span, high + (0.08 + headroom) * span)
    bottom, top = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= top and 0 <= tick <= 100])


def errors_sentence(counts: Iterable[int], images: int | None) -> str:
    """What the error bars of accuracies are, given the ``counts`` of seeds of the points drawn; empty without bars."""
    counts = list(counts)
    kinds = ["1 s.d. over seeds"] if any(count > 1 for count in counts) else []
    if images and any(count == 1 for count in counts):
        kinds.append("1 binomial standard error over test images" + (" where there is one seed" if kinds else ""))
    return f"Error bars: ± {', or '.join(kinds)}." if kinds else ""


# -- what is there and what is not ---------------------------------------------------------------------------------


def gap(summary: pd.DataFrame, row: str) -> str:
    """Why seeds of a row are missing from a figure, for the reader; empty where all are there."""
    status = select(summary, row=row)["status"]
    if status.empty:
        return "not in this experiment"
    words = {"missing": "no result yet", "damaged": "result damaged", "diverged": "training diverged"}
    counts = status[status != "done"].map(lambda one: words.get(one, one)).value_counts(sort=False)
    return ", ".join(
        word + f" for {count} of {counted(len(status), 'seed')}" * (count < len(status))
        for word, count in counts.items()
    )


def condition(summary: pd.DataFrame, row: str) -> str:
    """``silent`` or ``at chance``, if the row's network is so, and for how many seeds, if not for all; else empty."""
    words = select(summary, row=row, status="done")["dead"]
    counts = words[words != ""].value_counts(sort=False)
    return ", ".join(
        word + f" for {count} of {counted(len(words), 'seed')}" * (count < len(words)) for word, count in counts.items()
    )


def labelled(summary: pd.DataFrame, row: str) -> str:
    """A row's name for a title or a legend, with its `condition`."""
    return ", ".join(filter(None, [row, condition(summary, row)]))


def one_dataset(summary: pd.DataFrame) -> str:
    """The dataset of a summary; raises ValueError if there is not exactly one."""
    names = summary["dataset"].unique()
    if len(names) != 1:
        raise ValueError(f"a figure shows one dataset, the summary has {len(names)}: choose it with select()")
    return str(names[0])


# -- drawing -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _style(**more: Any) -> Iterator[None]:
    """Inside this context, matplotlib has its own defaults and this style, whatever the caller's settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC | more)
        yield


styled = _style()  # a decorator: draws in this style


class _Layout(ConstrainedLayoutEngine):
    """Rounds the solver's positions: their last bits differ between processes, but files must be byte-identical."""

    def execute(self, figure: Figure) -> Any:
        found = super().execute(figure)
        for axes in figure.axes:
            x, y, width, height = (round(part, 9) for part in axes.get_position(original=True).bounds)
            axes.set_position((x, y, width, height))
            axes.set_in_layout(True)
        return found


def canvas(width: float, height: float) -> Figure:
    """An empty figure, its size in inches, with automatic layout; pyplot does not know it, so nobody must close it."""
    return Figure(figsize=(width, height), layout=_Layout(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03))


def panels(figure: Figure, count: int) -> list[Axes]:
    """``count`` panels, at most three in a line."""
    lines, columns = panel_grid(count)
    drawn = list(figure.subplots(lines, columns, squeeze=False).flatten())
    for axes in drawn[count:]:
        axes.remove()
    return drawn[:count]


def panel_grid(count: int) -> tuple[int, int]:
    """The numbers of lines and columns for ``count`` panels."""
    return -(-count // 3), min(count, 3)


def caption(figure: Figure, *sentences: str) -> None:
    """A caption in small print under the figure, so that a saved picture says what it shows."""
    text = " ".join(sentence for sentence in sentences if sentence)
    lines = textwrap.wrap(text, int(figure.get_figwidth() * 18.5))
    figure.supxlabel("\n".join(lines), x=0.012, ha="left", fontsize=7.5, color=GREY, linespacing=1.35)


def data_sentence(summary: pd.DataFrame, rows: Sequence[str], *, in_paper: bool = True) -> str:
    """The caption's first sentences: dataset, planned seeds, rows that have fewer seeds, what is missing or dead.

    Of a figure that is ``in_paper`` they also say where its dataset is not the paper's.
    """
    dataset, seeds = one_dataset(summary), sorted(summary["seed"].unique())
    counts = summary.groupby("row")["seed"].nunique()
    fewer = [f", {counts[row]} of {row}" for row in rows if 0 < counts.get(row, 0) < len(seeds)]
    text = f"Data: {dataset}, n = {counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}){''.join(fewer)}"
    sentences = [text + ("; the paper's figure is of CIFAR-10" if in_paper and dataset != paper.DATASET else "")]
    if missing := [f"{row} ({why})" for row in rows if (why := gap(summary, row))]:
        sentences.append(f"Missing: {', '.join(missing)}")
    found = {word for row in rows for word in select(summary, row=row, status="done")["dead"]}
    if SILENT in found:
        sentences.append("Silent: some layer has no spike on any test image")
    if AT_CHANCE in found:
        sentences.append(f"At chance: accuracy not significantly above {chance_level(dataset)}")
    return ". ".join(sentences) + "."


def chance_line(axes: Axes, dataset: str) -> bool:
    """Mark the accuracy of a guess by a grey line, if the axis reaches it. Returns whether there is a line now."""
    level = chance(dataset)
    low, high = axes.get_ylim()
    if not low <= level <= high:
        return False
    axes.axhline(level, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1, zorder=1, gid="chance")
    return True


def chance_sentence(drawn: bool, dataset: str) -> str:
    """The caption's sentence about `chance_line`; empty if there is none."""
    return f"Grey dotted line: chance, {chance_level(dataset)}." if drawn else ""


def empty_panel(axes: Axes, words: str) -> None:
    """Say in a panel why it is empty."""
    axes.grid(False)
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)  # other panels may share the ticks
    axes.spines[:].set(visible=True, color=FAINT)
    axes.text(0.5, 0.5, "\n".join(textwrap.wrap(words, 40)), transform=axes.transAxes, ha="center", va="center",
              color=GREY, style="italic")  # fmt: skip


_METADATA = {  # left out of each kind of file
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_kinds = ContextVar("kinds", default=tuple(_METADATA))


@contextlib.contextmanager
def png_alone() -> Iterator[None]:
    """Inside this context, `save` writes no svg and no pdf, which take as long again."""
    before = _kinds.set(("png",))
    try:
        yield
    finally:
        _kinds.reset(before)


def save(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write a figure as ``folder/name`` .png (200 dpi), .svg and .pdf, the same bytes for the same figure.

    Returns the path of the png. Each file appears whole or not at all.
    """
    with _style(**{"svg.hashsalt": name}):
        for kind in _kinds.get():
            write = functools.partial(figure.savefig, format=kind, metadata=_METADATA[kind])
            write_atomically(Path(folder) / f"{name}.{kind}", write)
    return Path(folder) / f"{name}.png"
