"""The command line, ``python -m bntt``: one file per command, found by folder.

A command's file has its summary as the first line of its docstring, and defines ``add_arguments(parser)`` and
``run(parsed)``, which returns the exit status, or None for 0. Only the command that is called is imported.
"""

import argparse
import os
import sys
from importlib import import_module
from typing import NoReturn

from bntt import __version__
from bntt.common.errors import Stopped, UserError
from bntt.experiment import declared

COMMANDS = ("train", "evaluate", "runs", "check", "compare", "explain", "plan", "data", "notebook", "keys")
NOT_FINISHED = 75  # EX_TEMPFAIL of sysexits.h: "try again", for instance as Slurm's RequeueExit


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, as the help's last lines explain it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = _parser(arguments).parse_args(arguments)
    try:
        status = import_module(f"{__name__}.{parsed.command}").run(parsed) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough; let nothing complain while Python ends
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
        print("bntt: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return status


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bntt: {message}; see {self.prog} --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to an option's help, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bntt",
        description="Retrain, measure and compare low-latency spiking networks.",
        epilog="Exit status: 0 done, 1 `check` found something missing, damaged or to fail on, 2 the input was wrong "
        "(one line says what), 75 a training is not finished and its state is saved: run it again, 130 interrupted.",
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
