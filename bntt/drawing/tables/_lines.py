"""Lines of tables: a row's accuracy with its uncertainty, and the line of the paper that it is compared with."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bntt.common.text import DASH, counted, interval, listed, number
from bntt.data import store
from bntt.drawing.tables._table import Table
from bntt.experiment.schema import Run
from bntt.paper import published
from bntt.paper.published import DATASETS, Cell
from bntt.paper.reproduction import Judged, judge_cell
from bntt.paper.verdicts import explained
from bntt.results.collect import Results, at_threshold, last_step, select
from bntt.results.comparison import accuracy_difference
from bntt.results.dead import DEAD, chance_level
from bntt.results.facts import images_used, is_cut, test_images, why_absent
from bntt.results.intervals import Estimate, mean_std, standard_error, student_interval

TRAINING_METHODS = {"surrogate": "Surrogate gradient", "ann": "Dense network", "conversion": "ANN-SNN conversion"}

# -- measured -----------------------------------------------------------------------------------------------------


def accuracy_lines(results: Results, dataset: str, row: str, cells: Iterable[Cell] = ()) -> list[dict[str, Any]]:
    """A row's lines: for a conversion its reported steps; the last step; early exit, if there is one."""
    run = next(one.run for one in results.of_row(row, dataset))
    anytime = results.frame("anytime.csv", dataset=dataset, row=row)
    printed = [cell for cell in cells if counterpart(cell.run, results.experiment.rows) == row]
    of_last, of_exit = (next((cell for cell in printed if is_of_exit(cell) is kind), None) for kind in (False, True))
    last = run.options.get("time_steps", 1)
    steps = {step for step in run.evaluation["report_steps"] if step < last} if run.method == "conversion" else set()
    lines = []
    for step in [*sorted(steps), last]:
        line = _line(results, run, select(anytime, time_step=step), of_last if step == last else None)
        lines.append(line | {"time_steps": step, "early_exit": False})
    exits = results.frame("early_exit.csv", dataset=dataset, row=row)
    if len(exits):
        threshold = run.evaluation["exit_threshold"]
        exits = at_threshold(exits, threshold)
        at_exit = exits.merge(anytime[["seed", "time_step", "correct"]], left_on=["seed", "exit_step"],
                              right_on=["seed", "time_step"])  # fmt: skip
        line = _line(results, run, at_exit, of_exit)
        exiting = int(exits["exits"].sum())
        how = f"threshold {threshold:g}" if exiting else f"no exit at {threshold:g}"
        if 0 < exiting < len(exits):
            how += f", reached by {exiting} of {counted(len(exits), 'seed')}"
        fixed = of_exit.time_step if of_exit and dataset in DATASETS else None
        at = f"verdict: after {counted(fixed, 'time-step')}, as printed" if fixed else ""
        note = "; ".join(filter(None, [how, line["note"], at]))
        lines.append(line | {"time_steps": exits["exit_step"].mean(), "early_exit": True, "note": note})
    return lines


def _line(results: Results, run: Run, found: pd.DataFrame, cell: Cell | None) -> dict[str, Any]:
    """One line of Table 1 from the accuracies of its seeds; ``found`` has columns seed, accuracy and correct."""
    images = test_images(results, run.dataset)
    mean, deviation = mean_std(found["accuracy"]) if len(found) else (math.nan, math.nan)
    if len(found) > 1:
        kind, uncertainty = "standard deviation over seeds", deviation
    else:
        kind = "standard error over test images"
        uncertainty = 100 * standard_error(mean / 100 * images, images) if len(found) and images else math.nan
    runs = results.of_row(run.row, run.dataset)
    absent = [one for one in runs if not one.status.measured]
    reasons = [f"seed {one.run.seed}: " * (len(runs) > 1) + why_absent(one.status, one.reason) for one in absent]
    dead = _dead(results, run, found)
    return {
        "dataset": run.dataset,
        "row": run.row,
        "training_method": training_method(run),
        "architecture": architecture(run),
        "accuracy": mean,
        "uncertainty": uncertainty,
        "uncertainty_is": kind,
        "interval": student_interval(found["accuracy"]).within(0, 100) if len(found) > 1 else None,
        "over_draws": _over_draws(results, run, found),
        "seeds": len(found),
        "status": "done" if len(found) else ("diverged" if any(a.status == "diverged" for a in absent) else "not run"),
        **_minus_bntt(results, run, found, images),
        "dead": dead,
        "paper_line": cell.row if cell else "",
        "paper": cell,
        "note": "; ".join(filter(None, [dead, *reasons])),
    }


def _dead(results: Results, run: Run, found: pd.DataFrame) -> str:
    """``silent`` or ``at chance`` at each seed's step in ``found``, with the number of such seeds if it is not all."""
    steps = dict(zip(found["seed"], found["time_step"], strict=True))
    of_seeds = [results.dead(one, steps[one.run.seed]) for one in results.of_row(run.row, run.dataset)
                if one.run.seed in steps]  # fmt: skip
    counts = Counter(dead.word for dead in of_seeds if dead)
    seeds = f" of {counted(len(found), 'seed')}"
    return ", ".join(word + f" for {count}{seeds}" * (count < len(found)) for word, count in counts.items())


def _minus_bntt(
    results: Results, run: Run, found: pd.DataFrame, images: int | None
) -> dict[str, Estimate | int | None]:
    """Paired difference of accuracy to row bntt after all its steps, in points, and the number of common seeds."""
    bntt = last_step(results.frame("anytime.csv", dataset=run.dataset, row="bntt"))
    both = found.merge(bntt, on="seed", suffixes=("", "_other"))
    if run.row == "bntt" and (both["correct"] == both["correct_other"]).all():
        return {"minus_bntt": None, "minus_bntt_seeds": None}
    return {"minus_bntt": accuracy_difference(both, images)[0], "minus_bntt_seeds": len(both)}


def _over_draws(results: Results, run: Run, found: pd.DataFrame) -> float:
    """Standard deviation of the accuracy over draws of the input's noise, pooled over seeds; NaN without draws."""
    draws = results.frame("draws.csv", dataset=run.dataset, row=run.row)
    if draws.empty or "time_step" not in found:
        return math.nan
    draws = draws.merge(found[["seed", "time_step"]], on=["seed", "time_step"])
    return math.sqrt(draws.groupby("seed")["accuracy"].var(ddof=1).mean())


def several_seeds(lines: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some accuracy in these lines is a mean over seeds."""
    return any(line["seeds"] > 1 for line in lines)


def accuracy(line: Mapping[str, Any], several: bool) -> str:
    """The accuracy with its uncertainty; one seed among ``several`` is told apart, since its ± is of another kind."""
    if line["status"] != "done":
        return "n/a" if line["status"] == "diverged" else "not run"
    seeds = f" (n = {line['seeds']}{', binomial' if line['seeds'] == 1 else ''})" if several else ""
    return f"{number(line['accuracy'])} ± {number(line['uncertainty'])}{seeds}"


def uncertainty_note(lines: Iterable[Mapping[str, Any]]) -> str:
    """What follows the ± in these lines."""
    seeds = {line["seeds"] for line in lines if line["seeds"]}
    over_images = "the binomial standard error over the test images"
    if not seeds - {1}:
        return f"± is {over_images}; with one seed, the spread over seeds is unknown."
    alone = f"; of one seed (n = 1, binomial), {over_images}" if 1 in seeds else ""
    return f"± is the standard deviation over seeds (n: their number){alone}."


def minus_bntt(line: Mapping[str, Any]) -> str:
    """The difference to bntt with its interval, and whether it rests on one seed."""
    alone = line["minus_bntt"] is not None and line["minus_bntt_seeds"] == 1
    return interval(line["minus_bntt"]) + (", one seed" if alone else "")


def minus_bntt_note(lines: Sequence[Mapping[str, Any]]) -> str:
    """What the differences to bntt in these lines are, and their intervals."""
    seeds = {line["minus_bntt_seeds"] for line in lines if line["minus_bntt"] is not None}
    kinds = ["Minus bntt: difference of accuracy to bntt"]
    if seeds - {1}:
        kinds.append("Paired by common seed, with Student's 95 % interval over seeds")
    if 1 in seeds:
        kinds.append(
            "One seed: paired by test image, with Tango's 95 % interval for paired proportions; it is over images and "
            "not over seeds, so another seed may decide otherwise"
        )
    return ". ".join(kinds) + "."


def steps(steps: float) -> str:
    """A number of time-steps as text; a mean over seeds may have a decimal."""
    return DASH if math.isnan(steps) else f"{steps:.1f}".removesuffix(".0")


def architecture(run: Run) -> str:
    """``VGG9``, with the width factor if it is not 1."""
    if "architecture" not in run.options:
        return DASH
    width = run.options.get("width", 1)
    return str(run.options["architecture"]).upper() + (f", width {width:g}" if width != 1 else "")


def training_method(run: Run) -> str:
    """How a row is trained, in the paper's words, with its norm or reset."""
    name = TRAINING_METHODS.get(run.method, run.method)
    details = []
    if "norm" in run.options:
        details.append("no norm" if run.options["norm"] == "none" else run.options["norm"])
    if run.options.get("batch_norm"):
        details.append("batch norm")
    if run.method == "conversion":
        details.append(f"{run.options['reset']} reset")
    return ", ".join([name, *details])


# -- printed ------------------------------------------------------------------------------------------------------


def counterpart(run: str, rows: Iterable[str]) -> str | None:
    """The row of this experiment that stands for row ``run`` of experiment `paper`: the one of the same name.

    For a row named after the paper's architecture, ``conversion-vgg16``, it may also be ``conversion``, with any
    architecture. None if there is no such row.
    """
    rows = list(rows)
    return next((name for name in (run, re.sub(r"-vgg\d+$", "", run)) if name and name in rows), None)


def is_of_exit(cell: Cell) -> bool:
    """Whether a number is of a line whose steps are those of an early exit, by a threshold or as printed."""
    line = [one for one in published.cells() if (one.place, one.row) == (cell.place, cell.row)]
    return any(one.metric == "exit_step" for one in line)


def nearest_dataset(dataset: str) -> str:
    """The paper's dataset whose numbers are shown beside those of ``dataset``: itself, if the paper has it.

    Otherwise DVS-CIFAR10 for recordings of events, and CIFAR-10 for images.
    """
    if dataset in DATASETS:
        return dataset
    return "dvs-cifar10" if dataset in store.names() and store.is_of_recordings(dataset) else "cifar10"


def printed_cells(table: int, column: str) -> list[Cell]:
    return [cell for cell in published.cells() if cell.place == f"Table {table}" and cell.column == column]


def beside(line: Mapping[str, Any]) -> str:
    """The paper's line as ``90.5 (BNTT (ours), VGG9, T = 25)``."""
    return _printed(line["paper"]) if line["paper"] else DASH


def _printed(cell: Cell) -> str:
    table = published.table(int(cell.place.removeprefix("Table ")))
    printed = table.loc[cell.row]
    architecture = f"{printed['Architecture']}, " if "Architecture" in printed else ""
    steps = printed["Time-steps"] if "Time-steps" in printed else printed["Latency"]
    return f"{cell.printed} ({printed.iloc[0]}, {architecture}T = {steps})"


def judge(results: Results, lines: Iterable[dict[str, Any]]) -> None:
    """Add to each line the verdict on the printed number beside it; None if that is about another dataset."""
    for line in lines:
        printed = line["paper"] if line["dataset"] in DATASETS else None
        line["verdict"] = judge_cell(results, printed).verdict if printed else None


def verdict(line: Mapping[str, Any]) -> str:
    """The verdict; UNDERSPECIFIED with the difference to the printed number, which it does not judge."""
    difference = _minus_paper(line)
    if line["verdict"] is None:
        return DASH
    if line["verdict"].word != "UNDERSPECIFIED" or math.isnan(difference):
        return str(line["verdict"])
    sign = "+" if difference > 0 else ""
    percent = line["paper"].metric == "accuracy"
    amount = f"{number(difference, 1)} points" if percent else f"{number(difference)}×"
    return f"{line['verdict']}, {sign}{amount}"


def _minus_paper(line: Mapping[str, Any]) -> float:
    """The mean that the verdict rests on, minus the printed number; NaN if there is no such mean or number."""
    difference = Judged(line["paper"], line["verdict"]).difference if line["verdict"] else None
    return math.nan if difference is None else difference


def _verdicts_note(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What the verdicts in these lines mean, if there are any."""
    given = [line["verdict"] for line in lines if line["verdict"]]
    words = {one.word for one in given}
    if words:
        yield f"Verdict: on the printed number in the line. {explained(given)}"


def finished(
    number: int,
    title: str,
    results: Results,
    lines: Sequence[Mapping[str, Any]],
    sections: Mapping[str, pd.DataFrame],
    notes: Sequence[str],
) -> Table:
    """Table ``number``: the lines of this experiment, then the paper's lines that are compared with none of them."""
    column, header = {1: ("accuracy", "paper_accuracy"), 3: ("energy_ratio", "paper_ratio")}[number]
    beside = {line["paper_line"] for line in lines}
    absent = [(cell, _why_not(cell, results)) for cell in printed_cells(number, column) if cell.row not in beside]
    further = [
        {"dataset": cell.dataset, "status": "not run", "paper_line": cell.row, header: cell.printed, "note": reason}
        for cell, reason in absent
    ]
    shown = [(DATASETS[cell.dataset], _printed(cell), reason) for cell, reason in absent]
    not_run = pd.DataFrame(shown, columns=["Dataset", "Paper", "Not run, because"])
    foreign = [dataset for dataset in results.experiment.datasets if dataset not in DATASETS]
    of_verdicts = list(_verdicts_note(lines))
    if foreign:
        of_verdicts.append(f"No verdict: the data is {listed(foreign)}, not {DATASETS[nearest_dataset(foreign[0])]}.")
    return Table(
        f"table{number}",
        f"Table {number}. {title}",
        pd.DataFrame([_flat(line, header) for line in lines] + further),
        {**sections, "Lines of the paper that this experiment does not run": not_run},
        [*notes, *_about_data(results, any(line["dead"] for line in lines)), *of_verdicts],
    )


def _about_data(results: Results, dead: bool) -> Iterator[str]:
    """Notes: how many images were used, if not all; the level of chance; what the words for dead networks mean."""
    datasets = results.experiment.datasets
    if cut := [f"{name}, {images_used(results, name)}" for name in datasets if is_cut(results, name)]:
        yield f"Not all images were used: {'; '.join(cut)}."
    yield f"Chance: {listed([f'{chance_level(name)} on {name}' for name in datasets])}."
    if dead:
        yield DEAD


def _why_not(cell: Cell, results: Results) -> str:
    """Why a line of the paper is compared with no row."""
    row = counterpart(cell.run, results.experiment.rows)
    if cell.not_run:
        return cell.not_run
    if cell.dataset not in map(nearest_dataset, results.experiment.datasets):
        return f"this experiment has no dataset {DATASETS[cell.dataset]}"
    if row is None:
        return f"this experiment has no row {cell.run}"
    if cell.time_step is not None and cell.metric == "energy_ratio":
        return f"row {row} is not reported at T = {cell.time_step}"
    return f"row {row} has no such measurement yet"


def _flat(line: Mapping[str, Any], header: str) -> dict[str, Any]:
    """A line for the csv file: intervals as columns, the paper's cell as its printed text, the verdict as words."""
    apart = ("minus_bntt", "minus_bntt_seeds", "paper", "interval", "verdict")
    plain = {key: value for key, value in line.items() if key not in apart}
    plain |= {f"interval_{end}": getattr(line["interval"], end, math.nan) for end in ("low", "high")}
    if header == "paper_accuracy":
        ends = {"minus_bntt": "value", "minus_bntt_low": "low", "minus_bntt_high": "high"}
        plain |= {column: getattr(line["minus_bntt"], end, math.nan) for column, end in ends.items()}
        plain["minus_bntt_seeds"] = math.nan if line["minus_bntt"] is None else line["minus_bntt_seeds"]
    plain[header] = line["paper"].printed if line["paper"] else ""
    if judged := line["verdict"]:
        plain |= {"verdict": judged.word, "verdict_weak": judged.weak, "why": judged.reason}
        plain |= {"verdict_mean": judged.mean, "minus_paper": _minus_paper(line)}
        plain |= {f"verdict_{end}": getattr(judged.interval, end, math.nan) for end in ("low", "high")}
    return plain
