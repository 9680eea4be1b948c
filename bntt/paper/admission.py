"""Which runs may judge a printed number: those of the paper's protocol, on the publisher's data, trained as they say.

A run must have the number's row and dataset, and the options that `config/paper.yaml` resolves to. The same holds for
the run that it starts from. A hash pins this file, so an edited file is not the paper's protocol. What training
recorded must agree: its steps, the numbers of images, the state of the data, one content of them for all seeds, and
other weights for each seed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bntt.common.text import counted, listed
from bntt.data import store
from bntt.experiment.schema import Experiment, Run, load
from bntt.results.collect import Results
from bntt.results.facts import STATES, why_absent
from bntt.runs.directory import WEIGHTS
from bntt.runs.status import Found
from bntt.training.schedule import training_steps

# Hash of the runs of config/paper.yaml. Change it only together with docs/protocol.md, and before any run.
PROTOCOL_SHA256 = "16e8470bb3b60cb597619b803642253980cfd737ec6cd3aae5df853178f8ec08"
ONLY_ROUNDING = frozenset({"precision", "time_chunk"})  # options that change numbers by rounding only


class NotAdmitted(Exception):
    """No run may judge a number; the message says why."""


@dataclass(frozen=True)
class Admitted:
    """The runs of a row on a dataset that may judge: at least one of them has ended."""

    planned: int  # seeds
    runs: Sequence[Found]
    remarks: Sequence[str]  # what a reader should know of them

    @property
    def ended(self) -> list[Found]:
        return [one for one in self.runs if one.status.ended]


def admitted(results: Results, dataset: str, row: str) -> Admitted:
    """The runs that may judge numbers of a row on a dataset; raises NotAdmitted, with the reason, if there is none."""
    paper, experiment = the_paper(), results.experiment
    if dataset not in experiment.datasets:
        raise NotAdmitted(f"experiment {experiment.name} has no dataset {dataset}")
    if row not in experiment.rows_on(dataset):
        raise NotAdmitted(f"experiment {experiment.name} has no row {row} on {dataset}")
    if row not in paper.rows_on(dataset):
        raise NotAdmitted(f"the protocol has no row {row} on {dataset}")
    found = results.of_row(row, dataset)
    if differences := _differences(experiment, found[0].run, paper):
        raise NotAdmitted(f"not the paper's protocol: {listed(differences)}")
    ended = [one for one in found if one.status.ended]
    if not ended:
        raise NotAdmitted("; ".join(dict.fromkeys(why_absent(one.status, one.reason) for one in found)))
    used = _with_starts(results, ended)
    for one in used:
        _check_training(one)
    _check_seeds(results, ended, used)
    declared = {run.seed for run in paper.runs if (run.dataset, run.row) == (dataset, row)}
    return Admitted(len(declared | {one.run.seed for one in found}), found, _remarks(ended, used))


@cache
def the_paper() -> Experiment:
    """The paper's protocol; raises NotAdmitted if config/paper.yaml does not have the pinned hash."""
    experiment = load("paper")
    if protocol_digest(experiment) != PROTOCOL_SHA256:
        raise NotAdmitted("config/paper.yaml is not the declared protocol")
    return experiment


def protocol_digest(experiment: Experiment) -> str:
    """The sha256, in hexadecimal, of the settings that decide the numbers of an experiment's runs."""
    runs = [{k: v for k, v in run.training_config().items() if k != "experiment"} for run in experiment.runs]
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()


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


def _with_starts(results: Results, ended: Sequence[Found]) -> list[Found]:
    """Runs that have ended, and the runs that they start from."""
    started = [
        one
        for run in ended
        if run.run.start is not None
        for one in results.of_row(run.run.start, run.run.dataset)
        if one.run.seed == run.run.seed and one.status.ended
    ]
    return [*ended, *(_with_starts(results, started) if started else ())]


# -- what training and evaluation recorded ------------------------------------------------------------------------


def _record(found: Found) -> dict[str, Any]:
    """What the training of a run that has ended recorded."""
    assert found.training is not None
    return found.training


def _check_training(found: Found) -> None:
    """Raise NotAdmitted if a training was not as long as planned, or not on the publisher's data."""
    training, run = _record(found), found.run
    data = training["data"]
    if data["state"] == "unknown":
        raise NotAdmitted(f"the data of {run.name} are not known to be the publisher's")
    if data["state"] not in STATES:
        states = listed(list(STATES))
        raise NotAdmitted(f"the data of {run.name} have the state {data['state']!r}, which is none of {states}")
    known = store.facts(run.dataset)
    if data["state"] == "partial" and "partial" not in known:
        raise NotAdmitted(f"the data of {run.name} have the state 'partial', but {run.dataset} names no such items")
    images, whole = data["images"], known["images"]
    if any(images[part] != count for part, count in whole.items()):
        counts = [f"{images[part]:,} of {count:,} {part}" for part, count in whole.items()]
        raise NotAdmitted(f"{run.name} had other numbers of images than {run.dataset} has: {listed(counts)}")
    if "epochs" in run.options and training["status"] == "done":
        planned = training_steps(dict(run.options), images["train"])
        if training["steps"] != planned:
            raise NotAdmitted(f"{run.name} was trained for {training['steps']:,} steps, not {planned:,}")


def _check_seeds(results: Results, ended: Sequence[Found], used: Sequence[Found]) -> None:
    """Raise NotAdmitted if seeds were trained on different data, or have the same weights or measurements."""
    datas = [_record(one)["data"] for one in used]
    if (contents := len({(data["content_sha256"], data["split_sha256"]) for data in datas})) > 1:
        raise NotAdmitted(f"its seeds were trained on {contents} different contents of the data")
    for what, file in (("weights", WEIGHTS), ("measurements", "anytime.csv")):
        seeds: dict[str, list[str]] = {}
        for one in ended:
            # Seeds that diverged, and networks that always give the same answer, may well be equal.
            if one.evaluation is not None and not results.dead(one):
                files = (_record(one) if file == WEIGHTS else one.evaluation)["files"]
                seeds.setdefault(files[file], []).append(str(one.run.seed))
        if copies := next((same for same in seeds.values() if len(same) > 1), None):
            raise NotAdmitted(f"seeds {listed(copies)} have the same {what}")


def _remarks(ended: Sequence[Found], used: Sequence[Found]) -> list[str]:
    """Several versions of the code, uncommitted changes, and mixed precision."""
    remarks = []
    evaluations = {one.run.name: one.evaluation for one in used if one.evaluation is not None}
    for what, codes in (
        ("trained", {_record(one)["code"] for one in ended}),
        ("measured", {evaluations[one.run.name]["code"] for one in ended if one.run.name in evaluations}),
    ):
        if len(codes) > 1:
            remarks.append(f"its seeds were {what} with {len(codes)} versions of the code")
    for what, records in (("trained", [_record(one) for one in used]), ("measured", [*evaluations.values()])):
        if dirty := sum(bool(one["provenance"].get("dirty")) for one in records):
            remarks.append(f"{dirty} of {counted(len(records), 'run')} {what} with uncommitted changes")
    precisions = sorted({str(_record(one).get("precision")) for one in ended})
    if len(precisions) > 1:
        remarks.append(f"its seeds were trained in different precision, {listed(precisions)}")
    return remarks
