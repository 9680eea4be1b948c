"""Options that several commands share."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bntt.common.errors import UserError, check_name
from bntt.experiment.schema import Experiment, Run, load

if TYPE_CHECKING:  # the module loads torch
    from bntt.runs.checkpoints import Checkpoints


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


def add_saving(parser: argparse.ArgumentParser, steps: str) -> None:
    """Add the options that say when the state of a run at work is saved; ``steps`` are what it does one by one."""
    parser.add_argument("--minutes", type=float, help="save and stop after this many minutes, with exit status 75")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="minutes between saved states")
    parser.add_argument("--save-steps", type=int, help=f"also save the state after this many {steps}")


def saving(parsed: argparse.Namespace) -> "Callable[..., Checkpoints]":
    """What makes the checkpoints that the options of `add_saving` ask for; raises UserError for impossible values."""
    for name in ("minutes", "save_minutes", "save_steps"):
        if (value := getattr(parsed, name)) is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    from bntt.runs.checkpoints import Checkpoints

    return partial(
        Checkpoints, every_minutes=parsed.save_minutes, every_steps=parsed.save_steps, minutes=parsed.minutes
    )


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
