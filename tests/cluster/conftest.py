"""A cluster for each test process, an experiment of which one row is finished, and how often faults are repeated."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import EXPERIMENT, environment, experiment, made_once

from bntt.runs import pipeline

from .slurm import USER, Cluster, missing, wait_for

# The first row is finished when a test begins, and the second takes long enough for something to happen.
ROWS = {
    "quick": EXPERIMENT["rows"]["ann"],
    "long": EXPERIMENT["rows"]["bntt"] | {"epochs": 250},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, help="how often each fault happens, each time at another moment")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("times", 1)))  # no option in a run of all tests


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two nodes, with four GPUs and with one."""
    if lacking := missing():
        pytest.fail(f"these tests need a Slurm, and there is no {', '.join(lacking)}: run tests/cluster/install.sh")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster", {"a": 4, "b": 1}) as running:
        yield running


@contextmanager
def on_the_cluster(cluster: Cluster, project: Path, *targets: str, **extra: str) -> Iterator[subprocess.Popen]:
    """Snakemake at work on the cluster with the project's profile; afterwards neither it nor a job of it is left."""
    # The profile as it is, but for less memory than a job would have to fill and less waiting between questions.
    options = ["--workflow-profile", "profiles/slurm", "--default-resources", "mem_mb=1000", "runtime=30",
               "slurm_extra='--signal=TERM@120'", "--slurm-init-seconds-before-status-checks", "5",
               "--config", "experiment=tiny", "--"]  # fmt: skip
    settings = environment(BNTT_DATA="data", PYTHONDONTWRITEBYTECODE="", **cluster.environment, **extra)
    with (project / "snakemake.log").open("a") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "snakemake", *options, *targets],
            cwd=project, env=settings,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            cluster.run("scancel", f"--user={USER}")
            wait_for(lambda: not cluster.jobs(), "the end of what the test left")


def end_of(process: subprocess.Popen, project: Path, seconds: float = 300) -> None:
    """Wait for a Snakemake that must end well."""
    try:
        ended = process.wait(seconds)
    except subprocess.TimeoutExpired:
        ended = f"no end within {seconds:g} seconds"
    assert ended == 0, f"{ended}\n{(project / 'snakemake.log').read_text()[-6000:]}"


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Results of both rows, computed in this process: without a cluster, without Snakemake and without a fault."""

    def make(root: Path) -> None:
        used = experiment(root, rows=ROWS)
        for run in used.runs:
            pipeline.train(used, run, root, "cpu")
            pipeline.evaluate(used, run, root, "cpu")

    return made_once(tmp_path_factory, "finished", make)
