"""Table 1: accuracy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bntt.common.text import DASH, ends, number
from bntt.drawing.tables import _lines
from bntt.drawing.tables._table import Table
from bntt.results.collect import Results
from bntt.results.dead import AT_CHANCE, DEAD, SILENT


def table1(results: Results) -> Table:
    """Accuracy: every row of the experiment on every dataset, then the paper's lines that no row stands for."""
    lines: list[dict[str, Any]] = []
    for dataset in results.experiment.datasets:
        nearest = _lines.nearest_dataset(dataset)
        cells = [cell for cell in _lines.printed_cells(1, "accuracy") if cell.dataset == nearest]
        for row in results.experiment.rows_on(dataset):
            lines += _lines.accuracy_lines(results, dataset, row, cells)
    _lines.judge(results, lines)
    several = _lines.several_seeds(lines)
    shown = pd.DataFrame(
        {
            "Dataset": line["dataset"],
            "Row": line["row"] + (" + early exit" if line["early_exit"] else ""),
            "Training method": line["training_method"],
            "Architecture": line["architecture"],
            "Time-steps": _lines.steps(line["time_steps"]),
            "Accuracy (%)": _lines.accuracy(line, several),
            "95 %": ends(line["interval"]),
            "Over draws": number(line["over_draws"]),
            "Minus bntt (points)": _lines.minus_bntt(line),
            "Paper": _lines.beside(line),
            "Verdict": _lines.verdict(line),
            "Note": line["note"],
        }
        for line in lines
    )
    needed = {
        "Verdict": any(line["verdict"] for line in lines),
        "95 %": several,
        "Over draws": shown["Over draws"].ne(DASH).any(),
        "Note": any(line["note"] for line in lines),
    }
    shown = shown.drop(columns=[column for column, wanted in needed.items() if not wanted])
    notes = [
        _lines.uncertainty_note(lines),
        "95 %: Student's interval of the mean over seeds.",
        "Over draws: standard deviation over draws of the input's Poisson noise, with the same network.",
        _lines.minus_bntt_note(lines),
    ]
    notes = _of_columns(notes, shown)
    return _lines.finished(1, "Classification accuracy", results, lines, {"": shown}, notes)


def _of_columns(notes: Sequence[str], shown: pd.DataFrame) -> list[str]:
    """The notes without those on columns that are not shown, and on dead networks where none is."""
    if "Note" not in shown or not shown["Note"].str.contains(f"{SILENT}|{AT_CHANCE}").any():
        notes = [note for note in notes if note != DEAD]
    return [note for note in notes if not note.startswith(("95 %:", "Over draws:")) or note.partition(":")[0] in shown]


def condensed(table: Table) -> Table:
    """Table 1 for the overview: each row after all its steps, and at early exit if it saves steps; fewer columns."""
    shown = table.sections[""]
    last = ~shown.duplicated(["Dataset", "Row"], keep="last")
    idle = shown["Row"].str.endswith("early exit") & shown.get("Note", "").str.startswith("no exit")
    shown = shown[last & ~idle]
    details = ["Training method", "Architecture", "95 %", "Over draws"]
    if "Note" in shown and not shown["Note"].any():
        details.append("Note")
    if shown["Dataset"].nunique() == 1:
        details.append("Dataset")
    shown = shown.drop(columns=details, errors="ignore")
    return replace(table, sections={"": shown}, notes=_of_columns(table.notes, shown))
