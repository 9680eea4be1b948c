"""Each test process has one thread and prepared data of its own; what takes long is made once for all of them."""

import os
import shutil
from pathlib import Path

import pytest
from edits import forget
from tiny import PROJECT, experiment, made_once

from bntt.experiment import code_hash, declared
from bntt.runs import pipeline

PARSED: dict = {}  # syntax trees by the content of their sources, and the hashes of these
HASHED: dict = {}


@pytest.fixture(scope="session", autouse=True)
def _own_data(tmp_path_factory):
    os.environ["BNTT_DATA"] = str(tmp_path_factory.mktemp("prepared data"))
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Results of the tiny experiment with three seeds, really trained and evaluated: to be copied, not edited."""

    def train(root: Path) -> None:
        tiny = experiment(root, seeds=[0, 1, 2])
        for run in tiny.runs:
            pipeline.train(tiny, run, root, "cpu")
            pipeline.evaluate(tiny, run, root, "cpu")

    return made_once(tmp_path_factory, "trained", train)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, in a folder with a space, that is read in place of the real one.

    Sources are parsed and hashed once for all tests; what is remembered goes by their content.
    """
    copy = tmp_path / "another place" / "bntt"
    shutil.copytree(PROJECT / "bntt", copy, ignore=shutil.ignore_patterns("__pycache__"))
    parse, digest = declared.syntax_tree.__wrapped__, code_hash._file_digest.__wrapped__

    def remember(memory, function):
        def remembered(path):
            known = (path.suffix, path.read_bytes() if path.is_file() else path)
            if known not in memory:
                memory[known] = function(path)
            return memory[known]

        return remembered

    monkeypatch.setattr(declared, "PACKAGE", copy)
    monkeypatch.setattr(declared, "syntax_tree", remember(PARSED, parse))
    monkeypatch.setattr(code_hash, "_file_digest", remember(HASHED, digest))
    forget()
    yield copy
    forget()
