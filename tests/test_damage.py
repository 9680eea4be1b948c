"""Nothing damaged is taken for a number, and nothing wrong ends in a traceback: 80 damages, 50 configurations."""

import contextlib
import io
import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny import EXPERIMENT, experiment, write_experiment

from bntt.commands import main
from bntt.common.errors import Stopped, UserError
from bntt.data import splits, store
from bntt.drawing import tables
from bntt.drawing.records import write_record
from bntt.results.collect import Results
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory
from bntt.runs.status import found

torch.set_num_threads(1)
MEASUREMENTS = (
    "anytime", "approximations", "draws", "early_exit", "energy", "gamma", "history", "image_spikes", "noise", "spikes",
)  # fmt: skip
SLOW_ROW = {"method": "surrogate", "norm": "bntt", "time_steps": 3, "epochs": 4}


def _interrupted(minutes):
    return partial(Checkpoints, minutes=minutes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained):
    """Two seeds of the tiny experiment, one table of it, and a training that was stopped half-way."""
    root = tmp_path_factory.mktemp("finished")
    shutil.copytree(trained, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("seed-2"))
    tiny = experiment(root, seeds=[0, 1], rows=EXPERIMENT["rows"] | {"stopped": SLOW_ROW})
    for run in (run for run in tiny.runs if run.row == "stopped"):
        for _ in range(5):
            with pytest.raises(Stopped):
                pipeline.train(tiny, run, root, "cpu", _interrupted(0))
    results = Results(tiny, root)
    tables.write(tables.table1(results), results.folder / "tables")
    record = results.folder / "notebooks" / "table1.json"
    write_record(record, Path("analysis/table1.py"), "tiny", results, [])
    whole = tmp_path_factory.mktemp("whole")
    for run in (run for run in tiny.runs if run.row == "stopped"):
        pipeline.train(tiny, run, whole, "cpu")
    return tiny, root, whole


def numbers(tiny, root: Path) -> dict[tuple[str, str], pd.DataFrame]:
    """Every measurement that a reader would take for good."""
    taken = {}
    for one in found(tiny, root):
        for name in MEASUREMENTS:
            table = one.table(f"{name}.csv") if one.status == "done" else None
            if table is not None:
                taken[one.run.name, name] = table
    return taken


def same_tensors(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def damage(path: Path, draws: random.Random, others: list[Path]) -> str:
    """Spoil a file, which is not empty, in one of the ways in which files get spoiled."""
    content = bytearray(path.read_bytes())
    kind = draws.choice(["truncated", "a bit", "a byte", "zeros", "emptied", "longer", "removed", "another's"])
    where = draws.randrange(max(1, len(content)))
    same = [other for other in others if other.name == path.name and other != path]
    if kind == "truncated":
        del content[where:]
    elif kind == "a bit":
        content[where] ^= 1 << draws.randrange(8)
    elif kind == "a byte":
        content[where] = draws.randrange(256)
    elif kind == "zeros":
        length = min(4096, len(content) - where)
        content[where : where + length] = bytes(length)
    elif kind == "emptied":
        content.clear()
    elif kind == "longer":
        content += bytes(draws.randrange(1, 9))
    elif kind == "another's" and same:
        content = bytearray(draws.choice(same).read_bytes())
    if kind == "removed":
        path.unlink()
    else:
        path.write_bytes(content)
    return kind


def command(*arguments: object) -> tuple[int, str]:
    """Exit status and standard error of a command, in this process; an exception fails the test."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, error.getvalue()


def cases(count: int, always: int) -> list:
    """Seeds of random cases, of which some are tried always."""
    return [seed if seed < always else pytest.param(seed, marks=pytest.mark.slow) for seed in range(count)]


@pytest.mark.parametrize("seed", cases(30, always=1))
def test_a_damaged_file_of_results_is_never_taken_for_a_number(finished, tmp_path, seed):
    tiny, origin, whole = finished
    draws = random.Random(seed)
    root = tmp_path / "results"
    shutil.copytree(origin / "tiny", root / "tiny")
    files = sorted(path for path in (root / "tiny").rglob("*") if path.is_file() and path.stat().st_size)
    for path in draws.sample(files, draws.choice([1, 1, 1, 2, 5])):
        damage(path, draws, files)

    expected, taken = numbers(tiny, origin), numbers(tiny, root)
    for key, table in taken.items():
        pd.testing.assert_frame_equal(table, expected[key], check_exact=True)
    config = ("--experiment", origin / "tiny.yaml")
    status, error = command("check", root / "tiny", *config)
    assert (status, error) == (1, "")  # the stopped runs are missing anyhow
    assert command("runs", *config, "--results", root)[0] == 0
    status, error = command("explain", root / "tiny" / "tables" / "table1.csv", "--row", "bntt", *config)
    assert status in (0, 2)
    assert error.count("\n") == (status == 2)
    for run in tiny.runs:
        here = ("--dataset", run.dataset, "--row", run.row, "--seed", run.seed, *config, "--results", root)
        status, error = command("evaluate", *here)
        assert status in (0, 2)
        assert error.count("\n") == (status == 2), error
        with contextlib.suppress(UserError):
            weights = RunDirectory.of(run, root).weights()
            assert same_tensors(weights, RunDirectory.of(run, origin).weights())
    stopped = draws.choice([run for run in tiny.runs if run.row == "stopped"])
    pipeline.train(tiny, stopped, root, "cpu")  # whatever became of its states
    assert same_tensors(*(RunDirectory.of(stopped, place).weights() for place in (root, whole)))


@pytest.mark.parametrize("seed", cases(20, always=3))
def test_damaged_data_are_never_loaded(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("BNTT_DATA", str(tmp_path))
    store.prepare("digits")
    expected = store.load("digits")
    draws = random.Random(seed)
    files = sorted(path for path in (tmp_path / "digits").iterdir() if path.is_file())
    damage(draws.choice(files), draws, files)
    status, error = command("data", "verify", "digits")
    assert status in (0, 2)
    assert error.count("\n") == (status == 2), error
    try:
        loaded = store.load("digits")
    except UserError:
        assert status == 2
        return
    for part in splits.SPLITS:
        assert np.array_equal(getattr(loaded, part).pixels, getattr(expected, part).pixels)
        assert np.array_equal(getattr(loaded, part).labels, getattr(expected, part).labels)


# -- configurations ---------------------------------------------------------------------------------------


def _at(document: dict, path: str, value: object) -> dict:
    place = document
    *parents, last = path.split("/")
    for parent in parents:
        place = place[parent]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return document


WRONG = [
    *(("title", value) for value in (KeyError, 3, None, ["a"])),
    *(("datasets", value) for value in (KeyError, [], "digits", ["digit"], [3], {"digits": 3},
                                        {"digits": {"epoch": 2}})),
    *(("seeds", value) for value in (KeyError, [], [-1], [0.5], ["0"], 3, [True])),
    *(("threads", value) for value in (0, -1, 1.5, "two", None)),
    *(("protocol", value) for value in ([], "vgg9", {"epochs": 0}, {"epochs": 1.5}, {"learning_rate": float("nan")},
                                        {"learning_rate": float("inf")}, {"learning_rate": -1}, {"momentum": 1.0},
                                        {"architecture": "vgg7"}, {"batch_size": "many"}, {"leak": 2})),
    *(("rows", value) for value in (KeyError, {}, [], {"A": {"method": "ann"}}, {"a": {"method": "an"}}, {"a": {}},
                                    {"a": {"method": "conversion"}}, {"a": {"method": "conversion", "start": "a"}},
                                    {"a": {"method": "ann", "norm": "bntt"}})),
    *(("evaluation", value) for value in ([], {"draws": 0}, {"noise_sigmas": [-1]}, {"noise_space": "wave"},
                                          {"report_steps": [0]}, {"batchsize": 3})),
    ("seed", [0]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_an_invalid_configuration_is_one_line(tmp_path, number):
    path, value = WRONG[number]
    document = yaml.safe_load(write_experiment(tmp_path).read_text())
    written = tmp_path / "wrong.yaml"
    written.write_text(yaml.safe_dump(_at(document, path, value), sort_keys=False))
    for name in ("runs", "train", "evaluate"):
        row = () if name == "runs" else ("--row", "bntt")
        status, error = command(name, "--experiment", written, "--results", tmp_path / "none", *row)
        assert status == 2
        assert error.count("\n") == 1
        assert "wrong.yaml" in error
    assert not (tmp_path / "none").exists()
