"""A training that was stopped, killed or robbed of its newest state goes on as if nothing had happened."""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from tiny import FORKED, assert_one_line, one_row, result, same

from bntt.commands import NOT_FINISHED, main
from bntt.common.errors import Stopped, UserError
from bntt.experiment import code_hash
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints, Ledger, States, Stop
from bntt.runs.directory import RunDirectory
from bntt.training import loop

torch.set_num_threads(1)

ROWS = {
    "surrogate": {"method": "surrogate", "time_steps": 2, "epochs": 4},
    "surrogate-plain": {"method": "surrogate", "norm": "none", "time_steps": 2, "epochs": 4, "gain": 4.0},
    "ann-dropout": {"method": "ann", "dropout": 0.4, "epochs": 4},
    "ann-bn": {"method": "ann", "batch_norm": True, "epochs": 4},
    "best-on-test": {"method": "ann", "dropout": 0.0, "epochs": 4, "selection": "best-test"},
}
EVERY_STEP = partial(Checkpoints, every_steps=1)


@pytest.fixture(scope="module", autouse=True)
def _weights_are_selected_after_every_epoch():
    """So that a few epochs do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "SELECTION_EPOCHS", 1)
        yield


def row(folder: Path, name: str, **changed):
    """An experiment of one of the rows, and its run."""
    return one_row(folder, protocol={"crop_padding": 1}, **ROWS[name] | changed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a row's training comes to that nothing stopped; trained once."""

    @cache
    def train(name: str) -> tuple:
        folder = tmp_path_factory.mktemp(name)
        used, run = row(folder, name)
        pipeline.train(used, run, folder, "cpu", EVERY_STEP)
        return result(run, folder)

    return train


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so: the one item of a list."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def states(run, root) -> tuple[Path, Path]:
    return States(RunDirectory.of(run, root).scratch, {}).files


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


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("every_steps", "pieces"), [(1, 3), (3, 3), (5, 1)])
def test_a_stopped_training_ends_bit_for_bit_like_another(tmp_path, monkeypatch, whole, name, every_steps, pieces):
    used, run = row(tmp_path, name)
    keep = partial(Checkpoints, every_steps=every_steps)
    interrupt(monkeypatch, used, run, tmp_path, 5, keep)  # in the second epoch of three steps each
    interrupt(monkeypatch, used, run, tmp_path, 5, keep)  # goes on after the first, into the third
    torch.manual_seed(99)  # the state of torch's own generator is no matter
    pipeline.train(used, run, tmp_path, "cpu", keep)
    assert same(result(run, tmp_path), whole(name))
    assert RunDirectory.of(run, tmp_path).training()["pieces"] == pieces
    assert not any(path.exists() for path in states(run, tmp_path))


def test_a_training_goes_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    used, run = row(tmp_path, "surrogate")
    interrupt(monkeypatch, used, run, tmp_path, 9)  # eight steps are done, of three in an epoch
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path, "cpu")
    assert len(steps) == 4
    assert RunDirectory.of(run, tmp_path).training()["steps"] == 12


def test_the_seconds_of_all_pieces_count_and_those_between_them_do_not(tmp_path, clock):
    for piece in (1, 2, 3):
        clock[0] += 1e6
        checkpoints = Checkpoints(tmp_path)
        checkpoints.load()
        clock[0] += 100 * piece
        assert checkpoints.seconds == checkpoints.ledger.spent.seconds == [100, 300, 600][piece - 1]
        assert checkpoints.ledger.spent.pieces == piece
        checkpoints.save({})


def test_a_state_is_due_after_so_many_minutes_or_steps(tmp_path, clock):
    minutes = Checkpoints(tmp_path, every_minutes=5)
    for _ in range(2):
        clock[0] += 299
        assert not minutes.due()
        clock[0] += 1
        assert minutes.due()
        minutes.save({})
    steps = Checkpoints(tmp_path, every_steps=3)
    for _ in range(2):
        clock[0] += 100
        assert [steps.due() for _ in range(3)] == [False, False, True]
        steps.save({})


def test_the_machines_of_all_pieces_are_recorded(tmp_path, monkeypatch):
    used, run = row(tmp_path, "surrogate")
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
        ledger = Ledger(joules=lambda reading=reading: reading[0])
        checkpoints = Checkpoints(tmp_path, ledger=ledger)
        checkpoints.load()
        reading[0] = end
        assert ledger.spent.joules == [30, 42][piece]
        checkpoints.save({})
    without = Checkpoints(tmp_path)
    without.load()
    assert without.ledger.spent.joules is None


@pytest.mark.parametrize("other", ["options", "code"])
def test_the_state_of_another_configuration_or_code_is_not_used(tmp_path, monkeypatch, capfd, whole, other):
    before, its_run = row(tmp_path, "surrogate", **{"leak": 0.5} if other == "options" else {})
    with monkeypatch.context() as patched:
        if other == "code":
            patched.setattr(code_hash, "training_code", lambda run: "0" * 16)
        interrupt(patched, before, its_run, tmp_path, 8)
    used, run = row(tmp_path, "surrogate")
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path, "cpu", EVERY_STEP)
    assert len(steps) == 12
    assert "of another configuration, code or data and not used" in capfd.readouterr().err
    assert same(result(run, tmp_path), whole("surrogate"))


# -- damaged states ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A training of which five steps were taken, and a state saved after each."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patched:
        interrupt(patched, *row(folder, "surrogate"), folder, 6)
    return folder


@pytest.mark.parametrize("damage", ["empty", "no state", "truncated", "a bit", "missing", "a pickle"])
def test_a_damaged_state_falls_back_to_the_other_with_a_warning(
    tmp_path, monkeypatch, capfd, whole, interrupted, damage
):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    used, run = row(tmp_path, "surrogate")
    state = max(states(run, tmp_path), key=lambda path: path.stat().st_mtime_ns)
    content = state.read_bytes()

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "opened"),))

    if damage == "missing":
        state.unlink()
    elif damage == "a pickle":
        torch.save({"model": Trap()}, state)
    else:
        turned = bytearray(content)
        turned[len(content) // 2] ^= 4
        damaged = {"empty": b"", "no state": b"not a state", "truncated": content[:1000], "a bit": bytes(turned)}
        state.write_bytes(damaged[damage])
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path, "cpu")
    assert len(steps) == 12 - 4
    assert damage == "missing" or f"{state} is damaged and not used" in capfd.readouterr().err
    assert not (tmp_path / "opened").exists()
    assert same(result(run, tmp_path), whole("surrogate"))


def test_where_both_are_damaged_training_starts_anew(tmp_path, monkeypatch, capfd, interrupted):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    used, run = row(tmp_path, "surrogate")
    for state in states(run, tmp_path):
        state.write_bytes(b"lost")
    with steps_counted(monkeypatch) as steps:
        pipeline.train(used, run, tmp_path, "cpu")
    assert len(steps) == 12
    assert capfd.readouterr().err.count("is damaged and not used") == 2


def test_a_whole_state_that_torch_cannot_read_is_one_line(tmp_path, monkeypatch):
    kept = States(tmp_path, {})
    monkeypatch.setattr(torch, "save", lambda content, buffer: buffer.write(b"of a later version"))
    kept.save("any")
    (file,) = tmp_path.glob("*.pt")
    with pytest.raises(UserError) as raised:
        States(tmp_path, {}).load()
    assert_one_line(raised.value, str(file), "delete it to start again")


@pytest.mark.parametrize("number", range(5))
def test_a_failing_write_leaves_the_newest_state_in_place(tmp_path, monkeypatch, number):
    kept = States(tmp_path, {})
    for step in range(number):
        kept.save(step)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space"):
            kept.save(number)
    before = States(tmp_path, {}).load()
    assert before == (number - 1 if number else None)
    content = {path: path.read_bytes() for path in kept.files if path.exists()}
    kept.save(number)  # a second try goes to the same file as the first, which is not the newest's
    newest = next(path for path in kept.files if path.exists() and path.read_bytes() != content.get(path))
    assert States(tmp_path, {}).load() == number
    newest.unlink()
    assert States(tmp_path, {}).load() == before


def test_the_older_of_two_states_is_overwritten(tmp_path):
    """Also where another process goes on, and where the newest was lost."""
    for step in range(6):
        kept = States(tmp_path, {})
        kept.load()
        kept.save(step)
        before = {path: path.read_bytes() for path in kept.files if path.exists()}
        kept.save(step + 0.5)
        assert sum(path.read_bytes() == before.get(path) for path in kept.files) == 1
        assert States(tmp_path, {}).load() == step + 0.5
        if step % 2:
            newest = next(path for path in kept.files if path.read_bytes() != before.get(path))
            newest.write_bytes(b"lost")
            assert States(tmp_path, {}).load() == step


# -- told to stop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", Stop.SIGNALS)
def test_a_signal_saves_and_stops_at_the_next_step(tmp_path, monkeypatch, capsys, whole, number):
    _, run = row(tmp_path, "surrogate")
    before = signal.getsignal(number)
    real, steps = torch.optim.SGD.step, []

    def step(self, *arguments, **settings):
        steps.append(1)
        if len(steps) == 7:
            os.kill(os.getpid(), number)
        return real(self, *arguments, **settings)

    command = ["train", "--experiment", str(tmp_path / "one.yaml"), "--row", "row", "--device", "cpu"]
    command += ["--results", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.SGD, "step", step)
        assert main(command) == (130 if number == signal.SIGINT else NOT_FINISHED)
        assert len(steps) == 7
    assert signal.getsignal(number) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"stopped by {number.name}; run it again to continue" in error
    with steps_counted(monkeypatch) as steps:
        assert main(command) == 0
    assert len(steps) == 5
    assert same(result(run, tmp_path), whole("surrogate"))


def test_the_signals_are_those_of_batch_systems_and_the_keyboard():
    assert set(Stop.SIGNALS) == {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT}


@pytest.fixture
def handled():
    """The signals that reach a handler which was there before."""
    reached: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: reached.append(number)) for number in Stop.SIGNALS}
    yield reached
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", Stop.SIGNALS)
@pytest.mark.parametrize("first", Stop.SIGNALS)
def test_a_second_signal_acts_as_ever(handled, first, second):
    stop = Stop()
    stop.stop_if_due()
    with stop.listening():
        assert stop.reason is None
        signal.raise_signal(first)
        assert (stop.reason, handled) == (f"stopped by {first.name}", [])
        signal.raise_signal(second)
        assert (stop.reason, handled) == (f"stopped by {first.name}", [second])
    with pytest.raises(Stopped) as raised:
        stop.stop_if_due()
    assert raised.value.interrupted == (first == signal.SIGINT)


def test_signals_are_left_alone_outside_and_in_other_threads(handled):
    stop = Stop()

    def listen():
        with stop.listening():
            began.set()
            done.wait(60)

    began, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=listen)
    thread.start()
    assert began.wait(60)
    signal.raise_signal(signal.SIGTERM)
    done.set()
    thread.join()
    with pytest.raises(ZeroDivisionError), stop.listening():
        raise ZeroDivisionError
    signal.raise_signal(signal.SIGUSR1)
    assert (stop.reason, handled) == (None, [signal.SIGTERM, signal.SIGUSR1])


def test_the_minutes_are_over_when_they_are_over(clock):
    stop = Stop(minutes=2)
    clock[0] += 119
    assert stop.reason is None
    clock[0] += 1
    with pytest.raises(Stopped, match="its minutes are over"):
        stop.stop_if_due()


def test_training_in_pieces_of_no_time_takes_a_step_in_each(tmp_path, whole):
    used, run = row(tmp_path, "ann-dropout")
    pieces = 0
    while True:
        pieces += 1
        try:
            pipeline.train(used, run, tmp_path, "cpu", partial(Checkpoints, minutes=0))
            break
        except Stopped as stopped:
            assert "its minutes are over" in str(stopped)
    assert pieces == 13  # the last finds every step taken
    assert RunDirectory.of(run, tmp_path).training()["pieces"] == 13
    assert same(result(run, tmp_path), whole("ann-dropout"))


@pytest.mark.parametrize("option", ["--minutes", "--save-minutes", "--save-steps"])
def test_times_that_are_no_times_are_one_line(tmp_path, capsys, option):
    row(tmp_path, "surrogate")
    assert main(["train", "--experiment", str(tmp_path / "one.yaml"), "--row", "row", option, "0"]) == 2
    assert f"{option} must be above 0, not 0" in capsys.readouterr().err


# -- killed with SIGKILL ----------------------------------------------------------------------------------

KILLED = {
    "bntt": ({"method": "surrogate", "time_steps": 2, "epochs": 120}, 12),
    "no-norm": ({"method": "surrogate", "norm": "none", "time_steps": 2, "epochs": 80, "gain": 4.0}, 3),
    "pooled": ({"method": "surrogate", "norm": "bn-pooled", "time_steps": 2, "epochs": 80}, 3),
    "ann": ({"method": "ann", "dropout": 0.4, "epochs": 400}, 3),
    "ann-bn": ({"method": "ann", "batch_norm": True, "epochs": 400}, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_kill_minus_nine_at_random_moments(tmp_path, name):
    """One process after the other is killed, some time after it began to save states; the last one may end."""
    options, kills = KILLED[name]
    used, run = one_row(tmp_path, protocol={"crop_padding": 1}, **options)
    pipeline.train(used, run, tmp_path / "whole", "cpu")
    command = ["train", "--experiment", str(tmp_path / "one.yaml"), "--row", "row"]
    command += ["--results", str(tmp_path / "killed"), "--device", "cpu", "--save-steps", "1"]
    draws, killed = random.Random(name), 0
    while killed < kills:
        process = FORKED.Process(target=main, args=(command,))
        process.start()
        before = [path.stat().st_mtime_ns if path.exists() else 0 for path in states(run, tmp_path / "killed")]
        while process.is_alive():
            process.join(0.001)
            with contextlib.suppress(FileNotFoundError):
                if [path.stat().st_mtime_ns for path in states(run, tmp_path / "killed")] != before:
                    break
        process.join(draws.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the training ended before it could be killed"
        killed += 1
    assert not RunDirectory.of(run, tmp_path / "killed").train_json.exists()
    pipeline.train(used, run, tmp_path / "killed", "cpu")
    assert RunDirectory.of(run, tmp_path / "killed").training()["pieces"] == kills + 1
    assert same(result(run, tmp_path / "killed"), result(run, tmp_path / "whole"))
