"""List the runs of an experiment with their status."""

import argparse

from bntt.commands._options import add_experiment
from bntt.experiment.schema import load
from bntt.runs.status import Status, found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the experiment."""
    add_experiment(parser)


def run(parsed: argparse.Namespace) -> None:
    """Print a line for each run: status, name and, if there is one, the reason."""
    silent = (Status.MISSING, Status.TRAINED)  # these need no reason
    for one in found(load(parsed.experiment), parsed.results):
        reason = f"  {one.reason}" if one.reason and one.status not in silent else ""
        print(f"{one.status:9} {one.run.name}{reason}")
