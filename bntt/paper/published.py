"""The paper's printed numbers, each with where it stands, what it measures and how closely it can be met.

The numbers live in `tables.yaml`, laid out like the paper's tables, and `text.yaml`, for its figures and its text.
`cells()` gives them one by one, `published()` looks one up and `table()` gives a table as printed. Nothing here knows
of runs: a cell only names the row of experiment `paper` that reproduces it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from bntt.common.errors import check_name
from bntt.common.files import read_yaml

if TYPE_CHECKING:
    import pandas

Metric = Literal[
    "accuracy", "time_steps", "exit_step", "exit_accuracy", "energy_ratio", "energy_per_operation", "mean_gamma",
    "peak_step", "setting", "images", "ratio",
]  # fmt: skip

DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "dvs-cifar10": "DVS-CIFAR10",
}
TABLES, TEXT = (Path(__file__).with_name(name) for name in ("tables.yaml", "text.yaml"))


class Cell(BaseModel, frozen=True, extra="forbid"):
    """One printed number of the paper."""

    place: str  # where it stands: "Table 1", "Section 4.4"
    row: str  # name of its line, unique within the place: "cifar10/bntt"
    column: str  # "accuracy"
    printed: str  # as printed: "90.5"; also "n/a" and "-", and "illegible" where the copy of the paper lost it
    metric: Metric
    unit: str  # of the printed number and of the tolerance; an accuracy in % has its tolerance in points
    direction: Literal["higher", "lower", "none"]  # which side is better
    tolerance: float | None  # what still counts as the same number; None where no number is printed
    tolerance_reason: str = Field(min_length=1)
    dataset: str = ""
    quoted: bool = False  # the paper quotes the number from the work it cites, and did not measure it
    run: str = Field("", pattern="^[a-z0-9-]*$")  # row of experiment `paper` that reproduces the cell ...
    not_run: str = ""  # ... or why none does; always one of the two
    time_step: int | None = None  # the step at which the run is read, where the cell is about a given one
    threshold: float | None = None  # of the early exit, where the rule decides the step
    layer: str = ""  # that the cell is about
    option: str = ""  # of the run, where the cell is a setting; "milestones.0" is the first of a list
    underspecified: str = ""  # what is needed to reproduce the cell and is said nowhere
    note: str = ""  # contradictions and doubts

    @model_validator(mode="after")
    def _run_or_not(self) -> Self:
        if bool(self.run) == bool(self.not_run):
            raise ValueError("expected one of run (the row that reproduces it) and not_run (why none does)")
        return self

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
    headers = [column.header for column in tables[place].columns.values()]
    lines = {name: row.texts for name, row in tables[place].rows.items()}
    return pandas.DataFrame.from_dict(lines, orient="index", columns=headers).rename_axis("row")


def parse(text: str, source: str) -> tuple[Cell, ...]:
    """Cells of a YAML text laid out like `tables.yaml`. A ValueError names what is wrong, and where.

    Text that is not YAML at all, or gives a key twice, is a UserError.
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
                    fields |= {"place": place, "row": name, "column": key, "printed": printed[key]}
                    made.append(_checked(_CELL, _resolved(fields, printed), where))
    return tuple(made)


# -- the files ----------------------------------------------------------------------------------------------------


class _Part(BaseModel, extra="allow"):
    """A column or a row, with fields of its cells beside its own."""

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


_FILE, _CELL = TypeAdapter(dict[str, _Table]), TypeAdapter(Cell)
Checked = TypeVar("Checked")


def _checked(kind: TypeAdapter[Checked], given: object, where: str) -> Checked:
    """What is given as its model; the first thing that is wrong with it is a ValueError that names the place."""
    try:
        return kind.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ", ".join([where, *map(str, first["loc"])])
        raise ValueError(f"{place}: {first['msg']}") from None


def _read(text: str, source: str) -> dict[str, _Table]:
    """From place to table, with every line as long as the table is wide."""
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
    """The fields of a cell, from general to particular.

    The last one wins, `run` and `not_run` replace each other, and notes add up.
    """
    merged: dict[str, Any] = {}
    for level in levels:
        if "run" in level or "not_run" in level:
            merged = {key: text for key, text in merged.items() if key not in ("run", "not_run")}
        merged |= level
    return merged | {"note": " ".join(level["note"] for level in levels if "note" in level)}


def _resolved(fields: dict[str, Any], printed: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a cell, in which `half-digit`, `none` and `column NAME` have become values."""
    tolerance, step = fields.get("tolerance"), fields.get("time_step", "none")
    if (number := _NUMBER.match(fields["printed"])) is None:
        tolerance = None
    elif tolerance == "half-digit":  # half of the last digit's unit: 0.05 for "90.5"
        tolerance = float(f"5e-{len(number['decimals'] or '') + 1}")
    if (beside := step.partition("column ")[2]) in printed:
        step = _number(printed[beside])
    return fields | {"tolerance": tolerance, "time_step": None if step == "none" else step}


_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.(?P<decimals>\d+))?")  # 4.6 of "4.6 (= E_MULT + E_ADD)"


def _number(printed: str) -> float | None:
    found = _NUMBER.match(printed)
    return float(found[0].replace(",", "")) if found else None
