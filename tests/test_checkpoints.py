"""A training that was stopped, killed or robbed of its newest state goes on as if nothing had happened."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import PROJECT, assert_one_line, environment, one_row, result, same

from bntt.commands import NOT_FINISHED, main
from bntt.common.errors import Stopped, UserError
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory

torch.set_num_threads(1)

ROWS = {
    "surrogate": {"method": "surrogate", "time_steps": 2, "epochs": 4},
    "surrogate-plain": {"method": "surrogate", "norm": "none", "time_steps": 2, "epochs": 4, "gain": 4.0},
    "ann-dropout": {"method": "ann", "dropout": 0.4, "epochs": 4},
    "ann-bn": {"method": "ann", "batch_norm": True, "epochs": 4},
    "best-on-test": {"method": "ann", "dropout": 0.0, "epochs": 22, "selection": "best-test"},
}
EVERY_STEP = partial(Checkpoints, every_steps=1)


def states(run, root) -> tuple[Path, Path]:
    return Checkpoints(RunDirectory.of(run, root).scratch).files


class Killed(BaseException):
    """Ends a training as a kill would: nothing is cleaned up."""


@contextlib.contextmanager
def steps_counted(monkeypatch, kill_at=None):
    """The optimiser's steps, of which one may be the end."""
    real, steps = torch.optim.SGD.step, []

    def step(self, *arguments, **settings):
        steps.append(1)
        if len(steps) == kill_at:
            raise Killed
        return real(self, *arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.SGD, "step", step)
        yield steps


def interrupt(monkeypatch, used, run, root, at_step, keep=EVERY_STEP):
    with steps_counted(monkeypatch, at_step), pytest.raises(Killed):
        pipeline.train(used, run, root, "cpu", keep)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("every_steps", "pieces"), [(1, 3), (3, 3), (5, 1)])
def test_a_stopped_training_ends_bit_for_bit_like_another(tmp_path, monkeypatch, row, every_steps, pieces):
    used, run = one_row(tmp_path, protocol={"crop_padding": 1}, **ROWS[row])
    keep = partial(Checkpoints, every_steps=every_steps)
    pipeline.train(used, run, tmp_path / "whole", "cpu", keep)
    interrupt(monkeypatch, used, run, tmp_path / "stopped", 5, keep)  # in the second epoch of three steps each
    interrupt(monkeypatch, used, run, tmp_path / "stopped", 5, keep)  # goes on after the first, into the third
    torch.manual_seed(99)  # the state of torch's own generator is no matter
    pipeline.train(used, run, tmp_path / "stopped", "cpu", keep)
    assert same(result(run, tmp_path / "stopped"), result(run, tmp_path / "whole"))
    assert RunDirectory.of(run, tmp_path / "stopped").training()["pieces"] == pieces
    assert not any(path.exists() for path in states(run, tmp_path / "stopped"))


def test_a_training_goes_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    interrupt(monkeypatch, used, run, tmp_path, 9)  # eight steps are done, of three in an epoch
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path, "cpu")
    assert len(steps) == 4
    assert RunDirectory.of(run, tmp_path).training()["steps"] == 12


def test_the_seconds_of_all_pieces_count(tmp_path, monkeypatch):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    interrupt(monkeypatch, used, run, tmp_path, 9)
    for path in states(run, tmp_path):
        checkpoints = Checkpoints(tmp_path / "other")
        checkpoints.load()
        checkpoints._spent_before = 1000.0
        path.unlink()
    checkpoints.save({"anything": 1})
    again = Checkpoints(tmp_path / "other")
    assert again.load() == {"anything": 1}
    assert again.pieces == 2
    assert 1000 < again.seconds < 1060


def test_the_machines_of_all_pieces_are_recorded(tmp_path, monkeypatch):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    for machine in ("one", "another", "one"):
        with monkeypatch.context() as patched:
            patched.setattr(pipeline.provenance, "machine", lambda device, machine=machine: f"{device} ({machine})")
            interrupt(patched, used, run, tmp_path, 4, partial(Checkpoints, every_steps=1))
    pipeline.train(used, run, tmp_path, "cpu")
    recorded = RunDirectory.of(run, tmp_path).training()
    assert recorded["machines"][:2] == ["cpu (one)", "cpu (another)"]
    assert recorded["machines"][2].startswith("cpu (")  # this one
    assert recorded["pieces"] == 4


def test_the_energy_of_all_pieces_counts(tmp_path):
    """A meter that starts anywhere, as another machine's does."""
    for piece, (start, end) in enumerate([(700.0, 730.0), (5.0, 17.0)]):
        reading = [start]
        checkpoints = Checkpoints(tmp_path)
        checkpoints.metered_by(lambda reading=reading: reading[0])
        checkpoints.load()
        reading[0] = end
        assert checkpoints.joules == [30, 42][piece]
        checkpoints.save({})
    without = Checkpoints(tmp_path)
    without.load()
    assert without.joules is None


@pytest.mark.parametrize("other", ["options", "code"])
def test_the_state_of_another_configuration_or_code_is_not_used(tmp_path, monkeypatch, capfd, other):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    pipeline.train(used, run, tmp_path / "whole", "cpu")
    before, its_run = one_row(tmp_path, **ROWS["surrogate"] | ({"leak": 0.5} if other == "options" else {}))
    with monkeypatch.context() as patched:
        if other == "code":
            patched.setattr(pipeline.code, "training_code", lambda run: "0" * 16)
        interrupt(patched, before, its_run, tmp_path / "stopped", 8)
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path / "stopped", "cpu", EVERY_STEP)
    assert len(steps) == 12
    assert "of another configuration, code or data and not used" in capfd.readouterr().err
    assert same(result(run, tmp_path / "stopped"), result(run, tmp_path / "whole"))


# -- damaged states ---------------------------------------------------------------------------------------


def newest(run, root) -> Path:
    return max(states(run, root), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("damage", ["empty", "no state", "truncated", "a bit", "missing", "a pickle"])
def test_a_damaged_state_falls_back_to_the_other_with_a_warning(tmp_path, monkeypatch, capfd, damage):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    pipeline.train(used, run, tmp_path / "whole", "cpu")
    interrupt(monkeypatch, used, run, tmp_path / "stopped", 6)
    state = newest(run, tmp_path / "stopped")
    whole = state.read_bytes()

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "opened"),))

    if damage == "missing":
        state.unlink()
    elif damage == "a pickle":
        torch.save({"model": Trap()}, state)
    else:
        turned = bytearray(whole)
        turned[len(whole) // 2] ^= 4
        content = {"empty": b"", "no state": b"not a state", "truncated": whole[:1000], "a bit": bytes(turned)}
        state.write_bytes(content[damage])
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path / "stopped", "cpu")
    assert len(steps) == 12 - 4
    assert damage == "missing" or f"{state} is damaged and not used" in capfd.readouterr().err
    assert not (tmp_path / "opened").exists()
    assert same(result(run, tmp_path / "stopped"), result(run, tmp_path / "whole"))


def test_where_both_are_damaged_training_starts_anew(tmp_path, monkeypatch, capfd):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    interrupt(monkeypatch, used, run, tmp_path, 6)
    for state in states(run, tmp_path):
        state.write_bytes(b"lost")
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path, "cpu")
    assert len(steps) == 12
    assert capfd.readouterr().err.count("is damaged and not used") == 2


def test_a_whole_state_that_torch_cannot_read_is_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.load()
    monkeypatch.setattr(torch, "save", lambda content, buffer: buffer.write(b"of a later version"))
    checkpoints.save({"any": 1})
    with pytest.raises(UserError) as raised:
        Checkpoints(tmp_path).load()
    assert_one_line(raised.value, str(checkpoints.files[0]), "delete it to start anew")


@pytest.mark.parametrize("number", range(5))
def test_a_failing_write_leaves_the_newest_state_in_place(tmp_path, monkeypatch, number):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.load()
    for step in range(number):
        checkpoints.save({"step": step})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space"):
            checkpoints.save({"step": number})
    found = Checkpoints(tmp_path).load()
    assert found == ({"step": number - 1} if number else None)


# -- told to stop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_stops_at_the_next_step(tmp_path, monkeypatch, capsys, number):
    used, run = one_row(tmp_path, **ROWS["surrogate"])
    pipeline.train(used, run, tmp_path / "whole", "cpu")
    before = signal.getsignal(number)
    real, steps = torch.optim.SGD.step, []

    def step(self, *arguments, **settings):
        steps.append(1)
        if len(steps) == 7:
            os.kill(os.getpid(), number)
        return real(self, *arguments, **settings)

    command = ["train", "--experiment", str(tmp_path / "one.yaml"), "--row", "row", "--device", "cpu"]
    command += ["--results", str(tmp_path / "stopped")]
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.SGD, "step", step)
        assert main(command) == (130 if number == signal.SIGINT else NOT_FINISHED)
        assert len(steps) == 7
    assert signal.getsignal(number) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"stopped by {number.name}; run it again to go on" in error
    with steps_counted(monkeypatch) as steps:
        assert main(command) == 0
    assert len(steps) == 5
    assert same(result(run, tmp_path / "stopped"), result(run, tmp_path / "whole"))


def test_training_in_pieces_of_no_time_takes_a_step_in_each(tmp_path):
    used, run = one_row(tmp_path, **ROWS["ann-dropout"])
    pipeline.train(used, run, tmp_path / "whole", "cpu")
    pieces = 0
    while True:
        pieces += 1
        try:
            pipeline.train(used, run, tmp_path / "pieces", "cpu", partial(Checkpoints, minutes=0))
            break
        except Stopped as stopped:
            assert "its minutes are over" in str(stopped)
    assert pieces == 13  # the last finds every step taken
    assert RunDirectory.of(run, tmp_path / "pieces").training()["pieces"] == 13
    assert same(result(run, tmp_path / "pieces"), result(run, tmp_path / "whole"))


@pytest.mark.parametrize("option", ["--minutes", "--save-minutes", "--save-steps"])
def test_times_that_are_no_times_are_one_line(tmp_path, capsys, option):
    one_row(tmp_path, **ROWS["surrogate"])
    assert main(["train", "--experiment", str(tmp_path / "one.yaml"), "--row", "row", option, "0"]) == 2
    assert f"{option} must be above 0, not 0" in capsys.readouterr().err


# -- killed with SIGKILL ----------------------------------------------------------------------------------

KILLED = {
    "bntt": ({"method": "surrogate", "time_steps": 2, "epochs": 400}, 25),
    "no-norm": ({"method": "surrogate", "norm": "none", "time_steps": 2, "epochs": 400, "gain": 4.0}, 3),
    "pooled": ({"method": "surrogate", "norm": "bn-pooled", "time_steps": 2, "epochs": 400}, 3),
    "ann": ({"method": "ann", "dropout": 0.4, "epochs": 1200}, 3),
    "ann-bn": ({"method": "ann", "batch_norm": True, "epochs": 1200}, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_kill_minus_nine_at_random_moments(tmp_path, name):
    """One process after the other is killed, some time after it began to save states; the last one may end."""
    row, kills = KILLED[name]
    used, run = one_row(tmp_path, protocol={"crop_padding": 1}, **row)
    pipeline.train(used, run, tmp_path / "whole", "cpu")
    command = [sys.executable, "-m", "bntt", "train", "--experiment", str(tmp_path / "one.yaml"), "--row", "row"]
    command += ["--results", str(tmp_path / "killed"), "--device", "cpu", "--save-steps", "1"]
    draws, killed = random.Random(name), 0
    while killed < kills:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment(), stdout=subprocess.DEVNULL)
        before = [path.stat().st_mtime_ns if path.exists() else 0 for path in states(run, tmp_path / "killed")]
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if [path.stat().st_mtime_ns for path in states(run, tmp_path / "killed")] != before:
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draws.uniform(0, 0.03))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"
        killed += 1
    assert not RunDirectory.of(run, tmp_path / "killed").train_json.exists()
    pipeline.train(used, run, tmp_path / "killed", "cpu")
    assert RunDirectory.of(run, tmp_path / "killed").training()["pieces"] == kills + 1
    assert same(result(run, tmp_path / "killed"), result(run, tmp_path / "whole"))
