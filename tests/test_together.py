"""One training in several real processes: the same network as in one process, whatever number goes on with it."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from shares import all_trained
from tiny import EXPERIMENT, PROJECT, write_experiment

from bntt.common.errors import Stopped
from bntt.data import store
from bntt.experiment.schema import load
from bntt.runs import pipeline, together
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory

ROWS = {"bntt": {**EXPERIMENT["rows"]["bntt"], "epochs": 4, "precision": "fp32"}, "mpbn": {"method": "mpbn"}}


def in_processes(count, *command, **settings):
    """A command, in processes that torchrun starts."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    own = {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [*torchrun, *map(str, command)], env=os.environ | own, text=True, start_new_session=True, **pipes, **settings
    )


def far(one, other):
    """The largest difference of two weights, relative to the largest weight of the same array."""
    return max(
        float((value.double() - other[name].double()).abs().max() / value.double().abs().max().clamp(min=1e-30))
        for name, value in one.items()
    )


@pytest.mark.slow
def test_two_processes_train_to_the_weights_and_moments_of_one_with_every_norm(tmp_path):
    """In float64, where no rounding flips a spike; shares are uneven, and one norm is called outside the passes."""
    process = in_processes(2, PROJECT / "tests/shares.py", tmp_path, "float64")
    alone = all_trained(torch.float64)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    of_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for norm, weights in alone.items():
        first, second = (found[norm] for found in of_rank)
        assert weights.keys() == first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert far(weights, first) < 1e-9, norm


@pytest.fixture
def one(tmp_path):
    """An experiment of a row that trains in processes and one that does not; the first one's weights, made alone."""
    write_experiment(tmp_path, rows=ROWS)
    store.prepare("digits")
    experiment = load(str(tmp_path / "tiny.yaml"))
    run = experiment.run("digits", "bntt", 0)
    pipeline.train(experiment, run, tmp_path / "alone", "cpu")
    return experiment, run, RunDirectory.of(run, tmp_path / "alone").weights()


def train(count, folder, *options, row="bntt"):
    return in_processes(count, "-m", "bntt", "train", "--experiment", folder / "tiny.yaml", "--row", row,
                        "--results", folder / "results", "--device", "cpu", *options)  # fmt: skip


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(tmp_path, one):
    experiment, run, alone = one
    stopping = train(2, tmp_path, "--save-steps", 1, "--minutes", "0.00001")
    said = stopping.communicate(timeout=120)
    assert stopping.returncode != 0
    assert "stopped because its minutes are over; run it again to continue" in said[1]

    class After(Checkpoints):  # stops in this process after four more steps
        def due(self):
            self.asked = getattr(self, "asked", 0) + 1
            return super().due() or self.asked == 4

        def saved(self):
            super().saved()
            raise Stopped("in the middle", interrupted=False)

    with pytest.raises(Stopped, match="in the middle"):
        pipeline.train(experiment, run, tmp_path / "results", "cpu", After)
    ending = train(3, tmp_path)
    said = ending.communicate(timeout=120)
    assert ending.returncode == 0, said
    assert said[0].count("done") == 1
    directory = RunDirectory.of(run, tmp_path / "results")
    assert (
        far(alone, directory.weights()) < 1e-3
    )  # a spike may flip in float32; without the saved steps it is above 0.1
    record = directory.training()
    assert (record["processes"], record["pieces"], record["steps"]) == (3, 3, 12)
    assert not list(directory.scratch.glob("*.pt"))
    again = train(2, tmp_path)
    assert "already trained" in again.communicate(timeout=120)[0]


@pytest.mark.slow
def test_a_signal_to_all_saves_one_state_at_one_step(tmp_path, one):
    _, run, _ = one
    scratch = RunDirectory.of(run, tmp_path / "results").scratch
    # So many epochs that it does not end before the signal.
    write_experiment(tmp_path, rows={"bntt": {**ROWS["bntt"], "epochs": 100_000}})
    process = train(2, tmp_path, "--save-steps", 1)
    while not list(scratch.glob("state-*.pt")):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert said.count("run it again to continue") == 2
    assert json.loads((scratch / "belongs_to.json").read_text())
    assert not (scratch / "owner.lock").exists()


@pytest.mark.slow
def test_a_method_that_does_not_train_so_says_it_in_one_line(tmp_path, one):
    process = train(2, tmp_path, row="mpbn")
    said = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "row mpbn: method mpbn does not train in several processes" in said


def test_one_process_needs_no_others(tmp_path, one):
    assert together.of_first("value") == "value"
    _, run, _ = one
    record = RunDirectory.of(run, tmp_path / "alone").training()
    assert record["processes"] == 1
