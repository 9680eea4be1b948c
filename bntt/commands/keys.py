"""List every key of an experiment file with its default and meaning, as Markdown."""

import argparse

from bntt.experiment.manual import reference, schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of format."""
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of experiment files instead")


def run(parsed: argparse.Namespace) -> None:
    """Print the keys."""
    print(schema() if parsed.schema else reference(), end="")
