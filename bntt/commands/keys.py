"""List every key of an experiment file with its default and meaning, as Markdown."""

import argparse

from bntt.experiment.manual import reference, schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which of the two forms."""
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of the files instead")


def run(parsed: argparse.Namespace) -> None:
    """Print them."""
    print(schema() if parsed.schema else reference(), end="")
