"""Experiment files: what is wrong is said in one line; what is right becomes complete runs."""

import copy
import json

import hypothesis.strategies as st
import pytest
from edits import forget
from hypothesis import example, given, settings
from jsonschema import Draft7Validator
from tiny import EXPERIMENT, PROJECT, assert_one_line, bntt_here, experiment, write_experiment

from bntt.common.errors import UserError
from bntt.common.files import read_yaml
from bntt.experiment import schema as module
from bntt.experiment.manual import schema
from bntt.experiment.schema import experiment_names, load
from bntt.paper.published import cells, published
from bntt.runs.directory import RunDirectory

DEMO = read_yaml((PROJECT / "config" / "demo.yaml").read_text(), "demo.yaml")
SCHEMA = Draft7Validator(json.loads((PROJECT / "config" / "schema.json").read_text()))


def changed(path: str, value: object) -> dict:
    """The tiny experiment with one value exchanged: ``rows/bntt/norm``."""
    document = copy.deepcopy(EXPERIMENT)
    *folders, last = path.split("/")
    place = document
    for folder in folders:
        place = place[folder]
    place[last] = value
    return document


def refused(document: object) -> str:
    with pytest.raises(UserError) as raised:
        module._experiment("tiny", "config/tiny.yaml", document)
    assert_one_line(raised.value, "config/tiny.yaml")
    return str(raised.value)


# -- what is right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", experiment_names())
def test_every_committed_experiment_loads(name):
    loaded = load(name)
    assert loaded.name == name
    assert loaded.runs
    assert loaded.title


def test_first_seeds_are_one_of_every_row_on_every_dataset_and_what_they_start_from(tmp_path):
    datasets = {"datasets": ["digits-dvs"]}
    rows = EXPERIMENT["rows"] | {
        "late": EXPERIMENT["rows"]["rmp"] | {"seeds": [9]},
        "dvs": {"method": "surrogate", "seeds": [7, 5], **datasets},
    }
    experiments = {"datasets": ["digits", "digits-dvs"], "seeds": [5, 7, 9], "rows": rows}
    whole = experiment(tmp_path, **experiments)
    first = whole.first_seeds()
    assert {run.name for run in first.runs} == {
        *(f"{dataset}/{row}/seed-5" for dataset in ("digits", "digits-dvs") for row in ("bntt", "plain", "ann", "rmp")),
        *(f"{dataset}/{row}/seed-9" for dataset in ("digits", "digits-dvs") for row in ("ann", "late")),
        "digits-dvs/dvs/seed-7",
    }
    assert first.runs == tuple(run for run in whole.runs if run in first.runs)
    assert first.first_seeds() == first
    assert first.run("digits", "ann", 9).name == "digits/ann/seed-9"


def test_the_demo_is_vgg9_at_25_steps_with_every_row_the_paper_compares():
    demo = load("demo")
    assert demo.datasets == ["digits", "digits-dvs"]
    assert {"bntt", "surrogate", "hats", "ann", "conversion", "rmp"} <= set(demo.rows)
    bntt = demo.run("digits", "bntt", 0)
    assert (bntt.options["architecture"], bntt.options["time_steps"]) == ("vgg9", 25)
    assert demo.run("digits", "rmp", 0).start == "ann"


def test_options_are_completed_with_defaults_and_overrides_win(tmp_path):
    run = experiment(tmp_path).run("digits", "bntt", 0)
    assert run.options["momentum"] == 0.9  # a default
    assert run.options["epochs"] == 1  # from the protocol
    assert run.options["time_steps"] == 3  # from the row
    assert "dropout" not in run.options  # of another method
    assert run.evaluation["exit_threshold"] == 0.1
    assert run.training_config()["options"] == run.options


def test_a_protocol_key_reaches_only_the_rows_that_know_it(tmp_path):
    loaded = experiment(tmp_path, protocol=EXPERIMENT["protocol"] | {"leak": 0.5})
    assert loaded.run("digits", "bntt", 0).options["leak"] == 0.5
    assert "leak" not in loaded.run("digits", "ann", 0).options


@pytest.mark.parametrize(
    ("written", "value"), [("5e-4", 5e-4), ("1", 1.0), ("0.25", 0.25), ("1E-3", 1e-3), (".5e+1", 5.0), ("1.e1", 10.0)]
)
def test_numbers_are_read_as_a_person_writes_them(tmp_path, written, value):
    path = write_experiment(tmp_path)
    path.write_text(path.read_text().replace("learning_rate: 0.1", f"learning_rate: {written}"))
    rate = load(str(path)).runs[0].options["learning_rate"]
    assert rate == value
    assert type(rate) is float


def test_rows_come_after_the_rows_they_start_from(tmp_path):
    rows = {name: EXPERIMENT["rows"][name] for name in ("rmp", "bntt", "ann")}
    loaded = experiment(tmp_path, rows=rows, seeds=[3, 1])
    assert loaded.rows == ["ann", "rmp", "bntt"]
    assert [run.name for run in loaded.runs][:3] == ["digits/ann/seed-3", "digits/ann/seed-1", "digits/rmp/seed-3"]


def test_a_row_may_run_with_some_of_the_seeds(tmp_path):
    rows = {name: dict(EXPERIMENT["rows"][name]) for name in ("bntt", "ann", "rmp")}
    rows["bntt"]["seeds"] = [1]
    loaded = experiment(tmp_path, rows=rows, seeds=[3, 1])
    assert [run.seed for run in loaded.runs if run.row == "bntt"] == [1]
    assert [run.seed for run in loaded.runs if run.row == "rmp"] == [3, 1]
    assert "seeds" not in loaded.run("digits", "bntt", 1).options


@pytest.mark.parametrize(
    ("row", "seeds", "said"),
    [
        ("bntt", [2], ["rows: bntt: seeds", "2 is not among the experiment's seeds, 3, 1"]),
        ("bntt", [], ["rows: bntt: seeds is empty"]),
        ("bntt", 3, ["rows: bntt: seeds must be a list"]),
        ("ann", [3], ["rows: rmp", "ann, which it starts from, has no seed 1"]),
    ],
)
def test_seeds_that_a_row_cannot_have(row, seeds, said):
    document = changed("seeds", [3, 1])
    document["rows"] = {name: dict(document["rows"][name]) for name in ("bntt", "ann", "rmp")}
    document["rows"][row]["seeds"] = seeds
    message = refused(document)
    assert all(word in message for word in said)


# -- datasets that differ ---------------------------------------------------------------------------------


def test_protocol_dataset_row_and_the_rows_dataset_have_the_last_word_in_this_order(tmp_path):
    loaded = experiment(
        tmp_path,
        datasets={"digits": None, "digits-dvs": {"epochs": 3, "time_steps": 4, "leak": 0.5}},
        rows={
            "bntt": {"method": "surrogate", "norm": "bntt", "leak": 0.7},
            "plain": {"method": "surrogate", "norm": "none", "datasets": {"digits-dvs": {"time_steps": 6}}},
            "ann": {"method": "ann", "datasets": ["digits"]},
        },
    )
    names = [(run.dataset, run.row) for run in loaded.runs]
    assert names == [("digits", "bntt"), ("digits", "ann"), ("digits-dvs", "bntt"), ("digits-dvs", "plain")]
    seen = {pair: loaded.run(*pair, 0).options for pair in names}
    assert [seen[pair].get("epochs") for pair in names] == [1, 1, 3, 3]
    assert [seen[pair].get("time_steps") for pair in names] == [25, None, 4, 6]
    assert [seen[pair].get("leak") for pair in names] == [0.7, None, 0.7, 0.5]


@pytest.mark.parametrize(
    ("datasets", "row", "said"),
    [
        ({"digits": {"epoch": 3}}, {}, ["datasets: digits", "unknown key 'epoch'", "did you mean 'epochs'?"]),
        ({"digit": {}}, {}, ["unknown dataset 'digit'"]),
        ({"digits": 3}, {}, ["datasets: digits must be a mapping"]),
        ({}, {}, ["datasets is empty"]),
        (
            ["digits"],
            {"datasets": ["digits-dvs"]},
            ["rows: bntt: datasets", "'digits-dvs' is not among the experiment's datasets, digits"],
        ),
        (["digits"], {"datasets": []}, ["rows: bntt: datasets is empty", "digits"]),
        (["digits"], {"datasets": {"digits": {"nrom": 1}}}, ["rows: bntt", "'nrom'", "did you mean 'norm'?"]),
        (["digits"], {"datasets": "digits"}, ["rows: bntt: datasets must be a list"]),
    ],
)
def test_datasets_that_cannot_be(datasets, row, said):
    document = changed("datasets", datasets)
    document["rows"] = {"bntt": document["rows"]["bntt"] | row}
    message = refused(document)
    assert all(word in message for word in said), message


@pytest.mark.parametrize(
    ("path", "value", "place"), [("protocol/leak", 0.5, "protocol"), ("datasets", {"digits": {"leak": 0.5}}, "digits")]
)
def test_an_option_that_no_row_has_a_use_for_is_unknown(path, value, place):
    document = changed(path, value)
    document["rows"] = {"ann": document["rows"]["ann"]}
    assert f"{place}: unknown key 'leak'" in refused(document)


def test_a_row_cannot_start_from_a_row_that_the_dataset_does_not_have():
    document = changed("datasets", ["digits", "digits-dvs"])
    document["rows"] = {name: dict(document["rows"][name]) for name in ("ann", "rmp")}
    document["rows"]["ann"]["datasets"] = ["digits"]
    message = refused(document)
    assert "ann, which it starts from, has no dataset digits-dvs" in message


@pytest.mark.parametrize(
    ("option", "of_start", "own"),
    [
        ("coding", "unsigned", "signed"),
        ("statistics", "dataset", "cifar10-released"),
        ("image_size", 8, None),
        ("event_counts", False, True),
    ],
)
@pytest.mark.parametrize("on_one_dataset", [False, True])
def test_a_row_is_given_the_data_as_the_row_that_it_starts_from(option, of_start, own, on_one_dataset):
    """Its weights would be used on other inputs than they were trained on."""
    document = changed("datasets", ["digits", "digits-dvs"])
    document["rows"] = {name: dict(document["rows"][name]) for name in ("ann", "rmp")}
    document["rows"]["ann"][option] = document["rows"]["rmp"][option] = of_start
    module._experiment("tiny", "config/tiny.yaml", document)
    if on_one_dataset:
        document["rows"]["rmp"]["datasets"] = {"digits": None, "digits-dvs": {option: own}}
    else:
        document["rows"]["rmp"][option] = own
    message = refused(document)
    dataset = "digits-dvs" if on_one_dataset else "digits"
    said = f"rows: rmp: {option} is {json.dumps(own)} on {dataset}, and {json.dumps(of_start)} in row ann"
    assert said in message, message


PAPER = {
    "cifar10": (25, 120, 256, 0.95),
    "cifar100": (50, 240, 128, 0.99),
    "tiny-imagenet": (30, 90, 256, 0.95),
    "dvs-cifar10": (20, 60, 256, 0.95),
}


def test_the_papers_protocol_has_the_papers_numbers():
    """Written down once more: T, epochs, batch size and leak of each dataset, and what all share.

    T and epochs are printed (Section 4.1, Table 1); batch size and leak are those of the released code's README.
    """
    paper = load("paper")
    assert set(paper.datasets) == set(PAPER)
    for dataset, printed in PAPER.items():
        run = paper.run(dataset, "bntt", 0)
        assert tuple(run.options[key] for key in ("time_steps", "epochs", "batch_size", "leak")) == printed
        shared = ("learning_rate", "momentum", "weight_decay", "milestones", "decay_factor", "selection")
        expected = (0.3, 0.9, 5e-4, [0.5, 0.7, 0.9], 10.0, "last")
        assert tuple(run.options[key] for key in shared) == expected
        assert run.options["gamma_decay"] is None
    assert paper.run("cifar10", "surrogate", 0).options["time_steps"] == 100
    assert "surrogate" not in paper.rows_on("cifar100")  # the paper prints n/a


def test_the_protocol_runs_every_line_of_table_1():
    """Except those without a number, and each with the number of time-steps that is printed, if one is."""
    paper = load("paper")
    lines = {cell.row: cell for cell in cells() if cell.place == "Table 1" and cell.column == "accuracy" and cell.value}
    assert len(lines) == 23
    for line, cell in lines.items():
        run = paper.run(cell.dataset, cell.run, 0)
        steps = published("Table 1", line, "time_steps").value
        if steps is not None and not line.endswith("early-exit"):
            assert run.options["time_steps"] == steps, line


def test_a_path_with_a_space_is_an_experiment_too(tmp_path):
    assert load(str(write_experiment(tmp_path / "my files"))).name == "tiny"


# -- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("rowz", {}, ["unknown key 'rowz'", "did you mean 'rows'?"]),
        ("protocol/epoch", 3, ["protocol", "'epoch'", "did you mean 'epochs'?"]),
        ("rows/bntt/nrom", "bntt", ["rows: bntt", "'nrom'", "did you mean 'norm'?"]),
        ("rows/ann/leak", 0.5, ["rows: ann", "unknown key 'leak'"]),
        ("evaluation/report_step", [1], ["evaluation", "did you mean 'report_steps'?"]),
        ("protocol/1", 2, ["protocol", "unknown key"]),
        ("datasets", ["digit"], ["unknown dataset 'digit'", "did you mean 'digits'?"]),
        ("datasets", "digits", ["datasets must be a list"]),
        ("datasets", ["digits", "digits"], ["datasets names something twice"]),
        ("rows/bntt/method", "surogate", ["rows: bntt", "did you mean 'surrogate'?"]),
        ("rows/bntt/method", None, ["rows: bntt", "method", "surrogate"]),
        ("rows/bntt/method", ["ann"], ["rows: bntt", "unknown method"]),
        ("rows/bntt", None, ["rows: bntt", "method"]),
        ("rows/bntt", "surrogate", ["rows: bntt", "must be a mapping"]),
        ("rows", ["bntt"], ["rows must be a mapping"]),
        ("rows", {}, ["rows is empty"]),
        ("rows/BNTT!", {"method": "ann"}, ["rows: BNTT!", "lower-case letters, digits and hyphens"]),
        ("rows/-a", {"method": "ann"}, ["rows: -a", "with a hyphen neither first nor last"]),
        ("rows/a-", {"method": "ann"}, ["rows: a-", "with a hyphen neither first nor last"]),
        ("rows/-", {"method": "ann"}, ["rows: -", "with a hyphen neither first nor last"]),
        (f"rows/{'a' * 65}", {"method": "ann"}, ["at most 64 lower-case letters"]),
        ("rows/é", {"method": "ann"}, ["rows: é", "at most 64 lower-case letters"]),
        ("rows/", {"method": "ann"}, ["at most 64 lower-case letters"]),
        ("rows/bntt/norm", "bnt", ["rows: bntt: norm", "did you mean 'bntt'?"]),
        ("rows/bntt/norm", None, ["rows: bntt: norm: unknown value None", "did you mean 'none'?"]),
        ("rows/bntt/time_steps", 0, ["rows: bntt: time_steps", "at least 1"]),
        ("rows/bntt/time_steps", -3, ["rows: bntt: time_steps", "at least 1"]),
        ("rows/bntt/time_steps", 2.5, ["rows: bntt: time_steps", "whole number"]),
        ("rows/bntt/time_steps", "3", ["rows: bntt: time_steps", "whole number"]),
        ("rows/bntt/time_steps", True, ["rows: bntt: time_steps", "whole number"]),
        ("rows/bntt/time_steps", [3], ["rows: bntt: time_steps", "whole number"]),
        ("rows/bntt/leak", 1.5, ["rows: bntt: leak", "at most 1.0"]),
        ("rows/bntt/leak", "lots", ["rows: bntt: leak", "a number"]),
        ("rows/bntt/leak", True, ["rows: bntt: leak", "a number"]),
        ("rows/bntt/leak", float("nan"), ["rows: bntt: leak", "a number"]),
        ("rows/bntt/classifier_norm", 1, ["rows: bntt: classifier_norm", "true or false"]),
        ("rows/bntt/classifier_norm", "yes", ["rows: bntt: classifier_norm", "true or false"]),
        ("rows/rmp/start", None, ["rows: rmp: start is empty: The row whose weights this one begins from"]),
        ("rows/rmp/start", "an", ["rows: rmp: start", "did you mean 'ann'?"]),
        ("rows/rmp/start", "rmp", ["rows: rmp: start", "unknown row 'rmp'"]),
        ("rows/bntt/start", "ann", ["rows: bntt", "takes no `start`"]),
        ("protocol/learning_rate", 0, ["learning_rate", "above 0"]),
        ("protocol/batch_size", 1, ["batch_size", "at least 2"]),
        ("protocol/milestones", 0.5, ["milestones must be a list"]),
        ("protocol/milestones", ["soon"], ["milestones", "a number"]),
        ("protocol", ["epochs"], ["protocol must be a mapping"]),
        ("seeds", 0, ["seeds must be a list"]),
        ("seeds", [0.5], ["seeds: item 1 must be a whole number", "0.5"]),
        ("seeds", ["one"], ["seeds: item 1 must be a whole number", "'one'"]),
        ("seeds", [-1], ["seeds: item 1 must be at least 0", "-1"]),
        ("seeds", [True], ["seeds: item 1 must be a whole number", "True"]),
        ("seeds", [1, 1], ["seeds names something twice"]),
        ("threads", 0, ["threads must be at least 1", "0"]),
        ("threads", 10**30, ["threads must be at most 1024"]),
        ("seeds", [10**30], ["seeds: item 1 must be", "10000"]),
        ("protocol", {"epochs": 10**30}, ["epochs must be at most 2147483647"]),
        ("protocol", {"time_steps": 2**31}, ["time_steps must be at most 2147483647"]),
        ("threads", True, ["threads", "whole number"]),
        ("evaluation/report_steps", [0], ["report_steps", "at least 1"]),
        ("evaluation/report_steps", [1, 1], ["report_steps", "twice"]),
        ("evaluation/noise_sigmas", [0, 0.0], ["noise_sigmas names something twice: [0.0, 0.0]"]),
        ("evaluation/noise_sigmas", [0.0, 0.4, -0.0], ["noise_sigmas names something twice"]),
        ("evaluation/exit_thresholds", [0.1, 0.10], ["exit_thresholds names something twice"]),
        ("protocol/milestones", [1, 1.0], ["milestones names something twice"]),
        ("seeds", [2**63], ["seeds: item 1 must be at most 9223372036854775807"]),
        ("evaluation/noise_space", "pixels", ["noise_space", "did you mean 'pixel'?"]),
        ("evaluation/noise_sigmas", [-0.1], ["noise_sigmas", "at least 0"]),
        ("rows/bntt/test_limit", 100, ["datasets: digits", "test_limit must be the same", "100 in row bntt"]),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_where_and_what_would_be_right(path, value, said):
    assert_one_line(UserError(refused(changed(path, value))), *said)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("datasets", [], "datasets"),
        ("seeds", [], "seeds"),
        ("title", None, "title"),
        ("title", ["a", "b"], "title"),
        ("notes", {"a": 1}, "notes"),
        ("protocol/learning_rate", float("inf"), "learning_rate"),
        ("protocol/learning_rate", "inf", "learning_rate"),
        pytest.param("protocol/learning_rate", 10**400, "learning_rate", id="too-large-for-a-float"),
        ("protocol/momentum", 1.0, "momentum"),
        ("protocol/milestones", [7.0], "milestones"),
        ("rows/a\nb", {"method": "ann"}, "rows"),
        ("evaluation/noise_sigmas", [float("inf")], "noise_sigmas"),
    ],
)
def test_values_that_could_only_fail_later_are_refused_at_once(path, value, said):
    assert_one_line(UserError(refused(changed(path, value))), said)


def test_a_row_named_by_a_bare_number_is_refused_or_is_that_text():
    document = copy.deepcopy(EXPERIMENT)
    document["rows"] = {1: {"method": "ann"}}
    try:
        loaded = module._experiment("tiny", "config/tiny.yaml", document)
    except UserError as error:
        assert_one_line(error, "config/tiny.yaml", "rows")
    else:
        assert loaded.run("digits", "1", 0).row == "1"


@pytest.mark.parametrize("key", ["title", "datasets", "seeds", "rows"])
def test_a_missing_key_is_named(key):
    document = {k: v for k, v in EXPERIMENT.items() if k != key}
    assert f"{key} is missing" in refused(document)


def test_a_circle_of_starts_is_shown():
    rows = {a: {"method": "conversion", "start": b} for a, b in (("a", "b"), ("b", "c"), ("c", "a"))}
    assert "a -> b -> c -> a" in refused({**EXPERIMENT, "protocol": {}, "rows": rows})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "title is missing"),
        (b"rows: [", "not valid YAML"),
        (b"- a\n- b\n", "must be a mapping"),
        (b"a: b: c\n", "not valid YAML"),
        (b"a: " + 3000 * b"[" + 3000 * b"]", "not valid YAML: lists or mappings are nested too deeply"),
        (b"title: \xff\xfe\n", "YAML"),
        (b"seeds: [2020-13-45]\n", "YAML"),
        (b"title: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_experiment_is_one_line(tmp_path, content, said):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load(str(path))
    assert_one_line(raised.value, str(path), said)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("seeds: [1]", "key 'seeds' is given twice"),
        ("evaluation: {draws: 1, draws: 2}", "key 'draws' is given twice"),
        ("notes: {a: &a {x: 1}, b: {<<: *a, y: 1, y: 2}}", "key 'y' is given twice"),
        ("notes: {a: &a {x: 1}, b: {<<: *a, <<: *a}}", "merge several mappings as a list, <<: [*a, *b]"),
        ("notes: {<<: 3}", "expected a mapping or list of mappings for merging"),
        ("notes: {<<: *nobody}", "undefined alias 'nobody'"),
    ],
)
def test_a_key_given_twice_and_a_merge_of_nothing_are_refused_and_not_half_lost(tmp_path, added, said):
    path = write_experiment(tmp_path)
    path.write_text(f"{path.read_text()}{added}\n")
    with pytest.raises(UserError) as raised:
        load(str(path))
    assert_one_line(raised.value, str(path), "not valid YAML", said)


MERGED = """title: Merge keys
datasets: [digits]
seeds: [0]
protocol: &protocol {epochs: 2}
rows:
  a: &a {method: surrogate, norm: bntt, leak: 0.5, time_steps: 3}
  b: &b
    leak: 0.7
    <<: *a
  c: {<<: *b, norm: none}
  d: {<<: [*b, *a], time_steps: 9, datasets: {digits: {<<: *protocol, leak: 0.9}}}
  e: {<<: *protocol, method: ann}
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_merge_keys_add_what_a_mapping_does_not_have_itself(tmp_path, encoding):
    """YAML 1.1: keys of the mapping itself win, then those of the first that is merged."""
    path = tmp_path / "merged.yaml"
    path.write_text(MERGED, encoding=encoding)
    runs = {run.row: run.options for run in load(str(path)).runs}
    keys = ("norm", "leak", "time_steps", "epochs")
    seen = {row: tuple(runs[row][key] for key in keys) for row in "abcd"}
    expected = {"a": ("bntt", 0.5, 3, 2), "b": ("bntt", 0.7, 3, 2), "c": ("none", 0.7, 3, 2), "d": ("bntt", 0.9, 9, 2)}
    assert seen == expected
    assert runs["e"]["epochs"] == 2
    SCHEMA.validate(read_yaml(path.read_bytes(), "merged"))


@pytest.mark.parametrize("name", ["demos", "no/such.yaml", ""])
def test_a_missing_file_names_those_that_are_there(name):
    with pytest.raises(UserError) as raised:
        load(name)
    assert_one_line(raised.value, repr(name), "demo")


@pytest.mark.parametrize("name", ["My Experiment", "-a", "a-", "a" * 65])
def test_a_name_that_could_not_be_a_folder_is_refused(tmp_path, name):
    with pytest.raises(UserError) as raised:
        load(str(write_experiment(tmp_path, name)))
    assert_one_line(raised.value, "at most 64 lower-case letters", name)


def test_a_dataset_whose_name_could_not_be_a_folder_is_refused(package, tmp_path):
    for stem in ("Mine", "mine_", "m" * 65):
        (package / "data" / f"{stem}.py").write_text((package / "data" / "digits.py").read_text())
        name = stem.replace("_", "-")
        with pytest.raises(UserError) as raised:
            experiment(tmp_path, datasets=[name])
        assert_one_line(raised.value, f"datasets: {name}: a dataset's name must be at most 64 lower-case letters")
        forget()


def test_the_longest_names_fit_into_folders(tmp_path):
    loaded = experiment(tmp_path, "e" * 64, rows={"r" * 64: {"method": "ann"}}, seeds=[2**63 - 1])
    assert RunDirectory.of(loaded.runs[0], tmp_path).path.name == "seed-9223372036854775807"


def test_stray_files_in_config_are_no_experiments(tmp_path, monkeypatch):
    write_experiment(tmp_path, "mine")
    for name in ("mine (copy).yaml", ".mine.yaml", "_x.yaml"):
        (tmp_path / name).write_text("")
    (tmp_path / ".#mine.yaml").symlink_to("somebody@somewhere.1")
    (tmp_path / "folder.yaml").mkdir()
    monkeypatch.setattr(module, "CONFIG", tmp_path)
    monkeypatch.chdir(tmp_path)  # where there is no config/
    assert experiment_names() == ["mine"]


def test_an_unplanned_run_lists_what_there_is(tmp_path):
    loaded = experiment(tmp_path)
    for name, said in (
        (("digit", "ann", 0), "digits"),
        (("digits", "anm", 0), "did you mean 'ann'?"),
        (("digits", "ann", 7), "its seeds are 0"),
    ):
        with pytest.raises(UserError) as raised:
            loaded.run(*name)
        assert_one_line(raised.value, "experiment tiny", said)


# -- whatever is mistyped ---------------------------------------------------------------------------------


def keys_of(document: dict) -> list[tuple]:
    """Paths of all keys that stand for something declared: not the free names of rows."""
    found = []
    for key, value in document.items():
        found.append((key,))
        if isinstance(value, dict):
            found += [(key, *inner) for inner in keys_of(value)]
    return [path for path in found if not (path[0] == "rows" and len(path) == 2)]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_mistyped_key_of_the_demo_is_a_user_error(data):
    document = copy.deepcopy(DEMO)
    *folders, key = data.draw(st.sampled_from(keys_of(document)))
    position = data.draw(st.integers(0, len(key)))
    letter = data.draw(st.text(min_size=1, max_size=2))
    typo = data.draw(
        st.sampled_from([key[:position] + letter + key[position:], key[:position] + key[position + 1 :], key[::-1]])
    )
    place = document
    for folder in folders:
        place = place[folder]
    if typo in place or typo == key:
        return
    place[typo] = place.pop(key)
    with pytest.raises(UserError) as raised:
        module._experiment("demo", "demo.yaml", document)
    assert_one_line(raised.value, "demo.yaml")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([*keys_of(DEMO), ("rows", "bntt"), ("threads",), ("evaluation", "report_steps")]), ANYTHING)
@example(("protocol", "epochs"), 10**400)
def test_any_value_anywhere_is_accepted_or_a_user_error(path, value):
    document = copy.deepcopy(DEMO)
    place = document
    for folder in path[:-1]:
        place = place[folder]
    place[path[-1]] = value
    try:
        loaded = module._experiment("demo", "demo.yaml", document)
    except UserError as error:
        assert_one_line(error, "demo.yaml")
    else:
        assert loaded.runs
        SCHEMA.validate(document)


# -- what an editor is told -------------------------------------------------------------------------------


def test_the_schema_is_the_one_that_the_models_make():
    text = (PROJECT / "config" / "schema.json").read_text()
    assert text == schema(), "run python -m bntt keys --schema > config/schema.json"
    assert bntt_here("keys", "--schema").stdout == text
    Draft7Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("name", experiment_names())
def test_the_schema_accepts_every_committed_experiment_and_each_names_it(name):
    text = (PROJECT / "config" / f"{name}.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    SCHEMA.validate(read_yaml(text, name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rowz", {}),
        ("protocol/epoch", 3),
        ("rows/bntt/nrom", "bntt"),
        ("rows/bntt/dropout", 0.1),  # of another method
        ("rows/bntt/start", "ann"),
        ("rows/rmp", {"method": "conversion"}),
        ("rows/bntt/method", "surogate"),
        ("rows/bntt/datasets", {"digits": {"time_step": 3}}),
        ("rows/bntt/datasets", ["digit"]),
        ("rows/bntt/seeds", []),
        ("rows/BNTT!", {"method": "ann"}),
        ("rows/-a", {"method": "ann"}),
        ("rows/a-", {"method": "ann"}),
        (f"rows/{'a' * 65}", {"method": "ann"}),
        ("seeds", [2**63]),
        ("evaluation/noise_sigmas", [0, 0.0]),
        ("rows", {}),
        ("datasets", {"digits": {"epochs": 0}}),
        ("datasets", {"digit": {}}),
        ("datasets", []),
        ("seeds", [0, 0]),
        ("seeds", [-1]),
        ("threads", True),
        ("title", None),
        ("rows/bntt/norm", "bnt"),
        ("rows/bntt/time_steps", 2.5),
        ("rows/bntt/time_steps", "3"),
        ("rows/bntt/leak", 1.5),
        ("rows/bntt/leak", "0.5"),
        ("rows/bntt/classifier_norm", 1),
        ("protocol/learning_rate", 0),
        ("protocol/momentum", 1.0),
        ("protocol/milestones", [7.0]),
        ("evaluation/report_step", [1]),
        ("evaluation/report_steps", [0]),
        ("evaluation/noise_space", "pixels"),
    ],
)
def test_the_schema_marks_what_is_wrong_in_a_single_place(path, value):
    document = changed(path, value)
    assert not SCHEMA.is_valid(document)
    refused(document)


def test_the_schema_accepts_what_is_left_empty():
    document = changed("protocol", None) | {"evaluation": None, "datasets": {"digits": None}}
    SCHEMA.validate(document)
    assert module._experiment("tiny", "tiny.yaml", document).runs


def test_a_file_in_config_of_the_working_folder_comes_before_the_packages(tmp_path, monkeypatch):
    write_experiment(tmp_path / "config", "demo")
    write_experiment(tmp_path / "config", "mine")
    monkeypatch.chdir(tmp_path)
    assert load("demo").title == load("mine").title == EXPERIMENT["title"]
    assert load("paper").name == "paper"
    assert {"mine", "paper"} <= set(experiment_names())
    with pytest.raises(UserError, match=r"there are .*mine, .*paper"):
        load("nothing")
