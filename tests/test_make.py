"""`make` can be killed at any moment and run again: the installation, and the demo.

The processes are real, and really killed; of the project there is as much as shows it.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
from tiny import PROJECT

# What pip asks to build the project: notes each call, waits for the test, and makes an empty wheel.
BACKEND = """
import os, time, zipfile
def build_editable(folder, *_):
    with open("builds", "a") as stream:
        stream.write("build\\n")
    with open("fifo", "w") as stream:
        stream.write("building\\n")
        stream.flush()
        while os.path.exists("wait"):
            time.sleep(0.02)
    with zipfile.ZipFile(os.path.join(folder, "bntt-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("bntt-1.dist-info/METADATA", open("METADATA").read())
        wheel.writestr("bntt-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("bntt-1.dist-info/RECORD", "")
    return "bntt-1-py3-none-any.whl"
"""
SNAKEFILE = """
rule all:
    input: expand("results/demo/{row}.txt", row=["a", "b", "c"])
rule train:
    output: "results/demo/{row}.txt"
    log: "results/demo/logs/{row}.log"
    message: "open {output}"
    shell: "sh {wildcards.row}.sh > {log:q}; touch {output:q}"
"""
HOLD = "trap 'echo told to stop; exit 1' TERM; exec 3>fifo; echo running >&3; while :; do sleep 0.02; done"

# As from a shell, though `make test` may have started these tests.
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in OF_MAKE} | {"PIP_NO_INDEX": "1"}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "a path with space"
    root.mkdir()
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def spawn(root):
    """Start a command in the root, in a group of its own; what still runs after the test is killed."""
    started = []

    def spawn(*command):
        process = subprocess.Popen(
            list(map(str, command)), cwd=root, env=ENVIRONMENT, process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # which tests in the background ignore
        )  # fmt: skip
        started.append(process)
        return process

    yield spawn
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


class Fifo:
    """The reading end of a pipe that a child's child writes to: tells when that one works, and when it is dead."""

    def __init__(self, root):
        self.end = os.open(root / "fifo", os.O_RDONLY | os.O_NONBLOCK)

    def read(self):
        assert select.select([self.end], [], [], 60)[0], "a process outlives the one that started it"
        return os.read(self.end, 100)


def until(process, line):
    for found in process.stdout:
        if line in found:
            return
    raise AssertionError(f"no line with {line!r}")


@pytest.fixture
def project(root):
    shutil.copy(PROJECT / "Makefile", root)
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    extras = "[project.optional-dependencies]\nvision = []\nworkflow = []\ntest = []\n"
    (root / "pyproject.toml").write_text(f'{backend}[project]\nname = "bntt"\nversion = "1"\n{extras}')
    (root / "backend.py").write_text(BACKEND)
    (root / "METADATA").write_text("Metadata-Version: 2.1\nName: bntt\nVersion: 1\n")
    (root / "constraints.txt").touch()
    return root


def stamps(root):
    return list((root / ".venv").glob("made-*"))


def test_an_installation_whose_make_is_killed_is_waited_for_and_used(project, spawn):
    (project / "wait").touch()
    fifo = Fifo(project)
    killed = spawn("make", f"PYTHON={sys.executable}", "install")
    assert fifo.read() == b"building\n"
    killed.kill()  # make alone: its pip goes on
    second = spawn("make", f"PYTHON={sys.executable}", "install")
    assert second.stdout.readline() == "waiting for another installation\n"
    assert not stamps(project)
    (project / "wait").unlink()
    assert second.communicate()[0] == ""
    assert second.returncode == 0
    (stamp,) = stamps(project)
    spawn("make", f"PYTHON={sys.executable}", "install").communicate()
    assert (project / "builds").read_text() == "build\n"

    moved = project.rename(project.parent / "another place")  # where .venv's own paths point to nothing
    ran = subprocess.run(
        ["make", "-n", f"PYTHON={sys.executable}", "install"], cwd=moved, capture_output=True, text=True
    )
    assert "-m venv --clear .venv" in ran.stdout
    assert stamp.name not in ran.stdout


@pytest.mark.slow
def test_a_killed_installation_is_made_anew_and_a_failed_one_says_why(project, spawn):
    (project / "wait").touch()
    fifo = Fifo(project)
    killed = spawn("make", f"PYTHON={sys.executable}", "install")
    assert fifo.read() == b"building\n"
    os.killpg(killed.pid, signal.SIGKILL)
    assert fifo.read() == b""
    assert not stamps(project)
    (project / ".venv/half").touch()
    (project / "wait").unlink()
    again = spawn("make", f"PYTHON={sys.executable}", "install")
    assert "making .venv" in again.communicate()[0]
    assert again.returncode == 0
    assert len(stamps(project)) == 1
    assert not (project / ".venv/half").exists()

    (project / "constraints.txt").write_text("# newer\n")
    with open(project / "METADATA", "a") as stream:
        stream.write("Requires-Dist: nowhere\n")
    failed = spawn("make", f"PYTHON={sys.executable}", "install")
    output = failed.communicate()[0]
    assert failed.returncode != 0
    assert "ERROR: No matching distribution found for nowhere\n" in output
    assert "installation failed (details: .venv/install.log)\n" in output
    assert not stamps(project)


def test_a_python_that_is_too_old_is_told_in_one_line(project, spawn):
    old = project / "old python"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, 10, 13)\n$2"\n')
    old.chmod(0o755)
    ran = spawn("make", f"PYTHON={old}", "install")
    lines = ran.communicate()[0].splitlines()
    assert lines[0] == "Python 3.11 or newer is needed; name one: make PYTHON=python3.11 ..."
    assert len(lines) == 2  # make's own is the other
    assert ran.returncode != 0
    assert not (project / ".venv").exists()


@pytest.fixture
def demo(root):
    for folder in ("scripts", "profiles"):
        shutil.copytree(PROJECT / folder, root / folder)
    (root / "config").mkdir()
    (root / "config/demo.yaml").touch()
    (root / "Snakefile").write_text(SNAKEFILE)
    for row in "abc":
        (root / f"{row}.sh").touch()
    return [sys.executable, root / "scripts/demo.py", "--cores", "3"]


def test_a_killed_demo_dies_whole_and_goes_on_where_it_was(root, demo, spawn):
    (root / "b.sh").write_text(HOLD)
    (root / "c.sh").write_text("until test -e results/demo/a.txt; do sleep 0.02; done; echo the reason; exit 3")
    fifo = Fifo(root)
    killed = spawn(*demo)
    until(killed, "1/4 done   train row=a")
    assert killed.stdout.readline() == "open results/demo/a.txt\n"
    until(killed, "FAILED train row=c")
    assert killed.stdout.readline() == "the end of results/demo/logs/c.log:\n"
    assert killed.stdout.readline() == "  the reason\n"
    assert fifo.read() == b"running\n"
    second = spawn(*demo)
    assert second.stdout.readline() == f"waiting for process {killed.pid}, which is at work here\n"
    for row in "bc":
        (root / f"{row}.sh").write_text("")
    killed.kill()
    assert fifo.read() == b""
    output = second.communicate()[0]
    assert second.returncode == 0, output
    assert "removing the lock that a killed run left\n" in output
    assert "3/3 done   all" in output
    assert "row=a" not in output
    assert output.count("\nopen results/demo/b.txt\n") == 1
    assert "in all; 2 train 0:0" in output
    assert "open results/demo/overview.html first" in output


@pytest.mark.slow
def test_an_interrupted_job_may_end_and_the_lock_of_another_snakemake_stays(root, demo, spawn):
    (root / "b.sh").write_text(HOLD)
    fifo = Fifo(root)
    interrupted = spawn(*demo)
    assert fifo.read() == b"running\n"
    interrupted.send_signal(signal.SIGINT)
    interrupted.communicate()
    assert interrupted.returncode == 130
    assert fifo.read() == b""
    assert (root / "results/demo/logs/b.log").read_text() == "told to stop\n"
    locks = root / ".snakemake/locks"
    assert not locks.exists() or not any(locks.iterdir())

    (root / "b.sh").write_text("")
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/demo/b.txt\n")  # as a Snakemake started by hand has it
    refused = spawn(*demo)
    assert "locked" in refused.communicate()[0]
    assert refused.returncode == 1
    assert list(locks.iterdir()) == [locks / "0.output.lock"]


def test_an_unknown_experiment_is_told_in_one_line(root, demo, spawn):
    ran = spawn(*demo, "demmo")
    assert ran.communicate()[0] == "no experiment 'demmo' in config/; there are: demo\n"
    assert ran.returncode == 1
