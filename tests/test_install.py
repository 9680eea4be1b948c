"""`make` can be killed at any moment and run again.

The processes are real, and really killed; only pip is played by `python -c`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import demo
import install
import psutil
import pytest
from guard import Guard

SCRIPTS = Path(__file__).parent.parent / "scripts"
FOREVER = "import time; time.sleep(600)"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "a path with space"
    root.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (root / name).write_text(name)
    return root


@pytest.fixture
def spawn():
    """Start Python code that can import the scripts; whatever still runs after the test is killed."""
    started = []

    def spawn(code, *arguments, **environ):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(SCRIPTS)} | environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def step(root, code=""):
    """Write an installation step that notes its call, and its process, in `steps`."""
    note = f"import os; open({str(root / 'steps')!r}, 'a').write(f'{{os.getpid()}}\\n'); {code}"
    return [[".venv/bin/python", "-c", note]]


def calls(root):
    path = root / "steps"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_installs_once_and_again_when_the_lock_changes(root, capsys):
    install.install(root, step(root))
    install.install(root, step(root))
    assert len(calls(root)) == 1
    assert json.loads((root / ".venv/installed.json").read_text())["seconds"] >= 0

    capsys.readouterr()
    (root / "constraints.txt").write_text("newer")
    install.install(root, step(root))
    assert len(calls(root)) == 2
    assert "removing .venv" in capsys.readouterr().out


@pytest.mark.parametrize("stamp", ["", "{", "{}", '{"key": "another"}'])
def test_a_stamp_that_does_not_fit_is_no_stamp(root, stamp):
    (root / ".venv").mkdir()
    (root / ".venv/installed.json").write_text(stamp)
    assert not install.is_whole(root)


def test_a_failing_step_leaves_no_stamp_and_says_where_to_look(root):
    with pytest.raises(SystemExit, match=r"ERROR: no such package .*\.venv/install\.log"):
        install.install(root, step(root, "print('ERROR: no such package'); print('hint'); os._exit(1)"))
    assert not install.is_whole(root)


def test_a_killed_installation_dies_whole_and_is_made_anew(root, spawn):
    code = "import sys, pathlib, install; install.install(pathlib.Path(sys.argv[1]), eval(sys.argv[2]))"
    killed = spawn(code, root, step(root, FOREVER))
    wait_for(lambda: calls(root))
    (root / ".venv/half").touch()
    killed.kill()
    install.install(root, step(root))  # gets the lock only when pip's player is dead
    assert not alive(calls(root)[0])
    assert install.is_whole(root) and not (root / ".venv/half").exists()


def test_the_second_of_two_waits_and_finds_it_done(root, spawn):
    code = "import sys, pathlib, install; install.install(pathlib.Path(sys.argv[1]), eval(sys.argv[2]))"
    wait = f"\nwhile not os.path.exists({str(root / 'go')!r}): pass"
    first = spawn(code, root, step(root, wait))
    wait_for(lambda: calls(root))
    second = spawn(code, root, step(root))
    assert second.stdout.readline() == f"waiting for process {first.pid}, which holds .venv.lock\n"
    (root / "go").touch()
    assert first.wait() == second.wait() == 0
    assert len(calls(root)) == 1


def test_terminate_reaches_the_commands_alone(tmp_path):
    with Guard(tmp_path / "lock") as guard:
        process = guard.start([sys.executable, "-c", FOREVER])
        guard.terminate()
        assert process.wait() == -signal.SIGTERM
        assert guard.watchdog.poll() is None


def test_a_stale_lock_is_removed(root, capsys):
    locks = root / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").touch()
    demo.clear_the_way(root)
    assert not locks.exists()
    assert "removing Snakemake's lock" in capsys.readouterr().out


def test_the_lock_of_a_snakemake_at_work_stays(root, spawn):
    locks = root / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").touch()
    code = f"import os, sys; os.chdir(sys.argv[2]); print('there', flush=True); {FOREVER}"
    spawn(code, "snakemake", root).stdout.readline()
    demo.clear_the_way(root)
    assert locks.exists()


def test_processes_of_a_killed_run_are_ended_and_no_others(root, spawn, capsys):
    ours = spawn(f"print('there', flush=True); {FOREVER}", **{demo.TAG: str(root)})
    other = spawn(f"print('there', flush=True); {FOREVER}", **{demo.TAG: str(root.parent)})
    ours.stdout.readline(), other.stdout.readline()
    demo.clear_the_way(root)
    assert not alive(ours.pid)
    assert alive(other.pid)
    assert f"process {ours.pid}\n" in capsys.readouterr().out


SNAKEFILE = """
rule all:
    input: expand("results/demo/{row}.txt", row=["a", "b"])
rule train:
    output: "results/demo/{row}.txt"
    log: "results/demo/logs/train/{row}.log"
    benchmark: "results/demo/benchmarks/train/{row}.tsv"
    shell:
        "echo $$ > {log:q}; test {wildcards.row} = a || until test -e go; do sleep 0.02; done;"
        "touch {output:q}"
"""


def test_a_killed_demo_dies_whole_and_goes_on_where_it_was(root, spawn, capsys):
    (root / "Snakefile").write_text(SNAKEFILE)
    code = "import sys, pathlib, demo; demo.run(pathlib.Path(sys.argv[1]), 'demo', 2, 0)"
    killed = spawn(code, root)
    logs, done = root / "results/demo/logs", root / "results/demo/a.txt"
    wait_for((logs / "train/b.log").exists)
    wait_for(lambda: "1 of 3" in (logs / "snakemake.log").read_text())
    job, made = int((logs / "train/b.log").read_text()), done.stat().st_mtime_ns
    killed.kill()
    wait_for(lambda: not alive(job))
    (root / "go").touch()
    assert demo.run(root, "demo", 2, 0) == 0
    assert done.stat().st_mtime_ns == made
    output = capsys.readouterr().out
    assert "removing Snakemake's lock" in output
    assert "1/2 done   train row=b" in output
    assert "train                                2" in output  # both jobs' times, the earlier run's too
    assert "results/demo/overview.html" in output


def test_a_failing_job_shows_its_log(root, capsys):
    fault = "echo the reason > {log:q}; exit 3; "
    (root / "Snakefile").write_text(SNAKEFILE.replace("touch", fault + "touch"))
    (root / "go").touch()
    assert demo.run(root, "demo", 2, time.time()) == 1
    output = capsys.readouterr().out
    for row in "ab":
        assert f"FAILED train row={row}" in output
        assert f"The end of {root}/results/demo/logs/train/{row}.log:\n  the reason" in output


def test_overlapping_jobs_are_counted_once():
    assert demo.covered([(0, 2), (1, 3), (5, 6), (5, 5.5)]) == 4
