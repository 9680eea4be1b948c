"""A benchmark of a few seconds for the tests: a small experiment, its data, and copies of the project to edit."""

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from bntt.commands import main
from bntt.data.images import ImageData, Images
from bntt.experiment.schema import Experiment, Run, load
from bntt.runs.directory import RunDirectory

PROJECT = Path(__file__).parent.parent

EXPERIMENT = {
    "title": "Tests only: everything in seconds",
    "datasets": ["digits"],
    "seeds": [0],
    "threads": 1,
    "protocol": {
        "architecture": "vgg5",
        "width": 0.1,
        "image_size": 8,
        "train_limit": 96,
        "batch_size": 32,
        "epochs": 1,
        "learning_rate": 0.1,
    },
    "rows": {
        "bntt": {"method": "surrogate", "norm": "bntt", "time_steps": 3},
        "plain": {"method": "surrogate", "norm": "none", "time_steps": 3, "gain": 4.0},
        "ann": {"method": "ann", "dropout": 0.0, "epochs": 2},
        "rmp": {
            "method": "conversion",
            "start": "ann",
            "reset": "soft",
            "time_steps": 12,
            "percentile": 95.0,
            "calibration_images": 16,
            "calibration_steps": 8,
        },
    },
    "evaluation": {"report_steps": [2], "noise_sigmas": [0.0, 0.4], "batch_size": 270},
}


SCHEDULE = {  # a training of three epochs
    "epochs": 3,
    "batch_size": 5,
    "drop_last": False,
    "learning_rate": 0.1,
    "optimiser": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.01,
    "gamma_decay": None,
    "milestones": [0.5, 0.7, 0.9],
    "decay_factor": 10.0,
}


def write_experiment(folder: Path, name: str = "tiny", **changed) -> Path:
    """The tiny experiment as a file, with top-level keys exchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, **changed}, sort_keys=False))
    return path


def experiment(folder: Path, name: str = "tiny", **changed) -> Experiment:
    """The tiny experiment, loaded."""
    return load(str(write_experiment(folder, name, **changed)))


def one_row(folder: Path, name: str = "one", protocol: dict | None = None, evaluation: dict | None = None, **row):
    """An experiment of the single row ``row``."""
    changed = {
        "rows": {"row": row},
        "protocol": EXPERIMENT["protocol"] | (protocol or {}),
        "evaluation": EXPERIMENT["evaluation"] | (evaluation or {}),
    }
    used = experiment(folder, name, **changed)
    return used, used.runs[0]


def images(train=12, validation=4, test=6, side=8, channels=1, classes=3, seed=0) -> ImageData:
    """Random images whose labels can be learned a little: the class brightens one row."""
    draws = torch.Generator().manual_seed(seed)

    def split(count: int) -> Images:
        labels = torch.arange(count) % classes
        pixels = torch.randint(0, 200, (count, channels, side, side), generator=draws, dtype=torch.uint8)
        pixels[torch.arange(count), :, labels] += 55
        return Images(pixels, labels)

    blank = torch.zeros(channels, 1, 1)
    raw = ImageData("random", classes, split(train), split(validation), split(test), blank, blank + 1, "none", "none")
    return raw.to(torch.device("cpu"), None, None)


def copy_project(target: Path) -> Path:
    """What the workflow needs, in a folder of its own, to be edited."""
    for name in ("bntt", "config", "workflow", "profiles", "analysis"):
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(PROJECT / name, target / name)
    return target


def digests(results: Path) -> dict[str, dict]:
    """Hashes of all weights and measurements, by run; what names times is left out."""
    hashes = {}
    for path in sorted((results / "tiny" / "runs").rglob("*.json")):
        files = json.loads(path.read_text())["files"]
        hashes[str(path.relative_to(results))] = {k: v for k, v in files.items() if k != "history.csv"}
    assert hashes, f"no results in {results}"
    return hashes


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first test process in need of it makes and all others share; nobody writes to it afterwards."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name} unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # another process failed at it
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command that uses the source tree it is started in."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | extra


def python(*arguments: object, cwd: Path = PROJECT, check: bool = False, **extra: str) -> subprocess.CompletedProcess:
    """Run Python in a source tree; ``-c`` and ``-m`` find the package there."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=check,
        timeout=300,
    )


def bntt(*arguments: object, cwd: Path = PROJECT, **extra: str) -> subprocess.CompletedProcess:
    """Run a command of ``python -m bntt``."""
    return python("-m", "bntt", *arguments, cwd=cwd, **extra)


def bntt_here(*arguments: object) -> subprocess.CompletedProcess:
    """What a command of ``python -m bntt`` comes to, in this process: no interpreter is started for it."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


FORKED = multiprocessing.get_context("forkserver")  # its processes find these loaded, and nothing called
FORKED.set_forkserver_preload(
    ["torch", "torch._dynamo", "pytest", "bntt.runs.pipeline", "bntt.methods.ann", "bntt.methods.surrogate"]
)


def in_a_process_of_its_own(function: Callable, *arguments: object) -> object:
    """What a function of a test module returns where it is the first to use PyTorch."""
    with ProcessPoolExecutor(1, FORKED, max_tasks_per_child=1) as one:
        return one.submit(function, *arguments).result()


def assert_one_line(error: BaseException | subprocess.CompletedProcess, *parts: str) -> None:
    """A message for the user: one line, and it names what, where and what would be right."""
    if isinstance(error, subprocess.CompletedProcess):
        assert error.returncode == 2, error.stderr
        text = error.stderr.rstrip("\n")
    else:
        text = str(error)
    assert text
    assert "\n" not in text, text
    for part in parts:
        assert part in text, text


def result(run: Run, root: Path) -> tuple:
    """What a training came to: weights, history without its seconds if it has one, and the number of steps."""
    directory = RunDirectory.of(run, root)
    record, history = directory.training(), None
    if "history.csv" in record["files"]:
        history = directory.table("history.csv").drop(columns="seconds").to_dict("list")
    return directory.weights(), history, record["steps"]


def same(one: tuple, other: tuple) -> bool:
    """Whether two results are alike to the last bit."""
    if one[0].keys() != other[0].keys() or one[1:] != other[1:]:
        return False
    return all(torch.equal(value, other[0][name]) for name, value in one[0].items())
