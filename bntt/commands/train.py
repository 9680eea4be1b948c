"""Train or convert one run and write its weights and train.json."""

import argparse
from functools import partial

from bntt.commands._options import add_run, chosen_run
from bntt.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the run, and those that say when its state is saved."""
    add_run(parser)
    parser.add_argument("--minutes", type=float, help="save and stop after this many minutes, with exit status 75")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="minutes between saved states")
    parser.add_argument("--save-steps", type=int, help="also save the state after this many steps")


def run(parsed: argparse.Namespace) -> None:
    """Train the run, or say that it is trained already."""
    experiment, one = chosen_run(parsed)
    for name in ("minutes", "save_minutes", "save_steps"):
        if (value := getattr(parsed, name)) is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    from bntt.runs.checkpoints import Checkpoints
    from bntt.runs.pipeline import train

    keep = partial(
        Checkpoints, every_minutes=parsed.save_minutes, every_steps=parsed.save_steps, minutes=parsed.minutes
    )
    if done := train(experiment, one, parsed.results, parsed.device, keep):  # of several processes, one tells
        print(done)
