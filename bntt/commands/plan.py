"""Measure what an experiment will cost, before it is run."""

import argparse
import math
import os
from itertools import tee
from pathlib import Path

from bntt.commands._options import add_device
from bntt.common.errors import UserError
from bntt.experiment.schema import load
from bntt.runs import needs
from bntt.runs.cost import device_named, plan, report, slots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiment, and the device and cores that the workflow will have."""
    parser.add_argument("experiment", help="name of a file in config/, or a path to a .yaml file")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder that is searched for done runs")
    parser.add_argument("--dataset", help="plan this dataset alone")
    parser.add_argument("--row", help="plan this row alone")
    add_device(parser)
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="for all measurements; default: 2. More of them extrapolate less"
    )
    parser.add_argument(
        "--needs", action="store_true", help="also write needs.yaml, from which jobs on a cluster get memory and time"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores that the workflow will have")


def run(parsed: argparse.Namespace) -> None:
    """Print the device, a line for every row when it is measured, and then the sums."""
    experiment = load(parsed.experiment)
    if parsed.cores < 1:
        raise UserError(f"--cores must be at least 1, not {parsed.cores}")
    if not 0 < parsed.minutes < math.inf:
        raise UserError(f"--minutes must be above 0, not {parsed.minutes:g}")
    if parsed.needs and (parsed.dataset or parsed.row):
        raise UserError("--needs is of the whole experiment; leave out --dataset and --row")
    at_once = slots(experiment, parsed.device, parsed.cores)
    device = device_named(experiment, parsed.device)
    print(f"all times are those of {device}", flush=True)
    costs, kept = tee(
        plan(experiment, parsed.results, parsed.device, at_once, parsed.minutes, parsed.dataset, parsed.row)
    )
    for line in report(costs, at_once):
        print(line, flush=True)
    if parsed.needs:
        print(f"written: {needs.write(experiment, parsed.results, device, kept)}", flush=True)
