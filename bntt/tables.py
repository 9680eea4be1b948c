"""Tables 1, 2 and 3: the measured columns, with the paper's printed number in a column of its own beside them.

Pure functions from the frames of `Results` to a `Table`. No line is given a verdict here: a printed number is about
the paper's dataset, and a note of the table says where the data is another.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bntt import published
from bntt.collect import Results
from bntt.experiment import Run
from bntt.files import write_atomically
from bntt.measurements.energy import AC_PJ, MAC_PJ, energy_mj
from bntt.published import Cell
from bntt.report import DASH, interval, listed, number, test_images, why_absent
from bntt.statistics import Estimate, decode_bits, mean_std, paired_difference, standard_error

PAPER_DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "dvs-cifar10": "DVS-CIFAR10",
}
TRAINING_METHODS = {"surrogate": "Surrogate gradient", "ann": "Dense network", "conversion": "ANN-SNN conversion"}
NOT_RUN = "Lines of the paper that this experiment does not run"
ACCOUNTINGS = ("own", "events", "mass")  # of energy.csv; the first is the paper's
READINGS = {
    "own": "own (paper)",
    "own_hidden": "own, hidden",
    "events": "events",
    "events_hidden": "events, hidden",
    "mass": "mass",
    "mass_hidden": "mass, hidden",
}


@dataclass(frozen=True)
class Table:
    """A table: ``data`` with plain numbers for the csv file, ``sections`` of text as a reader sees it, and notes."""

    name: str
    title: str
    data: pd.DataFrame
    sections: Mapping[str, pd.DataFrame]
    notes: Sequence[str]


# -- Table 1 ---------------------------------------------------------------------------------------------------


def table1(results: Results) -> Table:
    """Accuracy: every row of the experiment on every dataset, then the paper's lines that none of them answers."""
    lines: list[dict[str, Any]] = []
    for dataset in results.experiment.datasets:
        cells = {cell.row: cell for cell in _cells(1, "accuracy") if cell.dataset == paper_dataset(dataset)}
        for row in results.experiment.rows:
            lines += _accuracy_lines(results, dataset, row, cells)
    absent = _absent(1, results, {line["paper_line"] for line in lines})
    several = len({run.seed for run in results.experiment.runs}) > 1
    shown = pd.DataFrame(
        {
            "Dataset": line["dataset"],
            "Row": line["row"] + (" + early exit" if line["early_exit"] else ""),
            "Training method": line["training_method"],
            "Architecture": line["architecture"],
            "Time-steps": _steps(line["time_steps"]),
            "Accuracy (%)": _accuracy(line),
            "Minus bntt (points)": interval(line["minus_bntt"]),
            "Paper": _beside(line),
            "Note": line["note"],
        }
        for line in lines
    )
    if not any(line["note"] for line in lines):
        shown = shown.drop(columns="Note")
    notes = [
        "± is the standard deviation over seeds (n of them)."
        if several
        else "± is the binomial standard error over the test images; there is one seed, so spread over seeds is unknown.",
        "Minus bntt: difference of accuracy on the same test images, seed by seed the first that both have, with Tango's "
        "95 % interval for paired proportions.",
        *_dataset_notes(results),
    ]
    data = pd.DataFrame([_flat(line) for line in lines] + [_flat_absent(line, "paper_accuracy") for line in absent])
    sections = {"": shown, NOT_RUN: _shown_absent(absent)}
    return Table("table1", "Table 1. Classification accuracy", data, sections, notes)


def _accuracy_lines(results: Results, dataset: str, row: str, cells: Mapping[str, Cell]) -> list[dict[str, Any]]:
    """A row's lines: its last step; a conversion's reported steps before it; early exit where there is one."""
    run = next(one.run for one in results.of_row(row, dataset))
    anytime = _select(results.frame("anytime.csv"), dataset, row)
    mine = [cell for cell in cells.values() if counterpart(cell.run, results.experiment.rows) == row]
    full = next((cell for cell in mine if cell.metric == "accuracy"), None)
    last = run.options.get("time_steps", 1)
    steps = {step for step in run.evaluation["report_steps"] if step < last} if run.method == "conversion" else set()
    lines = []
    for step in [*sorted(steps), last]:
        at_step = anytime[anytime["time_step"] == step]
        line = _line(results, run, at_step, cell=full if step == last else None)
        lines.append(line | {"time_steps": step, "early_exit": False})
    exits = _select(results.frame("early_exit.csv"), dataset, row)
    if len(exits):
        exits = exits[exits["threshold"] == run.evaluation["exit_threshold"]]
        at_exit = exits.merge(anytime[["seed", "time_step", "correct"]], left_on=["seed", "exit_step"],
                              right_on=["seed", "time_step"])  # fmt: skip
        line = _line(results, run, at_exit, cell=next((cell for cell in mine if cell.metric == "exit_accuracy"), None))
        threshold = run.evaluation["exit_threshold"]
        how = f"threshold {threshold:g}" if exits["exits"].all() else f"no exit: gamma is never below {threshold:g}"
        note = "; ".join(filter(None, [how, line["note"]]))
        lines.append(line | {"time_steps": exits["exit_step"].mean(), "early_exit": True, "note": note})
    return lines


def _line(results: Results, run: Run, found: pd.DataFrame, cell: Cell | None) -> dict[str, Any]:
    """One line of Table 1 from the accuracies of its seeds: ``found`` has seed, accuracy and correct."""
    images = test_images(results, run.dataset)
    mean, deviation = mean_std(found["accuracy"]) if len(found) else (math.nan, math.nan)
    if len(found) > 1:
        kind, uncertainty = "standard deviation over seeds", deviation
    else:
        kind = "standard error over test images"
        known = len(found) and images
        uncertainty = 100 * standard_error(mean / 100 * images, images) if known else math.nan
    absent = [one for one in results.of_row(run.row, run.dataset) if one.status != "done"]
    seeds = len(results.of_row(run.row, run.dataset))
    reasons = [(f"seed {one.run.seed}: " if seeds > 1 else "") + why_absent(one.status, one.reason) for one in absent]
    return {
        "dataset": run.dataset,
        "row": run.row,
        "training_method": training_method(run),
        "architecture": architecture(run),
        "accuracy": mean,
        "uncertainty": uncertainty,
        "uncertainty_is": kind,
        "seeds": len(found),
        "status": "done" if len(found) else ("diverged" if any(a.status == "diverged" for a in absent) else "not run"),
        "minus_bntt": _minus_bntt(results, run, found, images),
        "paper_line": cell.row if cell else "",
        "paper": cell,
        "note": "; ".join(reasons),
    }


def _minus_bntt(results: Results, run: Run, found: pd.DataFrame, images: int | None) -> Estimate | None:
    """Paired difference to the row bntt after all its steps, in points, on the first seed that both have."""
    bntt = _select(results.frame("anytime.csv"), run.dataset, "bntt")
    if images is None or bntt.empty:
        return None
    both = _last_step(bntt).merge(found, on="seed", suffixes=("_bntt", ""))
    if both.empty or (run.row == "bntt" and both["correct"].iloc[0] == both["correct_bntt"].iloc[0]):
        return None
    first = both.sort_values("seed").iloc[0]
    right, reference = decode_bits(first["correct"], images), decode_bits(first["correct_bntt"], images)
    return paired_difference(right, reference).times(100)


def _accuracy(line: Mapping[str, Any]) -> str:
    if line["status"] != "done":
        return "n/a" if line["status"] == "diverged" else "not run"
    seeds = f" (n = {line['seeds']})" if line["seeds"] > 1 else ""
    return f"{number(line['accuracy'])} ± {number(line['uncertainty'])}{seeds}"


def _beside(line: Mapping[str, Any]) -> str:
    """The paper's line as ``90.5 (BNTT (ours), VGG9, T = 25)``."""
    return _printed(line["paper"]) if line["paper"] else DASH


def _printed(cell: Cell) -> str:
    table = published.table(int(cell.place.removeprefix("Table ")))
    printed = table.loc[cell.row]
    architecture = f"{printed['Architecture']}, " if "Architecture" in printed else ""
    steps = printed["Time-steps"] if "Time-steps" in printed else printed["Latency"]
    return f"{cell.printed} ({printed.iloc[0]}, {architecture}T = {steps})"


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line for the csv file: the estimate spread over three columns, the paper's cell as its number."""
    flat = {key: value for key, value in line.items() if key not in ("minus_bntt", "paper")}
    difference = line["minus_bntt"]
    for name in ("value", "low", "high"):
        flat["minus_bntt" + ("" if name == "value" else f"_{name}")] = getattr(difference, name, math.nan)
    return flat | {"paper_accuracy": line["paper"].printed if line["paper"] else ""}


# -- Table 2 ---------------------------------------------------------------------------------------------------


def table2() -> Table:
    """The energy constants as printed and as the energy formula here uses them."""
    used = {"mac": MAC_PJ, "ac": AC_PJ}
    cells = {cell.row: cell for cell in _cells(2, "energy")}
    printed = published.table(2)
    data = pd.DataFrame(
        {
            "operation": printed.loc[name, "Operation"],
            "printed_pj": cell.value,
            "used_pj": used.get(name, math.nan),
            "note": "" if name in used else "part of MAC; not used alone",
        }
        for name, cell in cells.items()
    )
    total = cells["mult"].value + cells["add"].value
    agree = math.isclose(total, MAC_PJ) and all(math.isclose(cells[name].value, value) for name, value in used.items())
    sums = f"{cells['mult'].value:g} + {cells['add'].value:g} = {total:g} pJ"
    shown = pd.DataFrame(
        {
            "Operation": data["operation"],
            "Paper (pJ)": [cell.printed for cell in cells.values()],
            "Used here (pJ)": [number(value, 1) for value in data["used_pj"]],
            "Note": data["note"],
        }
    )
    notes = [
        f"Check: MULT + ADD = MAC, {sums}, and what is used is what is printed."
        if agree
        else f"Check FAILED: MULT + ADD is {sums}, MAC is used at {MAC_PJ:g} pJ and AC at {AC_PJ:g} pJ.",
        "The paper quotes these constants of a 45 nm process from Horowitz (2014); nothing here measures them.",
    ]
    return Table("table2", "Table 2. Energy per operation", data, {"": shown}, notes)


# -- Table 3 ---------------------------------------------------------------------------------------------------


def energy_ratios(energy: pd.DataFrame) -> pd.DataFrame:
    """E_ANN / E_method from ``energy.csv``: one line per dataset, row, seed and step, one column per accounting.

    E_ANN is the dense energy of the same layers. ``own`` is the paper's accounting; ``*_hidden`` leaves the input layer
    out of both sides. ``spikes`` is the count per neuron that the paper's formula sees, weighted by dense operations. A
    network without spikes is dense: its ratio is 1.
    """
    lines = []
    by_run = energy.groupby(["dataset", "row", "seed", "time_step"], sort=False) if len(energy) else ()
    for keys, layers in by_run:
        line = dict(zip(("dataset", "row", "seed", "time_step"), keys, strict=True))
        for suffix, part in (("", layers), ("_hidden", layers[layers["layer"] != layers["layer"].iloc[0]])):
            dense = part["dense_mj"].sum()
            for accounting in ACCOUNTINGS:
                own = pd.to_numeric(part[f"{accounting}_mj"], errors="coerce")
                line[accounting + suffix] = 1.0 if own.isna().all() else _ratio(dense, own.sum())
        counts = pd.to_numeric(layers["count_own"], errors="coerce")
        line["spikes"] = math.nan if counts.isna().all() else (layers["macs"] * counts).sum() / layers["macs"].sum()
        lines.append(line)
    return pd.DataFrame(lines, columns=["dataset", "row", "seed", "time_step", *READINGS, "spikes"])


def exit_energy_ratios(energy: pd.DataFrame, spikes: pd.DataFrame, exit_step: int) -> dict[str, float]:
    """The same for one run after ``exit_step`` steps, which energy.csv does not report: the paper's accounting alone.

    A hidden layer's count is its spikes up to then. The classifier takes those of the layer before it, which is fully
    connected and therefore not pooled.
    """
    layers = energy[energy["time_step"] == energy["time_step"].max()]
    counts = spikes[spikes["time_step"] <= exit_step].groupby("layer", sort=False)["spikes"].sum()
    counts = [*(counts[name] for name in layers["layer"].iloc[:-1]), counts[layers["layer"].iloc[-2]]]
    spent = [energy_mj(macs * count, AC_PJ) for macs, count in zip(layers["macs"], counts, strict=True)]
    return {
        "own": _ratio(layers["dense_mj"].sum(), sum(spent)),
        "own_hidden": _ratio(layers["dense_mj"].iloc[1:].sum(), sum(spent[1:])),
        "spikes": (layers["macs"] * counts).sum() / layers["macs"].sum(),
    }


def table3(results: Results) -> Table:
    """Latency, accuracy and E_ANN / E_method of every row, beside the paper's VGG9 on CIFAR-10."""
    measures = [*READINGS, "spikes"]
    energy = results.frame("energy.csv")
    ratios = energy_ratios(energy)
    cells = _cells(3, "energy_ratio")
    lines: list[dict[str, Any]] = []
    for dataset in results.experiment.datasets:
        for row in results.experiment.rows:
            cells_of_row = [cell for cell in cells if _row_of_line(cell, results.experiment.rows) == row]
            for line in _accuracy_lines(results, dataset, row, {}):
                found = _select(ratios, dataset, row)
                if line["early_exit"]:
                    found = _exit_ratios(results, dataset, row)
                else:
                    found = found[found["time_step"] == line["time_steps"]]
                    line["paper"] = _cell_at(cells_of_row, line["time_steps"])
                means = {name: found[name].mean() if name in found and len(found) else math.nan for name in measures}
                lines.append(line | means | {"paper_line": line["paper"].row if line["paper"] else ""})

    def ratio(line: Mapping[str, Any], name: str) -> str:
        return "n/a" if line["status"] == "diverged" else number(line[name]) + ("×" if line[name] > 0 else "")

    several = len(results.experiment.datasets) > 1
    names = [
        ({"Dataset": line["dataset"]} if several else {})
        | {"Row": line["row"] + (" + early exit" if line["early_exit"] else ""), "Latency": _steps(line["time_steps"])}
        for line in lines
    ]
    shown = [
        {
            "Accuracy (%)": _accuracy(line),
            "E_ANN/E_method": ratio(line, "own"),
            "Paper": _beside(line),
            "Spikes per neuron": number(line["spikes"], 3),
        }
        for line in lines
    ]
    readings = [{header: ratio(line, name) for name, header in READINGS.items()} for line in lines]
    flat = [{key: value for key, value in line.items() if key not in ("minus_bntt", "paper")} for line in lines]
    flat = [one | {"paper_ratio": line["paper"].printed if line["paper"] else ""} for one, line in zip(flat, lines, strict=True)]
    absent = _absent(3, results, {line["paper_line"] for line in lines})
    sections = {
        "": pd.DataFrame([name | line for name, line in zip(names, shown, strict=True)]),
        "E_ANN/E_method under other readings of the formula": pd.DataFrame(
            [name | line for name, line in zip(names, readings, strict=True)]
        ),
        NOT_RUN: _shown_absent(absent),
    }
    notes = [
        "E_ANN/E_method: the paper's accounting, dense operations times the layer's own spikes, all layers. E_ANN is the "
        "dense network of the same architecture and width. Latency is in time-steps.",
        "Own: a layer's own spikes. Events: its non-zero inputs. Mass: its inputs by magnitude. Hidden: the input layer "
        "left out of both energies. After an early exit only a layer's own spikes are known.",
        "Spikes per neuron: over all steps, weighted by dense operations; the paper's 9.14× implies 0.559.",
        "A conversion that has not begun to answer spends little: read a ratio beside its accuracy.",
        *_dataset_notes(results),
    ]
    data = pd.DataFrame(flat + [_flat_absent(line, "paper_ratio") for line in absent])
    return Table("table3", "Table 3. Energy efficiency", data, sections, notes)


def _exit_ratios(results: Results, dataset: str, row: str) -> pd.DataFrame:
    """Energy ratios at the exit step, one line per seed."""
    exits, energy, spikes = (
        _select(results.frame(name), dataset, row) for name in ("early_exit.csv", "energy.csv", "spikes.csv")
    )
    exits = exits[exits["threshold"] == results.experiment.evaluation["exit_threshold"]]
    return pd.DataFrame(
        exit_energy_ratios(energy[energy["seed"] == seed], spikes[spikes["seed"] == seed], step)
        for seed, step in zip(exits["seed"], exits["exit_step"], strict=True)
    )


def _row_of_line(cell: Cell, rows: Iterable[str]) -> str | None:
    """The row of a line of Table 3; its ANN line names a row only with its accuracy."""
    return counterpart(published.published(table=3, row=cell.row, column="accuracy").run, rows)


def _cell_at(cells: Sequence[Cell], step: float) -> Cell | None:
    """The line of the paper beside a row: the only one there is, or of several the one at the same number of steps."""
    if len(cells) == 1:
        return cells[0]
    return next((cell for cell in cells if cell.time_step == step), None)


# -- shared ----------------------------------------------------------------------------------------------------


def counterpart(run: str, rows: Iterable[str]) -> str | None:
    """The row of this experiment that answers row ``run`` of experiment `paper`: its namesake.

    A row named for the paper's architecture, ``conversion-vgg16``, is also answered by ``conversion``, at whatever
    architecture that is.
    """
    rows = list(rows)
    return next((name for name in (run, re.sub(r"-vgg\d+$", "", run)) if name and name in rows), None)


def paper_dataset(dataset: str) -> str:
    """The paper's dataset whose numbers stand beside a dataset's: itself, or CIFAR-10 for one the paper has not."""
    return dataset if dataset in PAPER_DATASETS else "cifar10"


def architecture(run: Run) -> str:
    """``VGG9``, with the width where it is not the paper's."""
    if "architecture" not in run.options:
        return DASH
    width = run.options.get("width", 1)
    return run.options["architecture"].upper() + (f", {width:g} × width" if width != 1 else "")


def training_method(run: Run) -> str:
    """How a row is trained, in the paper's words, with what sets it apart."""
    name = TRAINING_METHODS.get(run.method, run.method)
    details = []
    if "norm" in run.options:
        details.append("no norm" if run.options["norm"] == "none" else run.options["norm"])
    if run.options.get("batch_norm"):
        details.append("batch norm")
    if run.method == "conversion":
        details.append(f"{run.options['reset']} reset")
    return ", ".join([name, *details])


def _cells(table: int, column: str) -> list[Cell]:
    return [cell for cell in published.cells() if cell.place == f"Table {table}" and cell.column == column]


def _absent(table: int, results: Results, beside: set[str]) -> list[tuple[Cell, str]]:
    """The paper's lines that stand beside no row, each with the reason."""
    column = {1: "accuracy", 3: "energy_ratio"}[table]
    datasets = {paper_dataset(dataset) for dataset in results.experiment.datasets}
    lines = []
    for cell in _cells(table, column):
        if cell.row in beside:
            continue
        row = counterpart(cell.run, results.experiment.rows)
        if cell.not_run and not cell.run:
            reason = cell.not_run
        elif cell.dataset not in datasets:
            reason = f"{PAPER_DATASETS[cell.dataset]} is no dataset of this experiment"
        elif row is None:
            reason = f"this experiment has no row {cell.run}"
        elif cell.time_step is not None and table == 3:
            reason = f"row {row} is not reported at T = {cell.time_step}"
        else:
            reason = f"row {row} has no such measurement yet"
        lines.append((cell, reason))
    return lines


def _shown_absent(absent: Sequence[tuple[Cell, str]]) -> pd.DataFrame:
    lines = [(PAPER_DATASETS[cell.dataset], _printed(cell), reason) for cell, reason in absent]
    return pd.DataFrame(lines, columns=["Dataset", "Paper", "Not run, because"])


def _flat_absent(line: tuple[Cell, str], column: str) -> dict[str, Any]:
    cell, reason = line
    return {"dataset": cell.dataset, "status": "not run", "paper_line": cell.row, column: cell.printed, "note": reason}


def _dataset_notes(results: Results) -> list[str]:
    foreign = [dataset for dataset in results.experiment.datasets if dataset not in PAPER_DATASETS]
    if not foreign:
        return ["The paper's numbers stand beside; they are given no verdict in this table."]
    return [f"No verdict: the data is {listed(foreign)}, not {PAPER_DATASETS[paper_dataset(foreign[0])]}."]


def _select(frame: pd.DataFrame, dataset: str, row: str) -> pd.DataFrame:
    return frame[(frame["dataset"] == dataset) & (frame["row"] == row)]


def _last_step(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["time_step"] == frame.groupby("seed")["time_step"].transform("max")]


def _ratio(dense: float, spent: float) -> float:
    """A silent network spends nothing: its ratio is infinite."""
    return dense / spent if spent > 0 else math.inf


def _steps(steps: float) -> str:
    """A number of time-steps; a mean over seeds may be broken."""
    return DASH if math.isnan(steps) else f"{steps:.1f}".removesuffix(".0")


# -- files -----------------------------------------------------------------------------------------------------


def write(table: Table, folder: str | Path) -> list[Path]:
    """Write a table as csv, md and tex under ``folder``; returns the paths."""
    contents = {"csv": table.data.to_csv(index=False), "md": to_markdown(table), "tex": to_latex(table)}
    paths = []
    for suffix, content in contents.items():
        path = Path(folder) / f"{table.name}.{suffix}"
        write_atomically(path, lambda beside, content=content: beside.write_text(content, encoding="utf-8"))
        paths.append(path)
    return paths


def to_markdown(table: Table) -> str:
    """The table in Markdown, its notes below."""
    parts = [f"# {table.title}"]
    for heading, frame in table.sections.items():
        if frame.empty:
            continue
        lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
        cells = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
        parts += [*([f"## {heading}"] if heading else []), "\n".join(cells)]
    return "\n\n".join([*parts, *(f"* {note}" for note in table.notes)]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "–": "--",
    "∞": r"$\infty$",
}  # fmt: skip


def latex_escape(text: object) -> str:
    """Text for LaTeX: its special characters, and the signs that tables here use."""
    return "".join(_LATEX.get(character, character) for character in str(text))


def to_latex(table: Table) -> str:
    """The table for LaTeX with booktabs: one ``table`` per section, the notes below the first."""
    parts = ["% needs \\usepackage{booktabs}"]
    for heading, frame in table.sections.items():
        if frame.empty:
            continue
        lines = [" & ".join(map(latex_escape, line)) + r" \\" for line in frame.to_numpy().tolist()]
        caption = latex_escape(table.title + (f": {heading[0].lower()}{heading[1:]}" if heading else ""))
        notes = [rf"\par {latex_escape(note)}" for note in table.notes] if not heading else []
        parts += [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{'l' * len(frame.columns)}}}",
            r"\toprule",
            " & ".join(map(latex_escape, frame.columns)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *(["\\par\\footnotesize"] if notes else []),
            *notes,
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"
