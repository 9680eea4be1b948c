"""Finds the runs that may judge each printed number of the paper, and gives the verdict.

A run may judge a cell only if it follows the paper's protocol: it has the cell's row and dataset, and the options that
`config/paper.yaml` resolves to. The same holds for the run that it starts from. A hash pins this file, so an edited
file is not the paper's protocol. The data must be known to be the publisher's. If this is not known of some test items,
the verdict must be the same for every possible content of them. In all other cases it is NOT_RUN, with the reason.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from bntt.common.text import counted, listed
from bntt.data import store
from bntt.experiment.schema import Experiment, Run, load
from bntt.paper.published import Cell, cells
from bntt.paper.verdicts import WORDS, Verdict, Word, between, judge
from bntt.results.collect import Results, at_threshold, gammas, select
from bntt.results.energy import energy_ratios
from bntt.results.facts import why_absent
from bntt.results.intervals import Estimate, decode_bits, peak_step
from bntt.runs.status import Found

# Hash of the runs of config/paper.yaml. Change it only together with docs/protocol.md, and before any run.
PROTOCOL_SHA256 = "7199aca0e7f3f64c5bffa1ff18537b18cddc67380be267d1245e525e74cb324f"
ONLY_ROUNDING = frozenset({"precision", "time_chunk"})  # options that change numbers by rounding only


@dataclass(frozen=True)
class Judged:
    """A printed number and its verdict."""

    cell: Cell
    verdict: Verdict


def judge_all(results: Results) -> list[Judged]:
    """Every printed number with its verdict, in the order of `cells`."""
    return [judge_cell(results, cell) for cell in cells()]


def judge_cell(results: Results, cell: Cell) -> Judged:
    """One printed number with its verdict."""
    try:
        planned, found = _runs(results, cell)
        runs = [one for one in found if one.status.measured]
        readings = [_Reading(results, one, cell).estimate for one in runs]
    except _NotRunError as error:
        return Judged(cell, Verdict("NOT_RUN", str(error)))
    values, low, high = (tuple(bounds) for bounds in zip(*readings, strict=True)) if readings else ((), (), ())
    verdict = _verdict(cell, values, planned, found)
    if low != high and verdict.word != "UNDERSPECIFIED":
        others = {_verdict(cell, one, planned, found).word for one in between(low, high)} - {verdict.word}
        if others:
            might = " or ".join(word for word in WORDS if word in others)
            reason = f"{verdict.word}, but could be {might}, since some test items are not known to be the publisher's"
            return Judged(cell, Verdict("NOT_RUN", reason, values))
    versions = {one.training["code"] for one in runs if one.training is not None}
    if len(versions) > 1:
        remark = f"its seeds were trained with {len(versions)} versions of the code"
        verdict = replace(verdict, reason="; ".join(filter(None, [verdict.reason, remark])))
    return Judged(cell, verdict)


def protocol_digest(experiment: Experiment) -> str:
    """The sha256, in hexadecimal, of the settings that decide the numbers of an experiment's runs."""
    runs = [{k: v for k, v in run.training_config().items() if k != "experiment"} for run in experiment.runs]
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()


# -- which runs may judge a cell --------------------------------------------------------------------------------


class _NotRunError(Exception):
    """No run may judge a cell; the message says why."""


@cache
def _paper() -> Experiment | None:
    """The paper's protocol; None if config/paper.yaml does not have the pinned hash."""
    experiment = load("paper")
    return experiment if protocol_digest(experiment) == PROTOCOL_SHA256 else None


def _runs(results: Results, cell: Cell) -> tuple[int, list[Found]]:
    """The number of planned seeds, and the runs that may judge a cell; at least one of them has ended."""
    if cell.not_run:
        raise _NotRunError(cell.not_run)
    paper, experiment = _paper(), results.experiment
    if paper is None:
        raise _NotRunError("config/paper.yaml is not the declared protocol")
    if cell.value is None and cell.dataset in paper.datasets and cell.run not in paper.rows_on(cell.dataset):
        why = f": it does not give {cell.underspecified}" if cell.underspecified else ""
        raise _NotRunError(f"the paper prints {cell.printed} here, no number that a row could reproduce{why}")
    if cell.dataset not in experiment.datasets:
        raise _NotRunError(f"experiment {experiment.name} has no dataset {cell.dataset}")
    if cell.run not in experiment.rows_on(cell.dataset):
        raise _NotRunError(f"experiment {experiment.name} has no row {cell.run} on {cell.dataset}")
    if cell.run not in paper.rows_on(cell.dataset):
        raise _NotRunError(f"the protocol has no row {cell.run} on {cell.dataset}")
    found = results.of_row(cell.run, cell.dataset)
    if differences := _differences(experiment, found[0].run, paper):
        raise _NotRunError(f"not the paper's protocol: {listed(differences)}")
    ended = [one for one in found if one.status.ended]
    if not ended:
        raise _NotRunError("; ".join(dict.fromkeys(why_absent(one.status, one.reason) for one in found)))
    for one in ended:  # a run that starts from another was made with the same data, or is outdated
        if one.training is not None and one.training["data"]["state"] == "unknown":
            raise _NotRunError(f"the data of {one.run.name} are not known to be the publisher's")
    declared = {run.seed for run in paper.runs if (run.dataset, run.row) == (cell.dataset, cell.run)}
    return len(declared | {one.run.seed for one in found}), found


def _differences(experiment: Experiment, run: Run, paper: Experiment) -> list[str]:
    """How a run, and the run that it starts from, differ from the paper's protocol; empty if they do not."""
    own = next(one for one in paper.runs if (one.dataset, one.row) == (run.dataset, run.row))
    if (run.method, run.start) != (own.method, own.start):
        start = f" from {run.start}" if run.start else ""
        return [f"row {run.row} uses method {run.method}{start}"]
    # A conversion gives an answer after every step. With more steps it can be read later, but no answer changes.
    ignored = ONLY_ROUNDING | ({"time_steps"} if run.method == "conversion" else set())
    differences = [
        f"{key} of {run.row} is {run.options.get(key)!r}, not {own.options.get(key)!r}"
        for key in dict.fromkeys([*own.options, *run.options])
        if key not in ignored and run.options.get(key) != own.options.get(key)
    ]
    if run.start is None:
        return differences
    start_run = next(one for one in experiment.runs if (one.dataset, one.row) == (run.dataset, run.start))
    return differences + _differences(experiment, start_run, paper)


def _verdict(cell: Cell, values: tuple[float, ...], planned: int, found: list[Found]) -> Verdict:
    if cell.underspecified:
        return Verdict("UNDERSPECIFIED", cell.underspecified, values)
    if cell.value is None or cell.tolerance is None:
        return Verdict("NOT_RUN", "no number is printed")
    diverged = sum(one.status == "diverged" for one in found)
    if diverged >= planned:
        word: Word = "DIFFERS" if cell.direction == "none" else "WORSE"
        return Verdict(word, f"all {counted(diverged, 'seed')} diverged")
    verdict = judge(cell.value, values, planned, cell.tolerance, cell.direction, percent=cell.unit == "%")
    if diverged and verdict.word == "INCOMPLETE":
        verdict = replace(verdict, reason=f"{verdict.reason}; {diverged} diverged")
    return verdict


# -- what a run says of a cell ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """The value of a run for a cell: one method for each metric that a run can have.

    If some test items are not known to be the publisher's, the interval covers every possible content of them.
    """

    results: Results
    found: Found
    cell: Cell

    @property
    def estimate(self) -> Estimate:
        read = getattr(self, self.cell.metric)()
        return read if isinstance(read, Estimate) else Estimate.exact(read)

    def accuracy(self) -> Estimate:
        step = self.cell.time_step
        return self._accuracy(int(self._table("anytime.csv")["time_step"].max()) if step is None else step)

    def exit_accuracy(self) -> Estimate:
        return self._accuracy(self.exit_step())

    def exit_step(self) -> int:
        default = self.found.run.evaluation["exit_threshold"]
        threshold = default if self.cell.threshold is None else self.cell.threshold
        exits = at_threshold(self._table("early_exit.csv"), threshold)
        if exits.empty:
            raise _NotRunError(f"{self.found.run.name} was not measured at threshold {threshold:g}")
        return int(exits["exit_step"].iloc[0])

    def saved_steps(self) -> float:
        """The time-steps that early exit saves, in % of T."""
        steps = self.found.run.options["time_steps"]
        return float(100 * (steps - self.exit_step()) / steps)

    def energy_ratio(self) -> Estimate:
        step = self.found.run.options.get("time_steps", 1) if self.cell.time_step is None else self.cell.time_step
        line = self._at_step(energy_ratios(self._table("energy.csv")), step)
        images, items = self._test_items()
        if not items:
            return Estimate.exact(line["own"])
        # Spikes per neuron are a mean over test images. An image has at most one spike per neuron and step.
        share = len(items) / images * step
        per_spike = line["own"] * line["spikes"]
        return Estimate(
            line["own"], per_spike / (line["spikes"] + share), per_spike / max(line["spikes"] - share, 1e-12)
        )

    def mean_gamma(self) -> float:
        return float(self._gammas().loc[self.cell.time_step].mean())

    def peak_step(self) -> int:
        return peak_step(self._gammas())

    def time_steps(self) -> float:
        """T. A conversion can be read at any step, so for it the printed step, if it runs that long."""
        run, steps = self.found.run, self.found.run.options.get("time_steps", 1)
        return min(steps, self.cell.value or steps) if run.method == "conversion" else steps

    def setting(self) -> float:
        name, _, index = self.cell.option.partition(".")
        run = self.found.run
        option = {**run.evaluation, **run.options}[name]
        value = option[int(index)] if index else option
        return 100 * value if self.cell.unit == "%" else value

    def _table(self, name: str) -> pd.DataFrame:
        """A measurement of the run, taken from the frame that is read once for all runs and cells."""
        run = self.found.run
        frame = self.results.frame(name, dataset=run.dataset, row=run.row, seed=run.seed)
        if frame.empty:
            raise _NotRunError(f"{run.name} has no {name}")
        return frame

    def _at_step(self, table: pd.DataFrame, step: int) -> pd.Series:
        table = select(table, time_step=step)
        if table.empty:
            raise _NotRunError(f"{self.found.run.name} was not measured at time_step {step}")
        return table.iloc[0]

    def _accuracy(self, step: int) -> Estimate:
        line = self._at_step(self._table("anytime.csv"), step)
        images, items = self._test_items()
        if not items:
            return Estimate.exact(line["accuracy"])
        if not line["correct"]:
            raise _NotRunError(f"{self.found.run.name} does not record which test images are right at step {step}")
        right = decode_bits(line["correct"], images)
        right[items] = False
        known = int(right.sum())
        return Estimate(float(line["accuracy"]), 100 * known / images, 100 * (known + len(items)) / images)

    def _test_items(self) -> tuple[int, list[int]]:
        """The number of test items, and the indices of those not known to be the publisher's."""
        assert self.found.training is not None
        data = self.found.training["data"]
        items = store.facts(self.found.run.dataset)["partial"]["items"] if data["state"] == "partial" else []
        return int(data["images"]["test"]), list(items)

    def _gammas(self) -> pd.DataFrame:
        layers = gammas(select(self._table("gamma.csv"), layer=self.cell.layer))
        if self.cell.layer not in layers:
            raise _NotRunError(f"{self.found.run.name} has no layer {self.cell.layer}")
        return layers[self.cell.layer]
