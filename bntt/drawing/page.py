"""Tables, figures and coloured words as HTML for the notebooks.

Styles are inline, because a page keeps no style sheet from a notebook's outputs; nothing refers to another host.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

INK, GREY, FAINT = "#1d1f23", "#62666e", "#e4e2dc"
VERDICT_COLOURS = {"holds": "#1c6b43", "fails": "#a5301c", "undecided": "#7a5a00"}
STATUS_COLOURS = {"done": VERDICT_COLOURS["holds"], "diverged": VERDICT_COLOURS["fails"]}
SANS = "font-family:'Source Sans 3','Helvetica Neue',Arial,sans-serif"


class Html(str):
    """Text that is HTML already and is not escaped again."""


def text_of(value: object) -> str:
    """A cell's content: HTML as it is, all else escaped."""
    return str(value) if isinstance(value, Html) else html.escape(str(value))


def word(text: str, colours: Mapping[str, str]) -> Html:
    """A status or verdict as a bold coloured word; the word says it without the colour, too."""
    return Html(f'<strong style="color:{colours.get(text, GREY)};{SANS}">{html.escape(text)}</strong>')


def verdict(text: str) -> Html:
    """A verdict as a coloured word."""
    return word(text, VERDICT_COLOURS)


def small(text: object) -> Html:
    """A grey remark."""
    return Html(f'<span style="color:{GREY};font-size:.92em">{text_of(text)}</span>') if str(text) else Html("")


def table(frame: pd.DataFrame, right: Sequence[str] = ()) -> Html:
    """A frame as a plain table; the columns named in ``right`` are set flush right. Numbers are not broken."""
    align = {column: "text-align:right" if column in right else "text-align:left" for column in frame.columns}
    cell = "padding:.3rem .9rem .3rem 0;vertical-align:top"
    head = "".join(
        f'<th style="{cell};{align[c]};border-bottom:1.5px solid {GREY}">{text_of(c)}</th>' for c in frame.columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{cell};{align[c]}{_width(value)};border-bottom:1px solid {FAINT}">{text_of(value)}</td>'
            for c, value in zip(frame.columns, line, strict=True)
        )
        + "</tr>"
        for line in frame.itertuples(index=False)
    )
    style = f"border-collapse:collapse;{SANS};font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums"
    return Html(f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def _width(value: object) -> str:
    """Numbers stay on one line with their interval, long texts get room for more than a word."""
    text = "" if isinstance(value, Html) else str(value)
    if len(text) > 24:
        return ";min-width:8.5rem"
    return ";white-space:nowrap" if text[:1].isdigit() or text.startswith("−") else ""


def figure(path: Path, title: str, link: str) -> Html:
    """A figure as a card: the picture within the page, its title below, both linked to the notebook."""
    if path.is_file():
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        picture = (
            f'<img alt="{html.escape(title)}" src="data:image/png;base64,{content}" '
            'style="width:100%;height:15rem;object-fit:contain;background:#fff">'
        )
    else:
        picture = (
            f'<span style="display:block;height:15rem;line-height:15rem;text-align:center;color:{GREY}">'
            "not drawn yet</span>"
        )
    return Html(
        f'<a href="{html.escape(link)}" style="display:block;text-decoration:none;color:{INK};background:#fff;'
        f'border:1px solid {FAINT};border-radius:4px;padding:.7rem;{SANS};font-size:13.5px;line-height:1.35">'
        f'{picture}<span style="display:block;margin-top:.5rem">{html.escape(title)}</span></a>'
    )


def grid(cards: Sequence[Html]) -> Html:
    """Cards side by side, as many as the page is wide."""
    style = "display:grid;grid-template-columns:repeat(auto-fill,minmax(24rem,1fr));gap:1rem;margin:1rem 0"
    return Html(f'<div style="{style}">{"".join(cards)}</div>')
