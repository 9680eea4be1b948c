"""The command line, ``python -m bntt``: one file per command.

The first line of a file's docstring is the command's summary. The file defines ``add_arguments(parser)``, and
``run(parsed)``, which returns the exit status, or None for 0. Only the called command is imported.
"""

import argparse
import os
import sys
from importlib import import_module
from typing import NoReturn

from bntt import __version__
from bntt.common import environment
from bntt.common.errors import Stopped, UserError
from bntt.experiment import declared

COMMANDS = (
    "train", "evaluate", "runs", "check", "compare", "explain", "archive", "restore", "plan", "data", "notebook",
    "preliminary", "keys", "test",
)  # fmt: skip
NOT_FINISHED = 75  # EX_TEMPFAIL of sysexits.h, "try again"; can be used for Slurm's RequeueExit


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status. The last lines of the help list the statuses."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = _parser(arguments).parse_args(arguments)
    try:
        environment.check()
        status = import_module(f"{__name__}.{parsed.command}").run(parsed) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has closed it; avoid a second error when Python exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"bntt: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"bntt: {stopped}", file=sys.stderr)
        return 130 if stopped.interrupted else NOT_FINISHED
    except OSError as error:
        if error.filename is None:
            raise
        print(f"bntt: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bntt: interrupted; finished work is kept", file=sys.stderr)
        return 130
    return status


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, like all other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bntt: {message}; see {self.prog} --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to the help of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bntt",
        description="Retrain, measure and compare low-latency spiking networks.",
        epilog="Exit status: 0 done; 1 `check` found something missing or damaged, or the --fail-on verdict, or `test` "
        "found a contract that is not kept; 2 wrong input (a line says what); 75 not finished, state saved, run the "
        "command again; 130 interrupted; 141 nobody reads the output.",
    )
    parser.add_argument("--version", action="version", version=f"bntt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for name in COMMANDS:
        module = f"{__name__}.{name}"
        summary = declared.summary(module)
        command = commands.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        if name in arguments:
            import_module(module).add_arguments(command)
    return parser
