"""A cluster makes the numbers and tables of one machine."""

import csv

import pytest
from tiny import copy_project, digests, python, write_experiment

from .conftest import end_of, on_the_cluster

pytestmark = pytest.mark.cluster
# Figures are left out: drawing them takes long, and they show what the tables hold.
TABLES = [f"results/tiny/tables/table{number}.csv" for number in (1, 2, 3)]
COSTS = ("training_seconds", "start_seconds", "peak_memory_mb")  # differ each time


def test_measurements_and_tables_are_those_of_one_machine_byte_for_byte(cluster, tmp_path):
    here, there = (copy_project(tmp_path / name) for name in ("one machine", "a cluster"))
    for project in (here, there):
        write_experiment(project / "config")
    with on_the_cluster(cluster, there, *TABLES) as process:
        options = ["--cores", "2", "--config", "experiment=tiny", "--", *TABLES]
        ran = python("-m", "snakemake", *options, cwd=here, BNTT_DATA="data", PYTHONDONTWRITEBYTECODE="")
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        end_of(process, there)
    assert len(digests(here / "results")) == 8
    assert digests(there / "results") == digests(here / "results")
    for name in TABLES:
        of_both = []
        for project in (here, there):
            with (project / name).open(newline="") as stream:
                of_both.append([{k: v for k, v in row.items() if k not in COSTS} for row in csv.DictReader(stream)])
        assert of_both[0] == of_both[1], name
        assert of_both[0], name
