"""Train or convert one run and write its weights and train.json."""

import argparse

from bntt.commands._options import add_run, add_saving, chosen_run, saving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the run, and those that say when its state is saved."""
    add_run(parser)
    add_saving(parser, "steps")


def run(parsed: argparse.Namespace) -> None:
    """Train the run, or say that it is trained already."""
    experiment, one = chosen_run(parsed)
    keep = saving(parsed)
    from bntt.runs.pipeline import train

    if done := train(experiment, one, parsed.results, parsed.device, keep):  # of several processes, one tells
        print(done)
