"""What a module declares about itself, read without importing it.

Methods, datasets and the parts they build on declare their options as a literal ``OPTIONS`` dictionary. It is read
from the syntax tree, not from the imported module. So an experiment is validated and a workflow planned in a second,
without torch, and a broken plug-in gives a one-line error.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError

PACKAGE = Path(__file__).parent.parent


def module_path(module: str) -> Path:
    """Source file of a module of this package, ``bntt.data`` -> ``bntt/data/__init__.py``."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def syntax_tree(path: Path) -> ast.Module:
    """The parsed source; raises UserError for a syntax error."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}") from None


def literal(module: str, name: str) -> Any:
    """The literal that a module assigns to a name, or None; raises UserError if the value is not a literal."""
    path = module_path(module)
    for node in syntax_tree(path).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                raise UserError(f"{path}: {name} must be a literal, so that it can be read without importing") from None
    return None


def plugins(folder: str, marker: str) -> dict[str, str]:
    """Modules of a sub-package that declare ``marker``, by name: ``my-method`` for my_method.py."""
    found = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        module = f"bntt.{folder}.{path.stem}"
        if not path.stem.startswith("_") and literal(module, marker) is not None:
            found[path.stem.replace("_", "-")] = module
    return found


@cache
def options(module: str) -> dict[str, dict[str, Any]]:
    """All options a module takes: those of what it ``EXTENDS``, updated with its own."""
    merged: dict[str, dict[str, Any]] = {}
    for base in literal(module, "EXTENDS") or []:
        merged |= options(base)
    return merged | (literal(module, "OPTIONS") or {})


def summary(module: str) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(syntax_tree(module_path(module))) or "").split("\n")[0]
