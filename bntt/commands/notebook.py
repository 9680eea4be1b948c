"""Execute a notebook source and render it as an offline page."""

import argparse
from pathlib import Path

from bntt.commands._options import add_experiment
from bntt.drawing.notebook import execute
from bntt.drawing.records import write_record
from bntt.results.collect import Results
from bntt.runs.provenance import ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source, the experiment that it draws, and the output files."""
    add_experiment(parser)
    parser.add_argument("source", type=Path, help="a file of analysis/, here or beside the package")
    parser.add_argument("--notebook", type=Path, required=True, help="where the executed notebook is written")
    parser.add_argument("--page", type=Path, required=True, help="where the HTML page is written")


def run(parsed: argparse.Namespace) -> None:
    """Execute the notebook, and record the data behind its drawing."""
    folder, here = parsed.results.resolve(), Path.cwd()
    if folder.is_relative_to(here):
        folder = folder.relative_to(here)  # a notebook's paths start at the working folder
    source = parsed.source if parsed.source.is_file() else ROOT / parsed.source
    results = Results.of(parsed.experiment, folder)
    parameters = {"experiment": parsed.experiment, "results": str(folder), "output": str(results.folder)}
    execute(source, parsed.notebook, parsed.page, parameters)
    results = Results.of(parsed.experiment, parsed.results)
    record = parsed.notebook.with_suffix(".json")
    write_record(record, source, parsed.experiment, results, [parsed.notebook, parsed.page])
    print(f"{parsed.notebook} and {parsed.page}")
