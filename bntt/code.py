"""A hash of the code that decides a run's numbers, by which it is known whether a result is current.

Syntax trees are hashed, without docstrings, so an edited comment reruns nothing. Only what decides numbers counts: the
mathematics, the training loop, the data path, the run's method and dataset; for evaluation also the measurements.
Another method, a figure or the workflow does not.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from bntt import declared
from bntt.experiment import Run

_ALWAYS = ("randomness.py", "training.py", "classifiers.py", "data/__init__.py", "data/images.py")

_NOT_DRAWING = {
    "spiking", "data", "methods", "measurements", "classifiers.py", "training.py", "randomness.py", "pipeline.py",
    "devices.py", "provenance.py", "cli.py", "reference.py", "__main__.py", "code.py",
}  # fmt: skip


def training_code(run: Run) -> str:
    """Hash of what decides the weights of a run."""
    return _digest(_training_sources(run))


def evaluation_code(run: Run) -> str:
    """Hash of what decides the measurements of a run, given its weights."""
    return _digest(_training_sources(run) | set((declared.PACKAGE / "measurements").glob("*.py")))


def drawing_code() -> str:
    """Hash of what draws tables, figures and the overview from measurements."""
    sources = set(declared.PACKAGE.rglob("*.py")) | set((declared.PACKAGE / "published").glob("*.yaml"))
    return _digest({path for path in sources if path.relative_to(declared.PACKAGE).parts[0] not in _NOT_DRAWING})


def _training_sources(run: Run) -> set[Path]:
    package = declared.PACKAGE
    sources = {package / file for file in _ALWAYS} | set((package / "spiking").rglob("*.py"))
    sources.add(declared.module_path(declared.plugins("data", "DATASET")[run.dataset]))
    sources.add(package / "data" / "splits" / f"{run.dataset}.json")
    return sources | _with_imports(declared.plugins("methods", "OPTIONS")[run.method])


def _with_imports(module: str) -> set[Path]:
    """A method's file and those of the methods it builds on, by its imports."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = declared.module_path(waiting.pop())
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(declared.syntax_tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "bntt.methods":
                names = [f"bntt.methods.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            waiting += [n for n in names if n.startswith("bntt.methods.") and declared.module_path(n).is_file()]
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
