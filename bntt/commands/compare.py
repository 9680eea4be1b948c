"""Paired differences between two folders of results, second minus first."""

import argparse
from pathlib import Path

from bntt.common.text import interval, number
from bntt.results.collect import Results
from bntt.results.comparison import compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two folders."""
    parser.add_argument("folders", type=Path, nargs=2, metavar="RESULTS", help="such as results/demo")
    parser.add_argument("--experiment", help="file of both, where that does not lie in config/")


def run(parsed: argparse.Namespace) -> None:
    """A line for each number that both folders have."""
    first, second = (Results.at(folder, parsed.experiment, here=False) for folder in parsed.folders)
    for one in compare(first, second):
        difference = f"{interval(one.estimate)} ({one.pairing})" if one.estimate else number(one.second - one.first)
        numbers = f"{number(one.first)} and {number(one.second)}, difference {difference}, n = {one.seeds}"
        print(f"{one.dataset}, {one.row}, {one.metric}: {numbers}")
