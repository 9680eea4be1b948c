"""The paper's printed numbers. Each says where it is printed, what it measures, and with which tolerance it is met.

The numbers are in `tables.yaml`, which is laid out like the paper's tables, and in `text.yaml`, for its figures and
text. `cells()` returns all of them, `published()` looks one up, and `table()` returns a table as printed. This module
knows no runs; a cell only names the row of experiment `paper` that reproduces it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from bntt.common.errors import check_name
from bntt.common.files import read_yaml

if TYPE_CHECKING:
    import pandas

Metric = Literal[
    "accuracy", "time_steps", "exit_step", "exit_accuracy", "saved_steps", "energy_ratio", "energy_per_operation",
    "mean_gamma", "peak_step", "spikes", "noise", "setting", "images", "classes", "pixels", "ratio",
]  # fmt: skip

DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "dvs-cifar10": "DVS-CIFAR10",
}
# A trained network buys these numbers with accuracy: one that classifies nothing spikes little and exits early. So each
# names the accuracy of the same run, without which it says nothing.
BOUGHT = frozenset({"energy_ratio", "exit_step", "saved_steps", "mean_gamma", "peak_step"})
Kind = Literal["Table 1", "Table 2", "Table 3", "figures", "text", "settings"]
TABLES, TEXT = (Path(__file__).with_name(name) for name in ("tables.yaml", "text.yaml"))


class Cell(BaseModel, frozen=True, extra="forbid"):
    """One printed number of the paper."""

    place: str  # where it is printed: "Table 1", "Section 4.4"
    row: str  # name of its line, unique within the place: "cifar10/bntt"
    column: str  # "accuracy"
    printed: str  # as printed: "90.5"; also "n/a" and "-", and "illegible" where our copy of the paper has lost it
    metric: Metric
    unit: str  # of the printed number and of the tolerance; an accuracy in % has its tolerance in points
    direction: Literal["higher", "lower", "none"]  # which direction is better
    tolerance: float | None  # largest difference that counts as the same number; None if no number is printed
    tolerance_reason: str = Field(min_length=1)
    dataset: str = ""
    quoted: bool = False  # the paper quotes the number from cited work and did not measure it
    run: str = Field("", pattern="^[a-z0-9-]*$")  # row of experiment `paper` that reproduces the cell ...
    not_run: str = ""  # ... or why no row does; exactly one of the two is set
    time_step: int | None = None  # step at which the run is read, if the cell is about a certain step
    threshold: float | None = None  # of early exit, if the cell's step is decided by early exit
    layer: str = ""  # the layer that the cell is about
    option: str = ""  # the run's option, if the cell is a setting; "milestones.0" is the first of a list
    bought_at: str = ""  # the accuracy that the number is judged with, "Table 1, cifar10/bntt, accuracy"; see `BOUGHT`
    underspecified: str = ""  # information that a reproduction needs and no source gives
    note: str = ""  # contradictions and doubts

    @model_validator(mode="after")
    def _run_or_not(self) -> Self:
        if bool(self.run) == bool(self.not_run):
            raise ValueError("expected one of run (the row that reproduces it) and not_run (why none does)")
        is_bought = bool(self.run) and self.metric in BOUGHT
        if is_bought and not self.bought_at:
            raise ValueError(f"expected bought_at (the accuracy cell of the same run), as for every {self.metric}")
        if self.bought_at and not is_bought:
            raise ValueError(f"bought_at is not expected; it is for {', '.join(sorted(BOUGHT))} of a run")
        return self

    @property
    def value(self) -> float | None:
        """The printed number; None if no number is printed."""
        return _number(self.printed)

    @property
    def number(self) -> float:
        """The printed number; raises ValueError if no number is printed."""
        if self.value is None:
            raise ValueError(f"{self.name}: {self.printed!r} is not a number")
        return self.value

    @property
    def name(self) -> str:
        """Place, row and column, which no other cell has: "Table 1, cifar10/bntt, accuracy"."""
        return f"{self.place}, {self.row}, {self.column}"

    @property
    def kind(self) -> Kind:
        """What the number belongs to: the settings of runs, wherever printed, or a table, the figures or the text."""
        if self.run and self.metric in ("setting", "time_steps"):
            return "settings"
        if self.place.startswith("Figure "):
            return "figures"
        return _TABLES.get(self.place, "text")


@cache
def cells() -> tuple[Cell, ...]:
    """Every printed number: those of the tables first, then those of the figures and the text."""
    found = tuple(cell for path in (TABLES, TEXT) for cell in parse(path.read_text(encoding="utf-8"), path.name))
    check_names(found)
    return found


def check_names(found: Iterable[Cell]) -> None:
    """Raises ValueError if two cells have one name, or if `bought_at` of a cell names no accuracy of the same run."""
    found = tuple(found)
    for name, count in Counter(cell.name for cell in found).items():
        if count > 1:
            raise ValueError(f"{name}: {count} cells have this name")
    runs = {cell.name: (cell.dataset, cell.run) for cell in found if cell.metric in ("accuracy", "exit_accuracy")}
    for cell in found:
        if cell.bought_at and runs.get(cell.bought_at) != (cell.dataset, cell.run):
            of_run = f"row {cell.run} on {cell.dataset}"
            raise ValueError(f"{cell.name}, bought_at: {cell.bought_at!r} is no accuracy of {of_run}")


def repeated(cell: Cell) -> Cell | None:
    """The first cell that says the same of the same run, such as Table 1's 90.5 for Table 3's; None for the first.

    Only numbers that a run can reproduce repeat each other, so n/a and constants do not.
    """
    if not cell.run or cell.value is None:
        return None
    first = next((one for one in cells() if one.run and _says(one) == _says(cell)), cell)
    return None if first == cell else first


def _says(cell: Cell) -> tuple[object, ...]:
    what = (cell.dataset, cell.run, cell.metric, cell.value)
    return (*what, cell.time_step, cell.threshold, cell.layer, cell.option)


def published(place: str, row: str, column: str) -> Cell:
    """The cell at a place, such as a table: `published("Table 1", "cifar10/bntt", "accuracy")`.

    Raises ValueError, which lists the place's rows and columns, if there is no such cell.
    """
    found = {(cell.row, cell.column): cell for cell in cells() if cell.place == place}
    if (row, column) in found:
        return found[row, column]
    rows, columns = (", ".join(dict.fromkeys(key[i] for key in found)) or "none" for i in (0, 1))
    raise ValueError(f"{place} has no cell {row}, {column}. Its rows: {rows}. Its columns of numbers: {columns}.")


def table(number: int) -> pandas.DataFrame:
    """A table as printed: strings under the printed headers, by row name; raises ValueError for an unknown table."""
    import pandas

    tables = _read(TABLES.read_text(encoding="utf-8"), TABLES.name)
    place = f"Table {number}"
    if place not in tables:
        raise ValueError(f"no {place} among the published tables: {', '.join(tables)}")
    headers = [column.header for column in tables[place].columns.values()]
    lines = {name: row.texts for name, row in tables[place].rows.items()}
    return pandas.DataFrame.from_dict(lines, orient="index", columns=headers).rename_axis("row")


def parse(text: str, source: str) -> tuple[Cell, ...]:
    """The cells of a YAML text that is laid out like `tables.yaml`; ``source`` names the text in errors.

    Raises ValueError for a wrong entry, and UserError for invalid YAML, a repeated key or an unknown column.
    """
    made = []
    for place, content in _read(text, source).items():
        for name, row in content.rows.items():
            printed = dict(zip(content.columns, row.texts, strict=True))
            dataset = {"dataset": name.partition("/")[0]} if "/" in name else {}
            for key, column in content.columns.items():
                if column.fields and printed[key]:
                    where = f"{source}, {place}, row {name}, column {key}"
                    fields = _merge(content.shared, column.fields, dataset, row.fields, row.cells.get(key, {}))
                    fields |= {"place": place.partition(",")[0], "row": name, "column": key, "printed": printed[key]}
                    made.append(_checked(_CELL, _resolved(fields, printed), where))
    return tuple(made)


# -- the files ----------------------------------------------------------------------------------------------------


class _Part(BaseModel, extra="allow"):
    """A column or a row: its own fields, and fields for its cells."""

    @property
    def fields(self) -> dict[str, str]:
        return self.model_extra or {}


class _Column(_Part):
    header: str


class _Row(_Part):
    printed: str
    cells: dict[str, dict[str, str]] = {}

    @property
    def texts(self) -> list[str]:
        return [text.strip() for text in self.printed.split("|")]


class _Table(BaseModel, extra="forbid"):
    title: str
    shared: dict[str, str] = {}
    columns: dict[str, _Column]
    rows: dict[str, _Row]


_TABLES: dict[str, Kind] = {"Table 1": "Table 1", "Table 2": "Table 2", "Table 3": "Table 3"}
_FILE, _CELL = TypeAdapter(dict[str, _Table]), TypeAdapter(Cell)
Checked = TypeVar("Checked")


def _checked(kind: TypeAdapter[Checked], given: object, where: str) -> Checked:
    """``given``, validated as ``kind``; raises ValueError with the first error and its place."""
    try:
        return kind.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ", ".join([where, *map(str, first["loc"])])
        raise ValueError(f"{place}: {first['msg']}") from None


@cache
def _read(text: str, source: str) -> dict[str, _Table]:
    """The table of each place; raises ValueError if a row does not have one text for each column."""
    tables = _checked(_FILE, read_yaml(text, source, numbers=False), source)
    for place, content in tables.items():
        numbers = [key for key, column in content.columns.items() if column.fields]
        for name, row in content.rows.items():
            if len(row.texts) != len(content.columns):
                wrong = f"{len(row.texts)} printed columns, the table has {len(content.columns)}"
                raise ValueError(f"{source}, {place}, row {name}: {wrong}")
            for key in row.cells:
                check_name("key", key, numbers, f"{source}, {place}, row {name}, cells")
    return tables


def _merge(*levels: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a cell, merged from levels that go from general to particular.

    The last level wins; `run` and `not_run` replace each other; notes are joined.
    """
    merged: dict[str, Any] = {}
    for level in levels:
        if "run" in level or "not_run" in level:
            merged = {key: text for key, text in merged.items() if key not in ("run", "not_run")}
        merged |= level
    return merged | {"note": " ".join(level["note"] for level in levels if "note" in level)}


def _resolved(fields: dict[str, Any], printed: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a cell, with `half-digit`, `about`, `none` and `column NAME` replaced by values.

    `column NAME` is the number in that column of the same line; of `bought_at`, it is the name of that cell.
    """
    fields = dict(fields)
    if (number := _NUMBER.match(fields["printed"])) is None:
        fields["tolerance"] = None
    elif (tolerance := fields.get("tolerance")) in ("half-digit", "about"):
        digits, decimals = number["digits"].replace(",", ""), len(number["decimals"] or "")
        padding = len(digits) - len(digits.rstrip("0")) if tolerance == "about" and not decimals else 0
        fields["tolerance"] = float(f"5e{padding - decimals - 1}")  # half a unit: 0.05 for "90.5", 5 for "about 40"
    for key in ("time_step", "threshold", "bought_at"):
        column = fields.get(key, "").partition("column ")[2]
        if column in printed:
            here = f"{fields['place']}, {fields['row']}, {column}"
            fields[key] = here if key == "bought_at" else _number(printed[column])
        elif fields.get(key) == "none":
            del fields[key]
    return fields


# Finds 4.6 in "4.6 (= E_MULT + E_ADD)", 9 in "~9×", 40 in "about 40×", and none in a range, "~25-50".
_NUMBER = re.compile(r"(?:~|about )?(?P<digits>\d+(?:,\d{3})*)(?:\.(?P<decimals>\d+))?(?![\d.,]| ?- ?\d)")


def _number(printed: str) -> float | None:
    found = _NUMBER.match(printed)
    return float(found[0].removeprefix("~").removeprefix("about ").replace(",", "")) if found else None
