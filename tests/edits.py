"""Edits of sources by their structure, whatever they say: a statement more, other docstrings, another constant."""

import ast
from collections.abc import Callable
from pathlib import Path

from bntt.experiment import code_hash, declared, schema

ADDED = {
    ".py": "\nNEW = 1\n",
    ".yaml": "\nnew: 1\n",
    ".json": "\n",
    ".cpp": "\nint added;\n",
    ".h": "\nint added;\n",
    ".smk": "\n# a comment\n",
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def forget() -> None:
    """Let sources be read again: within a process they are taken not to change."""
    for module in (declared, code_hash, schema):
        for known in vars(module).values():
            if hasattr(known, "cache_clear"):
                known.cache_clear()


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def add_a_statement(path: Path) -> None:
    """The file says one thing more; a rule file has a comment more."""
    append(path, ADDED[path.suffix])


def rewrite(path: Path, change: Callable[[ast.Module], None]) -> None:
    """The file as Python itself writes its syntax tree: no comments, another layout, and what ``change`` changed."""
    tree = ast.parse(path.read_text())
    change(tree)
    path.write_text(ast.unparse(tree))


def docstrings(tree: ast.Module) -> list[ast.Constant]:
    return [node.body[0].value for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and ast.get_docstring(node)]


def describe_otherwise(tree: ast.Module) -> None:
    """Other text in every docstring."""
    for number, docstring in enumerate(docstrings(tree)):
        docstring.value = f"Other words: {number}.\n\n    And more of them.\n"


def deepest(tree: ast.Module, kind: type) -> ast.Constant:
    """The constant of a kind that lies deepest within functions, where a careless reader would not look."""
    found, waiting = [], [(0, node) for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    described = {id(one) for one in docstrings(tree)}
    while waiting:
        depth, node = waiting.pop()
        if isinstance(node, ast.Constant) and type(node.value) is kind and id(node) not in described:
            found.append((depth, -node.lineno, -node.col_offset, node))
        waiting += [(depth + 1, child) for child in ast.iter_child_nodes(node)]
    return max(found, key=lambda one: one[:3])[-1]
