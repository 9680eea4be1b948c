"""Pages and parts of pages as HTML, from the templates beside this file, which escape all text that is not HTML yet.

No page refers to another host.
"""

import base64
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bntt.common.text import interval
from bntt.drawing import palette


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("bntt.drawing"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals["colours"] = palette
    templates.filters["interval"] = interval
    return templates


def whole(title: str, body: Markup) -> str:
    """A page that needs no other file. Without JavaScript, its sortable tables are plain ones."""
    sortable = 'class="sortable"' in body
    return _templates().get_template("page.html").render(title=title, body=body, **(_datatables() if sortable else {}))


@cache
def _datatables() -> dict[str, Markup]:
    """DataTables as itables bundles it: the style sheet, and the module in base64."""
    bundle = files("itables") / "html"
    module = base64.b64encode((bundle / "dt_bundle.js").read_bytes()).decode("ascii")
    return {"style": Markup((bundle / "dt_bundle.css").read_text(encoding="utf-8")), "module": Markup(module)}


def piece(name: str, *arguments: object) -> Markup:
    """The HTML of a macro of ``parts.html``, such as ``word``, a coloured status or verdict, or ``small``, a remark."""
    return Markup(getattr(_templates().get_template("parts.html").module, name)(*arguments))


def table(frame: pd.DataFrame, right: Sequence[str] = (), order: pd.DataFrame | None = None) -> Markup:
    """A frame as a plain table; the columns named in ``right`` are right-aligned. A number stays on one line.

    With ``order``, numbers for some of its columns, `whole` makes the table sortable: these columns by number, the
    others by text.
    """
    keys = None if order is None else [{c: _key(v) for c, v in line.items()} for line in order.to_dict("records")]
    return piece("table", list(frame.columns), list(frame.itertuples(index=False, name=None)), right, keys)


def _key(value: float) -> str:
    """A number as JavaScript reads it; an empty text for NaN."""
    return "" if math.isnan(value) else repr(value).replace("inf", "Infinity")


def figure(path: Path, title: str, page: str, full: str, height: float) -> Markup:
    """A figure as a card, ``height`` rem high: the embedded png at ``path``, linked to ``full``, itself alone.

    Its title stands below, linked to ``page``, which explains it.
    """
    png = base64.b64encode(path.read_bytes()).decode("ascii") if path.is_file() else ""
    return piece("figure", title, page, full, png, height)
