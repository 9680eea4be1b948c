"""Measure what an experiment will cost, before it is run."""

import argparse
import os
from pathlib import Path

from bntt.commands._options import add_device
from bntt.common.errors import UserError
from bntt.experiment.schema import load
from bntt.runs.cost import plan, report, slots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The experiment, and what the workflow will be given."""
    parser.add_argument("experiment", help="name of a file in config/, or a path to a .yaml file")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder where done runs are looked for")
    add_device(parser)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that the workflow will be given")


def run(parsed: argparse.Namespace) -> None:
    """A line for every row as it is measured, and the sums."""
    experiment = load(parsed.experiment)
    if parsed.cores < 1:
        raise UserError(f"--cores must be at least 1, not {parsed.cores}")
    at_once = slots(experiment, parsed.device, parsed.cores)
    for line in report(plan(experiment, parsed.results, parsed.device, at_once), at_once):
        print(line, flush=True)
