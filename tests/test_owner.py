"""A run directory has one owner: races of real processes, dead owners, lost ones, and owners that were taken over."""

import signal
import subprocess
import sys

import pytest
from tiny import PROJECT

from bntt.common.errors import UserError
from bntt.runs import owner

# Each process owns the folder in turn, and finds out whether another is inside: a file that it makes must not exist.
RACER = """
import os, sys
from pathlib import Path
from bntt.runs import owner
owner.POLL = 0.001
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    with owner.owned(folder, "run"):
        inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
        os.close(inside)
        with open(folder / "count", "a") as stream:
            stream.write(f"{os.getpid()}\\n")
        os.unlink(folder / "inside")
"""
HOLDER = """
import sys, time
from pathlib import Path
from bntt.runs import owner
with owner.owned(Path(sys.argv[1]), "run"):
    print("owned", flush=True)
    sys.stdin.read()
"""


def started(code, *arguments, **settings):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=PROJECT, text=True, **settings)


def test_in_a_hundred_races_there_are_never_two_owners(tmp_path):
    racers, rounds = 4, 25
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [started(RACER, tmp_path, rounds, **pipes) for _ in range(racers)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        complaints = process.communicate(timeout=120)[1]
        assert process.returncode == 0, complaints
    owners = (tmp_path / "count").read_text().split()
    assert sorted(map(owners.count, set(owners))) == [rounds] * racers
    assert not (tmp_path / "owner.lock").exists()


def test_who_waits_is_told_the_owner_and_takes_over_when_it_is_killed(tmp_path):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    first = started(HOLDER, tmp_path, **pipes)
    assert first.stdout.readline() == "owned\n"
    second = started(HOLDER, tmp_path, **pipes)
    said = second.stderr.readline()
    assert said.startswith(f"bntt: run: waiting for process {first.pid} on ")
    assert "at work on it since 20" in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.stdout.readline() == "owned\n"
    assert f"pid={second.pid}" in (tmp_path / "owner.lock").read_text().splitlines()
    second.communicate()
    assert second.returncode == 0


def on_a_lost_machine(folder):
    """An owner's lock whose machine is another one: its process cannot be looked at."""
    with owner.owned(folder, "run"):
        content = (folder / "owner.lock").read_text()
    assert "host=" in content
    lines = ["host=lost-machine" if line.startswith("host=") else line for line in content.splitlines()]
    (folder / "owner.lock").write_text("\n".join(lines) + "\n")


def test_an_owner_on_a_lost_machine_is_waited_for_until_its_lease_is_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(owner, "LEASE", 0.3)
    monkeypatch.setattr(owner, "POLL", 0.01)
    on_a_lost_machine(tmp_path)
    with owner.owned(tmp_path, "run"):
        assert "lost-machine" not in (tmp_path / "owner.lock").read_text()
    assert "on lost-machine" in capsys.readouterr().err


def test_an_owner_that_was_taken_over_writes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "POLL", 0.01)
    with owner.owned(tmp_path, "results/run") as check:
        check()
        own = (tmp_path / "owner.lock").read_text()
        (tmp_path / "owner.lock").write_text(own.replace("token=", "token=0"))
        with pytest.raises(UserError, match="results/run: taken over by process"):
            check()
        (tmp_path / "owner.lock").unlink()  # no disk, or no answer: nobody has taken over
        check()


def test_an_owner_that_was_taken_over_leaves_what_the_new_one_says_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "POLL", 0.01)
    with owner.owned(tmp_path, "results/run"):
        own = (tmp_path / "owner.lock").read_text()
        (tmp_path / "owner.lock").write_text(own.replace("token=", "token=0"))
    assert (tmp_path / "owner.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write to .*scratch: .*; choose a folder"),
        owner.owned(tmp_path / "file/scratch", "run"),
    ):
        pass
