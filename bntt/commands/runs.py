"""List the runs of an experiment and what is there of each."""

import argparse

from bntt.commands._options import add_experiment
from bntt.experiment.schema import load
from bntt.runs.status import found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The experiment."""
    add_experiment(parser)


def run(parsed: argparse.Namespace) -> None:
    """A line for each run: status, name and, where there is one, the reason."""
    for one in found(load(parsed.experiment), parsed.results):
        print(f"{one.status:9} {one.run.name}{'  ' + one.reason if one.reason and one.status != 'missing' else ''}")
