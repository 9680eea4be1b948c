"""Each test process has one thread and prepared data of its own; what takes long is made once for all of them."""

import os
from pathlib import Path

import pytest
from tiny import experiment, made_once

from bntt.runs import pipeline


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
