"""Imports run one way: spiking <- training <- methods <- measurements <- command line, and drawing beside them."""

import ast
from pathlib import Path

import pytest
from tiny import PROJECT

PACKAGE = PROJECT / "bntt"

# What a part may import of the package, itself and what is listed; a part that is not listed here is not restricted.
FOUNDATION = {"errors", "declared", "files", "options", "experiment", "randomness"}
MAY_IMPORT = {
    "errors": set(),
    "declared": {"errors"},
    "files": {"errors"},
    "randomness": set(),
    "options": {"errors"},
    "experiment": {"errors", "declared", "files", "options"},
    "spiking": {"randomness"},
    "data": FOUNDATION | {"code"},
    "checkpoints": {"errors", "files"},
    "training": {"checkpoints", "data", "errors", "randomness"},
    "classifiers": {"data", "spiking", "randomness"},
    "methods": FOUNDATION | {"checkpoints", "data", "spiking", "training", "classifiers"},
    "measurements": FOUNDATION | {"data", "spiking", "classifiers"},
    "code": FOUNDATION,
    "runs": FOUNDATION,
    "published": {"errors", "files"},
}
DRAWING = {
    "collect", "figures", "tables", "claims", "energy", "statistics", "reproduction", "verdicts", "notebook", "report"
}  # fmt: skip


# Figure 2 shows the project's own neuron, which it runs.
SIMULATES = "figures/neuron.py"


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, top_only: bool = False):
    """Modules that a file imports, as dotted names; with ``top_only`` those that importing it imports."""
    tree = ast.parse(path.read_text())
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in tree.body if top_only else ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that code hashes can follow them"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    known = {part_of(other) for other in PACKAGE.rglob("*.py")}
    names = {name.split(".")[1] for name in imports(path) if name.startswith("bntt.")}
    return (names & known) - {part_of(path)}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_part_imports_only_what_lies_below_it(path):
    part = part_of(path)
    imported = parts_imported(path)
    if part in MAY_IMPORT:
        assert imported <= MAY_IMPORT[part]
    if part not in ("__main__", "cli"):
        assert "cli" not in imported
    if part not in ("cli", "plan"):
        assert "pipeline" not in imported
    if part in DRAWING and path.relative_to(PACKAGE).as_posix() != SIMULATES:
        assert not imported & {"training", "methods", "measurements", "spiking", "classifiers", "devices", "pipeline"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_plans_or_draws_does_not_import_torch(path):
    planning = FOUNDATION - {"randomness"} | {"code", "runs", "provenance", "cli", "reference", "data"}
    part = part_of(path)
    if path.relative_to(PACKAGE).as_posix() == SIMULATES:
        return
    if part in planning | DRAWING | {"published", "__init__", "__main__"} and path.name not in (
        "images.py",
        "_torchvision.py",
    ):
        roots = {name.split(".")[0] for name in imports(path, top_only=part not in DRAWING)}
        assert not roots & {"torch", "torchvision", "safetensors"}


def test_methods_do_not_know_one_another_except_by_extending():
    for path in (PACKAGE / "methods").glob("*.py"):
        others = {
            name
            for name in imports(path)
            if name.startswith("bntt.methods.") and (PACKAGE / "methods" / f"{name.split('.')[2]}.py").is_file()
        }
        assert {name for name in others if name.count(".") == 2} <= set(declared_bases(path)), path


def declared_bases(path: Path) -> list[str]:
    from bntt import declared

    return declared.literal(f"bntt.methods.{path.stem}", "EXTENDS") or []


def test_nothing_is_unpickled():
    for path in [*FILES, *(PROJECT / "analysis").glob("*.py")]:
        text = path.read_text()
        assert "pickle" not in {name.split(".")[0] for name in imports(path)}, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                safe = {ast.unparse(keyword) for keyword in node.keywords}
                assert safe & {"weights_only=True", "allow_pickle=False"}, f"{path}: {ast.unparse(node)}"


def test_only_one_module_imports_torchvision():
    assert {path.name for path in FILES if "torchvision" in {n.split(".")[0] for n in imports(path)}} <= {
        "_torchvision.py"
    }


def test_test_images_are_read_by_evaluation_alone():
    for part in ("training.py", "methods", "spiking"):
        for path in [PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).rglob("*.py"):
            tree = ast.parse(path.read_text())
            released = {  # what the released code does, under the option that says so
                inner
                for node in ast.walk(tree)
                if isinstance(node, ast.If) and "== 'best-test'" in ast.unparse(node.test)
                for inner in ast.walk(node)
            }
            for node in set(ast.walk(tree)) - released:
                read = isinstance(node, ast.Attribute) and node.attr == "test"
                assert not read, f"{path}: line {node.lineno} reads test images"


@pytest.mark.parametrize("path", [*FILES, *sorted((PROJECT / "workflow").rglob("*.smk"))], ids=lambda path: path.name)
def test_a_file_is_readable_in_one_sitting_and_says_what_it_holds(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert text.startswith('"""')
