"""Tables and the overview's helpers on small results made by hand: numbers, n/a, seeds, the paper's column, files."""

import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pandas as pd
import pytest
import yaml
from made import made
from markupsafe import Markup
from tiny import experiment, python

from bntt.common import text as words
from bntt.data import store
from bntt.drawing import overview, palette, tables
from bntt.drawing import page as pages
from bntt.drawing.tables import _lines
from bntt.drawing.tables._table import latex_escape
from bntt.experiment.schema import load
from bntt.paper import published
from bntt.paper.claims import weigh
from bntt.paper.reproduction import Judged
from bntt.paper.verdicts import MEANINGS, WORDS, Verdict
from bntt.results import dead, facts
from bntt.results.collect import Results, images_of
from bntt.results.energy import energy_ratios, exit_energy_ratios
from bntt.results.intervals import Estimate
from bntt.runs.status import Found, Status

IMAGES = 8
ROWS = {
    "bntt": {"method": "surrogate", "norm": "bntt", "time_steps": 4, "weight_decay": 5e-3},
    "surrogate": {"method": "surrogate", "norm": "none", "time_steps": 8},
    "ann": {"method": "ann"},
    "conversion": {"method": "conversion", "start": "ann", "time_steps": 8},
    "my-norm": {"method": "surrogate", "norm": "tebn", "time_steps": 4},
}


@dataclass(frozen=True)
class Planned(Found):
    """A run with measurements from memory."""

    measured: dict[str, pd.DataFrame] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # why a measurement does not apply
    machines: list[str] = field(default_factory=list)  # where it was trained, if not on the one of the provenance
    IMAGES: ClassVar = {"train": 1077, "test": IMAGES}

    def table(self, name):
        found = self.measured.get(name) if self.status == "done" else None
        return None if found is None else found.copy()

    @property
    def evaluation(self):
        return {"not_applicable": self.reasons} if self.status == "done" else None

    @property
    def training(self):
        if self.status not in ("done", "diverged"):
            return None
        return {
            "parameters": 1234,
            "steps": 680,
            "seconds": 75.0 + 10 * self.run.seed,
            "peak_memory_mb": 1000.0 + 20 * self.run.seed,
            "machines": self.machines,
            "decay_budget": 5.3,
            "started": "2024-01-02T03:04:05+00:00",
            "data": {"dataset": self.run.dataset, "state": "content", "images": self.IMAGES,
                     "content_sha256": "c" * 64, "split_sha256": "5" * 64},
            "provenance": {"commit": "abc", "dirty": False, "python": "3", "packages": {"torch": "2"},
                           "platform": "Linux", "processor": "a | b", "device": "cpu", "threads": 1},
        }  # fmt: skip


def anytime(steps: int, correct: str) -> pd.DataFrame:
    """The same images right at every step."""
    right = 100 * int(correct, 16).bit_count() / IMAGES
    return pd.DataFrame({"time_step": range(1, steps + 1), "accuracy": right, "loss": 1.0, "correct": correct})


def energy(steps, spent: float | None) -> pd.DataFrame:
    """conv1 and two further layers of 100 operations, 1 mJ dense each; conv1 spends twice as much as the others."""
    lines = []
    for step in steps:
        for layer in ("conv1", "fc1", "fc2"):
            own = math.nan if spent is None else spent * step * (2 if layer == "conv1" else 1)
            lines.append((step, layer, 100, own * 2, 1.0, own, own * 2, own * 4))
    columns = ["time_step", "layer", "macs", "count_own", "dense_mj", "own_mj", "events_mj", "mass_mj"]
    return pd.DataFrame(lines, columns=columns)


def measured(row: str, correct: str) -> dict[str, pd.DataFrame]:
    """All that the tables read of a row."""
    steps = {"ann": 1, "surrogate": 8, "conversion": 8}.get(row, 4)
    reported = sorted({2, steps} if steps > 1 else {1})
    found = {
        "anytime.csv": anytime(steps, correct),
        "energy.csv": energy(reported, None if row == "ann" else 0.1),
    }
    if row == "bntt":
        found["early_exit.csv"] = pd.DataFrame(
            {"threshold": [0.1, 0.2], "exit_step": [3, 2], "exits": [1, 1], "accuracy": [87.5, 87.5]}
        )
        found["spikes.csv"] = pd.DataFrame(
            [(layer, t, 0.1) for layer in ("conv1", "fc1") for t in range(1, 5)],
            columns=["layer", "time_step", "spikes"],
        )
    return found


CORRECT = {"bntt": "fe", "surrogate": "f8", "ann": "ff", "conversion": "fc", "my-norm": "7e"}


def results(folder: Path, seeds=(0,), datasets=("digits",), correct=None, **states) -> Results:
    """Results of ROWS; ``states`` gives a row's status, or a tuple with one for each seed; hyphens as underscores."""
    document = {
        "title": "Test",
        "datasets": list(datasets),
        "seeds": list(seeds),
        "protocol": {"architecture": "vgg9", "width": 0.25, "image_size": 8},
        "rows": ROWS,
        "evaluation": {"report_steps": [2]},
    }
    path = folder / "by-hand.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    made = Results(load(str(path)), folder)
    runs = []
    for run in made.experiment.runs:
        status = states.get(run.row.replace("-", "_"), "done")
        status = status[seeds.index(run.seed)] if isinstance(status, tuple) else status
        bits = (correct or {}).get((run.row, run.seed), CORRECT[run.row])
        runs.append(
            Planned(run, None, Status(status), {"diverged": "loss is nan"}.get(status, ""), measured(run.row, bits))
        )
    made.__dict__["runs"] = runs
    return made


def rows(table: tables.Table) -> pd.DataFrame:
    """The section that has a line for every row of the experiment."""
    return next(shown for shown in table.sections.values() if "Row" in shown)


def printed(table: tables.Table, paper_line: str) -> pd.Series:
    """The line of the paper's layout of Table 1 for one of its lines."""
    return table.sections[tables.PRINTED].set_axis(published.table(1).index).loc[paper_line]


def line(table: tables.Table, row: str, **where) -> pd.Series:
    """The line of a row as shown."""
    found = rows(table)
    found = found[found["Row"] == row]
    for column, value in where.items():
        found = found[found[column.replace("_", "-")] == value]
    assert len(found) == 1, found
    return found.iloc[0]


# -- Table 1


def test_accuracy_stands_with_its_standard_error_beside_the_papers_number(tmp_path):
    table = tables.table1(results(tmp_path))
    bntt = line(table, "bntt")
    assert bntt["Accuracy (%)"] == "87.50 ± 11.69"  # 7 of 8; 100 sqrt(7/8 * 1/8 / 8)
    assert bntt["Architecture"] == "VGG9, width 0.25"
    assert bntt["Training method"] == "Surrogate gradient, bntt"
    assert bntt["Paper (%)"] == "90.5"
    assert bntt["Minus bntt (points)"] == "–"
    assert line(table, "surrogate")["Paper (%)"] == "88.7"
    assert line(table, "my-norm")["Paper (%)"] == "–"
    assert any("standard error over the test images" in note for note in table.notes)
    assert "No verdict: the data is digits, not CIFAR-10." in table.notes


@pytest.mark.parametrize(
    ("title", "options", "shown"),
    [
        ("Surrogate gradient, {norm}", {"norm": "tdbn"}, "Surrogate gradient, tdbn"),
        ("Surrogate gradient, {norm}", {"norm": "none"}, "Surrogate gradient, no norm"),
        (
            "Conversion, {reset} reset, {percentile} %",
            {"reset": "soft", "percentile": 99.9},
            "Conversion, soft reset, 99.9 %",
        ),
        ("Dense, {batch_norm}", {"batch_norm": True}, "Dense, batch norm"),
        ("Dense, {batch_norm}", {"batch_norm": False}, "Dense"),
        ("A {fraction} of it, chunks of {time_chunk}", {"fraction": 0.5, "time_chunk": None}, "A 0.5 of it"),
        ("HOTS", {}, "HOTS"),
    ],
)
def test_a_title_is_filled_with_the_options_of_the_row(monkeypatch, title, options, shown):
    monkeypatch.setattr(_lines.declared, "title", lambda module: title)
    run = replace(load("demo").runs[0], options=options)
    assert _lines.training_method(run) == shown


def test_an_exit_of_some_seeds_is_told_with_their_number(tmp_path):
    found = results(tmp_path, seeds=(0, 1, 2))
    never = pd.DataFrame({"threshold": [0.1], "exit_step": [4], "exits": [0], "accuracy": [87.5]})
    for one in found.runs:
        if one.run.row == "bntt" and one.run.seed == 2:
            one.measured["early_exit.csv"] = never
    table = tables.table1(found)
    exit_line = line(table, "bntt + early exit")
    assert exit_line["Note"] == "threshold 0.1, reached by 2 of 3 seeds"
    assert "bntt + early exit" in set(tables.condensed(table).sections[""]["Row"])


def test_an_interval_of_accuracies_ends_at_a_hundred_per_cent(tmp_path):
    """100, 87.5 and 100 %: mean 95.83, s = 7.22, half-width 17.93."""
    correct = {("bntt", 0): "ff", ("bntt", 1): "fe", ("bntt", 2): "ff"}
    table = tables.table1(results(tmp_path, seeds=(0, 1, 2), correct=correct))
    bntt = table.data[(table.data["row"] == "bntt") & (table.data["early_exit"] == False)].iloc[0]  # noqa: E712
    assert bntt["interval_low"] == pytest.approx(95.8333 - 17.93, abs=0.01)
    assert bntt["interval_high"] == 100


def test_early_exit_has_a_line_at_its_step(tmp_path):
    exit_line = line(tables.table1(results(tmp_path)), "bntt + early exit")
    assert exit_line["Time-steps"] == "3"
    assert exit_line["Note"] == "threshold 0.1"
    assert exit_line["Paper (%)"] == "90.3"


@pytest.mark.parametrize(
    ("dataset", "last", "early", "steps"),
    [("cifar10", "90.5", "90.3", ("25", "20")), ("cifar100", "66.6", "65.8", ("50", "30")),
     ("tiny-imagenet", "57.8", "56.8", ("30", "25")), ("dvs-cifar10", "63.2", "–", ("-", ""))],
)  # fmt: skip
def test_every_dataset_has_the_papers_lines_beside_the_rows_and_nowhere_else(tmp_path, dataset, last, early, steps):
    table = tables.table1(results(tmp_path, datasets=(dataset,)))
    assert line(table, "bntt")["Paper (%)"] == last
    assert line(table, "bntt + early exit")["Paper (%)"] == early
    beside = table.sections[tables.PRINTED].set_index("Here: row")
    for row, accuracy, time_steps in zip(("bntt", "bntt + early exit"), (last, early), steps, strict=True):
        found = beside[["Dataset", "Time-steps", "Accuracy(%)"]].loc[[row] if accuracy != "–" else []]
        expected = [[published.DATASETS[dataset], time_steps, accuracy]] if accuracy != "–" else []
        assert found.to_numpy().tolist() == expected
    fixed = {"cifar100": "; verdict: after 30 time-steps, as printed"}.get(dataset, "")
    assert fixed in line(table, "bntt + early exit")["Note"]
    assert ("verdict" in line(table, "bntt + early exit")["Note"]) == (dataset in ("cifar100", "tiny-imagenet"))


def test_early_exit_is_judged_by_the_images_that_are_right_at_its_own_step(tmp_path):
    """Four of eight at step 3, seven at the last."""
    found = results(tmp_path)
    for one in found.runs:
        if one.run.row == "bntt":
            curve, exits = one.measured["anytime.csv"], one.measured["early_exit.csv"]
            curve.loc[curve["time_step"] == 3, ["accuracy", "correct"]] = [50.0, "f0"]
            exits.loc[exits["exit_step"] == 3, "accuracy"] = 50.0
    table = tables.table1(found)
    assert line(table, "bntt + early exit")["Accuracy (%)"] == "50.00 ± 17.68"
    assert line(table, "bntt + early exit")["Minus bntt (points)"].startswith("−37.50 [−")
    assert line(table, "bntt")["Accuracy (%)"] == "87.50 ± 11.69"
    assert line(table, "ann")["Minus bntt (points)"].startswith("12.50 [−")


def test_conversions_are_listed_at_every_reported_step_and_answer_the_papers_deeper_one(tmp_path):
    table = tables.table1(results(tmp_path))
    assert line(table, "conversion", **{"Time_steps": "2"})["Paper (%)"] == "–"
    assert line(table, "conversion", **{"Time_steps": "8"})["Paper (%)"] == "91.5"
    deeper = printed(table, "cifar10/sengupta-2019")
    assert (deeper["Architecture"], deeper["Here: architecture"]) == ("VGG16", "VGG9, width 0.25")
    assert (deeper["Time-steps"], deeper["Here: time-steps"]) == ("2500", "8")


def test_rows_are_compared_with_bntt_on_the_same_images(tmp_path):
    table = tables.table1(results(tmp_path))
    # ff against fe: one image more of 8; 7e against fe: one image less
    assert line(table, "ann")["Minus bntt (points)"].startswith("12.50 [−")
    assert line(table, "my-norm")["Minus bntt (points)"].startswith("−12.50 [−")


def test_diverged_is_na_and_missing_is_not_run(tmp_path):
    table = tables.table1(results(tmp_path, surrogate="diverged", ann="missing", conversion="damaged"))
    assert line(table, "surrogate")["Accuracy (%)"] == "n/a"
    assert line(table, "surrogate")["Note"] == "diverged: loss is nan"
    assert line(table, "ann")["Accuracy (%)"] == "not run"
    assert line(table, "ann")["Note"] == "no result yet"
    assert line(table, "conversion", **{"Time_steps": "8"})["Accuracy (%)"] == "not run"
    energy_table = tables.table3(results(tmp_path, surrogate="diverged", ann="missing"))
    assert line(energy_table, "surrogate")["E_ANN/E_method"] == "n/a"
    assert line(energy_table, "ann")["E_ANN/E_method"] == "–"


def test_nothing_at_all_still_makes_tables(tmp_path):
    nothing = results(tmp_path, **dict.fromkeys((row.replace("-", "_") for row in ROWS), "missing"))
    for table in (tables.table1(nothing), tables.table3(nothing)):
        assert (rows(table)["Accuracy (%)"] == "not run").all()
        assert tables.to_markdown(table) and tables.to_latex(table) and tables.to_html(table)
    assert {claim.outcome for claim in weigh(nothing, "digits")} == {"undecided"}


def test_a_measurement_that_no_run_has_is_a_frame_with_its_columns(tmp_path):
    found = results(tmp_path)
    assert {"dataset", "row", "seed", "sigma", "accuracy"} <= set(found.frame("noise.csv").columns)
    assert found.frame("noise.csv").empty and found.frame("anytime.csv", row="nowhere").empty
    assert set(found.frame("anytime.csv", row="ann", seed=0)["row"]) == {"ann"}


def test_several_seeds_are_mean_and_deviation(tmp_path):
    correct = {("bntt", 0): "f0", ("bntt", 1): "fc", ("bntt", 2): "ff"}  # 50, 75, 100 %
    three = results(tmp_path, seeds=(0, 1, 2), correct=correct, surrogate=("done", "diverged", "missing"))
    table = tables.table1(three)
    assert line(table, "bntt")["Accuracy (%)"] == "75.00 ± 25.00 (n = 3)"
    assert any("standard deviation over seeds" in note for note in table.notes)
    assert line(table, "surrogate")["Accuracy (%)"] == "62.50 ± 17.12 (n = 1, binomial)"  # one seed left: over images
    assert line(table, "surrogate")["Note"] == "seed 1: diverged: loss is nan; seed 2: no result yet"
    assert table.data.set_index("row").loc["ann", "seeds"] == 3
    worse = next(claim for claim in weigh(three, "digits") if claim.name == "surrogate-trains-worse")
    assert [part.seeds for part in worse.parts] == [2]  # the seed that diverged counts, the missing one is named
    assert worse.parts[0].note.endswith("; seed 1 diverged: loss is nan; without seed 2: row surrogate: no result yet")


def test_the_papers_layout_is_the_papers_table_with_what_was_measured_beside(tmp_path):
    table = tables.table1(results(tmp_path))
    shown, paper = table.sections[tables.PRINTED], published.table(1)
    assert shown.iloc[:, :6].to_numpy().tolist() == paper.to_numpy().tolist()  # every line, in its order
    assert list(shown.columns[:6]) == ["Method", *paper.columns[1:]]
    bntt = printed(table, "cifar10/bntt")
    assert bntt["Here: row"] == "bntt" and bntt["Here: data"] == "digits"
    assert bntt["Here: accuracy (%)"] == "87.50 ± 11.69" and bntt["Here: time-steps"] == "4"
    assert printed(table, "cifar10/bntt-early-exit")["Here: row"] == "bntt + early exit"
    assert printed(table, "cifar10/rathi-2020")["Note"] == "this experiment has no row hybrid-vgg16"
    assert printed(table, "cifar100/bntt")["Note"] == "this experiment has no dataset CIFAR-100"
    absent = shown[shown["Here: accuracy (%)"] == "not run"]
    assert (absent["Here: row"] == "–").all() and (absent["Note"] != "").all()
    assert len(table.data[table.data["status"] == "not run"]) == len(absent) == 25 - 4
    # every line of the paper's table stands once, beside a row or among those not run
    lines = table.data[table.data["paper_line"] != ""].set_index("paper_line")
    assert sorted(lines.index) == sorted(paper.index)
    assert lines.loc["cifar10/bntt", "paper_time_steps"] == "25" and lines.loc["cifar10/bntt", "row"] == "bntt"
    assert lines.loc["cifar10/cao-2015", "paper_method"] == "Cao et al. (2015)"


def test_a_line_stands_beside_each_dataset_that_is_nearest_to_its_own(tmp_path):
    shown = tables.table1(results(tmp_path, datasets=("cifar10", "digits"))).sections[tables.PRINTED]
    assert shown[shown["Method"] == "BNTT (ours)"]["Here: data"].tolist() == ["cifar10", "digits", "–", "–", "–"]
    assert "Here: data" not in tables.table1(results(tmp_path, datasets=("cifar10",))).sections[tables.PRINTED]


def test_a_row_of_another_dataset_stands_beside_no_line(tmp_path, monkeypatch):
    monkeypatch.setitem(ROWS, "surrogate", ROWS["surrogate"] | {"datasets": ["digits-dvs"]})
    table = tables.table1(results(tmp_path, datasets=("digits", "digits-dvs")))
    assert printed(table, "cifar10/surrogate")["Note"] == "this experiment has no row surrogate on digits"
    assert printed(table, "dvs-cifar10/surrogate")["Here: data"] == "digits-dvs"


def test_a_line_is_answered_by_the_rows_of_its_own_dataset(tmp_path, monkeypatch):
    """`conversion-vgg16` runs on event recordings only, so on images `conversion` stands for it."""
    deeper = {"method": "conversion", "start": "ann", "time_steps": 4, "datasets": ["digits-dvs"]}
    monkeypatch.setitem(ROWS, "conversion-vgg16", deeper)
    monkeypatch.setitem(CORRECT, "conversion-vgg16", "fc")
    table = tables.table1(results(tmp_path, datasets=("digits", "digits-dvs")))
    assert printed(table, "cifar10/sengupta-2019")["Here: row"] == "conversion"


# -- what a row costs


def test_a_row_stands_with_what_its_accuracy_costs(tmp_path):
    table = tables.table1(results(tmp_path, seeds=(0, 1)))
    bntt, early = line(table, "bntt"), line(table, "bntt + early exit")
    assert (bntt["Spikes per neuron"], bntt["E_ANN/E_method"]) == ("1.067", "1.88×")  # by hand below, with Table 3's
    assert (early["Spikes per neuron"], early["E_ANN/E_method"]) == ("0.300", "17.04×")  # 4.6 / (0.9 * 0.3)
    assert (bntt["Training (s)"], bntt["Peak memory (MB)"], bntt["Parameters"]) == ("80.0", "1,010", "1,234")
    assert line(table, "conversion", Time_steps="8")["Training (s)"] == "80.0 + 80.0 (ann)"
    assert "Trained on" not in rows(table)
    (note,) = (note for note in table.notes if note.startswith("Training"))
    assert note.endswith("plus those of the row it starts from; on cpu (a | b), 1 thread.")
    data = table.data[table.data["time_steps"] == 8].set_index("row")
    assert data.loc["conversion", ["training_seconds", "start_seconds"]].tolist() == [80.0, 80.0]
    assert data.loc["surrogate", "start_seconds"] == 0
    pd.testing.assert_series_equal(data["own"], tables.table3(results(tmp_path, seeds=(0, 1))).data.pipe(
        lambda other: other[other["time_steps"] == 8].set_index("row")["own"]))  # fmt: skip


def test_what_was_not_measured_is_a_dash_with_its_reason(tmp_path):
    found = results(tmp_path)
    for one in found.runs:
        if one.run.row == "my-norm":
            del one.measured["energy.csv"]
            one.reasons["spikes.csv"] = "a histogram has no spikes"
            one.reasons["energy.csv"] = "a histogram has no operations"
        if one.run.row == "ann":
            one.reasons["spikes.csv"] = "a dense network has no spikes"
    table = tables.table1(found)
    mine, ann = line(table, "my-norm"), line(table, "ann")
    assert (mine["Spikes per neuron"], mine["E_ANN/E_method"]) == ("–", "–")
    assert (ann["Spikes per neuron"], ann["E_ANN/E_method"]) == ("–", "1.00×")
    notes = [note for note in table.notes if note.startswith("No ")]
    assert notes[:3] == [
        "No spikes: ann; a dense network has no spikes.",
        "No spikes: my-norm; a histogram has no spikes.",
        "No energy: my-norm; a histogram has no operations.",
    ]
    assert set(table.data.set_index("row").loc["my-norm", ["no_spikes"]]) == {"a histogram has no spikes"}
    never = line(tables.table1(results(tmp_path, my_norm="missing")), "my-norm")
    assert {never[column] for column in ("Training (s)", "Peak memory (MB)", "Parameters")} == {"–"}
    assert never["Note"] == "no result yet"


def test_what_works_on_single_events_has_no_time_steps(tmp_path):
    rows = {"bntt": {"method": "surrogate", "norm": "bntt", "time_steps": 20}, "hats": {"method": "hats"}}
    found = made(experiment(tmp_path, datasets=["dvs-cifar10"], protocol={}, rows=rows), status=["missing"] * 3)
    table = tables.table1(found)
    assert (line(table, "hats")["Time-steps"], line(table, "bntt")["Time-steps"]) == ("–", "20")
    assert "rows `bntt` (T = 20) and `hats` (single events)" in facts.sources(found)


def test_times_of_several_machines_are_not_compared_silently(tmp_path):
    found = results(tmp_path, seeds=(0, 1))
    for one in found.runs:
        if one.run.row in ("ann", "surrogate"):
            one.machines.append("a GPU (c)" if one.run.row == "ann" or one.run.seed else "cpu (a | b)")
    table = tables.table1(found)
    shown = rows(table).drop_duplicates("Row").set_index("Row")["Trained on"]
    assert shown["bntt"] == "cpu (a | b), 1 thread" and shown["ann"] == "a GPU (c), 1 thread"
    assert shown["surrogate"] == "cpu (a | b), 1 thread and a GPU (c), 1 thread"
    assert shown["conversion"] == "cpu (a | b), 1 thread and a GPU (c), 1 thread"  # its own, and its start's
    assert any("several machines, named in the line: compare only times of the same one" in n for n in table.notes)
    assert "a GPU (c), 1 thread" in table.data.set_index("row").loc["ann", "machines"]
    assert "Trained on" not in tables.condensed(table).sections[""]


# -- dead networks, and cut datasets


def dying(folder: Path, dataset="cifar100", **silenced) -> Results:
    """Results in which the named rows and seeds have a layer without spikes, and nothing right."""
    seeds = (0, 1)
    dead = [(row, seed) for row, of_row in silenced.items() for seed in of_row]
    found = results(folder, seeds, (dataset,), correct=dict.fromkeys(dead, "00"))
    for one in found.runs:
        steps = range(1, len(one.measured["anytime.csv"]) + 1)
        fired = 0.0 if (one.run.row, one.run.seed) in dead else 0.1
        lines = [(layer, t, spikes) for layer, spikes in (("conv1", 0.1), ("fc1", fired)) for t in steps]
        if one.run.row != "ann":
            one.measured["spikes.csv"] = pd.DataFrame(lines, columns=["layer", "time_step", "spikes"])
    return found


def test_silent_is_a_layer_without_a_spike_until_that_step():
    spikes = pd.DataFrame(
        {"layer": ["conv1"] * 3 + ["fc1"] * 3, "time_step": [1, 2, 3] * 2, "spikes": [1, 0, 0, 0, 0, 1e-9]}
    )
    assert dead.silent_layers(spikes) == [] and dead.silent_layers(spikes, 2) == ["fc1"]
    assert dead.diagnosis(spikes, 50.0, 2, 100, "cifar100") == (
        "silent",
        "silent after 2 time-steps: no spike in fc1, so every image gets the same answer; chance is 1 % (100 classes)",
    )
    assert dead.diagnosis(spikes, 50.0, 3, 100, "cifar100") is None


@pytest.mark.parametrize(
    ("accuracy", "images", "dataset", "chance"),
    [(1.2, 10_000, "cifar100", False), (1.19, 10_000, "cifar100", True), (0.0, 10_000, "cifar100", True),
     (0.63, 10_000, "tiny-imagenet", True), (0.64, 10_000, "tiny-imagenet", False), (10.58, 10_000, "cifar10", True),
     (10.59, 10_000, "cifar10", False), (12.0, 540, "digits", True), (13.0, 540, "digits", False)],
)  # fmt: skip
def test_at_chance_is_not_significantly_above_it(accuracy, images, dataset, chance):
    """1 + 196 sqrt(0.01 * 0.99 / 10,000) = 1.195 %, and so on."""
    assert dead.is_at_chance(accuracy, images, dataset) == chance
    found = dead.diagnosis(pd.DataFrame({"layer": [], "time_step": [], "spikes": []}), accuracy, 1, images, dataset)
    assert (found is not None) == chance
    assert not found or "at chance after 1 time-step: " in found.reason


def test_dead_networks_are_named_in_tables_claims_and_the_overview(tmp_path):
    found = dying(tmp_path, bntt=(0, 1), surrogate=(1,))
    first, third = tables.table1(found), tables.table3(found)
    assert line(first, "bntt")["Note"] == "silent"
    assert line(first, "bntt + early exit")["Note"].startswith("threshold 0.1; silent; verdict")
    assert line(first, "surrogate")["Note"] == "silent for 1 of 2 seeds"
    assert line(first, "ann")["Note"] == ""
    assert line(third, "bntt")["Note"] == "silent" and line(third, "ann")["Note"] == "–"
    assert first.data.set_index("row").loc["surrogate", "dead"] == "silent for 1 of 2 seeds"
    for table in (first, third):
        assert "Chance: 1 % (100 classes) on cifar100." in table.notes
        assert any(note.startswith("Silent: some hidden layer has no spike") for note in table.notes)
    assert "silent" in tables.condensed(first).sections[""].set_index("Row").loc["bntt", "Note"]
    reason = "silent after 4 time-steps: no spike in fc1"
    assert reason in overview.runs_table(found) and reason in facts.sources(found)
    outcomes = {claim.name: claim.outcome for claim in weigh(found, "cifar100")}
    assert not {"holds", "fails"} & set(outcomes.values())
    assert outcomes["low-energy"] == outcomes["early-exit-saves"] == "not decidable"


def test_a_dense_network_at_chance_and_a_conversion_that_has_not_spiked_yet(tmp_path):
    found = dying(tmp_path)
    for one in found.runs:
        if one.run.row == "ann":
            one.measured["anytime.csv"] = anytime(1, "00")
        if one.run.row == "conversion":
            spikes = one.measured["spikes.csv"]
            spikes.loc[(spikes["layer"] == "fc1") & (spikes["time_step"] < 3), "spikes"] = 0.0
    table = tables.table1(found)
    assert line(table, "ann")["Note"] == "at chance"
    assert line(table, "conversion", Time_steps="2")["Note"] == "silent"
    assert line(table, "conversion", Time_steps="8")["Note"] == ""


def test_nobody_is_called_dead_where_all_work(tmp_path):
    found = results(tmp_path)
    text = tables.to_markdown(tables.table1(found)) + tables.to_markdown(tables.table3(found)) + facts.sources(found)
    assert "ilent" not in text and "at chance" not in text
    assert "Chance: 10 % (10 classes) on digits." in text


def test_a_cut_dataset_says_how_many_images_were_used(tmp_path, monkeypatch):
    monkeypatch.setattr(Planned, "IMAGES", {"train": 2_000, "test": IMAGES})
    tiny = results(tmp_path, datasets=("tiny-imagenet",))
    used = "2,000 of 100,000 training images, 8 of 10,000 test images"
    assert facts.images_used(tiny, "tiny-imagenet") == used
    assert used in facts.sources(tiny)
    for table in (tables.table1(tiny), tables.table3(tiny)):
        assert f"Not all images were used: tiny-imagenet, {used}." in table.notes
    monkeypatch.setattr(Planned, "IMAGES", {"train": 50_000, "test": 10_000})
    whole = results(tmp_path, datasets=("cifar100",), correct=dict.fromkeys(((row, 0) for row in ROWS), "0" * 2500))
    assert facts.images_used(whole, "cifar100") == "50,000 training images, 10,000 test images"
    assert not facts.is_cut(whole, "cifar100")
    limited = {
        "ann": {"train_limit": 500},
        "conversion": {"train_limit": 500, "held_out": 1000},
        "bntt": {"held_out": 100},
    }
    for one in whole.runs:
        one.run.options.update(limited.get(one.run.row, {}))
    del whole.__dict__["summary"]
    assert facts.images_used(whole, "cifar100").startswith(
        "49,900 of 50,000 (bntt), 50,000 (surrogate and my-norm) and 500 of 50,000 (ann and conversion) training images"
    )


def test_notes_explain_only_the_columns_and_signs_that_are_shown(tmp_path):
    def notes(table: tables.Table) -> str:
        return " ".join(table.notes)

    one, two = results(tmp_path), results(tmp_path, seeds=(0, 1), surrogate=("done", "missing"))
    for table in (tables.table1(one), tables.table3(one)):
        assert "± is the binomial standard error over the test images; with one seed" in notes(table)
    for table in (tables.table1(two), tables.table3(two)):
        assert "(n: their number); of one seed (n = 1, binomial), the binomial standard error over" in notes(table)
    assert "95 %: Student's interval" in notes(tables.table1(two))
    assert "95 %:" not in notes(tables.table1(one)) + notes(tables.condensed(tables.table1(two)))
    assert "Over draws" not in notes(tables.table1(one))
    for found in one.runs:
        if found.run.row == "bntt":
            draws = pd.DataFrame({"draw": [0, 1], "time_step": [4, 4], "accuracy": [80.0, 90.0]})
            found.measured["draws.csv"] = draws
    one._frames.clear()
    assert "Over draws" in notes(tables.table1(one))
    assert "Over draws" not in notes(tables.condensed(tables.table1(one)))


def test_the_spread_over_draws_is_pooled_over_seeds(tmp_path):
    """Standard deviations of 2 and 14 in two seeds: sqrt((4 + 196) / 2) = 10; their mean would be 8."""
    two = results(tmp_path, seeds=(0, 1))
    for found in two.runs:
        if found.run.row == "bntt":
            half = (2, 14)[found.run.seed] / math.sqrt(2)
            accuracies = [50 - half, 50 + half]
            found.measured["draws.csv"] = pd.DataFrame({"draw": [0, 1], "time_step": [4, 4], "accuracy": accuracies})
    assert line(tables.table1(two), "bntt")["Over draws"] == "10.00"


def test_an_accuracy_or_a_difference_of_one_seed_says_so(tmp_path):
    """Among several seeds an accuracy does, at early exit and in Table 3 too; a difference always does."""
    alone = "87.50 ± 11.69 (n = 1, binomial)"
    mixed = results(tmp_path, seeds=(0, 1), bntt=("done", "missing"), my_norm=("missing", "done"))
    table, other = tables.table1(mixed), tables.table3(mixed)
    for shown in (table, other):
        assert [line(shown, row)["Accuracy (%)"] for row in ("bntt", "bntt + early exit")] == [alone, alone]
        assert line(shown, "ann")["Accuracy (%)"] == "100.00 ± 0.00 (n = 2)"
    # n = 2 of ann, but only seed 0 of bntt; no common seed with my-norm
    assert line(table, "ann")["Minus bntt (points)"].endswith("], one seed")
    assert line(table, "my-norm")["Minus bntt (points)"] == "–"
    assert next(note for note in table.notes if note.startswith("Minus bntt")).count("interval") == 1
    data = table.data[table.data["status"] == "done"].drop_duplicates("row").set_index("row")
    assert data.loc["ann", "minus_bntt_seeds"] == 1
    assert data.loc[["bntt", "my-norm"], "minus_bntt_seeds"].isna().all()

    one = tables.table1(results(tmp_path))
    assert line(one, "bntt")["Accuracy (%)"] == "87.50 ± 11.69"
    assert line(one, "ann")["Minus bntt (points)"].endswith("], one seed")
    assert any("over images and not over seeds" in note for note in one.notes)
    two = tables.table1(results(tmp_path, seeds=(0, 1)))
    assert "one seed" not in line(two, "ann")["Minus bntt (points)"]
    assert set(two.data["minus_bntt_seeds"].dropna()) == {2}
    assert any("Student's 95 % interval over seeds" in note for note in two.notes)
    assert not any("One seed" in note for note in two.notes)


@pytest.mark.parametrize(
    ("draw", "row", "values", "shown", "minus_paper"),
    [
        (tables.table1, "bntt", (89.0, 89.4), "UNDERSPECIFIED, −1.3 points", -1.3),
        (tables.table1, "bntt", (91.0,), "UNDERSPECIFIED, +0.5 points", 0.5),
        (tables.table1, "bntt", (), "UNDERSPECIFIED", None),
        (tables.table3, "bntt", (8.0, 9.0), "UNDERSPECIFIED, −0.64×", -0.64),
        (tables.table3, "bntt", (math.inf,), "UNDERSPECIFIED, +∞×", math.inf),
    ],
)
def test_what_is_underspecified_shows_the_difference_to_the_printed_number(
    tmp_path, monkeypatch, draw, row, values, shown, minus_paper
):
    def judged(found, cell):
        of_row = cell.row.endswith(row)
        return Judged(cell, Verdict("UNDERSPECIFIED", values=values) if of_row else Verdict("WORSE", values=(1.0,)))

    monkeypatch.setattr(_lines, "judge_cell", judged)
    table = draw(results(tmp_path, datasets=("cifar10",)))
    assert line(table, row)["Verdict"] == shown
    assert line(table, "surrogate")["Verdict"] == "WORSE"  # of the other words the interval tells
    data = table.data[table.data["status"] == "done"].drop_duplicates("row").set_index("row")
    assert data.loc[row, "minus_paper"] == pytest.approx(math.nan if minus_paper is None else minus_paper, nan_ok=True)
    assert data.loc["surrogate", "verdict_mean"] == 1
    (note,) = (note for note in table.notes if note.startswith("Verdict:"))
    for word in WORDS:
        assert (f" {word}: " in note) == (word in ("UNDERSPECIFIED", "WORSE"))
    assert not any(note.startswith("No verdict") for note in table.notes)


def test_every_verdict_is_explained_where_it_appears():
    assert set(MEANINGS) == set(WORDS)
    weak = {"verdict": Verdict("CONSISTENT", weak=True)}
    (note,) = _lines._verdicts_note([weak, {"verdict": None}])
    assert "CONSISTENT: the printed number is in the 95 % prediction interval" in note and "weak: the" in note
    assert list(_lines._verdicts_note([{"verdict": None}])) == []


def test_differences_under_noise_say_if_they_are_of_one_seed():
    columns = ["row", "sigma", "difference", "low", "high", "seeds"]
    lines = [("ann", 0.1, 2.0, 1.0, 3.0, 1), ("ann", 0.2, 2.0, -1.0, 3.0, 1), ("rmp", 0.1, 5.0, 4.0, 6.0, 3)]
    page = overview.noise_table(pd.DataFrame(lines, columns=columns), {"bntt": "at chance"})
    assert "bntt, at chance minus" in page
    assert page.count("<b>2.0</b>") == 1 and page.count("<b>5.0</b>") == 1
    assert page.count(">one seed<") == 1 and page.count(">3<") == 1


def test_condensed_leaves_out_reported_steps_and_details(tmp_path):
    shown = tables.condensed(tables.table1(results(tmp_path))).sections[""]
    assert {"Paper (%)", "E_ANN/E_method"} <= set(shown.columns)
    assert shown["Row"].tolist() == ["bntt", "bntt + early exit", "surrogate", "ann", "conversion", "my-norm"]
    assert "Dataset" not in shown and "Architecture" not in shown and "Note" in shown  # of the early exit
    never = results(tmp_path)
    for one in never.runs:
        one.measured.pop("early_exit.csv", None)
        if one.run.row == "conversion":
            one.measured["spikes.csv"] = pd.DataFrame({"layer": "fc1", "time_step": [1, 3], "spikes": [0.0, 1.0]})
            one.measured["anytime.csv"] = anytime(8, "ff")
    table = tables.table1(never)
    assert line(table, "conversion", Time_steps="2")["Note"] == "silent" and dead.DEAD in table.notes
    short = tables.condensed(table)
    assert "Note" not in short.sections[""] and dead.DEAD not in short.notes
    measured = table.sections[tables.MEASURED].drop(columns="Note")  # as where no line has one
    without = tables.condensed(replace(table, sections={tables.MEASURED: measured})).sections[""]
    assert without["Row"].tolist() == short.sections[""]["Row"].tolist()


def test_images_of_a_run_without_options_on_them_are_those_of_the_data():
    ended = SimpleNamespace(training={"data": {"images": {"train": 9, "test": 4}}}, run=SimpleNamespace(options={}))
    assert images_of(ended) == {"train": 9, "test": 4}


# -- Tables 2 and 3


def test_constants_are_the_papers_and_add_up():
    table = tables.table2()
    assert table.data["printed_pj"].tolist() == [3.7, 0.9, 4.6, 0.9]
    assert table.data["used_pj"].dropna().tolist() == [4.6, 0.9]
    assert table.notes[0] == "Check: MULT + ADD = MAC, 3.7 + 0.9 = 4.6 pJ, and the printed values are used."


def test_tables_are_drawn_without_torch():
    code = "import sys, bntt.drawing.tables as t; t.table2(); print('torch' in sys.modules)"
    assert python("-c", code, check=True).stdout == "False\n"


def test_constants_that_differ_are_not_passed_over(monkeypatch):
    from bntt.drawing.tables import _energy

    monkeypatch.setattr(_energy, "MAC_PJ", 4.0)
    assert tables.table2().notes[0].startswith("Check FAILED")


def test_energy_ratios_by_hand(tmp_path):
    ratios = energy_ratios(results(tmp_path).frame("energy.csv")).set_index(["row", "time_step"])
    bntt = ratios.loc[("bntt", 4)]
    # 3 mJ dense; own: 0.1 * 4 * (2 + 1 + 1) = 1.6; without conv1: 2 mJ over 0.8
    assert bntt["own"] == pytest.approx(3 / 1.6)
    assert bntt["own_hidden"] == pytest.approx(2 / 0.8)
    assert bntt["events"] == pytest.approx(3 / 3.2) and bntt["mass"] == pytest.approx(3 / 6.4)
    assert bntt["spikes"] == pytest.approx(0.2 * 4 * 4 / 3)
    assert ratios.loc[("ann", 1), "own"] == 1 and math.isnan(ratios.loc[("ann", 1), "spikes"])


def test_a_silent_network_spends_nothing():
    ratios = energy_ratios(energy([2], 0.0).assign(dataset="digits", row="x", seed=0))
    assert ratios["own"].iloc[0] == math.inf


def test_energy_at_the_exit_by_hand():
    spikes = measured("bntt", "fe")["spikes.csv"]
    found = exit_energy_ratios(energy([4], 0.1), spikes, 3)
    # three steps of 0.1 in conv1 and fc1, and fc2 takes fc1's: 0.3 each, so 4.6 / (0.9 * 0.3)
    assert found == pytest.approx({"own": 4.6 / 0.27, "own_hidden": 4.6 / 0.27, "spikes": 0.3})


def test_table3_stands_beside_the_paper(tmp_path):
    table = tables.table3(results(tmp_path))
    assert line(table, "bntt")["Paper"] == "9.14× (BNTT, T = 25)"
    assert line(table, "bntt")["E_ANN/E_method"] == "1.88×"
    assert line(table, "bntt + early exit")["Latency"] == "3"
    assert line(table, "ann")["E_ANN/E_method"] == "1.00×" and line(table, "ann")["Paper"] == "1× (VGG9 (ANN), T = 1)"
    assert line(table, "conversion", Latency="8")["Paper"] == "–"  # the paper's are at 100, 500 and 1000 steps
    readings = table.sections["E_ANN/E_method under other readings of the formula"].set_index("Row")
    assert readings.loc["bntt", "own, hidden"] == "2.50×"
    assert readings.loc["bntt + early exit", "events"] == "–"
    absent = table.sections["Lines of the paper that this experiment does not run"]["Not run, because"]
    assert "row conversion is not reported at T = 500" in absent.tolist()


# -- files


def test_files_are_written_whole(tmp_path):
    table = tables.table1(results(tmp_path))
    paths = tables.write(table, tmp_path / "tables")
    assert [path.name for path in paths] == ["table1.csv", "table1.md", "table1.tex"]
    csv = pd.read_csv(paths[0])
    assert csv.loc[csv["row"] == "bntt", "accuracy"].iloc[0] == 87.5
    assert csv.loc[csv["row"] == "bntt", "paper_accuracy"].iloc[0] == 90.5
    assert "| digits | bntt | Surrogate gradient, bntt |" in paths[1].read_text(encoding="utf-8")
    tex = paths[2].read_text(encoding="utf-8")
    assert r"\toprule" in tex and r"87.50 $\pm$ 11.69" in tex and r"Accuracy (\%)" in tex
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == 2


def test_latex_is_escaped():
    assert latex_escape(r"a_b & 50 % #1 {x} ~ ^ $ \ − ×") == (
        r"a\_b \& 50 \% \#1 \{x\} \textasciitilde{} \textasciicircum{} \$ \textbackslash{} $-$ $\times$"
    )


def test_markdown_keeps_pipes_and_html_escapes():
    table = tables.Table("t", "T", pd.DataFrame(), {"": pd.DataFrame({"a|b": ["<c|d>"]})}, ["x < y"])
    assert "| a\\|b |" in tables.to_markdown(table) and "| <c\\|d> |" in tables.to_markdown(table)
    assert "&lt;c|d&gt;" in tables.to_html(table) and "x &lt; y" in tables.to_html(table)


def test_what_is_wider_than_latexs_text_is_scaled_and_notes_stand_below_the_first_section():
    wide = pd.DataFrame({f"c{i}": ["x"] for i in range(9)})
    tex = tables.to_latex(tables.Table("t", "T", wide, {"One": wide, "Two": wide[["c1"]]}, ["a note"]))
    first, second = tex.split(r"\end{table}")[:2]
    assert r"\resizebox{\linewidth}{!}{%" in first and r"\end{tabular}}" in first and "a note" in first
    assert "resizebox" not in second and "a note" not in second
    assert tex.count("{") == tex.count("}")


# -- in a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ACT = """
<script type="module">
const shown = () => [...document.querySelectorAll("table.sortable tbody tr")].map((tr) => tr.cells[0].textContent);
const done = () => new Promise((resolve) => setTimeout(resolve, 100));
const [name, value] = document.querySelectorAll("table.sortable thead th");
const seen = { first: shown() };
for (const key of ["ascending", "descending"]) { value.click(); await done(); seen[key] = shown(); }
name.click(); await done(); seen.byName = shown();
const search = document.querySelector("input[type=search]");
search.value = "ta"; search.dispatchEvent(new Event("input")); await done();
seen.search = shown();
document.body.dataset.seen = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_reader_sorts_by_number_and_searches_in_the_page_without_a_network(tmp_path):
    """What has no number stands last both ways; texts such as 9 and 10 are in the order of their numbers."""
    texts = {"alpha": "10.0 ± 1", "beta": "–", "gamma": "−2", "delta": "9 + 3 (ann)", "eta": "∞×"}
    shown = pd.DataFrame({"Row": list(texts), "Value": list(texts.values())})
    order = pd.DataFrame({"Value": [10.0, math.nan, -2.0, 12.0, math.inf]})
    table = tables.Table("t", "T", shown, {"rows": shown, "plain": shown}, [], {"rows": order})
    page = pages.whole("T", tables.to_html(table))
    (tmp_path / "page.html").write_text(page.replace("</body>", ACT + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    options += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=20000", "--dump-dom"]
    ran = subprocess.run([BROWSER, *options, (tmp_path / "page.html").as_uri()], capture_output=True, text=True)
    (seen,) = re.findall(r'data-seen="([^"]*)"', ran.stdout)
    assert json.loads(html.unescape(seen)) == {
        "first": list(texts),
        "ascending": ["gamma", "alpha", "delta", "eta", "beta"],
        "descending": ["eta", "delta", "alpha", "gamma", "beta"],
        "byName": ["alpha", "beta", "delta", "eta", "gamma"],
        "search": ["beta", "delta", "eta"],
    }
    assert ran.stdout.count('type="search"') == 1  # the other table is a plain one


def test_a_sortable_table_is_a_plain_one_without_javascript(tmp_path):
    table = tables.table1(results(tmp_path))
    page = pages.whole("T", tables.to_html(table))
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert page.count("<script") == 1 and "<script" not in body
    for text in ("87.50 ± 11.69", "Training (s)", "1.88×"):
        assert text in body
    assert not re.search(r"(src|href|@import|url\()[\s=\"']*(https?:)?//", body)
    assert "<script" not in pages.whole("T", tables.to_html(tables.table3(results(tmp_path))))


# -- helpers of the notebooks


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.005, "1.00"), (-0.001, "0.00"), (-2.5, "−2.50"), (None, "–"), (math.nan, "–"), (math.inf, "∞"),
     (3e22, "about 10²²"), (-2e7, "about −10⁷")],
)  # fmt: skip
def test_numbers(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("counted", "text"),
    [((1, "time-step"), "1 time-step"), ((1.0, "image"), "1 image"), ((0, "seed"), "0 seeds"),
     ((20.5, "time-step"), "20.5 time-steps"), ((1, "class", "classes"), "1 class"),
     ((50_000, "image"), "50,000 images"), ((2, "class", "classes"), "2 classes"), ((1.04, "step"), "1 step")],
)  # fmt: skip
def test_one_thing_and_several(counted, text):
    assert words.counted(*counted) == text


def test_intervals_and_lists():
    assert words.interval(Estimate(1, 0.5, 2), 1, "points") == "1.0 [0.5, 2.0] points"
    assert words.interval(Estimate.exact(2), 0, "×") == "2×"
    assert words.interval(None) == "–"
    assert words.listed(["a"]) == "a" and words.listed(["a", "b", "c"]) == "a, b and c" and words.listed([]) == ""
    assert words.listed(["a", "b", "c"], 2) == "a, b and 1 more" and words.listed(["a", "b"], 2) == "a and b"
    assert [words.duration(s) for s in (5, 75, 3700, math.nan)] == ["5 s", "1 min 15 s", "1 h 1 min", "–"]


def test_verdicts_are_words_with_a_colour():
    for text, colour in (("fails", palette.BAD), ("CONSISTENT (weak)", palette.GOOD), ("missing", palette.GREY)):
        word = pages.piece("word", text)
        assert f">{text}</strong>" in word and f"color:{colour};" in word


def test_what_is_html_already_is_not_escaped_again_and_all_else_is():
    page = pages.table(pd.DataFrame({"a<b": [Markup("<i>kept</i>"), "<i>text</i>"]}))
    assert "<i>kept</i>" in page and "&lt;i&gt;text&lt;/i&gt;" in page and "a&lt;b" in page
    assert pages.piece("small", "") == ""


def test_sources_name_what_was_drawn_and_what_is_missing(tmp_path):
    text = facts.sources(results(tmp_path, ann="missing", surrogate="diverged"))
    assert "1,077 training images, 8 of 540 test images" in text and "content as expected" in text and "seed 0" in text
    assert "`surrogate`, seed 0 (diverged: loss is nan) and `ann`, seed 0 (no result yet)" in text
    assert "No run is missing." in facts.sources(results(tmp_path))


def test_sources_of_some_rows_name_only_them(tmp_path):
    found = results(tmp_path, seeds=(0, 1), datasets=("digits", "digits-dvs"), ann="missing", bntt=("done", "diverged"))
    text = facts.sources(found, "digits", ["bntt", "nowhere"])
    assert text.count("**Data drawn.**") == 1 and "n = 2 seeds 0 and 1" in text
    assert "rows `bntt` (T = 4) and `nowhere` (not in this experiment)" in text
    assert "Without a result: `bntt`, seed 1 (diverged: loss is nan)." in text


def test_every_run_has_a_line(tmp_path):
    page = overview.runs_table(results(tmp_path, ann="missing", surrogate="diverged"))
    assert page.count("<tr>") == 1 + len(ROWS)
    for text in (">done<", ">missing<", ">diverged<", "loss is nan", "87.50 ± 11.69", "1,234", "1 min 15 s", "5.3"):
        assert text in page


def test_the_first_lines_say_what_ran_on_what_and_how_it_went(tmp_path):
    datasets = ("digits", "cifar100")
    found = results(tmp_path, datasets=datasets, ann="missing", surrogate="diverged", correct={("my-norm", 0): "00"})
    claims = {dataset: weigh(found, dataset) for dataset in datasets}
    claims["cifar100"] = [claim for claim in claims["cifar100"] if claim.name == "surrogate-trains-worse"]
    runs, digits, cifar100 = overview.what_ran(found, tables.table1(found), claims).splitlines()
    assert runs == "* **Runs.** 6 done, 2 diverged and 2 missing of 10 runs; 10 min 0 s of training, on cpu."
    assert digits.startswith("* **digits.** scikit-learn digits (8 x 8, 10 classes): 1,077 training images, ")
    assert "8 of 540 test images; content as expected. Chance: 10 %. **At chance: `my-norm`.** " in digits
    assert (
        "`bntt`: 87.50 ± 11.69 % after 4 time-steps. `bntt + early exit`: 87.50 ± 11.69 % after 3 time-steps." in digits
    )
    words = [claim.word for claim in claims["digits"] if not claim.ours]
    assert words.count("holds (one seed)") == 1
    assert digits.endswith("Of 14 claims of the paper, 1 holds (one seed) and 13 are undecided.")
    assert ": 1,077 of 50,000 training images, 8 of 10,000 test images; " in cifar100 and "Chance: 1 %." in cifar100
    assert cifar100.endswith("Of 1 claim of the paper, 1 holds (one seed).")


def test_the_overview_begins_with_what_ran_six_figures_and_a_line_for_each_claim():
    source = (facts.store.declared.PACKAGE.parent / "analysis" / "overview.py").read_text(encoding="utf-8")
    order = [
        "# # Overview",
        "what_ran(found",
        "for name, title in FIGURES.items()",
        "# ## The paper's claims",
        "claims_list(",
    ]
    places = [source.index(part) for part in order]
    assert places == sorted(places)
    assert "# ## " not in source[: places[3]]  # no section comes before
    assert "The paper reports" not in source[: places[4]]


def test_decay_is_shown_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setitem(ROWS, "my-norm", ROWS["my-norm"] | {"weight_decay": 0.125, "gamma_decay": 0.25})
    found = results(tmp_path)
    page = overview.decay_table(found, "digits")
    assert ">bntt<" in page and ">my-norm<" in page and ">surrogate<" not in page
    assert "0.005" in page and "18.3" in page and "3.1" in page
    words = " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "Decay on gamma On other weights" in words
    assert "my-norm 0.25 0.125" in words and "released code, CIFAR-10 0.0001 0.0001" in words
    assert overview.gamma_decay({"norm": "bntt", "weight_decay": 0.1, "gamma_decay": None}) == 0.1
    assert overview.gamma_decay({"norm": "bntt", "weight_decay": 0.1, "gamma_decay": 0.0}) == 0.0
    assert overview.gamma_decay({"norm": "none", "weight_decay": 0.1}) is None


def test_claims_and_provenance_are_escaped_tables(tmp_path):
    found = results(tmp_path)
    page = overview.claims_list(weigh(found, "digits"))
    assert page.count("<details") == page.count("<summary") == 15 and "undecided" in page
    assert "<details open" not in page and "Kendall&#39;s tau-b" in page
    provenance = overview.provenance_table(found)
    assert "abc" in provenance and "a | b" in provenance and "2024-01-02 03:04" in provenance


def test_provenance_lists_each_value_once_and_escapes_it(tmp_path, monkeypatch):
    made = Planned.training.fget

    def training(self):
        record = made(self)
        record["provenance"]["device"] = "a <GPU>" if self.run.row == "ann" else "cpu"
        return record

    monkeypatch.setattr(Planned, "training", property(training))
    assert overview.provenance_table(results(tmp_path)).count("cpu<br>a &lt;GPU&gt;") == 1


def test_a_figure_is_within_the_page(tmp_path):
    (tmp_path / "figure1.png").write_bytes(b"png")
    links = ("notebooks/f.html", "figures/f.png")
    drawn = pages.figure(tmp_path / "figure1.png", "Figure <1>", *links, height=8)
    assert "data:image/png;base64,cG5n" in drawn and all(f'href="{link}"' in drawn for link in links)
    missing = pages.figure(tmp_path / "none.png", "Figure <2>", *links, height=8)
    assert "not drawn yet" in missing and "Figure &lt;2&gt;" in missing
    assert isinstance(pages.piece("grid", [missing], 17), Markup)


def test_the_overview_shows_the_recordings_that_are_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "data"))
    assert overview.recordings(["digits", "digits-dvs"], tmp_path) == []
    for name in ("digits", "digits-dvs"):
        store.make_up(name, {"train": 20, "validation": 2, "test": 2})
    (card,) = overview.recordings(["digits", "digits-dvs"], tmp_path)
    assert "What the camera saw: digits-dvs" in card
    assert (tmp_path / "figures/recordings-digits-dvs.png").read_bytes().startswith(b"\x89PNG")
