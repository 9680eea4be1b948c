"""Verify an archive of an experiment, and unpack it among the results."""

import argparse
from pathlib import Path

from bntt.common.text import counted
from bntt.runs.archive import restore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive, and the root folder of the results."""
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="what `archive` wrote, such as demo.tar.zst")
    parser.add_argument("--results", type=Path, default=Path("results"), help="root folder of the results")


def run(parsed: argparse.Namespace) -> None:
    """Unpack the archive, and print where, and the command that judges what is there."""
    restored = restore(parsed.archive, parsed.results)
    print(f"{restored.folder}: {counted(restored.files, 'file')}, every sha256 is right")
    print(f"python -m bntt check {restored.folder} --experiment {restored.plan}")
