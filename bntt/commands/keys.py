"""List every key of an experiment file with its default and meaning, as Markdown."""

import argparse

from bntt.experiment.manual import reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(parsed: argparse.Namespace) -> None:
    """Print them."""
    print(reference(), end="")
