"""The exception for errors that the user can correct, a stop before the end, and the check of names."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


class Stopped(Exception):
    """A training or an evaluation stopped before its end, at a saved state; the same command continues from there."""

    def __init__(self, reason: str, interrupted: bool) -> None:
        super().__init__(reason)
        self.interrupted = interrupted  # by the user, who does not want it to be started again


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    """The text ``unknown key 'epoch'; did you mean 'epochs'?``; if no name is similar, it lists all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
    return f"unknown {kind} {name!r}; {hint}"


def check_name(kind: str, name: Any, known: Iterable[str], where: str) -> None:
    """Raise a UserError with the nearest match if ``name`` is not among ``known``."""
    known = list(known)
    if name not in known:
        raise UserError(f"{where}: {unknown(kind, name, known)}")
