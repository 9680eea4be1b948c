"""Measure one trained run on the test images and write its csv files and evaluate.json."""

import argparse

from bntt.commands._options import add_run, add_saving, chosen_run, saving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the run, and those that say when its state is saved."""
    add_run(parser)
    add_saving(parser, "batches of test images")


def run(parsed: argparse.Namespace) -> None:
    """Evaluate the run, or say that it is evaluated already."""
    experiment, one = chosen_run(parsed)
    keep = saving(parsed)
    from bntt.runs.pipeline import evaluate

    print(evaluate(experiment, one, parsed.results, parsed.device, keep))
