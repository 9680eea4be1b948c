"""Paired differences between two folders of results, second minus first; or between rows of one, with --with."""

import argparse
import sys
from pathlib import Path

from bntt.common.errors import UserError
from bntt.common.text import MOST_NAMED, interval, listed, number
from bntt.results.collect import Results
from bntt.results.comparison import compare, compare_with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folders, and the row to compare with."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="RESULTS", help="such as results/demo")
    parser.add_argument("--with", dest="base", metavar="ROW", help="compare each row of one folder with this row of it")
    parser.add_argument("--experiment", help="experiment file of the folders, if that is not in config/")


def run(parsed: argparse.Namespace) -> None:
    """Print a line for each number that both have; standard error says which runs could not be compared."""
    if len(parsed.folders) != (2 if parsed.base is None else 1):
        raise UserError("compare two folders of results, or the rows of one folder with one of them, by --with ROW")
    opened = [Results.at(folder, parsed.experiment, here=False) for folder in parsed.folders]
    for results in opened:
        without = [f"{one.run.name} ({one.status})" for one in results.runs if not one.status.measured]
        if without:
            print(f"{results.folder} has no numbers of {listed(without, MOST_NAMED)}", file=sys.stderr)
    for one in compare_with(opened[0], parsed.base) if parsed.base is not None else compare(*opened):
        difference = f"{interval(one.estimate)} ({one.pairing})" if one.estimate else number(one.second - one.first)
        seeds = "one seed" if one.seeds == 1 else f"n = {one.seeds}"
        numbers = f"{number(one.first)} and {number(one.second)}, difference {difference}, {seeds}"
        rows = one.row if parsed.base is None else f"{parsed.base} and {one.row}"
        print(f"{one.dataset}, {rows}, {one.metric}: {numbers}")
