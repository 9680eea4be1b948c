"""Tables and the overview's helpers on small results made by hand: numbers, n/a, seeds, the paper's column, files."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import yaml
from markupsafe import Markup
from tiny import python

from bntt.common import text as words
from bntt.drawing import overview, palette, tables
from bntt.drawing import page as pages
from bntt.drawing.tables._table import latex_escape
from bntt.experiment.schema import load
from bntt.paper.claims import weigh
from bntt.results import facts
from bntt.results.collect import Results
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

    def table(self, name):
        found = self.measured.get(name) if self.status == "done" else None
        return None if found is None else found.copy()

    @property
    def training(self):
        if self.status not in ("done", "diverged"):
            return None
        return {
            "parameters": 1234,
            "steps": 680,
            "seconds": 75.0,
            "decay_budget": 5.3,
            "started": "2024-01-02T03:04:05+00:00",
            "data": {"dataset": self.run.dataset, "state": "content", "images": {"test": IMAGES},
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


def line(table: tables.Table, row: str, **where) -> pd.Series:
    """The line of a row as shown."""
    shown = table.sections[""]
    found = shown[shown["Row"] == row]
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
    assert bntt["Paper"] == "90.5 (BNTT (ours), VGG9, T = 25)"
    assert bntt["Minus bntt (points)"] == "–"
    assert line(table, "surrogate")["Paper"] == "88.7 (w.o. BNTT, VGG9, T = 100)"
    assert line(table, "my-norm")["Paper"] == "–"
    assert any("standard error over the test images" in note for note in table.notes)
    assert "No verdict: the data is digits, not CIFAR-10." in table.notes


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
    assert exit_line["Paper"] == "90.3 (BNTT + Early Exit (ours), VGG9, T = 20)"


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
    assert line(table, "conversion", **{"Time_steps": "2"})["Paper"] == "–"
    assert line(table, "conversion", **{"Time_steps": "8"})["Paper"] == "91.5 (Sengupta et al. (2019), VGG16, T = 2500)"


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
        assert (table.sections[""]["Accuracy (%)"] == "not run").all()
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
    assert line(table, "surrogate")["Accuracy (%)"] == "62.50 ± 17.12"  # one seed left: over images
    assert line(table, "surrogate")["Note"] == "seed 1: diverged: loss is nan; seed 2: no result yet"
    assert table.data.set_index("row").loc["ann", "seeds"] == 3
    notes = [claim.note for claim in weigh(three, "digits")]
    assert all("Intervals are over images of seed 0; over all 3 seeds: " in note for note in notes)


def test_the_papers_lines_that_are_not_run_say_why(tmp_path):
    table = tables.table1(results(tmp_path))
    absent = table.sections["Lines of the paper that this experiment does not run"].set_index("Paper")
    assert absent.loc["92.0 (Rathi et al. (2020), VGG16, T = 200)", "Not run, because"] == (
        "this experiment has no row hybrid-vgg16"
    )
    assert absent.loc["66.6 (BNTT (ours), VGG11, T = 50)", "Not run, because"] == (
        "this experiment has no dataset CIFAR-100"
    )
    assert absent.loc["52.4 (Sironi et al. (2018), -, T = -)", "Not run, because"].startswith("hand-crafted")
    not_run = table.data[table.data["status"] == "not run"]
    assert len(not_run) == len(absent)
    # every line of the paper's table stands once, beside a row or among those not run
    assert table.data["paper_line"].replace("", pd.NA).dropna().nunique() == 25


def test_condensed_leaves_out_reported_steps_and_details(tmp_path):
    shown = tables.condensed(tables.table1(results(tmp_path))).sections[""]
    assert shown["Row"].tolist() == ["bntt", "bntt + early exit", "surrogate", "ann", "conversion", "my-norm"]
    assert "Dataset" not in shown and "Architecture" not in shown


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


# -- helpers of the notebooks


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.005, "1.00"), (-0.001, "0.00"), (-2.5, "−2.50"), (None, "–"), (math.nan, "–"), (math.inf, "∞"),
     (3e22, "about 10²²"), (-2e7, "about −10⁷")],
)  # fmt: skip
def test_numbers(value, text):
    assert words.number(value) == text


def test_intervals_and_lists():
    assert words.interval(Estimate(1, 0.5, 2), 1, "points") == "1.0 [0.5, 2.0] points"
    assert words.interval(Estimate.exact(2), 0, "×") == "2×"
    assert words.interval(None) == "–"
    assert words.listed(["a"]) == "a" and words.listed(["a", "b", "c"]) == "a, b and c" and words.listed([]) == ""
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
    assert "8 test images" in text and "content as expected" in text and "seed 0" in text
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


def test_decay_is_shown_beside_the_papers(tmp_path):
    found = results(tmp_path)
    page = overview.decay_table(found, "digits")
    assert ">bntt<" in page and ">my-norm<" in page and ">surrogate<" not in page
    assert "0.005" in page and "18.4" in page and "3.1" in page
    assert overview.gamma_decay({"norm": "bntt", "weight_decay": 0.1, "gamma_decay": None}) == 0.1
    assert overview.gamma_decay({"norm": "bntt", "weight_decay": 0.1, "gamma_decay": 0.0}) == 0.0
    assert overview.gamma_decay({"norm": "none", "weight_decay": 0.1}) is None


def test_claims_and_provenance_are_escaped_tables(tmp_path):
    found = results(tmp_path)
    page = overview.claims_table(weigh(found, "digits"))
    assert page.count("<tr>") == 1 + 11 and "undecided" in page
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
    assert "data:image/png;base64,cG5n" in pages.figure(tmp_path / "figure1.png", "Figure <1>", "notebooks/f.html")
    missing = pages.figure(tmp_path / "none.png", "Figure <2>", "notebooks/f.html")
    assert "not drawn yet" in missing and "Figure &lt;2&gt;" in missing
    assert isinstance(pages.piece("grid", [missing]), Markup)
