"""The verdict on each printed number of the paper, from the runs that may judge it (`bntt.paper.admission`).

If some test items are not known to be the publisher's, the verdict must be the same for every possible content of them.
A number that describes a network in another way than by its accuracy is judged together with that accuracy. A network
that is silent or at chance counts as failed, like one that diverged.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd

from bntt.common.text import counted, listed
from bntt.data import store
from bntt.paper.admission import NotAdmitted, admitted, the_paper
from bntt.paper.published import Cell, cells, published
from bntt.paper.verdicts import (
    WORDS,
    Verdict,
    as_accurate,
    between,
    bought_at,
    failed,
    interval_of,
    judge,
)
from bntt.results.collect import Results, at_threshold, gammas, select
from bntt.results.energy import energy_ratios
from bntt.results.intervals import Estimate, decode_bits, peak_step
from bntt.runs.status import Found


@dataclass(frozen=True)
class Judged:
    """A printed number and its verdict."""

    cell: Cell
    verdict: Verdict

    @property
    def difference(self) -> float | None:
        """The mean over seeds minus the printed number; None if there is no such mean or number."""
        mean, printed = self.verdict.mean, self.cell.value
        return None if mean is None or printed is None else mean - printed


def judge_all(results: Results) -> list[Judged]:
    """Every printed number with its verdict, in the order of `cells`."""
    return judge_cells(results, cells())


def judge_cells(results: Results, asked: Iterable[Cell]) -> list[Judged]:
    """Some printed numbers with their verdicts."""
    referee = _Referee(results)
    return [Judged(cell, referee.verdict(cell)) for cell in asked]


def judge_cell(results: Results, cell: Cell) -> Judged:
    """One printed number with its verdict."""
    return judge_cells(results, [cell])[0]


def judge_values(cell: Cell, values: Sequence[float], accuracy: Verdict | None = None) -> Verdict:
    """The verdict on a cell from one value for each of its seeds.

    A cell that is bought at an accuracy is judged together with the verdict on that ``accuracy``, if it is given.
    """
    verdict, bought = _verdict(cell, tuple(values), len(values)), accuracy_cell(cell)
    return bought_at(verdict, accuracy, bought.number) if accuracy and bought else verdict


def accuracy_cell(cell: Cell) -> Cell | None:
    """The accuracy that the number of a cell was bought at, and is judged together with; None if it is none."""
    if not cell.bought_at:
        return None
    place, row, column = cell.bought_at.split(", ")
    return published(place, row, column)


@dataclass(frozen=True)
class _Outcomes:
    """The verdict on a cell, all verdicts that are possible given what is not known of the test items, and remarks."""

    verdict: Verdict
    possible: Sequence[Verdict]
    remarks: Sequence[str]

    def together(self, accuracy: "_Outcomes", printed: float) -> "_Outcomes":
        """The outcomes of a cost, given those of the accuracy in per cent that it was bought at."""
        costs = {one.word: one for one in self.possible}.values()  # one of each kind is enough
        accuracies = {(one.word, as_accurate(one, printed)): one for one in accuracy.possible}.values()
        possible = [bought_at(cost, one, printed) for cost in costs for one in accuracies]
        return replace(self, verdict=bought_at(self.verdict, accuracy.verdict, printed), possible=possible)


class _Referee:
    """Judges cells by one experiment's results. What many cells share is found once."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.admitted = cache(partial(admitted, results))  # by dataset and row
        self.outcomes = cache(self._outcomes)
        self.table = cache(self._table)  # by run and file

    def verdict(self, cell: Cell) -> Verdict:
        try:
            outcomes = self.outcomes(cell)
            if accuracy := accuracy_cell(cell):
                outcomes = outcomes.together(self.outcomes(accuracy), accuracy.number)
        except NotAdmitted as error:
            return Verdict("NOT_RUN", str(error))
        verdict = outcomes.verdict
        if others := {one.word for one in outcomes.possible} - {verdict.word}:
            might = " or ".join(word for word in WORDS if word in others)
            reason = f"{verdict.word}, but could be {might}, since some test items are not known to be the publisher's"
            return Verdict("NOT_RUN", reason, verdict.values)
        return verdict.remarked(*outcomes.remarks)

    def _outcomes(self, cell: Cell) -> _Outcomes:
        """Raises NotAdmitted, with the reason, if no run may judge the cell."""
        if cell.not_run:
            raise NotAdmitted(cell.not_run)
        paper = the_paper()
        if cell.value is None and cell.dataset in paper.datasets and cell.run not in paper.rows_on(cell.dataset):
            why = f": it does not give {cell.underspecified}" if cell.underspecified else ""
            raise NotAdmitted(f"the paper prints {cell.printed} here, no number that a row could reproduce{why}")
        runs = self.admitted(cell.dataset, cell.run)
        # A setting is what a run was told to do, however it does.
        failures = {} if cell.kind == "settings" else self._failures(cell, runs.ended)
        readings = [self._reading(one, cell).estimate for one in runs.ended if one.run.seed not in failures]
        values, low, high = (tuple(bounds) for bounds in zip(*readings, strict=True)) if readings else ((), (), ())
        how = list(failures.values())
        verdict = _verdict(cell, values, runs.planned, how)
        others = [_verdict(cell, one, runs.planned, how) for one in between(low, high)] if low != high else []
        return _Outcomes(verdict, [verdict, *others], runs.remarks)

    def _table(self, dataset: str, row: str, seed: int, name: str) -> pd.DataFrame:
        """A measurement of a run; it must not be changed."""
        frame = self.results.frame(name, dataset=dataset, row=row, seed=seed)
        if frame.empty:
            raise NotAdmitted(f"{dataset}/{row}/seed-{seed} has no {name}")
        return frame

    def _reading(self, one: Found, cell: Cell) -> "_Reading":
        return _Reading(partial(self.table, one.run.dataset, one.run.row, one.run.seed), one, cell)

    def _failures(self, cell: Cell, ended: Sequence[Found]) -> dict[int, str]:
        """The seeds whose network failed, and how: it diverged, or is silent or at chance where the cell reads it."""
        failures = {}
        for one in ended:
            if one.status == "diverged":
                failures[one.run.seed] = "diverged"
            elif dead := self.results.dead(one, self._reading(one, cell).step):
                failures[one.run.seed] = dead.word
        return failures


def _verdict(cell: Cell, values: tuple[float, ...], planned: int, failures: Sequence[str] = ()) -> Verdict:
    """The verdict by the cell alone; ``failures`` says of each further seed how its network failed."""
    whole = cell.unit == "steps" and cell.kind != "settings"
    how = f"{counted(len(failures), 'seed')} {listed(list(dict.fromkeys(failures)))}" if failures else ""
    if cell.underspecified:
        return Verdict("UNDERSPECIFIED", cell.underspecified, values, interval_of(values, whole)).remarked(how)
    if cell.value is None or cell.tolerance is None:
        return Verdict("NOT_RUN", "no number is printed")
    if len(failures) >= planned:
        return Verdict(failed(cell.direction), f"all {how}")
    percent = cell.metric in ("accuracy", "exit_accuracy")
    verdict = judge(cell.value, values, planned, cell.tolerance, cell.direction, percent, whole)
    return verdict.remarked(how) if verdict.word == "INCOMPLETE" else verdict


# -- what a run says of a cell ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """The value of a run for a cell: one method for each metric that a run can have.

    If some test items are not known to be the publisher's, the interval covers every possible content of them.
    """

    table: Callable[[str], pd.DataFrame]  # gives a measurement of the run by the name of its file
    found: Found
    cell: Cell

    @property
    def estimate(self) -> Estimate:
        read = getattr(self, self.cell.metric)()
        return read if isinstance(read, Estimate) else Estimate.exact(read)

    @property
    def last(self) -> int:
        """T; a dense network has one step."""
        return int(self.found.run.options.get("time_steps", 1))

    @property
    def step(self) -> int | None:
        """The step whose answers the cell is about; None if it is about the whole run."""
        if self.cell.metric == "exit_accuracy":
            return self.exit_step()
        return self.cell.time_step if self.cell.metric in ("accuracy", "energy_ratio") else None

    def accuracy(self) -> Estimate:
        return self._accuracy(self.last if self.cell.time_step is None else self.cell.time_step)

    def exit_accuracy(self) -> Estimate:
        return self._accuracy(self.exit_step())

    def exit_step(self) -> int:
        default = self.found.run.evaluation["exit_threshold"]
        threshold = default if self.cell.threshold is None else self.cell.threshold
        exits = at_threshold(self.table("early_exit.csv"), threshold)
        if exits.empty:
            raise NotAdmitted(f"{self.found.run.name} was not measured at threshold {threshold:g}")
        step = exits["exit_step"].iloc[0]
        if step not in range(1, self.last + 1):
            raise NotAdmitted(
                f"{self.found.run.name} says that it exits at step {step:g}, which is not in 1..{self.last}"
            )
        return int(step)

    def saved_steps(self) -> float:
        """The time-steps that early exit saves, in % of T."""
        return 100 * (self.last - self.exit_step()) / self.last

    def energy_ratio(self) -> Estimate:
        step = self.last if self.cell.time_step is None else self.cell.time_step
        line = self._at_step(energy_ratios(self.table("energy.csv")), step)
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

    def peak_step(self) -> float:
        """NaN if a gamma is no number, since the largest is not known then."""
        wave = self._gammas()
        return peak_step(wave) if np.isfinite(wave).all(axis=None) else math.nan

    def time_steps(self) -> float:
        """T. A conversion can be read at any step, so for it the printed step, if it runs that long."""
        converted = self.found.run.method == "conversion"
        return min(self.last, self.cell.value or self.last) if converted else self.last

    def setting(self) -> float:
        name, _, index = self.cell.option.partition(".")
        run = self.found.run
        option = {**run.evaluation, **run.options}[name]
        value = option[int(index)] if index else option
        return 100 * value if self.cell.unit == "%" else value

    def _at_step(self, table: pd.DataFrame, step: int) -> pd.Series:
        table = select(table, time_step=step)
        if table.empty:
            raise NotAdmitted(f"{self.found.run.name} was not measured at time_step {step}")
        return table.iloc[0]

    def _accuracy(self, step: int) -> Estimate:
        """The accuracy after a step; the images that are right, which are recorded too, must give the same."""
        line, name = self._at_step(self.table("anytime.csv"), step), self.found.run.name
        images, items = self._test_items()
        if not line["correct"]:
            raise NotAdmitted(f"{name} does not record which test images are right at step {step}")
        try:
            right = decode_bits(line["correct"], images)
        except ValueError as error:
            raise NotAdmitted(f"{name}, step {step}: {error}") from None
        accuracy = float(line["accuracy"])
        if not math.isclose(accuracy, 100 * right.mean(), abs_tol=1e-3):
            raise NotAdmitted(f"{name} records {accuracy:g} % at step {step}, but {right.sum():,} of {images:,} right")
        right[items] = False
        known = int(right.sum())
        return Estimate(accuracy, 100 * known / images, 100 * (known + len(items)) / images)

    def _test_items(self) -> tuple[int, list[int]]:
        """The number of test items, and the indices of those not known to be the publisher's."""
        assert self.found.training is not None
        data = self.found.training["data"]
        items = store.facts(self.found.run.dataset)["partial"]["items"] if data["state"] == "partial" else []
        return int(data["images"]["test"]), list(items)

    def _gammas(self) -> pd.DataFrame:
        layers = gammas(select(self.table("gamma.csv"), layer=self.cell.layer))
        if self.cell.layer not in layers:
            raise NotAdmitted(f"{self.found.run.name} has no layer {self.cell.layer}")
        wave = layers[self.cell.layer]
        if list(wave.index) != list(range(1, self.last + 1)):
            raise NotAdmitted(
                f"{self.found.run.name} has gammas of {self.cell.layer} at other steps than 1..{self.last}"
            )
        return wave
