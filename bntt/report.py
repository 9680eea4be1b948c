"""Small helpers that turn tables, verdicts and figures into HTML for the notebooks, and numbers into text.

Styles are inline, because a page keeps no style sheet from a notebook's outputs; nothing refers to another host.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bntt import data
from bntt.collect import Results
from bntt.statistics import Estimate

INK, GREY, FAINT = "#1d1f23", "#62666e", "#e4e2dc"
VERDICT_COLOURS = {"holds": "#1c6b43", "fails": "#a5301c", "undecided": "#7a5a00"}
STATUS_COLOURS = {"done": VERDICT_COLOURS["holds"], "diverged": VERDICT_COLOURS["fails"]}
SANS = "font-family:'Source Sans 3','Helvetica Neue',Arial,sans-serif"
DASH = "–"


class Html(str):
    """Text that is HTML already and is not escaped again."""


# -- numbers as text -------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals and a true minus sign; very large ones as a power of ten; a dash for none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e5:
        return f"10^{math.log10(abs(value)):.0f}".replace("10^", "about 10^" if value > 0 else "about −10^")
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def interval(estimate: Estimate | None, digits: int = 2, unit: str = "") -> str:
    """``value [low, high] unit``; without brackets where the value has no uncertainty."""
    if estimate is None:
        return DASH
    text = number(estimate.value, digits)
    if not estimate.low == estimate.value == estimate.high:
        text += f" [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"
    return f"{text} {unit}".strip()


def listed(words: Sequence[str]) -> str:
    """Words as an enumeration: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def duration(seconds: float | None) -> str:
    """Seconds as ``45 s``, ``7 min 3 s`` or ``2 h 5 min``."""
    if seconds is None or math.isnan(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# -- HTML --------------------------------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """A cell's content: HTML as it is, all else escaped."""
    return str(value) if isinstance(value, Html) else html.escape(str(value))


def word(text: str, colours: Mapping[str, str]) -> Html:
    """A status or verdict as a bold coloured word; the word says it without the colour, too."""
    return Html(f'<strong style="color:{colours.get(text, GREY)};{SANS}">{html.escape(text)}</strong>')


def verdict(text: str) -> Html:
    return word(text, VERDICT_COLOURS)


def small(text: object) -> Html:
    """A grey remark."""
    return Html(f'<span style="color:{GREY};font-size:.92em">{text_of(text)}</span>') if str(text) else Html("")


def table(frame: pd.DataFrame, right: Sequence[str] = ()) -> Html:
    """A frame as a plain table; the columns named in ``right`` are set flush right."""
    align = {column: "text-align:right" if column in right else "text-align:left" for column in frame.columns}
    cell = "padding:.3rem .9rem .3rem 0;vertical-align:top"
    head = "".join(
        f'<th style="{cell};{align[c]};border-bottom:1.5px solid {GREY}">{text_of(c)}</th>' for c in frame.columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{cell};{align[c]};border-bottom:1px solid {FAINT}">{text_of(value)}</td>'
            for c, value in zip(frame.columns, line, strict=True)
        )
        + "</tr>"
        for line in frame.itertuples(index=False)
    )
    style = f"border-collapse:collapse;{SANS};font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums"
    return Html(f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def figure(path: Path, title: str, link: str) -> Html:
    """A figure as a card: the picture within the page, its title below, both linked to the notebook."""
    if path.is_file():
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        picture = (
            f'<img alt="{html.escape(title)}" src="data:image/png;base64,{content}" '
            'style="width:100%;height:13rem;object-fit:contain;background:#fff">'
        )
    else:
        picture = (
            f'<span style="display:block;height:13rem;line-height:13rem;text-align:center;color:{GREY}">'
            "not drawn yet</span>"
        )
    return Html(
        f'<a href="{html.escape(link)}" style="display:block;text-decoration:none;color:{INK};background:#fff;'
        f'border:1px solid {FAINT};border-radius:4px;padding:.7rem;{SANS};font-size:13.5px;line-height:1.35">'
        f'{picture}<span style="display:block;margin-top:.5rem">{html.escape(title)}</span></a>'
    )


def grid(cards: Sequence[Html]) -> Html:
    """Cards side by side, as many as the page is wide."""
    style = "display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem;margin:1rem 0"
    return Html(f'<div style="{style}">{"".join(cards)}</div>')


# -- what was drawn ------------------------------------------------------------------------------------------------


def sources(results: Results) -> str:
    """The data a notebook drew, in Markdown: dataset and state, rows, seeds, test images, and what is missing."""
    lines = []
    runs = results.summary
    for dataset in results.experiment.datasets:
        own = runs[runs["dataset"] == dataset]
        states = sorted(own["data_state"].dropna().unique())
        known = {"content": "content as expected", "unknown": "content NOT the expected one"}
        state = listed([known.get(one, one) for one in states]) or "not read yet"
        seeds = sorted(own["seed"].unique())
        images = test_images(results, dataset)
        lines.append(
            f"**Data drawn.** Experiment `{results.experiment.name}`, dataset {data.facts(dataset)['title']} ({state}); "
            f"{'test images not read yet' if images is None else f'{images} test images'}; "
            f"rows {listed([f'`{row}`' for row in dict.fromkeys(own['row'])])}; "
            f"{'seed' if len(seeds) == 1 else f'n = {len(seeds)} seeds'} {listed([str(seed) for seed in seeds])}."
        )
        absent = own[own["status"] != "done"]
        names = [f"`{one.row}`, seed {one.seed} ({why_absent(one.status, one.reason)})" for one in absent.itertuples()]
        lines.append(f"Without a result: {listed(names)}." if names else "No run is missing.")
    return "\n\n".join(lines)


def test_images(results: Results, dataset: str) -> int | None:
    """The number of test images of a dataset, as its runs recorded it; None where none has been trained."""
    for one in results.runs:
        if one.run.dataset == dataset and one.training:
            return int(one.training["data"]["images"]["test"])
    return None


def why_absent(status: str, reason: str) -> str:
    """Why a run has no result, for a reader."""
    return {"missing": "no result yet", "diverged": f"diverged: {reason}"}.get(status, f"{status}: {reason}")
