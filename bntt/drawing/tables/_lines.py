"""Lines of tables: a row's accuracy, energy and cost, and the line of the paper that it is compared with.

Tables 1 and 3 and the overview show the same lines, each with columns of its own.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bntt.common.text import DASH, counted, interval, listed, number
from bntt.data import store
from bntt.experiment import declared
from bntt.experiment.schema import Run
from bntt.paper import published
from bntt.paper.published import DATASETS, Cell
from bntt.paper.reproduction import Judged, judge_cell
from bntt.paper.verdicts import explained
from bntt.results.collect import Results, at_threshold, last_step, select
from bntt.results.comparison import accuracy_difference
from bntt.results.dead import DEAD, chance_level
from bntt.results.energy import READINGS, energy_ratios, exit_energy_ratios
from bntt.results.facts import images_used, is_cut, test_images, why_absent
from bntt.results.intervals import Estimate, mean_std, standard_error, student_interval

# -- measured -----------------------------------------------------------------------------------------------------


def row_lines(results: Results, dataset: str, row: str, cells: Iterable[Cell] = ()) -> list[dict[str, Any]]:
    """A row's lines: for a conversion its reported steps; the last step; early exit, if there is one."""
    run = next(one.run for one in results.of_row(row, dataset))
    anytime = results.frame("anytime.csv", dataset=dataset, row=row)
    ratios = energy_ratios(results.frame("energy.csv", dataset=dataset, row=row))
    printed = [cell for cell in cells if counterpart(cell.run, results.experiment.rows_on(dataset)) == row]
    of_last, of_exit = (next((cell for cell in printed if is_of_exit(cell) is kind), None) for kind in (False, True))
    last = run.options.get("time_steps", 1)
    steps = {step for step in run.evaluation["report_steps"] if step < last} if run.method == "conversion" else set()
    lines = []
    for step in [*sorted(steps), last]:
        line = _line(results, run, select(anytime, time_step=step), of_last if step == last else None)
        lines.append(line | {"time_steps": step, "early_exit": False} | _energy(select(ratios, time_step=step)))
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
        line |= {"time_steps": exits["exit_step"].mean(), "early_exit": True, "note": note}
        lines.append(line | _energy(_exit_ratios(results, exits, dataset, row)))
    if declared.needs_events(run.method):
        lines = [line | {"time_steps": math.nan} for line in lines]
    return [line | _cost(results, run) for line in lines]


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


def _energy(ratios: pd.DataFrame) -> dict[str, float]:
    """E_ANN / E_method under each reading, and spikes per neuron, as means over seeds; NaN where not measured."""
    means = {name: ratios[name].mean() if name in ratios else math.nan for name in (*READINGS, "spikes")}
    return means | {"own_deviation": ratios["own"].std() if len(ratios) > 1 else math.nan}


def _exit_ratios(results: Results, exits: pd.DataFrame, dataset: str, row: str) -> pd.DataFrame:
    """Energy ratios at the exit steps, one line per seed."""
    energy, spikes = (results.frame(f"{name}.csv", dataset=dataset, row=row) for name in ("energy", "spikes"))
    return pd.DataFrame(
        exit_energy_ratios(select(energy, seed=seed), select(spikes, seed=seed), step)
        for seed, step in zip(exits["seed"], exits["exit_step"], strict=True)
    )


def _cost(results: Results, run: Run) -> dict[str, Any]:
    """What the classifier cost: seconds of training, means over the seeds that ended, and on which machines.

    ``start_seconds`` is the training of the row that it starts from, 0 without one. ``no_spikes`` and ``no_energy``
    say why these were not measured.
    """
    found = results.of_row(run.row, run.dataset)
    records = [one.training for one in found if one.training]
    reasons: dict[str, str] = {}
    for one in found:
        reasons |= one.evaluation.get("not_applicable", {}) if one.evaluation else {}
    means = {
        key: mean_std([record[key] for record in records])[0] if records else math.nan
        for key in ("seconds", "peak_memory_mb")
    }
    parameters = [record["parameters"] for record in records if "parameters" in record]
    machines = [machine for record in records for machine in _machines(record)]
    start_seconds = 0.0
    if run.start is not None:
        of_start = _cost(results, results.experiment.run(run.dataset, run.start, run.seed))
        start_seconds = of_start["training_seconds"] + of_start["start_seconds"]
        machines += of_start["machines"]
    return {
        "training_seconds": means["seconds"],
        "start": run.start or "",
        "start_seconds": start_seconds,
        "machines": list(dict.fromkeys(machines)),
        "peak_memory_mb": means["peak_memory_mb"],
        "parameters": parameters[0] if parameters else math.nan,
        "no_energy": reasons.get("energy.csv", ""),
        "no_spikes": reasons.get("spikes.csv", reasons.get("energy.csv", "")),
    }


def _machines(record: Mapping[str, Any]) -> list[str]:
    """The machines that a training ran on: device, processor and threads."""
    made = record["provenance"]
    names = record.get("machines") or [f"{made['device']} ({made['processor']})"]
    return [f"{name}, {counted(made['threads'], 'thread')}" for name in names]


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


def ratio(line: Mapping[str, Any], reading: str = "own") -> str:
    """E_ANN / E_method under a reading of the formula."""
    return "n/a" if line["status"] == "diverged" else number(line[reading]) + ("×" if line[reading] > 0 else "")


def architecture(run: Run) -> str:
    """``VGG9``, with the width factor if it is not 1."""
    if "architecture" not in run.options:
        return DASH
    width = run.options.get("width", 1)
    return str(run.options["architecture"]).upper() + (f", width {width:g}" if width != 1 else "")


def training_method(run: Run) -> str:
    """How a row is trained: the title that its method declares, with the values of the options that it names.

    A part of the title, up to a comma, is left out if an option in it is off. ``none`` becomes ``no norm``, after the
    option's name, and what is on is named after its option.
    """
    title = declared.title(declared.plugins("methods", "OPTIONS")[run.method])
    return ", ".join(filter(None, (_filled(part, run.options) for part in title.split(", "))))


def _filled(part: str, options: Mapping[str, Any]) -> str:
    values = {name: options[name] for name in declared.fields(part)}
    if any(value in (False, None) for value in values.values()):
        return ""
    words = {name: name.replace("_", " ") if value is True else str(value) for name, value in values.items()}
    return part.format(**{name: f"no {name}" if word == "none" else word for name, word in words.items()})


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


def printed_line(cell: Cell) -> str:
    """A line of Table 3 as ``9.14× (BNTT, T = 25)``."""
    printed = published.table(3).loc[cell.row]
    return f"{cell.printed} ({printed.iloc[0]}, T = {printed['Latency']})"


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


def not_run(lines: Iterable[Mapping[str, Any]], results: Results, table: int, column: str) -> dict[Cell, str]:
    """The paper's lines that are compared with none of these, each with the reason."""
    beside = {line["paper_line"] for line in lines}
    return {cell: _why_not(cell, results) for cell in printed_cells(table, column) if cell.row not in beside}


def notes(results: Results, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on data, dead networks and verdicts in these lines."""
    given = [*_about_data(results, any(line["dead"] for line in lines)), *_verdicts_note(lines)]
    if foreign := [dataset for dataset in results.experiment.datasets if dataset not in DATASETS]:
        nearest = list(dict.fromkeys(DATASETS[nearest_dataset(dataset)] for dataset in foreign))
        given.append(f"No verdict: the data is {listed(foreign)}, not {listed(nearest)}.")
    return given


def flat(lines: Iterable[Mapping[str, Any]], absent: Mapping[Cell, str], header: str) -> pd.DataFrame:
    """The lines for the csv file, then those of the paper that are ``absent``; ``header`` names the printed number."""
    further = [
        {"dataset": cell.dataset, "status": "not run", "paper_line": cell.row, header: cell.printed, "note": reason}
        for cell, reason in absent.items()
    ]
    return pd.DataFrame([_flat(line, header) for line in lines] + further)


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
    if cell.not_run:
        return cell.not_run
    experiment = results.experiment
    datasets = [dataset for dataset in experiment.datasets if nearest_dataset(dataset) == cell.dataset]
    if not datasets:
        return f"this experiment has no dataset {DATASETS[cell.dataset]}"
    row = next(filter(None, (counterpart(cell.run, experiment.rows_on(dataset)) for dataset in datasets)), None)
    if row is None:
        elsewhere = f" on {listed(datasets)}" if counterpart(cell.run, experiment.rows) else ""
        return f"this experiment has no row {cell.run}{elsewhere}"
    if cell.time_step is not None and cell.metric == "energy_ratio":
        return f"row {row} is not reported at T = {cell.time_step}"
    return f"row {row} has no such measurement yet"


def _flat(line: Mapping[str, Any], header: str) -> dict[str, Any]:
    """A line for the csv file: intervals as columns, the paper's cell as its printed text, the verdict as words."""
    apart = ("minus_bntt", "minus_bntt_seeds", "paper", "interval", "verdict", "machines")
    plain = {key: value for key, value in line.items() if key not in apart}
    plain |= {f"interval_{end}": getattr(line["interval"], end, math.nan) for end in ("low", "high")}
    if header == "paper_accuracy":
        ends = {"minus_bntt": "value", "minus_bntt_low": "low", "minus_bntt_high": "high"}
        plain |= {column: getattr(line["minus_bntt"], end, math.nan) for column, end in ends.items()}
        plain["minus_bntt_seeds"] = math.nan if line["minus_bntt"] is None else line["minus_bntt_seeds"]
    plain["machines"] = "; ".join(line["machines"])
    plain[header] = line["paper"].printed if line["paper"] else ""
    if judged := line["verdict"]:
        plain |= {"verdict": judged.word, "verdict_weak": judged.weak, "why": judged.reason}
        plain |= {"verdict_mean": judged.mean, "minus_paper": _minus_paper(line)}
        plain |= {f"verdict_{end}": getattr(judged.interval, end, math.nan) for end in ("low", "high")}
    return plain
