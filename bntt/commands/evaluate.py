"""Measure one trained run on the test images and write its csv files and evaluate.json."""

import argparse

from bntt.commands._options import add_run, chosen_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the run."""
    add_run(parser)


def run(parsed: argparse.Namespace) -> None:
    """Evaluate the run, or say that it is evaluated already."""
    experiment, one = chosen_run(parsed)
    from bntt.runs.pipeline import evaluate

    print(evaluate(experiment, one, parsed.results, parsed.device))
