"""Run directories: whole or not at all, and nothing that was damaged is ever taken for a result."""

import errno
import json
import math
import os
import random
import resource
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import EXPERIMENT, assert_one_line, bntt_here, experiment, in_a_process_of_its_own, write_experiment

from bntt.common import files
from bntt.common.errors import UserError
from bntt.data import store
from bntt.results.collect import Results
from bntt.runs import pipeline, provenance
from bntt.runs.directory import RunDirectory
from bntt.runs.status import found

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained):
    """The tiny experiment with one seed, really trained and evaluated; not to be edited."""
    return experiment(tmp_path_factory.mktemp("config")), trained


@pytest.fixture
def results(finished, tmp_path):
    """A copy of it to damage."""
    tiny, root = finished
    shutil.copytree(root / "tiny", tmp_path / "tiny", ignore=shutil.ignore_patterns("seed-[12]"))
    return tiny, tmp_path


def status(tiny, root, row="bntt") -> str:
    return next(one.status for one in found(tiny, root) if one.run.row == row)


# -- whole or not at all ----------------------------------------------------------------------------------


def test_a_failing_write_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("before")

    def fail(beside):
        beside.write_text("half")
        raise RuntimeError("stop")

    for target in (path, tmp_path / "new.txt"):
        with pytest.raises(RuntimeError):
            files.write_atomically(target, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
    assert path.read_text() == "before"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x"
    files.write_atomically(path, lambda beside: beside.write_text("old"))

    def write(beside):
        assert path.read_text() == "old"
        assert beside.parent == path.parent  # so that the rename is one step
        beside.write_text("new")

    files.write_atomically(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask, mode, replaces):
    def write(beside):
        if replaces:  # as a writer does that makes a temporary file of its own
            beside.unlink()
            os.close(os.open(beside, os.O_CREAT, 0o600))
        beside.write_text("new")

    before = os.umask(umask)
    try:
        files.write_atomically(tmp_path / "folder" / "x", write)
    finally:
        os.umask(before)
    assert (tmp_path / "folder" / "x").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == mode | 0o111 & ~umask


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["model.safetensors", "history.csv", "train.json"])
def test_training_that_cannot_finish_writing_leaves_no_manifest(finished, tmp_path, monkeypatch, failing):
    tiny, _ = finished
    real = files.write_atomically

    def write(path, function):
        if path.name == failing:
            raise OSError(28, "No space left on device", str(path))
        real(path, function)

    monkeypatch.setattr("bntt.runs.directory.write_atomically", write)
    monkeypatch.setattr("bntt.common.files.write_atomically", write)
    with pytest.raises(OSError, match="No space"):
        pipeline.train(tiny, tiny.runs[0], tmp_path, "cpu")
    assert status(tiny, tmp_path) == "missing"
    assert not list((tmp_path / "tiny" / "runs").rglob("train.json"))
    monkeypatch.undo()
    assert "done" in pipeline.train(tiny, tiny.runs[0], tmp_path, "cpu")  # and another try goes through


def test_a_manifest_names_every_file_with_its_hash(finished):
    tiny, root = finished
    for run in tiny.runs:
        directory = RunDirectory.of(run, root)
        named = {**directory.training()["files"], **directory.evaluation()["files"]}
        present = {path.name for path in directory.path.iterdir()} - {"train.json", "evaluate.json"}
        assert present == set(named)
        for name, digest in named.items():
            assert files.sha256(directory.path / name) == digest
        assert set(directory.evaluation()["not_applicable"]).isdisjoint(named)


def test_the_manifest_records_what_the_run_was(finished):
    tiny, root = finished
    record = RunDirectory.of(tiny.run("digits", "bntt", 0), root).training()
    assert record["status"] == "done"
    assert record["config"]["options"]["time_steps"] == 3
    assert record["steps"] == 3
    assert record["data"]["state"] == "content"
    assert record["data"]["images"] == {"train": 1077, "validation": 180, "test": 540}
    assert {"python", "packages", "device", "threads", "platform"} <= set(record["provenance"])
    assert {"commit", "dirty"} <= set(record["provenance"]) or "source_sha256" in record["provenance"]
    assert record["provenance"]["threads"] == 1
    assert record["seconds"] > 0
    assert record["peak_memory_mb"] > 0
    conversion = RunDirectory.of(tiny.run("digits", "rmp", 0), root).training()
    start = RunDirectory.of(tiny.run("digits", "ann", 0), root).training()
    assert conversion["start_sha256"] == start["files"]["model.safetensors"]


def test_a_conversion_belongs_to_the_network_it_was_made_from(results, tmp_path):
    tiny, root = results

    def statuses() -> dict[str, tuple[str, str]]:
        return {one.run.row: (one.status, one.reason) for one in found(tiny, root)}

    assert statuses()["rmp"] == ("done", "")
    rows = EXPERIMENT["rows"] | {"ann": EXPERIMENT["rows"]["ann"] | {"epochs": 1}}
    shorter = experiment(tmp_path / "edited", rows=rows)
    pipeline.train(shorter, shorter.run("digits", "ann", 0), root, "cpu")
    status, reason = statuses()["rmp"]
    assert (status, "row ann, which it starts from, was trained with another configuration" in reason) == (
        "outdated", True
    )  # fmt: skip
    with pytest.raises(UserError) as raised:
        pipeline.train(tiny, tiny.run("digits", "rmp", 0), root, "cpu")
    assert_one_line(raised.value, "ann", "with another configuration", "train it again")
    pipeline.train(tiny, tiny.run("digits", "ann", 0), root, "cpu")  # the very same weights
    assert statuses()["rmp"] == ("done", "")

    directory = RunDirectory.of(tiny.run("digits", "rmp", 0), root)
    for change, said in (
        ({"start_sha256": "0" * 64}, "made from earlier weights of row ann"),
        (
            {"data": {**directory.training()["data"], "state": "archive"}},
            "row ann, which it starts from, was trained on",
        ),
    ):
        whole = directory.training()
        files.write_sealed(directory.train_json, whole | change)
        status, reason = statuses()["rmp"]
        assert (status, reason.startswith(said)) == ("outdated", True), reason
        files.write_sealed(directory.train_json, whole)


def test_the_source_is_named_by_its_commit_or_its_hash_and_not_by_another_repository(tmp_path, monkeypatch):
    """An unpacked archive may lie inside a repository of the user's own."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    inside = tmp_path / "of the user" / "bench"
    (inside / "bntt").mkdir(parents=True)
    (inside / "bntt" / "a.py").write_text("X = 1\n")
    monkeypatch.setattr(provenance, "ROOT", inside)
    alone = provenance.source()
    assert list(alone) == ["source_sha256"]
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *identity, *command], cwd=inside.parent, check=True)
    assert provenance.source() == alone
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "ours"]):
        subprocess.run(["git", *identity, *command], cwd=inside, check=True)
    assert provenance.source()["dirty"] is False
    (inside / "bntt" / "a.py").write_text("X = 2\n")
    assert provenance.source()["dirty"] is True
    assert len(provenance.source()["commit"]) == 40


# -- tables come back as they were written ----------------------------------------------------------------


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "run", tmp_path / "scratch")


def test_a_number_that_is_missing_comes_back_as_a_number(directory):
    """Written as it is for a dense network's spike counts and the first step's change of scale."""
    nan = float("nan")
    rows = [{"layer": "a", "x": nan, "y": nan, "z": 1.5}, {"layer": "b", "x": 2.0, "y": nan, "z": 2.5}]
    directory.finish_evaluation({"status": "done"}, {"x.csv": rows})
    table = directory.table("x.csv")
    for column in "xyz":
        assert pd.api.types.is_float_dtype(table[column]), f"{column} came back as {table[column].dtype}"
    assert math.isnan(table["x"][0])
    assert table["x"][1] == 2.0


def test_the_measurements_of_real_runs_are_numbers(finished):
    tiny, root = finished
    words = {"layer", "correct", "space"}
    for run in tiny.runs:
        directory = RunDirectory.of(run, root)
        for name in directory.evaluation()["files"]:
            table = directory.table(name)
            for column in set(table.columns) - words:
                assert pd.api.types.is_numeric_dtype(table[column]), f"{run.row} {name} {column}"


@pytest.mark.parametrize("bits", ["0000", "0120", "12e4", "", "9" * 40, "ffff", "1e400"])
def test_which_images_are_right_comes_back_as_the_same_text(directory, bits):
    directory.finish_evaluation({"status": "done"}, {"x.csv": [{"time_step": 1, "correct": bits}]})
    assert directory.table("x.csv")["correct"].tolist() == [bits]


def test_a_table_without_rows_comes_back_without_rows(directory):
    directory.finish_evaluation({"status": "done"}, {"x.csv": []})
    assert len(directory.table("x.csv")) == 0


def test_an_evaluation_that_asks_for_no_noise_is_done(tmp_path):
    tiny = experiment(tmp_path, evaluation={"noise_sigmas": []}, rows={"ann": EXPERIMENT["rows"]["ann"]})
    pipeline.train(tiny, tiny.runs[0], tmp_path, "cpu")
    pipeline.evaluate(tiny, tiny.runs[0], tmp_path, "cpu")
    assert status(tiny, tmp_path, "ann") == "done"


def test_weights_come_back_bit_for_bit(directory):
    weights = {"a": torch.randn(3, 2), "b": torch.tensor(1.5), "c": torch.randn(4, 3).t()}
    directory.finish_training({"status": "done"}, weights, {})
    for name, value in directory.weights().items():
        assert torch.equal(value, weights[name])


def test_a_row_that_has_no_such_table_says_why(finished):
    tiny, root = finished
    with pytest.raises(UserError) as raised:
        RunDirectory.of(tiny.run("digits", "ann", 0), root).table("gamma.csv")
    assert_one_line(raised.value, "gamma.csv", "no scale that changes with time")


# -- damage -----------------------------------------------------------------------------------------------


def test_whole_results_are_done_and_what_is_not_there_is_missing(finished, tmp_path):
    tiny, root = finished
    assert {one.status for one in found(tiny, root)} == {"done"}
    assert {one.status for one in found(tiny, tmp_path)} == {"missing"}


@pytest.mark.parametrize("name", ["train.json", "evaluate.json"])
def test_a_run_without_its_manifest_is_missing_or_only_trained(results, name):
    tiny, root = results
    (RunDirectory.of(tiny.runs[0], root).path / name).unlink()
    assert status(tiny, root) == ("missing" if name == "train.json" else "trained")


FILES = ["model.safetensors", "history.csv", "anytime.csv", "spikes.csv", "gamma.csv", "noise.csv", "energy.csv"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "longer", "of another run", "a folder"])
def test_no_damaged_file_is_read(results, name, damage):
    tiny, root = results
    directory = RunDirectory.of(tiny.runs[0], root)
    path = directory.path / name
    content = path.read_bytes()
    if damage in ("missing", "a folder"):
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    else:
        half = len(content) // 2
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:half],
                "flipped": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
                "longer": content + b"\n",
                "of another run": (RunDirectory.of(tiny.runs[1], root).path / "anytime.csv").read_bytes(),
            }[damage]
        )
    with pytest.raises(UserError) as raised:
        directory.weights() if name.endswith("safetensors") else directory.table(name)
    assert_one_line(raised.value, str(path), "damaged", "run `python -m bntt")


@pytest.mark.parametrize("name", FILES[1:])
def test_a_run_with_a_damaged_table_is_damaged_and_drawing_goes_on(results, name):
    tiny, root = results
    path = RunDirectory.of(tiny.runs[0], root).path / name
    path.write_bytes(path.read_bytes()[:-5])
    assert status(tiny, root) == "damaged"
    assert status(tiny, root, "ann") == "done"
    frame = Results(tiny, root).frame(name)
    assert "bntt" not in set(frame["row"])
    assert "plain" in set(frame["row"]) or name == "gamma.csv"


def test_random_damages_are_never_a_traceback_and_never_a_result(finished, tmp_path):
    """Bytes flipped, cut out or put in anywhere; a manifest that still is one may say less, never something else."""
    tiny, root = finished
    run = tiny.runs[0]
    draws = random.Random(0)
    names = ["train.json", "evaluate.json", *FILES]
    truth = {name: RunDirectory.of(run, root).table(name) for name in FILES[1:]}
    for number in range(60):
        shutil.rmtree(tmp_path / "tiny", ignore_errors=True)
        shutil.copytree(RunDirectory.of(run, root).path, RunDirectory.of(run, tmp_path).path)
        directory = RunDirectory.of(run, tmp_path)
        path = directory.path / names[number % len(names)]
        content = bytearray(path.read_bytes())
        place = draws.randrange(len(content))
        kind = draws.choice(["flip", "cut", "insert", "end"])
        if kind == "flip":
            content[place] ^= 1 << draws.randrange(8)
        elif kind == "cut":
            del content[place : place + draws.randrange(1, 30)]
        elif kind == "insert":
            content[place:place] = bytes(draws.randrange(256) for _ in range(3))
        else:
            del content[place:]
        path.write_bytes(content)
        one = next(iter(found(tiny, tmp_path)))
        assert one.status in ("done", "diverged", "damaged", "missing", "outdated"), (number, one.status)
        for name in FILES[1:]:
            try:
                table = directory.table(name)
            except UserError as error:
                assert_one_line(error)
            else:
                pd.testing.assert_frame_equal(table, truth[name])


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"done"', "{}", '{"status": "done"}', '{"files": {}}',
        '{"status": "done", "files": 3}', '{"status": "done", "files": []}', '{"status": "done", "files": null}',
        '{"status": "done", "files": {"model.safetensors": 3}}', '{"status": 3, "files": {}}',
        '{"status": "almost", "files": {}}', '{"status": "done", "files": {"../../x.csv": "00"}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["train.json", "evaluate.json"])
def test_a_manifest_that_is_none_is_damaged(results, name, text):
    tiny, root = results
    (RunDirectory.of(tiny.runs[0], root).path / name).write_text(text)
    assert status(tiny, root) == "damaged"


def test_a_manifest_with_wrong_hashes_is_refused(results):
    tiny, root = results
    directory = RunDirectory.of(tiny.runs[0], root)
    for path in (directory.train_json, directory.evaluate_json):
        record = files.read_sealed(path)
        record["files"] = dict.fromkeys(record["files"], "0" * 64)
        files.write_sealed(path, record)
    assert status(tiny, root) == "damaged"
    with pytest.raises(UserError, match="damaged"):
        directory.weights()
    assert "done" in pipeline.train(tiny, tiny.runs[0], root, "cpu")  # and is not taken for a finished training


def test_a_manifest_that_is_not_what_was_written_is_refused(results):
    """One digit of one number, in a document that is whole otherwise."""
    tiny, root = results
    path = RunDirectory.of(tiny.runs[0], root).train_json
    record = json.loads(path.read_text())
    record["parameters"] += 1
    path.write_text(json.dumps(record))
    assert status(tiny, root) == "damaged"


def test_a_weights_file_that_is_vouched_for_but_none_is_one_line(directory):
    directory.path.mkdir(parents=True)
    path = directory.path / "model.safetensors"
    path.write_bytes(b"not weights")
    files.write_sealed(directory.train_json, {"status": "done", "files": {path.name: files.sha256(path)}})
    with pytest.raises(UserError) as raised:
        directory.weights()
    assert_one_line(raised.value, str(path), "not a safetensors file")


# -- results belong to what is planned --------------------------------------------------------------------


def with_option(folder, row: str, **options):
    """The tiny experiment with options of a row changed."""
    rows = {name: dict(body) for name, body in EXPERIMENT["rows"].items()}
    rows[row] |= options
    return experiment(folder, rows=rows)


def test_a_result_of_another_configuration_is_not_shown_as_this_one(results, tmp_path):
    _, root = results
    other = with_option(tmp_path, "bntt", time_steps=2)
    assert status(other, root) != "done"


def test_measurements_of_earlier_weights_are_not_shown_beside_new_ones(results, tmp_path):
    """Trained again by hand, not evaluated again: the measurements are of weights that are gone."""
    _, root = results
    other = with_option(tmp_path, "bntt", leak=0.5)
    pipeline.train(other, other.run("digits", "bntt", 0), root, "cpu")
    assert status(other, root) != "done"


def test_a_run_is_measured_again_when_its_steps_changed_though_its_weights_did_not(results, tmp_path):
    """A conversion has the same weights and thresholds for every T of inference."""
    _, root = results
    other = with_option(tmp_path, "rmp", time_steps=5)
    run = other.run("digits", "rmp", 0)
    pipeline.train(other, run, root, "cpu")
    pipeline.evaluate(other, run, root, "cpu")
    assert RunDirectory.of(run, root).table("anytime.csv")["time_step"].max() == 5


def test_evaluating_a_training_of_another_configuration_is_one_line(results, tmp_path):
    _, root = results
    other = with_option(tmp_path, "bntt", leak=0.5)
    with pytest.raises(UserError) as raised:
        pipeline.evaluate(other, other.run("digits", "bntt", 0), root, "cpu")
    assert_one_line(raised.value, "digits/bntt/seed-0", "another configuration", "train it again")


def test_what_is_done_is_not_done_again_and_what_is_damaged_is(results):
    tiny, root = results
    run = tiny.run("digits", "bntt", 0)
    assert "already trained" in pipeline.train(tiny, run, root, "cpu")
    assert "already evaluated" in pipeline.evaluate(tiny, run, root, "cpu")
    directory = RunDirectory.of(run, root)
    before = {name: value.clone() for name, value in directory.weights().items()}
    (directory.path / "gamma.csv").unlink()
    assert "already" not in pipeline.evaluate(tiny, run, root, "cpu")
    (directory.path / "model.safetensors").write_bytes(b"")
    assert "already" not in pipeline.train(tiny, run, root, "cpu")
    assert all(torch.equal(before[name], value) for name, value in directory.weights().items())
    assert status(tiny, root) == "done"


def test_results_of_two_experiments_and_seeds_do_not_meet(tmp_path):
    runs = [run for name in ("one", "two") for run in experiment(tmp_path, name, seeds=[0, 1]).runs]
    places = {RunDirectory.of(run, tmp_path).path for run in runs} | {
        RunDirectory.of(run, tmp_path).scratch for run in runs
    }
    assert len(places) == 2 * len(runs)


# -- bad input --------------------------------------------------------------------------------------------


def test_a_results_folder_that_cannot_be_written_is_one_line_and_nothing_is_trained(tmp_path):
    (tmp_path / "a file").write_text("")
    path = write_experiment(tmp_path)
    ran = bntt_here("train", "--experiment", path, "--row", "ann", "--results", tmp_path / "a file" / "results")
    assert_one_line(ran, "a file", "choose a folder that can be written")
    assert ran.stdout == ""


def test_a_gpu_that_is_too_small_is_one_line(tmp_path, monkeypatch):
    def too_large(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore advice.")

    monkeypatch.setattr("bntt.methods.ann.fit", too_large)
    tiny = experiment(tmp_path)
    with pytest.raises(UserError) as raised:
        pipeline.train(tiny, tiny.run("digits", "ann", 0), tmp_path, "cpu")
    assert_one_line(raised.value, "row ann", "CUDA out of memory", "Lower batch_size")


def failing(times, number, pauses, monkeypatch):
    """A writer that meets an error so often before it writes; ``pauses`` collects how long is waited in between."""
    monkeypatch.setattr(files.time, "sleep", pauses.append)
    left = iter(range(times))

    def write(beside):
        if next(left, None) is not None:
            raise OSError(number, os.strerror(number))
        beside.write_text("written")

    return write


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_disk_that_is_briefly_gone_is_asked_again(tmp_path, monkeypatch, capsys, number):
    pauses = []
    files.write_atomically(tmp_path / "file", failing(3, number, pauses, monkeypatch))
    assert (tmp_path / "file").read_text() == "written"
    assert pauses == list(files.PAUSES[:3])
    told = capsys.readouterr().err.splitlines()
    assert told == [f"bntt: {tmp_path}/file: {os.strerror(number)}; trying again in {p} s" for p in (1, 2, 4)]
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_stays_gone_is_one_line_and_what_was_there_stays(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("complete")
    pauses = []
    with pytest.raises(UserError, match=r"cannot write .*file: Input/output error; run this again when the disk ans"):
        files.write_atomically(tmp_path / "file", failing(99, errno.EIO, pauses, monkeypatch))
    assert pauses == list(files.PAUSES)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "complete")]


def test_a_full_disk_is_not_asked_again(tmp_path, monkeypatch):
    pauses = []
    with pytest.raises(UserError, match=r"cannot write .*file: No space left on device; make room, and run this again"):
        files.write_atomically(tmp_path / "file", failing(1, errno.ENOSPC, pauses, monkeypatch))
    assert pauses == []


def bntt_on_a_full_disk(*arguments):
    """No file may grow beyond 8 kB, which is what a write to a full disk meets too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    return bntt_here(*arguments)


@pytest.mark.parametrize("options", [[], ["--save-steps", "1"]], ids=["weights", "state"])
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing_half_written(tmp_path, options):
    path = write_experiment(tmp_path)
    store.prepare("digits")
    ran = in_a_process_of_its_own(
        bntt_on_a_full_disk, "train", "--experiment", path, "--row", "bntt", "--results", tmp_path, *options
    )
    name = "state-" if options else "model.safetensors"
    assert_one_line(ran, "cannot write", name, "make room")
    assert not [one for one in (tmp_path / "tiny").rglob("*") if one.is_file() and one.name != "belongs_to.json"]


def test_evaluating_before_training_is_one_line(tmp_path):
    path = write_experiment(tmp_path)
    ran = bntt_here("evaluate", "--experiment", path, "--row", "ann", "--results", tmp_path)
    assert_one_line(ran, "train.json is missing", "python -m bntt train")
    ran = bntt_here("train", "--experiment", path, "--row", "rmp", "--results", tmp_path)
    assert_one_line(ran, "ann", "train.json is missing", "python -m bntt train")


def test_weights_of_another_network_are_one_line(results):
    tiny, root = results
    directory = RunDirectory.of(tiny.run("digits", "bntt", 0), root)
    other = RunDirectory.of(tiny.run("digits", "ann", 0), root).path / "model.safetensors"
    shutil.copy(other, directory.path / "model.safetensors")
    record = files.read_sealed(directory.train_json)
    record["files"]["model.safetensors"] = files.sha256(other)
    files.write_sealed(directory.train_json, record)
    with pytest.raises(UserError) as raised:
        pipeline.evaluate(tiny, tiny.run("digits", "bntt", 0), root, "cpu")
    assert_one_line(raised.value, "model.safetensors", "row bntt", "train it again")


def test_the_summary_has_a_line_for_every_planned_run(results):
    tiny, root = results
    (RunDirectory.of(tiny.runs[0], root).train_json).unlink()
    summary = Results(tiny, root).summary.set_index("row")
    assert list(summary.index) == tiny.rows
    assert summary.loc["bntt", "status"] == "missing"
    assert summary.loc["rmp", "time_steps"] == 12
    assert np.isnan(summary.loc["bntt", "parameters"])


def test_weights_trained_on_another_split_are_not_measured(results):
    """Its training images may be among the test images of this one."""
    tiny, root = results
    directory = RunDirectory.of(tiny.runs[0], root)
    record = files.read_sealed(directory.train_json)
    record["data"]["split_sha256"] = "0" * 64
    files.write_sealed(directory.train_json, record)
    with pytest.raises(UserError) as raised:
        pipeline.evaluate(tiny, tiny.runs[0], root, "cpu")
    assert_one_line(raised.value, "split", "train it again")
