"""Table 1 in two views: as the paper prints it, and one line per row with all that a reader may choose a method by."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bntt.common.text import DASH, ends, listed, number
from bntt.drawing.tables import _lines
from bntt.drawing.tables._table import Table
from bntt.paper import published
from bntt.paper.published import DATASETS, Cell
from bntt.results.collect import Results
from bntt.results.dead import AT_CHANCE, DEAD, SILENT

PRINTED = "The paper's lines, in its order"
MEASURED = "Every row of this experiment"
Line = Mapping[str, Any]


def table1(results: Results) -> Table:
    """Each line of the paper's Table 1 beside what was measured; then accuracy and cost of every row and dataset."""
    lines: list[dict[str, Any]] = []
    for dataset in results.experiment.datasets:
        nearest = _lines.nearest_dataset(dataset)
        cells = [cell for cell in _lines.printed_cells(1, "accuracy") if cell.dataset == nearest]
        for row in results.experiment.rows_on(dataset):
            lines += _lines.row_lines(results, dataset, row, cells)
    _lines.judge(results, lines)
    absent = _lines.not_run(lines, results, 1, "accuracy")
    data = _lines.flat(lines, absent, "paper_accuracy")
    printed = [_printed(line["paper_line"]) for line in lines] + [_printed(cell.row) for cell in absent]
    data = pd.concat([data, pd.DataFrame(printed, index=data.index)], axis=1)
    measured, order = _measured(lines)
    notes = [
        _lines.uncertainty_note(lines),
        "95 %: Student's interval of the mean over seeds.",
        "Over draws: standard deviation over draws of the input's Poisson noise, with the same network.",
        _lines.minus_bntt_note(lines),
        *_cost_notes(lines),
        *_lines.notes(results, lines),
    ]
    return Table(
        "table1",
        "Table 1. Classification accuracy",
        data,
        {PRINTED: _as_printed(results, lines, absent), MEASURED: measured},
        _of_columns(notes, measured),
        {MEASURED: order},
    )


# -- the paper's layout -----------------------------------------------------------------------------------------------

_HEADERS = ("method", "dataset", "training_method", "architecture", "time_steps")  # before the accuracy


def _printed(row: str) -> dict[str, str]:
    """A line as printed, except its accuracy, for the csv file; empty texts for a row that stands for none."""
    texts = published.table(1).loc[row].iloc[: len(_HEADERS)] if row else [""] * len(_HEADERS)
    return {f"paper_{header}": text for header, text in zip(_HEADERS, texts, strict=True)}


def _as_printed(results: Results, lines: Sequence[Line], absent: Mapping[Cell, str]) -> pd.DataFrame:
    """The paper's Table 1, line by line; the columns after its own say what this experiment measured."""
    table, several = published.table(1).rename(columns={"": "Method"}), _lines.several_seeds(lines)
    judged = any(line["verdict"] for line in lines)
    foreign = any(dataset not in DATASETS for dataset in results.experiment.datasets)
    shown = []
    for cell in _lines.printed_cells(1, "accuracy"):
        printed = dict(table.loc[cell.row])
        if cell in absent:
            shown.append(printed | {"Here: row": DASH, "Here: accuracy (%)": "not run", "Note": absent[cell]})
        for line in (one for one in lines if one["paper_line"] == cell.row):
            here = {
                "row": _name(line),
                **({"data": line["dataset"]} if foreign else {}),
                "architecture": line["architecture"],
                "time-steps": _lines.steps(line["time_steps"]),
                "accuracy (%)": _lines.accuracy(line, several),
            }
            verdict = {"Verdict": _lines.verdict(line)} if judged else {}
            ours = {f"Here: {header}": text for header, text in here.items()}
            shown.append(printed | ours | verdict | {"Note": line["note"]})
    columns = max((list(line) for line in shown), key=len)
    return pd.DataFrame(shown, columns=columns).fillna(DASH)


# -- every row --------------------------------------------------------------------------------------------------------


def _measured(lines: Sequence[Line]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of every row as texts, and the numbers by which its columns are sorted."""
    several = _lines.several_seeds(lines)
    columns: dict[str, tuple[Callable[[Line], str], Callable[[Line], float] | None]] = {
        "Dataset": (lambda line: line["dataset"], None),
        "Row": (_name, None),
        "Training method": (lambda line: line["training_method"], None),
        "Architecture": (lambda line: line["architecture"], None),
        "Time-steps": (lambda line: _lines.steps(line["time_steps"]), lambda line: line["time_steps"]),
        "Accuracy (%)": (lambda line: _lines.accuracy(line, several), lambda line: line["accuracy"]),
        "Minus bntt (points)": (_lines.minus_bntt, lambda line: getattr(line["minus_bntt"], "value", math.nan)),
        "Spikes per neuron": (lambda line: number(line["spikes"], 3), lambda line: line["spikes"]),
        "E_ANN/E_method": (_lines.ratio, lambda line: line["own"]),
        "Training (s)": (_training, lambda line: line["training_seconds"] + line["start_seconds"]),
        "Trained on": (lambda line: listed(line["machines"]) or DASH, None),
        "Peak memory (MB)": (lambda line: _amount(line["peak_memory_mb"]), lambda line: line["peak_memory_mb"]),
        "Parameters": (lambda line: _amount(line["parameters"]), lambda line: line["parameters"]),
        "Paper (%)": (lambda line: line["paper"].printed if line["paper"] else DASH, _paper),
        "Verdict": (_lines.verdict, None),
        "95 %": (lambda line: ends(line["interval"]), lambda line: getattr(line["interval"], "low", math.nan)),
        "Over draws": (lambda line: number(line["over_draws"]), lambda line: line["over_draws"]),
        "Note": (lambda line: line["note"], None),
    }
    shown = pd.DataFrame([{header: text(line) for header, (text, _) in columns.items()} for line in lines])
    needed = {
        "95 %": several,
        "Over draws": shown["Over draws"].ne(DASH).any(),
        "Trained on": len(_machines(lines)) > 1,
        "Verdict": any(line["verdict"] for line in lines),
        "Note": any(line["note"] for line in lines),
    }
    shown = shown.drop(columns=[column for column, wanted in needed.items() if not wanted])
    keys = {header: key for header, (_, key) in columns.items() if key is not None and header in shown}
    return shown, pd.DataFrame([{header: float(key(line)) for header, key in keys.items()} for line in lines])


def _name(line: Line) -> str:
    return line["row"] + (" + early exit" if line["early_exit"] else "")


def _paper(line: Line) -> float:
    value = line["paper"].value if line["paper"] else None
    return math.nan if value is None else value


def _training(line: Line) -> str:
    """Seconds of training, and those of the row that it starts from: ``13 + 75 (ann)``."""
    before = f" + {_amount(line['start_seconds'])} ({line['start']})" if line["start"] else ""
    return _amount(line["training_seconds"]) + before


def _amount(value: float) -> str:
    """A number to three digits or more, without decimals from 100 on."""
    return DASH if math.isnan(value) else f"{value:,.{0 if value >= 100 else 1}f}"


def _machines(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(machine for line in lines for machine in line["machines"]))


def _cost_notes(lines: Sequence[Line]) -> list[str]:
    """What the columns of cost hold, on which machines they were measured, and why some have a dash."""
    notes = [
        "Spikes per neuron: over all steps, weighted by dense operations. E_ANN/E_method: the paper's accounting of "
        "energy, as in Table 3.",
    ]
    if machines := _machines(lines):
        several = "on several machines, named in the line: compare only times of the same one"
        where = f"on {machines[0]}" if len(machines) == 1 else several
        starts = ", plus those of the row it starts from" * any(line["start"] for line in lines)
        notes.append(f"Training: mean seconds over seeds{starts}; {where}.")
        notes.append("Peak memory: of the process that trained, without that of a GPU; a mean over seeds.")
    for header, key in (("spikes", "no_spikes"), ("energy", "no_energy")):
        for reason in dict.fromkeys(line[key] for line in lines if line[key]):
            rows = list(dict.fromkeys(line["row"] for line in lines if line[key] == reason))
            notes.append(f"No {header}: {listed(rows)}; {reason}.")
    return notes


# -- notes, and the short form ----------------------------------------------------------------------------------------


def _of_columns(notes: Sequence[str], shown: pd.DataFrame) -> list[str]:
    """The notes without those on columns that are not shown, and on dead networks where none is."""
    if "Note" not in shown or not shown["Note"].str.contains(f"{SILENT}|{AT_CHANCE}").any():
        notes = [note for note in notes if note != DEAD]
    of_column = {name.partition(" (")[0]: name for name in ("95 %", "Over draws", "Training (s)", "Peak memory (MB)")}
    return [note for note in notes if of_column.get(note.partition(":")[0], "Row") in shown]


def condensed(table: Table) -> Table:
    """Table 1 for the overview: each row after all its steps, and at early exit if it saves steps; fewer columns."""
    shown = table.sections[MEASURED]
    last = ~shown.duplicated(["Dataset", "Row"], keep="last")
    if "Note" in shown:
        last &= ~(shown["Row"].str.endswith("early exit") & shown["Note"].str.startswith("no exit"))
    shown = shown[last]
    details = ["Training method", "Architecture", "95 %", "Over draws"]
    details += ["Training (s)", "Trained on", "Peak memory (MB)", "Parameters"]
    if "Note" in shown and not shown["Note"].any():
        details.append("Note")
    if shown["Dataset"].nunique() == 1:
        details.append("Dataset")
    shown = shown.drop(columns=details, errors="ignore")
    return replace(table, sections={"": shown}, notes=_of_columns(table.notes, shown), order={})
