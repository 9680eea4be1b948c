"""Every test sees prepared data of its own session, and one thread."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_data(tmp_path_factory):
    os.environ["BNTT_DATA"] = str(tmp_path_factory.mktemp("prepared data"))
    os.environ["OMP_NUM_THREADS"] = "1"
