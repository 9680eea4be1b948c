"""The order of the packages, which `pyproject.toml` states, and what their sources may contain."""

import ast
import sys
from pathlib import Path

import pytest
from importlinter.api import read_configuration
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports
from tiny import PROJECT

from bntt.experiment import declared

PACKAGE = PROJECT / "bntt"

CONTRACT = read_configuration(str(PROJECT / "pyproject.toml"))["contracts_options"][0]
FILES = sorted(PACKAGE.rglob("*.py"))
MAY_LOAD_TORCH = ("spiking", "training", "classifiers", "methods", "measurements")  # and what these files hold
TENSORS = (
    "data/images.py", "data/_torchvision.py", "features/forest.py", "features/svm.py", "runs/pipeline.py",
    "runs/checkpoints.py", "runs/contract.py", "runs/devices.py", "runs/together.py",
)  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


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


def test_a_package_imports_only_from_packages_below_it():
    assert lint_imports(str(PROJECT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_every_package_has_its_place():
    """Else a new folder would stand outside the order."""
    rooms = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__init__.py", "__pycache__", "py.typed")}
    assert rooms == set(CONTRACT["layers"])
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 17


def test_private_modules_are_used_by_their_own_package_alone():
    for path in FILES:
        for name in imports(path):
            parts = name.split(".")
            for depth, part in enumerate(parts[1:], 1):
                module = PACKAGE.joinpath(*parts[1 : depth + 1]).with_suffix(".py")
                if parts[0] == "bntt" and part.startswith("_") and module.is_file():
                    assert path.is_relative_to(module.parent), f"{name_of(path)} imports {name}"


def test_nothing_is_named_after_a_standard_library_module():
    public = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in FILES}
    assert not {name for name in public if name.split("/")[-1] in sys.stdlib_module_names - {"__main__"}}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_plans_or_draws_does_not_import_torch(path):
    if name_of(path).split("/")[0].removesuffix(".py") in MAY_LOAD_TORCH or name_of(path) in TENSORS:
        return
    roots = {name.split(".")[0] for name in imports(path, top_only=True)}
    assert not roots & {"torch", "torchvision", "safetensors"}


METHODS = {module.split(".")[2] for module in declared.plugins("methods", "OPTIONS").values()}


def test_methods_do_not_know_one_another_except_by_extending():
    for path in (PACKAGE / "methods").glob("*.py"):
        others = {name for name in imports(path) if name.startswith("bntt.methods.") and name.split(".")[2] in METHODS}
        assert {name for name in others if name.count(".") == 2} <= set(declared_bases(path)), path


def declared_bases(path: Path) -> list[str]:
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
    for room in ("training", "methods", "spiking"):
        for path in (PACKAGE / room).rglob("*.py"):
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
def test_a_file_says_what_it_holds(path):
    assert path.read_text().startswith('"""')
