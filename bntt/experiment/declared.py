"""What a module declares about itself, read without importing it.

Methods, datasets and the parts they build on declare their options as a literal ``OPTIONS`` dictionary. It is read
from the syntax tree, not from the imported module. So an experiment is validated and a workflow planned in a second,
without torch, and a broken plug-in gives a one-line error.
"""

import ast
import contextlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError, check_name

PACKAGE = Path(__file__).parent.parent


def module_path(module: str) -> Path:
    """Source file of a module of this package, ``bntt.data`` -> ``bntt/data/__init__.py``."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    of_package = path / "__init__.py"
    return of_package if of_package.is_file() else path.with_suffix(".py")  # as Python itself chooses


def is_source(path: Path, root: Path) -> bool:
    """Whether a file in the folder ``root`` can belong to a package there. What editors leave beside it cannot.

    Their locks and copies have names that nobody can import, such as ``.#ann.py`` or ``ann (copy).py``.
    """
    return all(part.isidentifier() for part in path.relative_to(root).with_suffix("").parts)


@cache
def syntax_tree(path: Path) -> ast.Module:
    """The parsed source; raises UserError if it cannot be read, or is not Python."""
    try:
        return ast.parse(decode_source(path.read_bytes()))  # in the encoding that an import would take
    except SyntaxError as error:
        where = str(path) if error.lineno is None else f"{path}, line {error.lineno}"
        raise UserError(f"{where}: {error.msg}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: the text is not in {error.encoding}") from None
    except ValueError as error:  # zero bytes
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def literal(module: str, name: str) -> Any:
    """The literal that a module assigns to a name, or None; raises UserError if the value is not a literal."""
    value = _assigned(module, name)
    if value is None:
        return None
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # as documented
        raise UserError(
            f"{place(module, name)}: {name} must be a literal, so that it can be read without importing"
        ) from None


def place(module: str, name: str) -> str:
    """Where a module assigns to a name, for messages: its file, and the line."""
    value = _assigned(module, name)
    return str(module_path(module)) if value is None else f"{module_path(module)}, line {value.lineno}"


def _assigned(module: str, name: str) -> ast.expr | None:
    """The expression that a module assigns to a name, with or without an annotation, or None."""
    for node in syntax_tree(module_path(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(
            isinstance(target, ast.Name) and target.id == name for target in targets
        ):
            return node.value
    return None


@cache
def plugins(folder: str, marker: str) -> Mapping[str, str]:
    """Modules of a sub-package that declare ``marker``, by name: ``my-method`` for my_method.py.

    A file that is broken may be one of them. It is listed too, and an error names it where its declarations are read.
    """
    found = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        module = f"bntt.{folder}.{path.stem}"
        present = path.is_file() or path.is_symlink()  # a link to nowhere is a broken plug-in
        if present and is_source(path, PACKAGE) and not path.stem.startswith("_") and _may_declare(module, marker):
            found[path.stem.replace("_", "-")] = module
    return found


def _may_declare(module: str, marker: str) -> bool:
    try:
        return literal(module, marker) is not None
    except UserError:
        return True


def facts(module: str) -> dict[str, Any]:
    """What a dataset declares about itself, its literal ``DATASET``; raises UserError if something is missing."""
    found = literal(module, "DATASET")
    if not isinstance(found, dict) or not found.keys() >= _FACTS:
        where = f"{place(module, 'DATASET')}: DATASET"
        raise UserError(f"{where} must be a dictionary with {', '.join(sorted(_FACTS))}, not {found!r}")
    return found


def with_events() -> list[str]:
    """Names of the datasets that keep single events, as far as their files can be read."""
    found = []
    for name, module in plugins("data", "DATASET").items():
        with contextlib.suppress(UserError):
            found += [name] if facts(module).get("events") else []
    return found


def needs_events(method: str) -> bool:
    """Whether a method works on single events, which have no time-steps: it declares ``NEEDS_EVENTS = True``."""
    return bool(literal(plugins("methods", "OPTIONS")[method], "NEEDS_EVENTS"))


_FACTS = {"title", "source", "classes", "shape", "images"}


@cache
def options(module: str) -> dict[str, dict[str, Any]]:
    """All options a module takes: those of what it ``EXTENDS``, updated with its own.

    Raises UserError, with file and line, if a declaration is not as `bntt.experiment.options` describes it.
    """
    merged: dict[str, dict[str, Any]] = {}
    bases, where = literal(module, "EXTENDS") or [], f"{place(module, 'EXTENDS')}: EXTENDS"
    if not isinstance(bases, list):
        raise UserError(f"{where} must be a list of modules, not {bases!r}")
    for base in bases:
        if not str(base).startswith("bntt.") or not module_path(base).is_file():
            raise UserError(f"{where}: there is no module {base!r} in bntt")
        merged |= options(base)
    own, where = literal(module, "OPTIONS") or {}, f"{place(module, 'OPTIONS')}: OPTIONS"
    if not isinstance(own, dict):
        raise UserError(f"{where} must be a dictionary, not {own!r}")
    for key, entry in own.items():
        if not isinstance(entry, dict) or not entry.keys() >= {"default", "help"}:
            raise UserError(f"{where}: {key} must be a dictionary with 'default' and 'help', not {entry!r}")
        for meaning in entry:
            check_name("key", meaning, _MEANINGS, f"{where}: {key}")
    return merged | own


_MEANINGS = ("default", "help", "type", "choices", "min", "above", "below", "max")


def summary(module: str) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(syntax_tree(module_path(module))) or "").split("\n")[0]


def title(module: str) -> str:
    """What tables call a method: its literal ``TITLE``, in which ``{norm}`` stands for the value of option ``norm``.

    Without one, the first line of its docstring up to the first punctuation, else its name. Raises UserError if
    ``TITLE`` is no text, or names no option of the method.
    """
    given = literal(module, "TITLE")
    if given is None:
        return re.split(r"[.,:;(]", summary(module))[0].strip() or module.rpartition(".")[2].replace("_", "-")
    if not isinstance(given, str) or not given.strip():
        raise UserError(f"{place(module, 'TITLE')}: TITLE must be a text, not {given!r}")
    for name in fields(given):
        check_name("option", name, options(module), f"{place(module, 'TITLE')}: TITLE")
    return given


def fields(text: str) -> list[str]:
    """The names in braces in a text."""
    return re.findall(r"\{(\w+)\}", text)
