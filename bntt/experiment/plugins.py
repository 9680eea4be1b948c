"""Calls of plug-ins. An error inside one is its own: it becomes a `Mistake`, with the plug-in's file and line."""

import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from bntt.common.errors import Stopped, UserError
from bntt.experiment import declared

FOLDERS = ("methods", "data", "measurements")


class Mistake(UserError):
    """A plug-in is wrong, and not what it was given."""


def call(
    module: str, name: str, *arguments: Any, returns: type | tuple[type, ...] = object, mathematics: bool = True
) -> Any:
    """Call a function that a plug-in defines.

    Its errors become a Mistake, a UserError with file, line, type and text. Passed on are a lack of memory and, with
    ``mathematics``, a ValueError of the package's own mathematics, because options cause them. Raises Mistake also if
    the plug-in cannot be imported, lacks the function, or does not return what it must.
    """
    path = declared.module_path(module)
    function = None
    try:
        function = getattr(import_module(module), name, None)
        if function is None:
            raise Mistake(f"{path}: defines no function `{name}`")
        returned = function(*arguments)
    except (UserError, Stopped, BrokenPipeError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        own = _lines(error)
        of_mathematics = isinstance(error, ValueError) and own and not _is_plugin(own[-1][0])
        out_of_memory = type(error).__name__ == "OutOfMemoryError"  # torch's, and torch is not loaded here
        if out_of_memory or (mathematics and of_mathematics):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise Mistake(f"{_place(own) or _defined(path, function)}: {reason}") from error
    if not isinstance(returned, returns):
        wanted = " or ".join(one.__name__ for one in (returns if isinstance(returns, tuple) else (returns,)))
        raise Mistake(f"{_defined(path, function)}: `{name}` must return {wanted}, not {type(returned).__name__}")
    return returned


def _defined(path: Path, function: Any) -> str:
    """Where a function of a plug-in begins, as far as it is known."""
    code = getattr(function, "__code__", None)
    return str(path) if code is None else f"{code.co_filename}, line {code.co_firstlineno}"


def _place(lines: list[tuple[Path, int]]) -> str:
    """``file, line n`` of the innermost line of a plug-in, and of the package's line that it called, if any."""
    of_plugin = [one for one in lines if _is_plugin(one[0])]
    if not of_plugin:
        return ""
    (path, line), (inner, at) = of_plugin[-1], lines[-1]
    return f"{path}, line {line}" + ("" if (path, line) == (inner, at) else f" (in {inner}, line {at})")


def _lines(error: BaseException) -> list[tuple[Path, int]]:
    """The package's files and lines below `call` in an error's traceback, the innermost last."""
    lines = [(Path(frame.filename), frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((Path(error.filename), error.lineno or 0))
    return [(path, line) for path, line in lines if path.is_relative_to(declared.PACKAGE) and path != Path(__file__)]


def _is_plugin(path: Path) -> bool:
    return path.relative_to(declared.PACKAGE).parts[0] in FOLDERS and path.name != "__init__.py"
