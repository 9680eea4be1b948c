"""A hash of the code that decides a run's numbers, by which it is known whether a result is current.

Syntax trees are hashed, without docstrings, so an edited comment reruns nothing. Only what decides numbers counts: the
mathematics, the training loop, the data path, the run's method and dataset; for evaluation also the measurements.
Another method, a figure or the workflow does not.
"""

import ast
import hashlib
from collections.abc import Set
from functools import cache
from pathlib import Path

from bntt.experiment import declared
from bntt.experiment.schema import Run

# By rooms: what decides no number, though what decides numbers imports it; what only evaluation uses; what draws.
_PLUMBING = frozenset({"common", "experiment"})
_MEASURES = frozenset({"classifiers.py", "measurements"})
_DRAWS = frozenset({"results", "paper", "drawing"})


def training_code(run: Run) -> str:
    """Hash of what decides the weights of a run."""
    return _digest(_deciding(run, without=_PLUMBING | _MEASURES))


def evaluation_code(run: Run) -> str:
    """Hash of what decides the measurements of a run, given its weights."""
    return _digest(_deciding(run, without=_PLUMBING) | _all_of("measurements"))


def reading_code(dataset: str) -> str:
    """Hash of what decides the prepared arrays of a dataset, but for its split."""
    return _digest(_imported([declared.plugins("data", "DATASET")[dataset]], _PLUMBING))


def drawing_code() -> str:
    """Hash of what draws tables, figures and the overview from measurements."""
    return _digest({path for room in _DRAWS for path in _all_of(room)})


def _deciding(run: Run, without: Set[str]) -> set[Path]:
    """All of the mathematics and of the loop, and what the run's method and dataset import, without some rooms."""
    dataset = declared.plugins("data", "DATASET")[run.dataset]
    method = declared.plugins("methods", "OPTIONS")[run.method]
    return _all_of("spiking") | _all_of("training") | _split_file(run.dataset) | _imported([dataset, method], without)


def _all_of(room: str) -> set[Path]:
    """Every source in a room: Python, C++, the paper's numbers and the templates of pages."""
    return {path for kind in ("*.py", "*.cpp", "*.yaml", "*.html") for path in (declared.PACKAGE / room).rglob(kind)}


def _split_file(dataset: str) -> set[Path]:
    known = declared.literal(declared.plugins("data", "DATASET")[dataset], "DATASET")
    path = declared.PACKAGE / "data" / "splits" / f"{known.get('split', dataset)}.json"
    return {path} if path.is_file() else set()


def _imported(modules: list[str], without: Set[str]) -> set[Path]:
    """The files of modules and of all that they import of this package or extend, but for those in some rooms."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = declared.module_path(module)
        if path in found or not path.is_file() or path.relative_to(declared.PACKAGE).parts[0] in without:
            continue
        found.add(path)
        waiting += _named_in(module)
    return found


@cache
def _named_in(module: str) -> list[str]:
    """The modules of this package that a module imports, the packages around them, and what it extends."""
    path = declared.module_path(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = list(declared.literal(module, "EXTENDS") or [])
    for node in ast.walk(declared.syntax_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "bntt":
                found += [".".join(name.split(".")[: depth + 1]) for depth in range(1, name.count(".") + 1)]
    return found


def _digest(paths: set[Path]) -> str:
    lines = sorted(f"{path.relative_to(declared.PACKAGE).as_posix()} {_file_digest(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def _file_digest(path: Path) -> str:
    text = _canonical(declared.syntax_tree(path)) if path.suffix == ".py" else path.read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(node: object) -> str:
    """A syntax tree as text, without docstrings, positions and empty fields, alike on every Python version."""
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if (
        isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    ):
        fields["body"] = node.body[1:]
    inner = ",".join(
        f"{k}={_canonical(v)}" for k, v in fields.items() if k not in ("ctx", "kind") and v not in (None, [])
    )
    return f"{type(node).__name__}({inner})"
