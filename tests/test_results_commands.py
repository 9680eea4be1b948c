"""The commands that look at results: check, compare, explain and plan, on a tiny experiment that was really run."""

import platform
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import EXPERIMENT, assert_one_line, bntt, bntt_here, experiment, one_row, write_experiment

from bntt.commands import main
from bntt.common.errors import UserError
from bntt.common.files import read_sealed, write_sealed
from bntt.data import store
from bntt.drawing import tables
from bntt.drawing.records import damaged_drawings, is_current, read_record, remove_outdated, write_record
from bntt.results.collect import Results
from bntt.results.comparison import BY_IMAGE, BY_SEED, compare, compare_with
from bntt.runs import pipeline
from bntt.runs.cost import (
    Cost,
    _cost,
    _extrapolated,
    _family,
    _images,
    _measure,
    _measure_size,
    _Size,
    _sized,
    _small,
    _work,
    report,
    slots,
)
from bntt.runs.directory import RunDirectory
from bntt.runs.status import Found, Status, found
from bntt.spiking.networks import weight_layers

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def origin(tmp_path_factory, trained):
    """Three seeds, with Table 1 drawn."""
    root = tmp_path_factory.mktemp("origin")
    shutil.copytree(trained, root, dirs_exist_ok=True)
    results = Results(experiment(root, seeds=[0, 1, 2]), root)
    tables.write(tables.table1(results), results.folder / "tables")
    write_record(results.folder / "notebooks" / "table1.json", Path("analysis/table1.py"), "tiny", results, [])
    return root


@pytest.fixture
def root(origin, tmp_path):
    """A copy of it."""
    shutil.copytree(origin, tmp_path / "copy")
    return tmp_path / "copy"


def run_command(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# -- check ------------------------------------------------------------------------------------------------


def test_check_of_whole_results_succeeds_and_a_demo_earns_no_verdict(root, capsys):
    status, out, _ = run_command(capsys, "check", root / "tiny", "--experiment", root / "tiny.yaml")
    assert status == 0
    assert out.endswith("runs: 12 done\n")
    assert re.findall(r"^\[(?!NOT_RUN)", out, re.MULTILINE) == []


@pytest.mark.parametrize("name", ["evaluate.json", "train.json", "anytime.csv", "model.safetensors"])
def test_check_fails_where_a_run_is_missing_or_damaged(root, capsys, name):
    path = root / "tiny/runs/digits/bntt/seed-1" / name
    path.write_bytes(b"not it") if name != "evaluate.json" else path.unlink()
    status, out, _ = run_command(capsys, "check", root / "tiny", "--experiment", root / "tiny.yaml")
    assert status == 1
    assert "] digits/bntt/seed-1: " in out


def test_check_fails_where_a_table_is_not_what_was_drawn(root, capsys):
    table = root / "tiny/tables/table1.csv"
    table.write_text(table.read_text().replace("done", "dome"))
    status, out, _ = run_command(capsys, "check", root / "tiny", "--experiment", root / "tiny.yaml")
    assert status == 1
    assert f"[damaged] {table.resolve()} is missing or was changed since it was drawn; draw table1 again" in out


def test_fail_on_makes_a_verdict_an_error(root, capsys):
    here = ("check", root / "tiny", "--experiment", root / "tiny.yaml", "--fail-on")
    assert run_command(capsys, *here, "WORSE")[0] == 0
    assert run_command(capsys, *here, "NOT_RUN")[0] == 1
    status, _, err = run_command(capsys, *here, "BAD")
    assert (status, "unknown verdict 'BAD'" in err) == (2, True)


@pytest.mark.parametrize("name", ["check", "compare", "explain"])
def test_a_folder_that_is_none_is_one_line(tmp_path, name):
    place = tmp_path / "tiny"
    arguments = {"check": [place], "compare": [place, place], "explain": [place / "tables/table1.csv", "--row", "bntt"]}
    assert_one_line(bntt_here(name, *arguments[name]), str(place))


# -- compare ----------------------------------------------------------------------------------------------


def test_two_folders_are_compared_by_seed_and_a_single_seed_by_image(root, tmp_path):
    tiny = experiment(root, seeds=[0, 1, 2])
    first = Results(tiny, root)
    same = {(one.row, one.metric): one for one in compare(first, first)}
    assert same["bntt", "accuracy"].estimate == (0, 0, 0)
    assert same["bntt", "accuracy"].pairing == BY_SEED
    assert {metric for row, metric in same if row == "bntt"} == {"accuracy", "exit step", "E_ANN/E_method"}
    assert {metric for row, metric in same if row == "ann"} == {"accuracy", "E_ANN/E_method"}
    other = experiment(tmp_path / "other", seeds=[0], rows={"bntt": EXPERIMENT["rows"]["bntt"] | {"leak": 0.5}})
    pipeline.train(other, other.runs[0], tmp_path / "other", "cpu")
    pipeline.evaluate(other, other.runs[0], tmp_path / "other", "cpu")
    found = compare(first, Results(other, tmp_path / "other", here=False))
    assert {one.row for one in found} == {"bntt"}
    accuracy = found[0]
    assert (accuracy.metric, accuracy.pairing, accuracy.seeds) == ("accuracy", BY_IMAGE, 1)
    assert accuracy.estimate.value == pytest.approx(accuracy.second - accuracy.first, abs=1e-3)
    assert accuracy.estimate.low < accuracy.estimate.value < accuracy.estimate.high
    directory = RunDirectory.of(other.runs[0], tmp_path / "other")
    record = directory.training()
    write_sealed(directory.train_json, record | {"data": record["data"] | {"content_sha256": "0" * 64}})
    unlike = compare(first, Results(other, tmp_path / "other", here=False))[0]  # other images, of the same number
    assert (unlike.metric, unlike.estimate) == ("accuracy", None)


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_compare_says_when_it_rests_on_one_seed(root, capsys, seeds):
    used = write_experiment(root / "used", "tiny", seeds=seeds)
    status, out, _ = run_command(capsys, "compare", root / "tiny", root / "tiny", "--experiment", used)
    first, *more = [line for line in out.splitlines() if line.startswith("digits, bntt, ")]
    assert (status, len(more)) == (0, 2)
    end = "one seed" if len(seeds) == 1 else "n = 3"
    assert all(line.endswith(f", {end}") for line in (first, *more))
    assert ("(paired by image, Tango; over images, not over seeds), one seed" in first) == (len(seeds) == 1)
    assert ("(paired by seed, Student), n = 3" in first) == (len(seeds) == 3)


def test_runs_without_numbers_are_named(root, capsys):
    """One is damaged, one is not measured, and five are gone; the rest is compared."""
    runs = root / "tiny/runs/digits"
    (runs / "bntt/seed-0/train.json").write_text("{}")
    (runs / "bntt/seed-1/evaluate.json").unlink()
    for place in ["bntt/seed-2", "plain/seed-0", "plain/seed-1", "plain/seed-2", "rmp/seed-0"]:
        shutil.rmtree(runs / place)
    three = write_experiment(root / "three", "tiny", seeds=[0, 1, 2])
    status, out, err = run_command(capsys, "compare", root / "tiny", root / "tiny", "--experiment", three)
    assert status == 0
    assert {line.split(", ")[1] for line in out.splitlines()} == {"ann", "rmp"}
    named = (
        f"{root / 'tiny'} has no numbers of digits/bntt/seed-0 (damaged), digits/bntt/seed-1 (trained), "
        "digits/bntt/seed-2 (missing), digits/plain/seed-0 (missing), digits/plain/seed-1 (missing) and 2 more"
    )
    assert err.splitlines() == [named, named]


@pytest.mark.parametrize("command", ["train", "evaluate", "runs", "compare", "check"])
def test_results_that_may_not_be_read_are_left_alone_in_one_line(root, capsys, monkeypatch, command):
    path = root / "tiny/runs/digits/bntt/seed-0/train.json"
    before = path.read_bytes()

    def refused(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("bntt.runs.directory.read_sealed", refused)
    one = ["--experiment", root / "tiny.yaml", "--results", root]
    arguments = {
        "train": [*one, "--row", "bntt", "--seed", "0", "--device", "cpu"],
        "evaluate": [*one, "--row", "bntt", "--seed", "0", "--device", "cpu"],
        "runs": one,
        "compare": [root / "tiny", root / "tiny", "--experiment", root / "tiny.yaml"],
        "check": [root / "tiny", "--experiment", root / "tiny.yaml"],
    }
    status, _, err = run_command(capsys, command, *arguments[command])
    assert (status, err) == (2, f"bntt: {path}: Permission denied; make it readable, or choose another folder\n")
    assert path.read_bytes() == before


def test_the_rows_of_one_folder_are_compared_with_one_of_them_on_the_same_seeds(root, capsys):
    """By the text of the csv files: each row's accuracy, the base row's, and Student's interval of the differences."""
    used = write_experiment(root / "used", "tiny", seeds=[0, 1, 2])

    def accuracies(row):
        files = [root / "tiny/runs/digits" / row / f"seed-{seed}/anytime.csv" for seed in range(3)]
        return [float(file.read_text().splitlines()[-1].split(",")[1]) for file in files]

    status, out, err = run_command(capsys, "compare", root / "tiny", "--with", "bntt", "--experiment", used)
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if ", accuracy: " in line]
    assert [line.split(",")[1] for line in lines] == [f" bntt and {row}" for row in ("plain", "ann", "rmp")]
    for line, row in zip(lines, ("plain", "ann", "rmp"), strict=True):
        base, other = accuracies("bntt"), accuracies(row)
        difference = statistics.mean(b - a for a, b in zip(base, other, strict=True))
        said = [float(number.replace("−", "-")) for number in re.findall(r"[−\d.]+\d", line.partition("accuracy: ")[2])]
        expected = [statistics.mean(base), statistics.mean(other), difference]
        assert said[:3] == pytest.approx(expected, abs=0.0051)
        assert line.endswith("(paired by seed, Student), n = 3")


@pytest.mark.parametrize(
    ("folders", "more", "said"),
    [
        (1, [], ["two folders", "--with ROW"]),
        (2, ["--with", "bntt"], ["two folders", "--with ROW"]),
        (3, [], ["two folders", "--with ROW"]),
        (1, ["--with", ""], ["unknown row ''", "bntt"]),
        (1, ["--with", "bnt"], ["unknown row 'bnt'", "did you mean 'bntt'?"]),
    ],
)
def test_what_cannot_be_compared_is_one_line(root, capsys, folders, more, said):
    used = write_experiment(root / "used", "tiny", seeds=[0, 1, 2])
    status, _, err = run_command(capsys, "compare", *[root / "tiny"] * folders, *more, "--experiment", used)
    assert status == 2
    assert_one_line(UserError(err.rstrip("\n")), *said)


def test_a_row_without_another_is_one_line(root):
    with pytest.raises(UserError) as raised:
        compare_with(Results(experiment(root, rows={"bntt": EXPERIMENT["rows"]["bntt"]}), root), "bntt")
    assert_one_line(raised.value, "no numbers of row bntt and of another row")


def test_nothing_in_common_is_one_line(root, tmp_path):
    other = experiment(tmp_path / "other", rows={"else": {"method": "ann"}})
    (tmp_path / "other/tiny").mkdir()
    with pytest.raises(UserError) as raised:
        compare(Results(experiment(root, seeds=[0]), root), Results(other, tmp_path / "other"))
    assert_one_line(raised.value, "no run of the same dataset, row and seed")


# -- explain ----------------------------------------------------------------------------------------------


def test_a_number_is_traced_to_measurement_weights_options_data_code_and_machine(root, capsys):
    table = root / "tiny/tables/table1.csv"
    here = ("explain", table, "--row", "rmp", "--time-steps", 12, "--experiment", root / "tiny.yaml")
    status, out, _ = run_command(capsys, *here)
    assert status == 0
    results = Results(experiment(root, seeds=[0, 1, 2]), root)
    frame = results.frame("anytime.csv")
    for one in results.of_row("rmp"):
        value = frame[(frame["row"] == "rmp") & (frame["seed"] == one.run.seed) & (frame["time_step"] == 12)][
            "accuracy"
        ]
        evaluation, training = one.directory.evaluation(), one.directory.training()
        start = RunDirectory.of(results.experiment.run("digits", "ann", one.run.seed), root).training()
        for part in (
            f"measured {value.iloc[0]:g} in ",
            evaluation["files"]["anytime.csv"][:16],
            training["files"]["model.safetensors"][:16],
            start["files"]["model.safetensors"][:16],
            f"code {evaluation['code']} of ",
            f"code {training['code']} of ",
            f"code {start['code']} of ",
            training["started"],
        ):
            assert part in out
    assert f"content {training['data']['content_sha256'][:16]}" in out
    assert "method conversion: " in out and "method ann: " in out
    mean = frame[(frame["row"] == "rmp") & (frame["time_step"] == 12)]["accuracy"].mean()
    assert float(re.match(r"accuracy = (\S+) in ", out)[1]) == pytest.approx(mean)


def test_early_exit_is_traced_to_each_seeds_own_step(root, capsys):
    status, out, _ = run_command(
        capsys, "explain", root / "tiny/tables/table1.csv", "--row", "bntt", "--experiment", root / "tiny.yaml"
    )
    assert status == 0
    assert out.count("accuracy = ") == 2
    assert out.count("early_exit.csv") == 3
    full, early = re.findall(r"^accuracy = .* time-steps?(.*)$", out, re.MULTILINE)
    assert not full.startswith(", with early exit") and early.startswith(", with early exit")


def test_steps_that_are_configuration_are_not_said_to_be_measured(root, capsys):
    here = ("explain", root / "tiny/tables/table1.csv", "--experiment", root / "tiny.yaml", "--column", "time_steps")
    status, out, _ = run_command(capsys, *here, "--row", "rmp", "--time-steps", "12")
    assert status == 0
    assert "which is configuration" in out and "measured" not in out
    here = (*here[:-1], "training_seconds")
    status, out, _ = run_command(capsys, *here, "--row", "rmp", "--time-steps", "12")
    assert status == 0
    assert "  which training recorded\n" in out and "which is configuration" not in out and "    trained  " in out


def test_steps_may_be_whole_numbers_in_all_of_a_table(root, capsys):
    """As where no row exits early: then the file has 12 and not 12.0."""
    table = root / "tiny/tables/table1.csv"
    frame = pd.read_csv(table)
    frame = frame[~frame["early_exit"].astype(bool)].astype({"time_steps": int})
    frame.to_csv(table, index=False)
    write_record(root / "tiny/notebooks/table1.json", Path("analysis/table1.py"), "tiny",
                 Results(experiment(root, seeds=[0, 1, 2]), root), [])  # fmt: skip
    here = ("explain", table, "--experiment", root / "tiny.yaml", "--row", "rmp")
    assert run_command(capsys, *here, "--time-steps", "12")[0] == 0
    status, _, err = run_command(capsys, *here, "--time-steps", "13")
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown time_steps '13'" in err


def test_measurements_that_were_made_again_are_told(root, capsys):
    path = root / "tiny/notebooks/table1.json"
    results = Results(experiment(root, seeds=[0, 1, 2]), root)
    (root / "tiny/runs/digits/bntt/seed-0/evaluate.json").unlink()
    pipeline.evaluate(results.experiment, results.experiment.run("digits", "bntt", 0), root, "cpu")
    record = read_record(root / "tiny", "table1")
    assert record["measured"]
    assert record["interpreter"].startswith(f"CPython {platform.python_version()}, ")
    out = run_command(
        capsys, "explain", root / "tiny/tables/table1.csv", "--row", "bntt", "--experiment", root / "tiny.yaml"
    )[1]
    assert path.is_file() and "AGAIN since the table was drawn" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "bnt"], "unknown row 'bnt'"),
        (["--row", "bntt", "--column", "acc"], "unknown column 'acc'"),
        (["--row", "bntt", "--dataset", "mnist"], "unknown dataset 'mnist'"),
        (["--row", "bntt", "--time-steps", "7"], "unknown time_steps '7'"),
    ],
)
def test_what_is_not_in_the_table_is_one_line(root, capsys, arguments, message):
    here = ("explain", root / "tiny/tables/table1.csv", "--experiment", root / "tiny.yaml")
    status, _, err = run_command(capsys, *here, *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_a_changed_table_is_not_explained(root, capsys):
    table = root / "tiny/tables/table1.csv"
    table.write_text(table.read_text() + "\n")
    status, _, err = run_command(capsys, "explain", table, "--row", "bntt", "--experiment", root / "tiny.yaml")
    assert status == 2
    assert "was changed since it was drawn" in err
    assert len(damaged_drawings(root / "tiny")) == 1


@pytest.mark.parametrize(
    ("change", "current", "kept"),
    [
        ("nothing", True, True),
        ("a table is changed", False, True),
        ("a file is gone", False, True),
        ("the record is gone", False, False),
        ("the record cannot be read", False, False),
        ("a row is new", False, True),
        ("a row is gone", False, False),
        ("a run is gone", False, False),
        ("a run is outdated", False, False),
        ("other measurements", False, False),
    ],
)
def test_a_drawing_is_current_or_made_again_or_removed(root, change, current, kept):
    """What may show a number that is no present result is not left there; other drawings are until they are redrawn."""
    settings, rows = {"seeds": [0, 1, 2]}, dict(EXPERIMENT["rows"])
    table, run = root / "tiny/tables/table1.csv", root / "tiny/runs/digits/plain/seed-1"
    if change == "a table is changed":
        table.write_text(table.read_text() + "\n")
    elif change == "a file is gone":
        table.with_suffix(".md").unlink()
    elif change == "the record is gone":
        (root / "tiny/notebooks/table1.json").unlink()
    elif change == "the record cannot be read":
        (root / "tiny/notebooks/table1.json").unlink()
        (root / "tiny/notebooks/table1.json").symlink_to("table1.json")
    elif change == "a row is new":
        settings["rows"] = rows | {"new": {"method": "ann"}}
    elif change == "a row is gone":
        settings["rows"] = {name: row for name, row in rows.items() if name != "plain"}
    elif change == "a run is gone":
        shutil.rmtree(run)
    elif change == "a run is outdated":
        settings["rows"] = rows | {"plain": rows["plain"] | {"gain": 5.0}}
    elif change == "other measurements":
        record = read_sealed(run / "evaluate.json")
        write_sealed(run / "evaluate.json", record | {"seconds": 0})
    tiny, source = experiment(root, **settings), Path("analysis/table1.py")
    runs = list(found(tiny, root))
    assert is_current(root / "tiny", source, tiny, runs) == current
    (root / "tiny/tables/table2.csv").write_text("a drawing of unknown origin")
    remove_outdated(root / "tiny", [source], runs)
    assert table.exists() == (root / "tiny/tables/table1.tex").exists() == kept
    assert (root / "tiny/notebooks/table1.json").exists() == kept
    remove_outdated(root / "tiny", sorted(Path("analysis").glob("*.py")), runs)
    assert not (root / "tiny/tables/table2.csv").exists()


# -- plan -------------------------------------------------------------------------------------------------

MEASURED = {
    "start": 3.0, "step": 0.5, "validation": 0.25 / 180, "training": 9.0, "evaluation": 54.0, "approximations": 2.0,
    "memory": 1e9, "evaluation_memory": 5e8, "gpu_memory": 0, "weights": 1_000_000, "note": "",
}  # fmt: skip


def test_the_cost_of_a_run_by_hand(tmp_path):
    """96 of 1,077 training images in batches of 32, 7 epochs, 540 test images."""
    _, run = one_row(tmp_path, method="surrogate", time_steps=3, epochs=7)
    assert _images(run) == {"train": 96, "validation": 180, "test": 540}
    there = [Found(run, None, status) for status in (Status.DONE, Status.OUTDATED, Status.DAMAGED)]
    cost = _cost(there, MEASURED)
    assert cost.training == pytest.approx(3 + 7 * (3 * 0.5 + 0.25))
    assert cost.evaluation == pytest.approx(3 + 54 + 2)
    assert cost.disk == pytest.approx(
        1e6 + 4e6 / 3
    )  # weights, and one state of a training: weights and momentum, twice
    assert cost.left == pytest.approx((0, cost.training + cost.evaluation, cost.training + cost.evaluation))
    converted = _cost(there, MEASURED | {"step": None})
    assert converted.training == pytest.approx(12)
    assert converted.disk == pytest.approx(1e6)


def test_the_report_adds_up():
    cost = Cost("digits", "bntt", None, (120.0, 0.0, 120.0), 0.129, 95.0, 25.0, 6e8, 3e8, 0.0, 2e6)
    *_, whole, remaining = report([cost, replace(cost, row="ann", step=None, left=(0.0, 0.0, 0.0))], 2)
    assert whole == "in all 6 runs, 4 done; 0.20 hours of training and evaluation, one after the other"
    assert remaining.startswith("remaining: 0.07 hours, or 2 min 0 s with 2 at once; 12 MB on disk")


def test_the_report_says_what_each_dataset_the_longest_run_and_each_memory_is():
    one = Cost("digits", "bntt", None, (120.0, 0.0), 0.129, 95.0, 25.0, 6e8, 3e8, 0.0, 2e6)
    head, first, second, *sums = report([one, replace(one, dataset="cifar10", training=3575.0, gpu_memory=4e9)], 2)
    assert head.split()[-3:] == ["memory", "GPU", "memory"]
    assert first.split()[-3:] == ["0.6", "GB", "-"]
    assert second.split()[-4:] == ["0.6", "GB", "4.0", "GB"]
    assert sums[:3] == [
        "digits: 2 runs, 0.07 hours; remaining: 0.03 hours",
        "cifar10: 2 runs, 2.00 hours; remaining: 0.03 hours",
        "longest single run: 1 h 0 min, bntt on cifar10",
    ]
    assert sums[-1].endswith("8 MB on disk, 0.6 GB of memory and 4.0 GB of GPU memory for the largest")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["--row", "bnt"], "unknown row 'bnt'"),
        (["--dataset", "digit"], "unknown dataset 'digit'"),
        (["--cores", "0"], "--cores must be at least 1, not 0"),
        (["--minutes", "0"], "--minutes must be above 0, not 0"),
        (["--minutes", "nan"], "--minutes must be above 0, not nan"),
    ],
)
def test_what_cannot_be_planned_is_one_line(root, capsys, chosen, message):
    status, _, err = run_command(capsys, "plan", root / "tiny.yaml", "--device", "cpu", *chosen)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def measured_size(run, step, evaluation, gpu_memory=0.0):
    return _Size(run, 3.0, step, 0.0, 0.0, evaluation, 0.0, 1e9, 1e9, 1e6, gpu_memory, 0.0, "")


def test_what_is_not_measured_is_on_a_line_through_two_sizes(tmp_path):
    """A step takes 2 s and 0.5 s for each image of its batch; the measurements 5 s and 10 ms for an image and step."""
    _, run = one_row(tmp_path, method="surrogate", time_steps=100, batch_size=256, train_limit=None)
    parts = [_small(run, size) for size in range(9)]
    assert {one.options["time_steps"] for one in parts} == {100}
    assert [one.options["batch_size"] for one in parts] == [2, 4, 8, 16, 32, 64, 128, 256, 256]
    assert [one.options["train_limit"] for one in parts] == [4, 8, 16, 32, 64, 128, 256, 512, 512]
    assert [one.options["test_limit"] for one in parts] == [1, 2, 4, 8, 16, 32, 64, 100, 100]
    sizes = [
        measured_size(one, 2 + 0.5 * one.options["batch_size"], 5 + 0.01 * 100 * one.options["test_limit"], gpu)
        for one, gpu in zip(parts[:3], (1e9, 1.1e9, 1.3e9), strict=True)
    ]
    whole = _work(run)
    assert whole == {
        "step": 256, "training": 1, "evaluation": 54_000, "approximations": 10_000, "evaluation_memory": 270,
        "kept": 256, "gpu_memory": 256,
    }  # fmt: skip
    evaluated = [replace(one, evaluation_memory=1e9 + 1e6 * one.run.options["test_limit"]) for one in sizes]
    assert _extrapolated(evaluated, whole, "evaluation_memory") == pytest.approx(1e9 + 270e6)
    assert _extrapolated(sizes, whole, "step") == pytest.approx(2 + 128)
    assert _extrapolated(sizes, whole, "evaluation") == pytest.approx(5 + 540)
    assert _extrapolated(sizes, whole, "gpu_memory") == pytest.approx(0.9e9 + 256 * 0.05e9)
    assert _extrapolated(sizes[:1], whole, "step") == pytest.approx(3 * 128)  # no line through one
    assert _extrapolated(sizes, _work(parts[2]), "step") == pytest.approx(2 + 0.5 * 8)  # as measured
    falling = [replace(sizes[0], step=9.0, gpu_memory=2e9), replace(sizes[1], gpu_memory=2e9)]
    assert _extrapolated(falling, whole, "step") == pytest.approx((2 + 0.5 * 4) * 64)  # nothing known of a fixed part
    assert _extrapolated(falling, whole, "gpu_memory") == pytest.approx(2e9)
    near = [replace(sizes[0], step=3.9), replace(sizes[1], step=4.0)]
    assert _extrapolated(near, whole, "step") == pytest.approx(4.0 * 64 / 2)  # a line through near sizes is not trusted
    far = [replace(sizes[0], step=5.9), replace(sizes[2], step=6.0)]
    assert _extrapolated(far, whole, "step") == pytest.approx(6.0 + 248 * 0.1 / 6)  # nor doubted where they are far
    counted = [replace(sizes[0], kept=9e6), replace(sizes[1], kept=10e6)]
    assert _extrapolated(counted, whole, "kept") == pytest.approx(10e6 + 252 * 0.5e6)  # a count is never doubted
    steep = [replace(sizes[0], step=0.0), replace(sizes[1], step=1.0)]
    assert _extrapolated(steep, whole, "step") == pytest.approx(64)  # never above proportion


def test_a_conversion_is_measured_with_its_start_and_with_all_of_its_calibration_steps(tmp_path):
    tiny = experiment(tmp_path, protocol=EXPERIMENT["protocol"] | {"train_limit": None})
    for size, images in enumerate((1, 2, 4, 8)):
        conversion, ann = _family(tiny, tiny.run("digits", "rmp", 0), size)
        assert (conversion.row, ann.row, ann.options["epochs"]) == ("rmp", "ann", 1)
        assert (conversion.options["calibration_images"], conversion.options["train_limit"]) == (images, images)
        assert (conversion.options["time_steps"], conversion.options["calibration_steps"]) == (12, 8)
        assert (ann.options["batch_size"], ann.options["train_limit"], ann.options["learning_rate"]) == (2, 2, 1e-9)
    many = replace(tiny.run("digits", "rmp", 0), options={**conversion.options, "time_steps": 2500})
    assert _small(many, 0).options["time_steps"] == 25


def test_a_training_on_single_events_is_linear_in_its_recordings(tmp_path, monkeypatch):
    """Made-up recordings are of one class after the other; of prepared ones, labels say how many are needed."""
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "data"))
    run = experiment(tmp_path, datasets=["digits-dvs"], rows={"hats": {"method": "hats"}}, protocol={}).runs[0]
    parts = [_small(run, size) for size in range(4)]
    assert [one.options["train_limit"] for one in parts] == [10, 40, 100, 100]
    assert [_work(one)["training"] for one in (*parts[:2], run)] == [10, 40, 1077]
    sizes = [replace(measured_size(one, None, 0.0), training=5 + one.options["train_limit"] / 5) for one in parts[:2]]
    assert _extrapolated(sizes, _work(run), "training") == pytest.approx(5 + 1077 / 5)
    assert _sized(parts[1]) == "40 training recordings"
    store.make_up("digits-dvs", {"train": 30, "validation": 12, "test": 5})
    labels = np.load(tmp_path / "data/digits-dvs/train-labels.npy")
    assert labels.tolist() == 3 * list(range(10))
    np.save(tmp_path / "data/digits-dvs/train-labels.npy", np.sort(labels))
    assert [_small(run, size).options["train_limit"] for size in (0, 1)] == [28, 30]


def test_images_of_a_row_without_options_on_them_are_those_of_the_dataset(tmp_path):
    run = experiment(tmp_path).runs[0]
    assert _images(replace(run, options={})) == {"train": 1077, "validation": 180, "test": 540}


def test_the_memory_of_a_training_grows_with_what_its_steps_keep(tmp_path):
    """Counted at 2 and at 4 images, and on their line at 16; each spike and each membrane has a byte at least."""
    tiny = experiment(tmp_path)
    run = tiny.run("digits", "bntt", 0)
    sizes = [_measure_size(tiny, _family(tiny, run, size), "cpu", tmp_path) for size in range(4)]
    assert [one.run.options["batch_size"] for one in sizes] == [2, 4, 8, 16]
    of_one_image = (sizes[1].kept - sizes[0].kept) / 2
    neurons = sum(layer.neurons for layer in weight_layers("vgg5", (1, 8, 8), 10, 0.1)[:-1])
    assert of_one_image > 3 * 2 * neurons
    assert sizes[3].kept == pytest.approx(sizes[1].kept + 12 * of_one_image, rel=0.02)


def test_estimates_are_of_the_dataset_and_not_of_what_is_made_up_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "none"))
    wholes = []

    def extrapolated(sizes, whole, name):
        wholes.append(whole)
        return _extrapolated(sizes, whole, name)

    monkeypatch.setattr("bntt.runs.cost._extrapolated", extrapolated)
    row = {"method": "surrogate", "norm": "bntt", "time_steps": 2, "image_size": 8, "train_limit": None}
    only = experiment(tmp_path, datasets=["cifar100"], rows={"row": row})
    _measure(only, only.runs[0], "cpu", tmp_path, 0.0, 1.0)
    assert {one["evaluation"] for one in wholes} == {2 * 10_000}
    assert {one["approximations"] for one in wholes} == {2 * 100}


def test_what_remains_takes_as_long_as_its_longest_chain():
    """One network of ten hours and its conversion of one, on eight cores; then with the network trained already."""
    ann = Cost("digits", "ann", None, (36_000.0,), 0.1, 35_000.0, 1000.0, 6e8, 3e8, 0.0, 2e6)
    conversion = replace(ann, row="conversion", start="ann", step=None, left=(3600.0,))
    *_, remaining = report([ann, conversion, replace(ann, row="other", left=(10_000.0,))], 8)
    assert remaining.startswith("remaining: 13.78 hours, or 11 h 0 min with 8 at once")
    *_, remaining = report([replace(ann, left=(1000.0,)), conversion], 8)
    assert remaining.startswith("remaining: 1.28 hours, or 1 h 16 min with 8 at once")
    *_, remaining = report([replace(ann, left=(0.0,)), replace(conversion, left=(0.0,))], 8)
    assert remaining.startswith("remaining: 0.00 hours, or 0 s with 8 at once")


def test_as_many_runs_go_at_once_as_there_are_cores_and_gpus_for(tmp_path, monkeypatch):
    tiny = experiment(tmp_path, threads=2)
    assert [slots(tiny, "cpu", cores) for cores in (1, 2, 7, 16)] == [1, 1, 3, 8]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [slots(tiny, "auto", cores) for cores in (2, 16)] == [1, 2]
    assert slots(tiny, "cpu", 16) == 8


def test_what_is_trained_and_not_evaluated_costs_its_evaluation_alone(root):
    tiny = experiment(root, seeds=[0, 1, 2])
    (root / "tiny/runs/digits/bntt/seed-1/evaluate.json").unlink()
    shutil.rmtree(root / "tiny/runs/digits/bntt/seed-2")
    there = [one for one in found(tiny, root) if one.run.row == "bntt"]
    cost = _cost(there, MEASURED)
    assert cost.left == pytest.approx((0, cost.evaluation, cost.training + cost.evaluation))


def test_held_out_images_are_not_trained_on(tmp_path):
    _, run = one_row(tmp_path, protocol={"held_out": 500, "train_limit": 2000}, method="ann")
    assert _images(run)["train"] == 1077  # digits have a validation part, and hold nothing out


@pytest.mark.slow
def test_plan_measures_every_row_and_says_what_is_done(root, capfd):
    """In processes of its own; what it runs leaves nothing behind."""
    before = sorted(path for path in root.rglob("*"))
    status = main(["plan", str(root / "tiny.yaml"), "--results", str(root), "--device", "cpu", "--cores", "2"])
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("all times are those of cpu (")
    assert lines[0].endswith(", 1 thread for each run")
    assert [line for line in err.splitlines() if line.startswith("measuring")] == [
        f"measuring {number} of 4: digits, {row}" for number, row in enumerate(EXPERIMENT["rows"], 1)
    ]
    rows = {line.split()[1]: line.split() for line in lines[2:-4]}
    assert set(rows) == set(EXPERIMENT["rows"])
    assert all(row[2:4] == ["3", "3"] for row in rows.values())
    assert lines[-1].startswith("remaining: 0.00 hours")
    assert sorted(path for path in root.rglob("*")) == before


@pytest.mark.slow
def test_plan_makes_up_the_data_that_are_not_prepared(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(
        "title: t\ndatasets: [cifar100]\nseeds: [0]\nprotocol: {architecture: vgg5, width: 0.1, batch_size: 8}\n"
        "rows:\n  bntt: {method: surrogate, norm: bntt, time_steps: 2, epochs: 100, held_out: 1000}\n"
    )
    ran = bntt("plan", path, "--device", "cpu", "--cores", "1", BNTT_DATA=str(tmp_path / "data"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[2].split()[:4] == ["cifar100", "bntt", "1", "0"]
    assert not (tmp_path / "data").exists()
