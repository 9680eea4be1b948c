"""Table 1: accuracy."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from bntt.common.text import DASH, ends, interval, number
from bntt.drawing.tables._lines import (
    NOT_RUN,
    absent_lines,
    accuracy,
    accuracy_lines,
    beside,
    dataset_notes,
    flat_absent,
    flat_interval,
    flat_verdict,
    paper_dataset,
    printed_cells,
    shown_absent,
    steps,
    verdicts,
)
from bntt.drawing.tables._table import Table
from bntt.results.collect import Results


def table1(results: Results) -> Table:
    """Accuracy: every row of the experiment on every dataset, then the paper's lines that none of them answers."""
    lines: list[dict[str, Any]] = []
    for dataset in results.experiment.datasets:
        cells = {cell.row: cell for cell in printed_cells(1, "accuracy") if cell.dataset == paper_dataset(dataset)}
        for row in results.experiment.rows_on(dataset):
            lines += accuracy_lines(results, dataset, row, cells)
    absent = absent_lines(1, results, {line["paper_line"] for line in lines})
    several = len({run.seed for run in results.experiment.runs}) > 1
    judged = verdicts(results, lines)
    shown = pd.DataFrame(
        {
            "Dataset": line["dataset"],
            "Row": line["row"] + (" + early exit" if line["early_exit"] else ""),
            "Training method": line["training_method"],
            "Architecture": line["architecture"],
            "Time-steps": steps(line["time_steps"]),
            "Accuracy (%)": accuracy(line),
            "95 %": ends(line["interval"]),
            "Over draws": number(line["over_draws"]),
            "Minus bntt (points)": interval(line["minus_bntt"]),
            "Paper": beside(line),
            "Verdict": DASH if found is None else str(found),
            "Note": line["note"],
        }
        for line, found in zip(lines, judged, strict=True)
    )
    if not any(judged):
        shown = shown.drop(columns="Verdict")
    if not several:
        shown = shown.drop(columns="95 %")
    if shown["Over draws"].eq(DASH).all():
        shown = shown.drop(columns="Over draws")
    if not any(line["note"] for line in lines):
        shown = shown.drop(columns="Note")
    notes = [
        "± is the standard deviation over seeds (n of them), and 95 % Student's interval of their mean."
        if several
        else "± is the binomial standard error over the test images; with one seed, the spread over seeds is unknown.",
        "Over draws: standard deviation over draws of the input's Poisson noise, the network being the same.",
        "Minus bntt: difference of accuracy over the seeds that both have, paired by seed, with Student's 95 % "
        "interval; where they share one seed, on the same test images, with Tango's interval for paired proportions.",
        *dataset_notes(results),
    ]
    measured = [_flat(line) | flat_verdict(found) for line, found in zip(lines, judged, strict=True)]
    data = pd.DataFrame(measured + [flat_absent(line, "paper_accuracy") for line in absent])
    sections = {"": shown, NOT_RUN: shown_absent(absent)}
    return Table("table1", "Table 1. Classification accuracy", data, sections, notes)


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line for the csv file: the estimate spread over three columns, the paper's cell as its number."""
    flat = {key: value for key, value in line.items() if key not in ("minus_bntt", "paper", "interval")}
    flat |= flat_interval(line)
    difference = line["minus_bntt"]
    for name in ("value", "low", "high"):
        flat["minus_bntt" + ("" if name == "value" else f"_{name}")] = getattr(difference, name, math.nan)
    return flat | {"paper_accuracy": line["paper"].printed if line["paper"] else ""}


def condensed(table: Table) -> Table:
    """Table 1 for the overview: each row after all its steps, early exit where it saves any, without the details."""
    shown = table.sections[""]
    last = ~shown.duplicated(["Dataset", "Row"], keep="last")
    idle = shown["Row"].str.endswith("early exit") & shown.get("Note", "").str.startswith("no exit")
    columns = [
        c
        for c in shown
        if c not in ("Training method", "Architecture", "95 %", "Over draws", *(["Dataset"] if _one(shown) else []))
    ]
    return replace(table, sections={"": shown.loc[last & ~idle, columns]})


def _one(shown: pd.DataFrame) -> bool:
    return shown["Dataset"].nunique() == 1
