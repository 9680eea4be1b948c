"""The paper's printed numbers, each with where it stands, what it measures and how closely it can be met.

The numbers live in `tables.yaml`, laid out like the paper's tables, and `text.yaml`, for its figures and its text.
`cells()` gives them one by one, `published()` looks one up and `table()` gives a table as printed. Nothing here knows
of runs: a cell only names the row of experiment `paper` that reproduces it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from bntt.common.files import read_yaml

if TYPE_CHECKING:
    import pandas

Metric = Literal[
    "accuracy", "time_steps", "exit_step", "exit_accuracy", "energy_ratio", "energy_per_operation", "mean_gamma",
    "peak_step", "setting", "images", "ratio",
]  # fmt: skip
Direction = Literal["higher", "lower", "none"]

DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "dvs-cifar10": "DVS-CIFAR10",
}
ILLEGIBLE = "illegible"
TABLES = Path(__file__).with_name("tables.yaml")
TEXT = Path(__file__).with_name("text.yaml")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One printed number of the paper."""

    place: str  # where it stands: "Table 1", "Section 4.4"
    row: str  # name of its line, unique within the place: "cifar10/bntt"
    column: str  # "accuracy"
    printed: str  # as printed: "90.5"; also "n/a" and "-", and ILLEGIBLE where the copy of the paper lost it
    metric: Metric
    unit: str  # of the printed number and of the tolerance; an accuracy in % has its tolerance in points
    direction: Direction  # which side is better
    tolerance: float | None  # what still counts as the same number; None where no number is printed
    tolerance_reason: str
    dataset: str = ""
    quoted: bool = False  # the paper quotes the number from the work it cites, and did not measure it
    run: str = ""  # row of experiment `paper` that reproduces the cell ...
    not_run: str = ""  # ... or why none does; always one of the two
    time_step: int | None = None  # the step at which the run is read, where the cell is about a given one
    threshold: float | None = None  # of the early exit, where the rule decides the step
    layer: str = ""  # that the cell is about
    option: str = ""  # of the run, where the cell is a setting; "milestones.0" is the first of a list
    underspecified: str = ""  # what is needed to reproduce the cell and is said nowhere
    note: str = ""  # contradictions and doubts

    @property
    def protocol(self) -> str:
        """Whose hyper-parameters gave the printed number: the `paper`'s, or those of the `cited` work."""
        return "cited" if self.quoted else "paper"

    @property
    def value(self) -> float | None:
        """The printed number, None where there is none."""
        return _number(self.printed)

    @property
    def number(self) -> float:
        """The printed number; a ValueError where there is none."""
        if self.value is None:
            raise ValueError(f"{self.place}, {self.row}, {self.column}: {self.printed!r} is no number")
        return self.value


@cache
def cells() -> tuple[Cell, ...]:
    """Every published number, in the order of the paper."""
    return tuple(cell for path in (TABLES, TEXT) for cell in parse(path.read_text(encoding="utf-8"), path.name))


def published(place: str, row: str, column: str) -> Cell:
    """The cell of a table, or of another place: `published("Table 1", "cifar10/bntt", "accuracy")`.

    A ValueError says which rows and columns the place has.
    """
    found = {(cell.row, cell.column): cell for cell in cells() if cell.place == place}
    if (row, column) in found:
        return found[row, column]
    rows, columns = (", ".join(dict.fromkeys(key[i] for key in found)) or "none" for i in (0, 1))
    raise ValueError(f"{place} has no cell {row}, {column}. Its rows: {rows}. Its columns of numbers: {columns}.")


def table(number: int) -> pandas.DataFrame:
    """A table as printed: strings under the printed headers, indexed by the names of the rows."""
    import pandas

    tables = _read(TABLES.read_text(encoding="utf-8"), TABLES.name)
    place = f"Table {number}"
    if place not in tables:
        raise ValueError(f"no {place} among the published tables: {', '.join(tables)}")
    headers = [column["header"] for column in tables[place]["columns"].values()]
    lines = {name: _split(row["printed"]) for name, row in tables[place]["rows"].items()}
    return pandas.DataFrame.from_dict(lines, orient="index", columns=headers).rename_axis("row")


def parse(text: str, source: str) -> tuple[Cell, ...]:
    """Cells of a YAML text laid out like `tables.yaml`. A ValueError names what is wrong, and where;

    text that is not YAML at all, or gives a key twice, is a UserError.
    """
    made = []
    for place, content in _read(text, source).items():
        for name, row in content["rows"].items():
            printed = dict(zip(content["columns"], _split(row["printed"]), strict=True))
            dataset = {"dataset": name.partition("/")[0]} if "/" in name else {}
            for key, column in content["columns"].items():
                if "metric" in column and printed[key]:
                    own = row.get("cells", {}).get(key, {})
                    written = _merge(content.get("shared", {}), column, dataset, row, own)
                    typed = _typed(written, key, printed, f"{source}, {place}, row {name}, column {key}")
                    made.append(Cell(place=place, row=name, column=key, printed=printed[key], **typed))
    return tuple(made)


# What may be written of a cell: in the table's `shared`, its column, its row or the row's `cells`.
_FIELDS = {field.name for field in fields(Cell)} - {"place", "row", "column", "printed"}


def _read(text: str, source: str) -> Mapping[str, Any]:
    """From place to table, with every key known and every line as long as the table is wide."""
    tables = _mapping(read_yaml(text, source, numbers=False), source)
    for place, content in tables.items():
        where = f"{source}, {place}"
        _check(content, where, texts={"title"}, required={"title", "columns", "rows"}, nested={"shared"})
        _check(content.get("shared", {}), f"{where}, shared", texts=_FIELDS)
        columns = _mapping(content["columns"], f"{where}, columns")
        for key, column in columns.items():
            _check(column, f"{where}, column {key}", texts=_FIELDS | {"header"}, required={"header"})
        for name, row in _mapping(content["rows"], f"{where}, rows").items():
            here = f"{where}, row {name}"
            _check(row, here, texts=_FIELDS | {"printed"}, required={"printed"}, nested={"cells"})
            if (count := len(_split(row["printed"]))) != len(columns):
                raise ValueError(f"{here}: {count} printed columns, the table has {len(columns)}")
            numbers = {key for key, column in columns.items() if "metric" in column}
            _check(row.get("cells", {}), f"{here}, cells", nested=numbers)
            for key, own in row.get("cells", {}).items():
                _check(own, f"{here}, column {key}", texts=_FIELDS)
    return tables


def _check(
    content: Any,
    where: str,
    *,
    texts: Set[str] = frozenset(),
    nested: Set[str] = frozenset(),
    required: Set[str] = frozenset(),
) -> None:
    """Refuse a key that is unknown or missing, and anything but a text where a text is due."""
    known = texts | nested | required
    for key, value in _mapping(content, where).items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        if key in texts and not isinstance(value, str):
            raise ValueError(f"{where}: {key} is not a single value")
    if missing := required - content.keys():
        raise ValueError(f"{where}: without {', '.join(sorted(missing))}")


def _mapping(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: not a mapping")
    return content


def _merge(*levels: Mapping[str, str]) -> dict[str, str]:
    """The fields of a cell, from general to particular.

    The last one wins, `run` and `not_run` replace each other, and notes add up.
    """
    merged: dict[str, str] = {}
    for level in levels:
        if "run" in level or "not_run" in level:
            merged = {key: text for key, text in merged.items() if key not in ("run", "not_run")}
        note = " ".join(part["note"] for part in (merged, level) if "note" in part)
        merged |= {key: text for key, text in level.items() if key in _FIELDS}
        if note:
            merged["note"] = note
    return merged


def _typed(written: dict[str, str], column: str, printed: Mapping[str, str], where: str) -> dict[str, Any]:
    """The fields of a cell with their types, from what is written."""

    def fail(key: str, expected: str) -> ValueError:
        said = f"{key} is {written[key]!r}" if key in written else f"without {key}"
        return ValueError(f"{where}: {said}; expected: {expected}")

    def number(key: str, kind: type[int] | type[float], *words: str) -> Any:
        try:
            return kind(written[key])
        except (KeyError, ValueError):
            raise fail(key, " or ".join(("a number", *words))) from None

    choices = {"metric": get_args(Metric), "direction": get_args(Direction), "quoted": ("true", "false")}
    written.setdefault("quoted", "false")
    for key, allowed in choices.items():
        if written.get(key) not in allowed:
            raise fail(key, ", ".join(allowed))
    if not written.get("tolerance_reason") or "unit" not in written:
        raise fail("unit" if "unit" not in written else "tolerance_reason", "a text")
    if ("run" in written) == ("not_run" in written):
        raise ValueError(f"{where}: expected one of run (the row that reproduces it) and not_run (why none does)")
    if "run" in written and not re.fullmatch("[a-z0-9-]+", written["run"]):
        raise fail("run", "a name of a-z, 0-9 and -")

    typed: dict[str, Any] = written | {"quoted": written["quoted"] == "true"}
    if written.get("tolerance") == "half-digit":
        typed["tolerance"] = _half_digit(printed[column])
    else:
        typed["tolerance"] = number("tolerance", float, "half-digit")
    if _number(printed[column]) is None:
        typed["tolerance"] = None
    if "threshold" in written:
        typed["threshold"] = number("threshold", float)
    step = written.get("time_step", "none")
    if step.startswith("column "):  # it is printed in another column of the line
        if (other := step.removeprefix("column ")) not in printed:
            raise fail("time_step", f"one of the columns {', '.join(printed)}")
        beside = _number(printed[other])
        typed["time_step"] = None if beside is None else int(beside)
    else:
        typed["time_step"] = None if step == "none" else number("time_step", int, "none", "column NAME")
    return typed


def _split(line: str) -> list[str]:
    return [part.strip() for part in line.split("|")]


def _digits(printed: str) -> re.Match[str] | None:
    """The number at the start of a printed cell: 4.6 of "4.6 (= E_MULT + E_ADD)"."""
    return re.match(r"\d+(?:,\d{3})*(?:\.(?P<decimals>\d+))?", printed)


def _number(printed: str) -> float | None:
    found = _digits(printed)
    return float(found[0].replace(",", "")) if found else None


def _half_digit(printed: str) -> float | None:
    """Half a unit of the last printed digit: 0.05 for "90.5"."""
    found = _digits(printed)
    return float(f"5e-{len(found['decimals'] or '') + 1}") if found else None
