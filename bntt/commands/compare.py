"""Paired differences between two folders of results, second minus first."""

import argparse
from pathlib import Path

from bntt.common.text import interval, number
from bntt.results.collect import Results
from bntt.results.comparison import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders."""
    parser.add_argument("folders", type=Path, nargs=2, metavar="RESULTS", help="such as results/demo")
    parser.add_argument("--experiment", help="experiment file of both, if that is not in config/")


def run(parsed: argparse.Namespace) -> None:
    """Print a line for each number that both folders have."""
    first, second = (Results.at(folder, parsed.experiment, here=False) for folder in parsed.folders)
    for one in compare(first, second):
        difference = f"{interval(one.estimate)} ({one.pairing})" if one.estimate else number(one.second - one.first)
        numbers = f"{number(one.first)} and {number(one.second)}, difference {difference}, n = {one.seeds}"
        print(f"{one.dataset}, {one.row}, {one.metric}: {numbers}")
