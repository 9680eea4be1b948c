"""Forged and dead results: no number of a network that does not work, or that was not run as said, is in its favour."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made import AT_CHANCE, Made, digest, made

from bntt.experiment.schema import load
from bntt.paper.published import Cell, cells, published
from bntt.paper.reproduction import judge_all, judge_cell, judge_cells
from bntt.paper.scores import headline, is_decidable, scores
from bntt.paper.verdicts import FAVOURABLE
from bntt.results.collect import Results
from bntt.runs.directory import WEIGHTS

PAPER = load("paper")
BAD = FAVOURABLE  # a forged number must be none of these


def every(**changes: object) -> Results:
    return made(PAPER, row="bntt", **changes)


def tables(**changes: Callable[[pd.DataFrame], pd.DataFrame]) -> Results:
    return every(tables={f"{name}.csv": change for name, change in changes.items()})


def seeds(change: Callable[[Made], Made], only: tuple[int, ...] = (0, 1, 2)) -> Results:
    """Every run of these seeds changed."""
    results = made(PAPER, row="bntt")
    results.runs[:] = [change(one) if one.run.seed in only else one for one in results.runs]
    return results


def gammas(value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(gamma=value)


def chance_until(step: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Until a step every image gets the same answer."""
    correct = np.packbits(np.arange(10_000) < 1000).tobytes().hex()
    return lambda f: f.assign(
        accuracy=f["accuracy"].where(f["time_step"] > step, 10.0),
        correct=f["correct"].where(f["time_step"] > step, correct),
    )


def spent(energy: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(own_mj=energy)


def exits_at(step: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(exit_step=step)


def wave_of_the_paper(frame: pd.DataFrame) -> pd.DataFrame:
    """Every gamma as the paper prints it, 0.01 where it is illegible."""
    printed = {(c.layer, c.time_step): c.number for c in cells() if c.metric == "mean_gamma" and c.value is not None}
    return frame.assign(
        gamma=[printed.get((one.layer, one.time_step), 0.01) for one in frame.itertuples()],
    )


CHANCE = {"right": (AT_CHANCE,) * 3}
PERFECT = {  # everything but the accuracy is better than printed
    "early_exit.csv": exits_at(20), "gamma.csv": wave_of_the_paper, "energy.csv": spent(1e-6),
}  # fmt: skip
ALL = ("all",)  # every measured number
COSTS = ("cost",)  # every number that is bought at an accuracy

FORGED: dict[str, tuple[Results, tuple[str, ...]]] = {
    # -- networks that do not work
    "a constant answer": (every(**CHANCE), ALL),
    "a constant answer, all else as printed": (every(**CHANCE, tables=PERFECT), ALL),
    "a constant answer, every gamma at 0.01": (every(**CHANCE, tables={"gamma.csv": gammas(0.01)}), ALL),
    "a little above chance, 10.6 to 10.9 %": (every(right=(1060, 1075, 1090), tables=PERFECT), ALL),
    "silent in every layer": (every(**CHANCE, spikes=0.0), ALL),
    "silent, with a forged accuracy": (every(spikes=0.0), ALL),
    "silent in one layer alone": (
        every(tables={"spikes.csv": lambda f: f.assign(spikes=f["spikes"].where(f["layer"] != "conv7", 0.0))}), ALL),
    "one seed of three at chance": (every(right=(AT_CHANCE, 9050, 9060)), ALL),
    "two seeds of three at chance": (every(right=(AT_CHANCE, AT_CHANCE, 9060)), ALL),
    "all diverged": (every(status=("diverged",) * 3), ALL),
    "one diverged": (every(status=("done", "diverged", "done")), ALL),
    # -- costs of networks that are less accurate
    "a conversion that has not begun to answer": (every(right=(2310, 2320, 2330), tables=PERFECT), ALL),
    "half as accurate": (every(right=(4500, 4520, 4540), tables=PERFECT), ALL),
    "two points less accurate": (every(right=(8690, 8700, 8710), tables=PERFECT), COSTS),
    "accuracies scattered around a lower mean": (every(right=(6000, 7500, 9000), tables=PERFECT), COSTS),
    "no energy at all, at 70 %": (every(right=(7000, 7010, 7020), tables={"energy.csv": spent(0.0)}), COSTS),
    "exit at step 1, at 30 %": (every(right=(3000,) * 3, tables={"early_exit.csv": exits_at(1)}), COSTS),
    # -- measurements that cannot be
    "an infinite energy ratio": (tables(energy=spent(0.0)), ("energy_ratio",)),
    "negative energy": (tables(energy=spent(-1.0)), ("energy_ratio",)),
    "an energy that is no number": (tables(energy=spent(np.nan)), ("energy_ratio",)),
    "gammas that are no numbers": (tables(gamma=gammas(np.nan)), ("mean_gamma",)),
    "infinite gammas": (tables(gamma=gammas(np.inf)), ("mean_gamma",)),
    "negative gammas": (tables(gamma=lambda f: f.assign(gamma=-f["gamma"])), ("mean_gamma",)),
    "exit before the first step": (tables(early_exit=exits_at(0)), ("exit_step", "exit_accuracy")),
    "exit after the last step": (tables(early_exit=exits_at(10_000)), ("exit_step", "exit_accuracy")),
    "exit at half a step": (tables(early_exit=exits_at(19.5)), ("exit_step", "exit_accuracy")),
    "exit at no step": (tables(early_exit=exits_at(np.nan)), ("exit_step", "exit_accuracy")),
    "an accuracy that the images do not give": (
        every(right=(5000,) * 3, tables={"anytime.csv": lambda f: f.assign(accuracy=90.5)}), ALL),
    "an accuracy that is no number": (tables(anytime=lambda f: f.assign(accuracy=np.nan)), ALL),
    "more than 100 %": (tables(anytime=lambda f: f.assign(accuracy=100.5)), ALL),
    "no record of the images": (tables(anytime=lambda f: f.assign(correct="")), ALL),
    "a record of fewer images": (tables(anytime=lambda f: f.assign(correct=f["correct"].str[:-2])), ALL),
    # -- trainings that were not as said
    "a third of the steps": (seeds(lambda o: replace(o, records={"steps": (o.training["steps"] + 2) // 3})), ALL),
    "one step less in one seed": (seeds(lambda o: replace(o, records={"steps": o.training["steps"] - 1}), (1,)), ALL),
    "more steps": (seeds(lambda o: replace(o, records={"steps": o.training["steps"] + 1})), ALL),
    "no step": (every(records={"steps": 0}), ALL),
    "fewer training images": (every(data={"images": {"train": 10_000, "validation": 0, "test": 10_000}}), ALL),
    "fewer test images": (every(data={"images": {"train": 50_000, "validation": 0, "test": 9_000}}), ALL),
    "validation images that the dataset does not have": (
        every(data={"images": {"train": 50_000, "validation": 5_000, "test": 10_000}}), ALL),
    "data of another publisher": (every(state="unknown"), ALL),
    "data of a state that does not exist": (every(state="perfect"), ALL),
    "data of the state that is empty": (every(state=""), ALL),
    "one seed on other data": (seeds(lambda o: replace(o, data={"content_sha256": "other"}), (2,)), ALL),
    "one seed on another split": (seeds(lambda o: replace(o, data={"split_sha256": "other"}), (2,)), ALL),
    "one training under three seeds": (
        seeds(lambda o: replace(o, records={"files": {WEIGHTS: digest(o.run.dataset, o.run.row)}})), ALL),
    "one training under two seeds": (
        seeds(lambda o: replace(o, records={"files": {WEIGHTS: digest(o.run.dataset, o.run.row)}}), (0, 2)), ALL),
    "one measurement under three seeds": (
        seeds(lambda o: replace(o, measured={"files": {"anytime.csv": digest(o.run.dataset, o.run.row)}})), ALL),
    # -- seeds that are missing
    "two of three seeds": (every(status=("done", "done", "missing")), ALL),
    "one of three seeds": (every(status=("done", "damaged", "outdated")), ALL),
    "none": (every(status=("missing",) * 3), ALL),
}  # fmt: skip


# What runs of row bntt can decide, but for settings. Of Figure 3's gammas only those of two steps. The other rows that
# can decide a number are quoted accuracies of Table 1, which take the same way through admission and verdicts.
MEASURED = [
    cell
    for cell in cells()
    if is_decidable(cell)
    and cell.run == "bntt"
    and cell.kind != "settings"
    and (cell.metric != "mean_gamma" or cell.time_step in (1, 25))
]


def test_what_else_could_be_forged_is_one_accuracy_of_each_quoted_row():
    others = [cell for cell in cells() if is_decidable(cell) and cell.kind != "settings" and cell.run != "bntt"]
    assert {cell.run for cell in others} == {"conversion-vgg16", "hybrid-vgg16", "lee", "rmp-vgg16"}
    assert {(cell.place, cell.column, cell.quoted) for cell in others} == {("Table 1", "accuracy", True)}


def concerns(cell: Cell, kinds: tuple[str, ...]) -> bool:
    """Whether a forgery concerns a cell."""
    return kinds == ALL or (kinds == COSTS and bool(cell.bought_at)) or cell.metric in kinds


@pytest.mark.parametrize("name", FORGED)
def test_nothing_forged_or_dead_is_in_its_favour(name):
    results, kinds = FORGED[name]
    concerned = judge_cells(results, [cell for cell in MEASURED if concerns(cell, kinds)])
    wrong = {f"{one.cell.place}, {one.cell.row}, {one.cell.column}": str(one.verdict) for one in concerned
             if one.verdict.word in BAD}  # fmt: skip
    assert len(concerned) > 1 and not wrong
    assert all(one.verdict.reason or one.verdict.word in ("WORSE", "DIFFERS") for one in concerned)


def test_there_are_many_and_the_unforged_would_be_in_its_favour():
    """So that the tests above cannot pass because nothing is judged at all."""
    assert len(FORGED) >= 30
    assert sum(one.verdict.word in BAD for one in judge_cells(every(), MEASURED)) >= 6
    perfect = judge_cells(every(tables=PERFECT), MEASURED)
    words = {one.verdict.word for one in perfect if one.cell.metric in ("mean_gamma", "exit_step")}
    assert words == {"MATCH"}


def word(results: Results, place: str, row: str, column: str) -> str:
    return judge_cell(results, published(place, row, column)).verdict.word


def test_words_of_dead_networks():
    dead = every(**CHANCE, tables=PERFECT)
    assert word(dead, "Table 1", "cifar10/bntt", "accuracy") == "WORSE"
    assert word(dead, "Table 3", "bntt", "energy_ratio") == "WORSE"  # all its seeds failed
    assert word(dead, "Table 1", "cifar10/bntt", "time_steps") == "MATCH"  # a setting
    assert word(every(right=(AT_CHANCE, 9050, 9060)), "Table 1", "cifar10/bntt", "accuracy") == "INCOMPLETE"
    early = seeds(lambda o: replace(o, exit_step=1, tables={"anytime.csv": chance_until(1)}), (0,))
    assert word(early, "Table 1", "cifar10/bntt", "accuracy") == "MATCH"
    exits = judge_cell(early, published("Table 1", "cifar10/bntt-early-exit", "accuracy")).verdict
    assert (exits.word, exits.reason) == ("INCOMPLETE", "2 of 3 planned seeds; at least 3 are needed; 1 seed at chance")
    late = every(right=(2310, 2320, 2330), tables=PERFECT)
    assert word(late, "Table 3", "bntt", "energy_ratio") == "INCOMPARABLE"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gamma_that_is_no_number_is_no_peak(value):
    """It stands where the paper's wave of conv4 peaks, in one of two channels."""
    broken = tables(gamma=lambda f: f.assign(gamma=f["gamma"].mask((f["time_step"] == 9) & (f["channel"] == 0), value)))
    found = judge_cell(broken, published("Section 4.4", "conv4", "peak_step")).verdict
    assert (found.word, found.reason) == ("DIFFERS", "not a finite number")


def test_what_lacks_steps_is_not_read_as_if_it_were_whole():
    """A wave without its first four steps would peak four steps early; without the last, T would be another."""
    peaks = (
        published("Section 4.4", "conv4", "peak_step"),
        "cifar10/bntt/seed-0 has gammas of conv4 at other steps than 1..25",
    )
    accuracy = (
        published("Table 1", "cifar10/bntt", "accuracy"),
        "cifar10/bntt/seed-0 was not measured at time_step 25",
    )
    cut = tables(gamma=lambda f: f[f["time_step"] > 4], anytime=lambda f: f[f["time_step"] < 25])
    for cell, reason in (peaks, accuracy):
        found = judge_cell(cut, cell).verdict
        assert (found.word, found.reason) == ("NOT_RUN", reason)


def test_gammas_alone_would_match_and_do_not():
    gammas = [cell for cell in cells() if cell.metric == "mean_gamma"]
    alive, worse = every(tables=PERFECT), every(right=(8000, 8010, 8020), tables=PERFECT)
    assert len(gammas) == 50
    assert {one.verdict.word for one in judge_cells(alive, gammas)} == {"MATCH"}
    assert {one.verdict.word for one in judge_cells(worse, gammas)} == {"INCOMPARABLE"}


# -- the headline


def test_a_dead_network_earns_nothing_but_its_settings():
    found = {score.kind: score for score in scores(judge_all(made(PAPER)))}
    for kind, score in found.items():
        assert score.dead_earns == (score.dead.total() if kind.startswith("settings") else 0)
    figures = found["measured in figures"]
    assert figures.dead.total() > 40
    assert figures.dead_alone >= 35  # gammas that are printed as 0.01


def test_the_headline_names_each_kind_and_counts_repeats_once():
    judged = judge_all(made(PAPER))
    lines = headline(judged)
    assert [line.split(" ", 2)[2].split(":")[0] for line in lines[:-2]] == [score.kind for score in scores(judged)]
    table1 = next(line for line in lines if "measured in Table 1" in line)
    assert " MATCH" in table1 and "A dead network would earn 0 of the " in table1
    total = sum(score.counts.total() for score in scores(judged))
    assert lines[-1].startswith(f"{len(judged) - total} numbers that the paper repeats count once")
    assert total < len(judged)
