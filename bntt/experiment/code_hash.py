"""A hash of the code that decides a run's numbers. It shows whether a result is current.

Syntax trees are hashed, without docstrings, so an edited comment in Python reruns nothing. Only what decides numbers
counts: the mathematics, the training loop, the data path, the run's method and dataset; for evaluation also the
measurements. Other methods, figures and the workflow do not count.
"""

import ast
import hashlib
import os
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from bntt.common.errors import UserError
from bntt.experiment import declared
from bntt.experiment.schema import Run

_PLUMBING = frozenset({"common", "experiment"})  # packages that the deciding code imports, but that decide no number


def training_code(run: Run) -> str:
    """Hash, 16 hexadecimal digits, of the code that decides the weights of a run."""
    return _digest(_deciding(run.method, run.dataset, _PLUMBING | {"classifiers.py", "measurements"}))


def evaluation_code(run: Run) -> str:
    """Hash of the code that decides the measurements of a run, given its weights."""
    return _digest(_deciding(run.method, run.dataset, _PLUMBING) | _all_of("measurements"))


def reading_code(dataset: str) -> str:
    """Hash of the code that decides the prepared arrays of a dataset, except its split."""
    return _digest(_imported(declared.plugins("data", "DATASET")[dataset], without=_PLUMBING))


def drawing_code() -> str:
    """Hash of the code that draws tables, figures and the overview from measurements."""
    return _digest(_all_of("results", "paper", "drawing"))


@cache
def _deciding(method: str, dataset: str, without: frozenset[str]) -> frozenset[Path]:
    """All of the mathematics and the loop, and what the method and dataset import, except from ``without``."""
    reader = declared.plugins("data", "DATASET")[dataset]
    found = _imported(declared.plugins("methods", "OPTIONS")[method], reader, without=without)
    split = declared.PACKAGE / f"data/splits/{declared.facts(reader).get('split', dataset)}.json"
    return found | _all_of("spiking", "training") | ({split} if split.is_file() else set())


@cache
def _all_of(*rooms: str) -> frozenset[Path]:
    """Every source file of some packages: Python, C++, the paper's numbers and the templates of pages."""
    kinds = ("*.py", "*.cpp", "*.h", "*.yaml", "*.html")
    found = (path for room in rooms for kind in kinds for path in (declared.PACKAGE / room).rglob(kind))
    return frozenset(path for path in found if path.is_file() and declared.is_source(path, declared.PACKAGE))


@cache
def _imported(*modules: str, without: frozenset[str]) -> frozenset[Path]:
    """The files of modules and of all that they import from `bntt` or extend, except those in ``without``.

    The C++ source of a module lies beside it and has its name.
    """
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = declared.module_path(module)
        if path not in found and path.is_file() and path.relative_to(declared.PACKAGE).parts[0] not in without:
            found |= {file for file in (path, path.with_suffix(".cpp")) if file.is_file()}
            waiting += _named_in(module)
    return frozenset(found)


@cache
def _named_in(module: str) -> list[str]:
    """The modules of this package that a module imports, the packages around them, and what it extends."""
    path = declared.module_path(module)
    if not _is_whole(path):
        return []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = list(declared.literal(module, "EXTENDS") or [])
    for node in ast.walk(declared.syntax_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names += [f"{source}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names if name.startswith("bntt.")]
    return [".".join(of_name[:depth]) for of_name in parts for depth in range(2, len(of_name) + 1)]


def _is_whole(path: Path) -> bool:
    """Whether a file can be read. A half-written one decided no number; its error comes where it is used."""
    try:
        if path.suffix == ".py":
            declared.syntax_tree(path)
        return os.access(path, os.R_OK)
    except UserError:
        return False


@cache
def _digest(paths: frozenset[Path]) -> str:
    whole = filter(_is_whole, paths)
    lines = sorted(f"{path.relative_to(declared.PACKAGE).as_posix()} {_file_digest(path)}" for path in whole)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def _file_digest(path: Path) -> str:
    text = _canonical(declared.syntax_tree(path)) if path.suffix == ".py" else path.read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(node: object) -> str:
    """A syntax tree as text, without docstrings, positions and empty fields, the same on every Python version."""
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {key: value for key, value in ast.iter_fields(node) if key not in ("ctx", "kind")}
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if isinstance(node, documented) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    inner = ",".join(f"{key}={_canonical(value)}" for key, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({inner})"
