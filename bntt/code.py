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

from bntt import declared
from bntt.experiment import Run

_DRAWING = {
    "claims", "collect.py", "comparison.py", "energy.py", "figures", "published", "report.py", "report_verdicts.py",
    "reproduction.py", "runs.py", "statistics.py", "tables", "verdicts.py",
}  # fmt: skip
# What decides no number, though what decides numbers imports it: errors, files, names, the reading of options.
_INFRASTRUCTURE = {
    "__init__.py", "checkpoints.py", "code.py", "declared.py", "devices.py", "errors.py", "experiment.py", "files.py",
    "provenance.py", "runs.py",
}  # fmt: skip


def training_code(run: Run) -> str:
    """Hash of what decides the weights of a run."""
    return _digest(_deciding(run) - {declared.PACKAGE / "classifiers.py"})


def evaluation_code(run: Run) -> str:
    """Hash of what decides the measurements of a run, given its weights."""
    return _digest(_deciding(run) | set((declared.PACKAGE / "measurements").glob("*.py")))


def reading_code(dataset: str) -> str:
    """Hash of what decides the prepared arrays of a dataset, but for its split."""
    return _digest(_imported([declared.plugins("data", "DATASET")[dataset]], frozenset({"data/__init__.py"})))


def drawing_code() -> str:
    """Hash of what draws tables, figures and the overview from measurements."""
    sources = {path for kind in ("*.py", "*.yaml") for path in declared.PACKAGE.rglob(kind)}
    return _digest({path for path in sources if path.relative_to(declared.PACKAGE).parts[0] in _DRAWING})


def _deciding(run: Run) -> set[Path]:
    """All of the mathematics, and whatever the pipeline, the run's method and its dataset import of this package."""
    dataset = declared.plugins("data", "DATASET")[run.dataset]
    method = declared.plugins("methods", "OPTIONS")[run.method]
    roots = {declared.PACKAGE / "pipeline.py", declared.PACKAGE / "training.py"} | _split_file(run.dataset)
    mathematics = {path for kind in ("*.py", "*.cpp") for path in (declared.PACKAGE / "spiking").rglob(kind)}
    return mathematics | roots | _imported([dataset, method])


def _split_file(dataset: str) -> set[Path]:
    known = declared.literal(declared.plugins("data", "DATASET")[dataset], "DATASET")
    path = declared.PACKAGE / "data" / "splits" / f"{known.get('split', dataset)}.json"
    return {path} if path.is_file() else set()


def _imported(modules: list[str], without: Set[str] = frozenset()) -> set[Path]:
    """The files of modules and of all they import of this package or extend, but for what decides no number."""
    without = _INFRASTRUCTURE | without
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = declared.module_path(module)
        if path in found or not path.is_file() or path.relative_to(declared.PACKAGE).as_posix() in without:
            continue
        found.add(path)
        waiting += declared.literal(module, "EXTENDS") or []
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
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
                    waiting += [".".join(name.split(".")[: depth + 1]) for depth in range(1, name.count(".") + 1)]
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
