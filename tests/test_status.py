"""What is there of a run: each status, its reason, and that all who ask act by the same answer."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from tiny import EXPERIMENT, experiment

from bntt import commands
from bntt.common import files
from bntt.data import store
from bntt.experiment import code_hash
from bntt.results.collect import Results
from bntt.runs import pipeline
from bntt.runs.directory import RunDirectory
from bntt.runs.status import Status, find, found, unfinished

ROWS = {name: EXPERIMENT["rows"][name] for name in ("ann", "rmp")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network and its conversion, trained and measured."""
    root = tmp_path_factory.mktemp("made")
    tiny = experiment(root, rows=ROWS)
    for run in tiny.runs:
        pipeline.train(tiny, run, root, "cpu")
        pipeline.evaluate(tiny, run, root, "cpu")
    return root


@pytest.fixture
def results(made, tmp_path):
    """A copy to change: the experiment, its file and the results root."""
    shutil.copytree(made, tmp_path / "copy")
    return experiment(tmp_path / "copy", rows=ROWS), tmp_path / "copy/tiny.yaml", tmp_path / "copy"


def statuses(tiny, root, **how) -> dict[str, Status]:
    return {one.run.row: one.status for one in found(tiny, root, **how)}


def manifest(tiny, root, row: str, name: str):
    """The path of a run's manifest, and what it says."""
    path = RunDirectory.of(tiny.run("digits", row, 0), root).path / name
    return path, files.read_sealed(path)


def test_what_was_just_made_is_done(results):
    tiny, _, root = results
    assert statuses(tiny, root) == {"ann": Status.DONE, "rmp": Status.DONE}
    assert all(one.reason == "" for one in found(tiny, root))


@pytest.mark.parametrize(("row", "of_ann", "of_rmp"), [("ann", "outdated", "outdated"), ("rmp", "done", "outdated")])
def test_other_code_outdates_a_run_and_what_starts_from_it_for_all_who_ask(
    results, monkeypatch, capsys, row, of_ann, of_rmp
):
    tiny, file, root = results
    true = code_hash.training_code
    monkeypatch.setattr(code_hash, "training_code", lambda run: "0" * 16 if run.row == row else true(run))
    assert statuses(tiny, root) == {"ann": of_ann, "rmp": of_rmp}

    assert commands.main(["runs", "--experiment", str(file), "--results", str(root)]) == 0
    assert f"{of_rmp:9} digits/rmp/seed-0" in capsys.readouterr().out
    assert commands.main(["check", str(root / "tiny"), "--experiment", str(file)]) == 1
    assert "[outdated] digits/rmp/seed-0: " in capsys.readouterr().out
    assert Results(tiny, root).frame("anytime.csv")["row"].unique().tolist() == (["ann"] if row == "rmp" else [])
    assert "already" not in pipeline.train(tiny, tiny.run("digits", row, 0), root, "cpu")
    assert find(tiny, tiny.run("digits", row, 0), root, training_alone=True).status is Status.TRAINED


def test_other_code_that_measures_leaves_the_training(results, monkeypatch):
    tiny, _, root = results
    monkeypatch.setattr(code_hash, "evaluation_code", lambda run: "0" * 16)
    run = tiny.run("digits", "ann", 0)
    one = find(tiny, run, root)
    assert (one.status, "measured by other code" in one.reason) == (Status.OUTDATED, True)
    assert "already trained" in pipeline.train(tiny, run, root, "cpu")
    assert "already" not in pipeline.evaluate(tiny, run, root, "cpu")
    assert find(tiny, run, root).status is Status.DONE


@pytest.mark.parametrize(("name", "held"), [("train.json", "config"), ("evaluate.json", "evaluation")])
def test_an_option_that_was_added_since_counts_as_its_default(results, name, held):
    tiny, _, root = results
    path, record = manifest(tiny, root, "ann", name)
    options = record[held].get("options", record[held])
    key, default = ("drop_last", False) if name == "train.json" else ("exit_threshold", 0.1)
    assert options.pop(key) == default
    files.write_sealed(path, record)
    assert statuses(tiny, root)["ann"] is Status.DONE
    options[key] = True
    files.write_sealed(path, record)
    assert statuses(tiny, root)["ann"] is Status.OUTDATED
    options |= {key: default, "gone": 1}  # an option that is no more
    files.write_sealed(path, record)
    assert statuses(tiny, root)["ann"] is Status.OUTDATED


def test_other_data_than_are_prepared(results):
    tiny, _, root = results
    path, record = manifest(tiny, root, "ann", "train.json")
    files.write_sealed(path, record | {"data": record["data"] | {"content_sha256": "0" * 64}})
    one = find(tiny, tiny.run("digits", "ann", 0), root)
    assert (one.status, "other data" in one.reason) == (Status.OUTDATED, True)


def test_data_that_are_not_prepared_say_nothing(results, monkeypatch, tmp_path):
    tiny, _, root = results
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "nothing prepared"))
    assert not store.is_current("digits")
    assert statuses(tiny, root) == {"ann": Status.DONE, "rmp": Status.DONE}


def test_measurements_outlive_the_weights_and_the_code(results, monkeypatch):
    """What is kept is drawn whatever the code is, but nothing is made from it."""
    tiny, _, root = results
    monkeypatch.setattr(code_hash, "training_code", lambda run: "0" * 16)
    monkeypatch.setattr(code_hash, "evaluation_code", lambda run: "0" * 16)
    for run in tiny.runs:
        (RunDirectory.of(run, root).path / "model.safetensors").unlink()
    assert statuses(tiny, root) == {"ann": Status.KEPT, "rmp": Status.KEPT}
    assert sorted(Results(tiny, root).frame("anytime.csv")["row"].unique()) == ["ann", "rmp"]
    with pytest.raises(pipeline.UserError, match="kept: its weights are not here; train it again"):
        pipeline.train(tiny, tiny.run("digits", "rmp", 0), root, "cpu")
    path, _ = manifest(tiny, root, "ann", "evaluate.json")
    path.unlink()
    assert find(tiny, tiny.run("digits", "ann", 0), root).status is Status.MISSING, "neither weights nor measurements"


def test_who_only_reads_does_not_hold_results_against_the_code_that_is_here(results, monkeypatch):
    tiny, _, root = results
    monkeypatch.setattr(code_hash, "training_code", lambda run: "0" * 16)
    monkeypatch.setattr(code_hash, "evaluation_code", lambda run: "0" * 16)
    assert statuses(tiny, root) == {"ann": Status.OUTDATED, "rmp": Status.OUTDATED}
    assert statuses(tiny, root, here=False) == {"ann": Status.DONE, "rmp": Status.DONE}


def test_a_training_without_an_evaluation_is_trained(results):
    tiny, _, root = results
    path, _ = manifest(tiny, root, "rmp", "evaluate.json")
    path.unlink()
    assert statuses(tiny, root) == {"ann": Status.DONE, "rmp": Status.TRAINED}


BOTH = {"ann", "rmp"}


@pytest.mark.parametrize(
    ("gone", "trained", "measured"),
    [
        ([], set(), set()),
        (["ann/evaluate.json"], set(), {"ann"}),
        (["ann/anytime.csv"], set(), {"ann"}),
        (["rmp/train.json"], {"rmp"}, {"rmp"}),
        (["ann/train.json"], BOTH, BOTH),
        (["ann/history.csv"], BOTH, BOTH),
        (["ann/model.safetensors", "rmp/model.safetensors"], set(), set()),
        (["ann/model.safetensors", "ann/evaluate.json"], BOTH, BOTH),
        (["ann/model.safetensors", "rmp/evaluate.json"], set(), {"rmp"}),
        (["ann/model.safetensors", "rmp/train.json"], BOTH, BOTH),
    ],
)
def test_what_is_left_to_do_whatever_is_gone(results, gone, trained, measured):
    """Weights that are gone are made again only if they are needed, and with them all that starts from them."""
    tiny, _, root = results
    for name in gone:
        row, file = name.split("/")
        (RunDirectory.of(tiny.run("digits", row, 0), root).path / file).unlink()
    left = unfinished(tiny, root)
    assert left.training == {f"digits/{row}/seed-0" for row in trained}
    assert left.evaluation == {f"digits/{row}/seed-0" for row in measured}


def test_two_processes_that_train_one_run_do_it_once(results, monkeypatch):
    """As when a job outlives its Snakemake and the command is given again."""
    tiny, _, root = results
    run = tiny.run("digits", "ann", 0)
    directory = RunDirectory.of(run, root)
    record = directory.train_json.read_bytes()
    directory.train_json.unlink()
    said = SimpleQueue()  # not capsys, which loses what a thread writes while it is read
    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=said.put, flush=lambda: None))
    with ThreadPoolExecutor(1) as pool:
        with directory.alone():
            second = pool.submit(pipeline.train, tiny, run, root, "cpu")
            while f"waiting for process {os.getpid()} on " not in said.get(timeout=60):
                assert not second.done()
            directory.train_json.write_bytes(record)
        assert "already trained" in second.result()


@pytest.mark.parametrize("ended", list(Status))
def test_only_what_was_measured_has_numbers_and_only_what_has_ended_needs_nothing(ended):
    assert ended.measured == (ended in ("done", "kept"))
    assert ended.ended == (ended in ("done", "kept", "diverged"))
