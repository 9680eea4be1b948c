"""Tables 2 and 3: energy per operation, and energy per inference under each reading of the paper's formula."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from bntt.common.text import DASH, number
from bntt.drawing.tables import _lines
from bntt.drawing.tables._table import Table
from bntt.measurements.operations import AC_PJ, MAC_PJ
from bntt.paper import published
from bntt.paper.published import DATASETS
from bntt.results.collect import Results
from bntt.results.energy import READINGS


def table2() -> Table:
    """The energy constants as printed and as the energy formula here uses them."""
    used = {"mac": MAC_PJ, "ac": AC_PJ}
    cells = _lines.printed_cells(2, "energy")
    printed = {cell.row: cell.number for cell in cells}
    operations = published.table(2)["Operation"]
    data = pd.DataFrame(
        {
            "operation": operations[name],
            "printed_pj": value,
            "used_pj": used.get(name, math.nan),
            "note": "" if name in used else "part of MAC; not used alone",
        }
        for name, value in printed.items()
    )
    shown = pd.DataFrame(
        {
            "Operation": data["operation"],
            "Paper (pJ)": [cell.printed for cell in cells],
            "Used here (pJ)": [number(value, 1) for value in data["used_pj"]],
            "Note": data["note"],
        }
    )
    total = printed["mult"] + printed["add"]
    agree = math.isclose(total, MAC_PJ) and all(math.isclose(printed[name], value) for name, value in used.items())
    sums = f"{printed['mult']:g} + {printed['add']:g} = {total:g} pJ"
    notes = [
        f"Check: MULT + ADD = MAC, {sums}, and the printed values are used."
        if agree
        else f"Check FAILED: MULT + ADD is {sums}, MAC is used at {MAC_PJ:g} pJ and AC at {AC_PJ:g} pJ.",
        "The paper quotes these constants of a 45 nm process from Horowitz (2014); no run measures them.",
    ]
    return Table("table2", "Table 2. Energy per operation", data, {"": shown}, notes)


def table3(results: Results) -> Table:
    """Latency, accuracy and E_ANN / E_method of every row, beside the paper's VGG9 on CIFAR-10."""
    lines = [
        line
        for dataset in results.experiment.datasets
        for row in results.experiment.rows_on(dataset)
        for line in _energy_lines(results, dataset, row)
    ]
    _lines.judge(results, lines)

    several, shown, readings = _lines.several_seeds(lines), [], []
    for line in lines:
        name = {"Dataset": line["dataset"]} if len(results.experiment.datasets) > 1 else {}
        name["Row"] = line["row"] + (" + early exit" if line["early_exit"] else "")
        name["Latency"] = _lines.steps(line["time_steps"])
        deviation = f" ± {number(line['own_deviation'])}" if line["own_deviation"] > 0 else ""
        note = {"Note": line["dead"] or DASH} if any(one["dead"] for one in lines) else {}
        verdict = {"Verdict": _lines.verdict(line)} if any(one["verdict"] for one in lines) else {}
        shown.append(
            {
                **name,
                "Accuracy (%)": _lines.accuracy(line, several),
                "E_ANN/E_method": _lines.ratio(line) + deviation,
                "Paper": _lines.printed_line(line["paper"]) if line["paper"] else DASH,
                **verdict,
                "Spikes per neuron": number(line["spikes"], 3),
                **note,
            }
        )
        readings.append(name | {header: _lines.ratio(line, key) for key, header in READINGS.items()})
    absent = _lines.not_run(lines, results, 3, "energy_ratio")
    not_run = [(DATASETS[cell.dataset], _lines.printed_line(cell), reason) for cell, reason in absent.items()]
    sections = {
        "": pd.DataFrame(shown),
        "E_ANN/E_method under other readings of the formula": pd.DataFrame(readings),
        "Lines of the paper that this experiment does not run": pd.DataFrame(
            not_run, columns=["Dataset", "Paper", "Not run, because"]
        ),
    }
    printed = published.published("Table 3", "bntt", "energy_ratio")
    notes = [
        _lines.uncertainty_note(lines),
        "E_ANN/E_method: the paper's accounting, dense operations times the layer's own spikes, over all layers. E_ANN "
        "is the energy of the dense network of the same architecture and width. Latency is in time-steps.",
        "What the readings count: own, a layer's own spikes; events, its non-zero inputs; mass, its inputs by "
        "magnitude; hidden leaves the input layer out of both energies. After early exit only own spikes are known.",
        "Spikes per neuron: over all steps, weighted by dense operations; the paper's "
        f"{printed.printed} implies {MAC_PJ / (AC_PJ * printed.number):.3f}.",
        "A conversion with too few steps to classify also spends little energy: read a ratio beside its accuracy.",
        *_lines.notes(results, lines),
    ]
    data = _lines.flat(lines, absent, "paper_ratio")
    return Table("table3", "Table 3. Energy efficiency", data, sections, notes)


def _energy_lines(results: Results, dataset: str, row: str) -> Iterator[dict[str, Any]]:
    """A row's lines, each with the line of the paper at the same number of steps."""
    printed = [
        published.published("Table 3", cell.row, "energy_ratio")
        for cell in _lines.printed_cells(3, "accuracy")  # only there the line of the dense network names its row
        if cell.dataset == _lines.nearest_dataset(dataset)
        and _lines.counterpart(cell.run, results.experiment.rows_on(dataset)) == row
    ]
    for line in _lines.row_lines(results, dataset, row):
        if not line["early_exit"]:
            at_step = [cell for cell in printed if len(printed) == 1 or cell.time_step == line["time_steps"]]
            line["paper"] = next(iter(at_step), None)
        yield line | {"paper_line": line["paper"].row if line["paper"] else ""}
