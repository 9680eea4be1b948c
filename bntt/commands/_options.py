"""Options that several commands share."""

import argparse
from pathlib import Path

from bntt.common.errors import UserError, check_name
from bntt.experiment.schema import Experiment, Run, load


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add ``--experiment`` and ``--results``."""
    parser.add_argument("--experiment", default="demo", help="name of a file in config/, or a path to a .yaml file")
    parser.add_argument("--results", type=Path, default=Path("results"), help="root folder of the results")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="auto: a GPU if there are any (waits until one is free), else the CPU",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that name one run, and ``--device``."""
    add_experiment(parser)
    parser.add_argument("--dataset", help="dataset of the run; optional if the row has only one")
    parser.add_argument("--row", required=True, help="row of the experiment file")
    parser.add_argument("--seed", type=int, help="seed of the run; optional if the row has only one")
    add_device(parser)


def chosen_run(parsed: argparse.Namespace) -> tuple[Experiment, Run]:
    """The experiment and the run that the options name; raises UserError if they name several runs or none."""
    experiment = load(parsed.experiment)
    check_name("row", parsed.row, experiment.rows, f"experiment {experiment.name}")
    chosen = {}
    for name in ("dataset", "seed"):
        there = list(dict.fromkeys(getattr(run, name) for run in experiment.runs if run.row == parsed.row))
        chosen[name] = getattr(parsed, name)
        if chosen[name] is None:
            if len(there) > 1:
                listed = ", ".join(map(str, there))
                raise UserError(f"row {parsed.row} runs with several {name}s: give --{name}, one of {listed}")
            chosen[name] = there[0]
    return experiment, experiment.run(chosen["dataset"], parsed.row, chosen["seed"])
