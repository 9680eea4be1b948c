"""An experiment goes through every fault of a cluster, at any moment, to the same numbers, and repeats nothing.

`pytest -m cluster tests/cluster --times 3` lets each fault happen at three moments. The number in a test's name is the
seed that decides its moment, and its output says which it was.
"""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tiny import copy_project, digests, write_experiment

from bntt.data import store

from .conftest import ROWS, end_of, on_the_cluster
from .slurm import Cluster, Job, wait_for

pytestmark = pytest.mark.cluster
RUN = "digits/long/seed-0"
TRAINS = "is in the middle of its training"
TARGETS = [f"results/tiny/runs/digits/{row}/seed-0/evaluate.json" for row in ROWS]

# In every Python of a job: one that trains or measures fills its memory as soon as the file $FILL_MEMORY is there.
FILL = """
import os, sys, threading, time
def fill():
    while True:
        try:
            os.unlink(os.environ["FILL_MEMORY"])
        except FileNotFoundError:
            time.sleep(0.05)
        else:
            filled = b"1" * 1_500_000_000
            time.sleep(600)
if sys.orig_argv[1:3] == ["-m", "bntt"] and "FILL_MEMORY" in os.environ:
    threading.Thread(target=fill, daemon=True).start()
"""


@dataclass
class Scene:
    """What a fault can reach."""

    cluster: Cluster
    project: Path
    draw: random.Random
    seconds: float  # that the training takes without a fault
    settings: dict[str, str]
    stack: ExitStack = field(default_factory=ExitStack)
    process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = self.stack.enter_context(on_the_cluster(self.cluster, self.project, *TARGETS, **self.settings))

    def job(self, rule: str = "") -> Job:
        """The job that is running; it is the only one. Waits for it."""

        def running() -> Job | None:
            return next((j for j in self.cluster.jobs("running") if rule in j.comment), None)

        return wait_for(running, f"a job {rule}", 120)

    def wait_for_a_moment(self) -> str:
        """Wait until a random moment of a job's life, and say which."""
        rule = self.draw.choice(["train", "train", "evaluate"])
        self.job(f"rule_{rule}")
        begun = {
            "is there": lambda: True,
            "runs its command": (self.project / f"results/tiny/logs/{rule}/{RUN}.log").exists,
            TRAINS: (self.project / f"results/tiny/scratch/{RUN}/belongs_to.json").exists,
        }
        moment = self.draw.choice([*begun, TRAINS] if rule == "train" else ["is there", "runs its command"])
        wait_for(begun[moment], f"a job {rule} that {moment}")
        if moment == TRAINS:
            time.sleep(self.draw.uniform(0.1, 0.6) * self.seconds)
        return f"{rule} {moment}"


def cancelled(scene: Scene) -> None:
    scene.cluster.run("scancel", scene.job().id)


def out_of_memory(scene: Scene) -> None:
    (scene.project / "fill").touch()


def out_of_time(scene: Scene) -> None:
    """The job's script stops, so that the job is there until the controller looks, which it does twice a minute."""
    job = scene.job()
    scene.cluster.run("scancel", "--full", "--signal=STOP", job.id)
    scene.cluster.run("scontrol", "update", f"JobId={job.id}", "EndTime=now+2")  # not before the controller reads it


def node_lost(scene: Scene) -> None:
    node = scene.job().node
    scene.stack.callback(scene.cluster.start_node, node)
    scene.cluster.lose_node(node)


def controller_restarted(scene: Scene) -> None:
    scene.cluster.stop_controller()
    time.sleep(12)
    scene.cluster.start_controller()


def preempted(scene: Scene) -> None:
    scene.cluster.run("sbatch", "--partition=urgent", "--exclusive", f"--nodelist={scene.job().node}",
                      "--output=/dev/null", "--wrap=true")  # fmt: skip


def killed(scene: Scene) -> None:
    """Snakemake is killed, and the command is typed again while its jobs go on."""
    scene.process.kill()
    scene.process.wait()
    scene.start()


def killed_until_its_jobs_ended(scene: Scene) -> None:
    scene.process.kill()
    scene.process.wait()
    wait_for(lambda: not scene.cluster.jobs(), "the end of the jobs", 180)
    scene.start()


@pytest.mark.parametrize(
    ("fault", "states"),
    [
        (cancelled, {"CANCELLED"}),
        (out_of_memory, {"OUT_OF_MEMORY", "FAILED"}),
        (out_of_time, {"TIMEOUT"}),
        (node_lost, {"NODE_FAIL"}),
        (controller_restarted, set()),
        (preempted, set()),
        (killed, set()),
        (killed_until_its_jobs_ended, set()),
    ],
)
def test_an_experiment_goes_through(
    cluster: Cluster, finished: Path, tmp_path: Path, fault: Callable, states: set[str], seed: int
):
    """``states``: what the accounting must say of a job, as a proof that the fault happened; nothing if it may not."""
    project = copy_project(tmp_path / "a project")
    write_experiment(project / "config", rows=ROWS)
    shutil.copytree(store.prepare("digits").parent, project / "data" / "digits")
    shutil.copytree(finished / "tiny", project / "results/tiny", ignore=shutil.ignore_patterns("long"))
    (tmp_path / "sitecustomize.py").write_text(FILL)
    seconds = json.loads((finished / f"tiny/runs/{RUN}/train.json").read_text())["seconds"]
    settings = {"PYTHONPATH": str(tmp_path), "FILL_MEMORY": str(project / "fill")}
    before = set(cluster.ended())

    scene = Scene(cluster, project, random.Random(f"{fault.__name__} {seed}"), seconds, settings)
    with scene.stack:
        scene.start()
        moment = scene.wait_for_a_moment()
        made = {path: path.stat().st_mtime_ns for path in (project / "results/tiny/runs").rglob("*.json")}
        fault(scene)
        end_of(scene.process, project)
    happened = sorted(set(cluster.ended()) - before)
    training = json.loads((project / f"results/tiny/runs/{RUN}/train.json").read_text())
    print(f"{fault.__name__} {seed}: {moment}; jobs: {happened}; pieces of training: {training['pieces']}")

    assert digests(project / "results") == digests(finished)
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what was finished was made again"
    assert not states or states & {state for _, state in happened}
    if TRAINS in moment and fault is cancelled:  # it saves its state at the signal, which comes at once
        assert training["pieces"] == 2
