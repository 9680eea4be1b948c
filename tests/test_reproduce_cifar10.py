"""The script that runs CIFAR-10 in pieces: with a tiny network, six pieces equal one run, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import EXPERIMENT, PROJECT, environment, experiment, write_experiment

from bntt.experiment.schema import load
from bntt.runs import pipeline
from bntt.runs.directory import RunDirectory
from bntt.runs.status import found

SCRIPT = PROJECT / "scripts" / "reproduce_cifar10.sh"
ROWS = {
    "bntt": {"method": "surrogate", "norm": "bntt", "time_steps": 3, "epochs": 1, "batch_size": 24},  # four steps
    "ann": {"method": "ann", "dropout": 0.0, "batch_size": 96},  # one step
    "conversion": {**EXPERIMENT["rows"]["rmp"], "reset": "hard"},
}
EVALUATION = {"noise_sigmas": [0.0], "draws": 1, "batch_size": 540}  # one batch


def script(*arguments: object, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", SCRIPT, *map(str, arguments)],
        cwd=PROJECT, env=environment(**{"DEVICE": "cpu", "DATASET": "digits", "PYTHON": sys.executable} | variables),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def tiny(tmp_path):
    changed = {"rows": ROWS, "evaluation": EVALUATION}
    return experiment(tmp_path, "tiny", **changed), str(write_experiment(tmp_path, "tiny", **changed))


def numbers(loaded, root: Path) -> dict:
    """Hashes of weights and measurements of what is done."""
    return {
        one.run.name: {
            name: digest
            for name, digest in (one.directory.training()["files"] | one.directory.evaluation()["files"]).items()
            if name != "history.csv"  # has seconds in it
        }
        for one in found(loaded, root)
        if one.status == "done"
    }


@pytest.mark.slow
def test_six_pieces_on_six_machines_equal_one_run(tmp_path, tiny):
    """Each piece is given the packed files of the last alone, and ends after one step, or one batch of test images.

    Four do a step each, the fifth ends the training and measures a batch, and the sixth ends the evaluation.
    """
    loaded, path = tiny
    run = loaded.run("digits", "bntt", 0)
    pipeline.train(loaded, run, tmp_path / "whole", "cpu")
    pipeline.evaluate(loaded, run, tmp_path / "whole", "cpu")
    whole = RunDirectory.of(run, tmp_path / "whole").training()
    tasks = f"{path} bntt 0"
    for piece in range(1, 7):
        results = tmp_path / f"machine-{piece}"
        before, after = tmp_path / f"pack-{piece - 1}", tmp_path / f"pack-{piece}"
        arguments = ["--minutes", "0.0001", "--from", before, "--to", after]
        done = script(*arguments, RESULTS=str(results), TASKS=tasks)
        assert done.returncode == (75 if piece < 6 else 0), done.stdout + done.stderr
        assert (done.stderr == f"nothing to unpack in {before}: starting from the beginning\n") == (piece == 1)
        packed = sorted(path.name for path in after.iterdir())
        assert packed == ["log.txt", "state.sha256", "state.tar.0"]
        assert ("run it again to continue" in (after / "log.txt").read_text()) == (piece < 6)
    assert numbers(loaded, results)[run.name] == numbers(loaded, tmp_path / "whole")[run.name]
    ours = RunDirectory.of(run, results).training()
    assert (ours["pieces"], RunDirectory.of(run, results).evaluation()["pieces"]) == (5, 2)
    assert ours["steps"] == whole["steps"] == 4
    assert ours["files"]["model.safetensors"] == whole["files"]["model.safetensors"]
    again = script(*arguments, RESULTS=str(results), TASKS=tasks)
    assert again.returncode == 0
    assert "train" not in again.stdout


@pytest.mark.slow
def test_weights_that_a_later_run_starts_from_are_packed_and_others_are_not(tmp_path, tiny):
    loaded, path = tiny
    both = f"{path} ann 0\n{path} conversion 0"
    first = script("--minutes", "0.0001", "--to", tmp_path / "a", RESULTS=str(tmp_path / "1"), TASKS=f"{path} bntt 0")
    assert first.returncode == 75
    whole = script(RESULTS=str(tmp_path / "whole"), TASKS=both)
    assert whole.returncode == 0, whole.stderr
    pieces, place = 0, tmp_path / "none"
    while True:
        pieces += 1
        results, pack = tmp_path / f"machine-{pieces}", tmp_path / f"pack-{pieces}"
        done = script("--minutes", "0.0001", "--from", place, "--to", pack, RESULTS=str(results), TASKS=both)
        weights = [path.parent.parent.name for path in results.rglob("model.safetensors")]
        place = pack
        if done.returncode == 0:
            break
        assert done.returncode == 75, done.stdout
    assert pieces == 5  # the dense network: a step, the end with a batch, the end of that; then of the conversion
    listing = subprocess.run(["tar", "-tf", pack / "state.tar.0"], capture_output=True, text=True, check=True).stdout
    assert sorted(weights) == ["ann", "conversion"]
    assert "safetensors" not in listing and "state-" not in listing
    assert numbers(loaded, results) == numbers(loaded, tmp_path / "whole")


@pytest.mark.slow
def test_what_other_tasks_have_begun_stays_in_the_pack(tmp_path, tiny):
    """And what is in the results, but came from no pack and is no task, is left out."""
    _, path = tiny
    other = write_experiment(tmp_path, "other", rows=ROWS, evaluation=EVALUATION)
    pack = tmp_path / "pack"
    for name, experiment_file in (("1", path), ("2", other)):
        results = tmp_path / name
        (results / "demo" / "runs").mkdir(parents=True)
        (results / "demo" / "runs" / "train.json").touch()
        arguments = ["--minutes", "0.0001", "--from", pack, "--to", pack]
        assert script(*arguments, RESULTS=str(results), TASKS=f"{experiment_file} bntt 0").returncode == 75
    files = subprocess.run(["tar", "-tf", pack / "state.tar.0"], capture_output=True, text=True, check=True).stdout
    of_state = "scratch/digits/bntt/seed-0/state-"
    assert sorted(line.split(of_state)[0] for line in files.splitlines() if of_state in line) == ["other/", "tiny/"]
    assert "demo" not in files


@pytest.mark.slow
def test_a_damaged_result_is_not_taken_for_a_finished_one(tmp_path, tiny):
    loaded, path = tiny
    variables = {"RESULTS": str(tmp_path / "results"), "TASKS": f"{path} bntt 0"}
    assert script(**variables).returncode == 0
    expected = numbers(loaded, tmp_path / "results")
    (evaluation,) = (tmp_path / "results").rglob("evaluate.json")
    evaluation.write_text("garbage")
    again = script(**variables)
    assert again.returncode == 0, again.stderr
    assert "already trained" in again.stdout
    assert numbers(loaded, tmp_path / "results") == expected != {}


@pytest.mark.slow
def test_a_damaged_pack_is_refused_and_nothing_is_lost(tmp_path, tiny):
    _, path = tiny
    tasks = f"{path} bntt 0"
    script("--minutes", "0.0001", "--to", tmp_path / "a", RESULTS=str(tmp_path / "1"), TASKS=tasks)
    state = tmp_path / "a" / "state.tar.0"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    done = script("--minutes", "1", "--from", tmp_path / "a", RESULTS=str(tmp_path / "2"), TASKS=tasks)
    assert done.returncode == 2
    assert f"{tmp_path / 'a'} is damaged" in done.stderr
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--piece", "1"], "--piece"), (["--minutes"], "needs a value"), (["--minutes", "abc"], "not abc")],
)
def test_a_wrong_option_is_one_line(arguments, said):
    done = script(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_an_incomplete_pack_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state.tar.1").write_bytes(b"the second half")
    done = script("--from", tmp_path / "a", "--to", tmp_path / "a", RESULTS=str(tmp_path / "1"), TASKS="demo bntt 0")
    assert done.returncode == 2
    assert f"{tmp_path / 'a'} is damaged: copy it again" in done.stderr
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["state.tar.1"]


def test_a_pack_stays_where_no_new_one_can_be_made(tmp_path):
    """Python fails, so that nobody can say what is done."""
    (tmp_path / "results").mkdir()
    (tmp_path / "a").mkdir()
    for name in ("state.tar.0", "state.sha256"):
        (tmp_path / "a" / name).write_text("of the last piece")
    done = script("--to", tmp_path / "a", RESULTS=str(tmp_path / "results"), TASKS="no-such-experiment bntt 0")
    assert done.returncode == 2
    assert "no-such-experiment" in done.stdout + done.stderr
    assert (tmp_path / "a" / "state.tar.0").read_text() == "of the last piece"


@pytest.mark.parametrize(("status", "left"), [("done", 0), ("diverged", 0), ("kept", 0), ("stale", 3), ("missing", 3)])
def test_what_has_ended_is_not_begun_again(tmp_path, status, left):
    """Python is played: it says so of the one run that is asked for, and fails where it should train."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n[ $3 = runs ] || exit 3\necho '{status:9} digits/bntt/seed-0  why'\n")
    python.chmod(0o755)
    assert script(PYTHON=str(python), RESULTS=str(tmp_path), TASKS="demo bntt 0").returncode == left
    assert script(PYTHON=str(python), RESULTS=str(tmp_path), TASKS="demo bntt 00").returncode == 3


def test_its_tasks_are_runs_of_the_experiments():
    text = SCRIPT.read_text()
    tasks = text[text.index("tasks=${TASKS:-'") + 16 : text.index("'}")].splitlines()
    assert len(tasks) == len(set(tasks)) == 18
    for task in tasks:
        name, row, seed = task.split()
        load(name).run("cifar10", row, int(seed))


def test_the_experiment_is_the_cifar10_part_of_the_paper():
    paper, own = load("paper"), load("cifar10")
    for run in own.runs:
        if run.row == "bntt-no-decay":
            expected = paper.run("cifar10", "bntt", run.seed).options | {"gamma_decay": 0.0}
        else:
            expected = dict(paper.run("cifar10", run.row, run.seed).options)
        if run.method == "conversion":
            expected["time_steps"] = 1000
        assert dict(run.options) == expected
    assert yaml.safe_load((PROJECT / "config/cifar10.yaml").read_text())["seeds"] == [0, 1, 2]
