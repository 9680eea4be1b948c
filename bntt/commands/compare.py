"""Paired differences between two folders of results, second minus first."""

import argparse
import sys
from pathlib import Path

from bntt.common.text import interval, listed, number
from bntt.results.collect import Results
from bntt.results.comparison import compare

MOST_NAMED = 5  # runs without numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders."""
    parser.add_argument("folders", type=Path, nargs=2, metavar="RESULTS", help="such as results/demo")
    parser.add_argument("--experiment", help="experiment file of both, if that is not in config/")


def run(parsed: argparse.Namespace) -> None:
    """Print a line for each number that both folders have; standard error says which runs could not be compared."""
    first, second = (Results.at(folder, parsed.experiment, here=False) for folder in parsed.folders)
    for results in (first, second):
        without = [f"{one.run.name} ({one.status})" for one in results.runs if not one.status.measured]
        if len(without) > MOST_NAMED:
            without[MOST_NAMED:] = [f"{len(without) - MOST_NAMED} more"]
        if without:
            print(f"{results.folder} has no numbers of {listed(without)}", file=sys.stderr)
    for one in compare(first, second):
        difference = f"{interval(one.estimate)} ({one.pairing})" if one.estimate else number(one.second - one.first)
        seeds = "one seed" if one.seeds == 1 else f"n = {one.seeds}"
        numbers = f"{number(one.first)} and {number(one.second)}, difference {difference}, {seeds}"
        print(f"{one.dataset}, {one.row}, {one.metric}: {numbers}")
