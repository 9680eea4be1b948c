"""Finds the runs that may judge each printed number of the paper, and gives the verdict.

A run may judge a cell only if it follows the paper's protocol: it has the cell's row and dataset, and the options that
`config/paper.yaml` resolves to. The same holds for the run that it starts from. A hash pins this file, so an edited
file is not the paper's protocol. The data must be known to be the publisher's. If this is not known of some test items,
the verdict must be the same for every possible content of them. What training recorded must agree with the protocol:
its steps, the numbers of images, one content of the data, and other weights for each seed. In all other cases the
verdict is NOT_RUN, with the reason.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from bntt.common.text import counted, listed
from bntt.data import store
from bntt.experiment.schema import Experiment, Run, load
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
from bntt.results.facts import STATES, why_absent
from bntt.results.intervals import Estimate, decode_bits, peak_step
from bntt.runs.directory import WEIGHTS
from bntt.runs.status import Found
from bntt.training.schedule import training_steps

# Hash of the runs of config/paper.yaml. Change it only together with docs/protocol.md, and before any run.
PROTOCOL_SHA256 = "3159f5f108891f853391171cbeb523f76acda98daf612c13a74a94b73e47c784"
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
        outcomes = _Outcomes.of(results, cell)
        if accuracy := accuracy_cell(cell):
            outcomes = outcomes.together(_Outcomes.of(results, accuracy), accuracy.number)
    except _NotRunError as error:
        return Judged(cell, Verdict("NOT_RUN", str(error)))
    verdict = outcomes.verdict
    if others := {one.word for one in outcomes.possible} - {verdict.word}:
        might = " or ".join(word for word in WORDS if word in others)
        reason = f"{verdict.word}, but could be {might}, since some test items are not known to be the publisher's"
        return Judged(cell, Verdict("NOT_RUN", reason, verdict.values))
    return Judged(cell, verdict.remarked(*outcomes.remarks))


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

    @classmethod
    def of(cls, results: Results, cell: Cell) -> "_Outcomes":
        """Raises _NotRunError, with the reason, if no run may judge the cell."""
        planned, found = _runs(results, cell)
        failures = _failures(results, cell, found)
        ended = [one for one in found if one.status.ended]
        working = [one for one in ended if one.run.seed not in failures]
        _refuse_copies(working)
        readings = [_Reading(results, one, cell).estimate for one in working]
        values, low, high = (tuple(bounds) for bounds in zip(*readings, strict=True)) if readings else ((), (), ())
        verdict = _verdict(cell, values, planned, list(failures.values()))
        possible = [verdict]
        if low != high:
            possible += (_verdict(cell, one, planned, list(failures.values())) for one in between(low, high))
        return cls(verdict, possible, _remarks(results, ended))

    def together(self, accuracy: "_Outcomes", printed: float) -> "_Outcomes":
        """The outcomes of a cost, given those of the accuracy in per cent that it was bought at."""
        costs = {one.word: one for one in self.possible}.values()  # one of each kind is enough
        accuracies = {(one.word, as_accurate(one, printed)): one for one in accuracy.possible}.values()
        possible = [bought_at(cost, one, printed) for cost in costs for one in accuracies]
        return replace(self, verdict=bought_at(self.verdict, accuracy.verdict, printed), possible=possible)


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
    used = [one for one in _with_starts(results, ended) if one.training is not None]
    if why := next(filter(None, map(_why_refused, used)), ""):
        raise _NotRunError(why)
    contents = {tuple(one.training["data"].get(f"{what}_sha256") for what in ("content", "split")) for one in used
                if one.training is not None}  # fmt: skip
    if len(contents) > 1:
        raise _NotRunError(f"its seeds were trained on {len(contents)} different contents of the data")
    declared = {run.seed for run in paper.runs if (run.dataset, run.row) == (cell.dataset, cell.run)}
    return len(declared | {one.run.seed for one in found}), found


def _with_starts(results: Results, found: Sequence[Found]) -> list[Found]:
    """Runs, and the runs that they start from."""
    started = [
        one
        for run in found
        if run.run.start is not None
        for one in results.of_row(run.run.start, run.run.dataset)
        if one.run.seed == run.run.seed
    ]
    return [*found, *(_with_starts(results, started) if started else ())]


def _why_refused(found: Found) -> str:
    """Why what training recorded cannot be a run of the protocol on the publisher's data; empty if it can."""
    training, run = found.training, found.run
    assert training is not None
    data = training["data"]
    if data["state"] == "unknown":
        return f"the data of {run.name} are not known to be the publisher's"
    if data["state"] not in STATES:
        return f"the data of {run.name} have state {data['state']!r}, which is none of {listed(list(STATES))}"
    images = {part: int(count) for part, count in data["images"].items()}
    whole = store.facts(run.dataset)["images"]
    if any(images.get(part, 0) != count for part, count in whole.items()):
        counts = ", ".join(f"{images.get(part, 0):,} of {count:,} {part}" for part, count in whole.items() if count)
        return f"the data of {run.name} have other numbers of images than {run.dataset}: {counts}"
    if "epochs" in run.options and training["status"] == "done":
        steps = training_steps(run.options, images["train"] - run.options["held_out"])
        if training["steps"] != steps:
            return f"{run.name} was trained for {training['steps']:,} steps, not {steps:,}"
    return ""


def _failures(results: Results, cell: Cell, found: Sequence[Found]) -> dict[int, str]:
    """The seeds whose network failed, and how: training diverged, or the network is silent or at chance.

    None for a setting, which a network has however it does.
    """
    if cell.kind == "settings":
        return {}
    step = cell.time_step if cell.metric in ("accuracy", "energy_ratio") else None
    failures = {}
    for one in found:
        if one.status == "diverged":
            failures[one.run.seed] = "diverged"
        elif dead := results.dead(one, step):
            failures[one.run.seed] = dead.word
    return failures


def _refuse_copies(found: Sequence[Found]) -> None:
    """Raise _NotRunError if two seeds have the same weights or the same measurements."""
    for what, manifest, file in (
        ("weights", "training", WEIGHTS),
        ("measurements", "evaluation", "anytime.csv"),
    ):
        seeds: dict[str, list[str]] = {}
        for one in found:
            if digest := (getattr(one, manifest) or {}).get("files", {}).get(file):
                seeds.setdefault(digest, []).append(str(one.run.seed))
        if copies := next((same for same in seeds.values() if len(same) > 1), None):
            raise _NotRunError(f"seeds {listed(copies)} have the same {what}")


def _remarks(results: Results, ended: Sequence[Found]) -> list[str]:
    """What a reader should know of the runs: several versions of the code, uncommitted changes, mixed precision."""
    used = _with_starts(results, ended)
    remarks = []
    for what, records in (("trained", [one.training for one in ended]), ("measured", [one.evaluation for one in ended])):
        if (versions := len({one["code"] for one in records if one is not None})) > 1:
            remarks.append(f"its seeds were {what} with {versions} versions of the code")
    for what, records in (("trained", [one.training for one in used]), ("measured", [one.evaluation for one in used])):
        dirty = sum(bool((one or {}).get("provenance", {}).get("dirty")) for one in records)
        if dirty:
            remarks.append(f"{dirty} of {counted(len(records), 'run')} {what} with uncommitted changes")
    precisions = {one.training.get("precision") for one in ended if one.training is not None}
    if len(precisions) > 1:
        remarks.append(f"its seeds were trained in different precision: {listed(sorted(map(str, precisions)))}")
    return remarks


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
        step, last = exits["exit_step"].iloc[0], self.found.run.options["time_steps"]
        if step not in range(1, last + 1):
            raise _NotRunError(f"{self.found.run.name} says that it exits at step {step:g}, which is not in 1..{last}")
        return int(step)

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
        option = run.options[name] if name in run.options else run.evaluation[name]
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
        """The accuracy after a step. The images that are right, which are recorded too, must give the same."""
        line, name = self._at_step(self._table("anytime.csv"), step), self.found.run.name
        images, items = self._test_items()
        if not line["correct"]:
            raise _NotRunError(f"{name} does not record which test images are right at step {step}")
        try:
            right = decode_bits(line["correct"], images)
        except ValueError as error:
            raise _NotRunError(f"{name}, step {step}: {error}") from None
        accuracy = float(line["accuracy"])
        if not math.isclose(accuracy, 100 * right.mean(), abs_tol=1e-3):
            raise _NotRunError(f"{name} records {accuracy:g} % at step {step}, but {right.sum():,} of {images:,} right")
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
        layers = gammas(select(self._table("gamma.csv"), layer=self.cell.layer))
        if self.cell.layer not in layers:
            raise _NotRunError(f"{self.found.run.name} has no layer {self.cell.layer}")
        return layers[self.cell.layer]
