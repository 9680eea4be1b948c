"""The code hash: what changes it, and what must not."""

import ast
import re

import pytest
from edits import add_a_statement, append, deepest, describe_otherwise, docstrings, forget, rewrite
from tiny import PROJECT, experiment

from bntt.experiment import code_hash, declared


def hashes(runs) -> dict[str, str]:
    forget()
    found = {}
    for run in runs:
        found[f"train {run.row}"] = code_hash.training_code(run)
        found[f"evaluate {run.row}"] = code_hash.evaluation_code(run)
    return found | {"draw": code_hash.drawing_code()}


@pytest.fixture
def runs(tmp_path):
    return experiment(tmp_path).runs


def changed_by(runs, change) -> set[str]:
    before = hashes(runs)
    change()
    after = hashes(runs)
    return {name for name in before if before[name] != after[name]}


ROWS = ("bntt", "plain", "ann", "rmp")
TRAIN = {f"train {row}" for row in ROWS}
EVALUATE = {f"evaluate {row}" for row in ROWS}


def of(*rows: str) -> set[str]:
    return {f"{step} {row}" for row in rows for step in ("train", "evaluate")}


def test_hashes_are_the_same_again_and_wherever_the_package_lies(package, runs, monkeypatch):
    here = hashes(runs)
    assert hashes(runs) == here
    monkeypatch.setattr(declared, "PACKAGE", PROJECT / "bntt")
    assert hashes(runs) == here
    assert all(len(value) == 16 for value in here.values())


def test_rows_of_one_method_share_a_hash_and_methods_differ(package, runs):
    found = hashes(runs)
    assert found["train bntt"] == found["train plain"]
    assert len({found[f"train {row}"] for row in ("bntt", "ann", "rmp")}) == 3
    assert found["train ann"] != found["evaluate ann"]


DECIDING = [
    "training/loop.py", "spiking/norms.py", "spiking/kernels/plain.py", "methods/surrogate.py", "data/digits.py",
    "measurements/noise.py",
]  # fmt: skip


@pytest.mark.parametrize("file", DECIDING)
def test_comments_blank_lines_layout_and_docstrings_change_nothing(package, runs, file):
    path = package / file
    described = len(docstrings(ast.parse(path.read_text())))
    assert described > 1, "a docstring of a function is to change, too"

    def change():
        rewrite(path, describe_otherwise)
        commented = re.sub(r":$", ":  # a comment\n\n", path.read_text(), flags=re.MULTILINE)
        path.write_text(f"# the first\n\n\n{commented}\n\n# the last\n")

    assert changed_by(runs, change) == set()
    assert "Other words: 1" in path.read_text()


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("training/loop.py", int),
        ("training/loop.py", str),
        ("spiking/norms.py", str),
        ("spiking/kernels/plain.py", int),
    ],
)
def test_a_number_or_a_word_deep_within_a_function_counts(package, runs, file, kind):
    def change(tree):
        constant = deepest(tree, kind)
        constant.value += kind(1)

    assert changed_by(runs, lambda: rewrite(package / file, change)) == TRAIN | EVALUATE


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("methods/surrogate.py", of("bntt", "plain")),
        ("methods/ann.py", of("ann")),
        ("methods/conversion.py", of("rmp")),
        ("spiking/norms.py", TRAIN | EVALUATE),
        ("spiking/kernels/plain.py", TRAIN | EVALUATE),
        ("spiking/kernels/native.cpp", TRAIN | EVALUATE),
        ("spiking/kernels/vectors.h", TRAIN | EVALUATE),
        ("spiking/encoding.py", TRAIN | EVALUATE),
        ("spiking/randomness.py", TRAIN | EVALUATE),
        ("training/loop.py", TRAIN | EVALUATE),
        ("training/buffers.cpp", TRAIN | EVALUATE),
        ("data/digits.py", TRAIN | EVALUATE),
        ("data/images.py", TRAIN | EVALUATE),
        ("data/splits/digits.json", TRAIN | EVALUATE),
        ("data/cifar10.py", set()),
        ("data/splits/dvs-cifar10.json", set()),
        ("measurements/energy.py", EVALUATE),
        ("measurements/observation.py", EVALUATE),
        ("commands/_options.py", set()),
        ("runs/devices.py", set()),
        ("experiment/schema.py", set()),
        ("common/files.py", set()),
    ],
)
def test_an_edit_changes_what_it_decides_and_nothing_else(package, runs, file, expected):
    assert changed_by(runs, lambda: add_a_statement(package / file)) == expected


@pytest.mark.parametrize("file", ["classifiers.py", "methods/__init__.py", "training/arithmetic.py"])
def test_what_lies_between_a_run_and_its_numbers_counts_for_them(package, runs, file):
    """Classifiers decide what is measured; methods/__init__.py what a method is given."""
    changed = changed_by(runs, lambda: add_a_statement(package / file))
    assert changed >= EVALUATE
    if file == "classifiers.py":
        assert not changed & TRAIN, "an edit of what only evaluation uses trains everything again"


def test_new_methods_measurements_and_figures(package, runs):
    def method():
        (package / "methods" / "mine.py").write_text('"""Mine."""\nOPTIONS = {}\n')

    def measurement():
        (package / "measurements" / "mine.py").write_text(
            '"""Mine."""\nCOLUMNS = {}\ndef measure(subject): return []\n'
        )

    assert changed_by(runs, method) == set()
    assert changed_by(runs, measurement) == EVALUATE


DRAWN = sorted(
    path.relative_to(PROJECT / "bntt").as_posix()
    for room in ("results", "paper", "drawing")
    for path in (PROJECT / "bntt" / room).rglob("*")
    if path.suffix in (".py", ".yaml")
)


def test_every_committed_c_source_is_compiled_and_no_copy_of_one():
    from bntt.spiking.kernels import native
    from bntt.training import arithmetic

    committed = {path for path in (PROJECT / "bntt").rglob("*.cpp") if declared.is_source(path, PROJECT)}
    of_features = {path for path in committed if path.parent == PROJECT / "bntt" / "features"}
    assert all("Native(" in path.with_suffix(".py").read_text() for path in of_features)
    assert {*native.SOURCES, arithmetic.SOURCE} == committed - of_features


def test_the_c_source_of_a_feature_counts_for_the_methods_that_use_it(package, tmp_path):
    (package / "features" / "mine.py").write_text("SIDE = 1\n")
    (package / "features" / "mine.cpp").write_text("int side = 1;\n")
    append(package / "methods" / "ann.py", "\nfrom bntt.features.mine import SIDE\n")
    runs = experiment(tmp_path).runs
    assert changed_by(runs, lambda: add_a_statement(package / "features" / "mine.cpp")) == of("ann")


def test_every_file_that_draws_counts_for_drawing_alone(package, runs):
    before = hashes(runs)
    seen = {before["draw"]}
    for file in DRAWN:
        add_a_statement(package / file)
        forget()
        drawing = code_hash.drawing_code()
        assert drawing not in seen, f"{file} does not count"
        seen.add(drawing)
    assert hashes(runs) == before | {"draw": drawing}
    assert len(seen) > 30


@pytest.mark.parametrize(
    "line",
    [
        "from bntt.methods import ann",
        "from bntt.methods.ann import build",
        "import bntt.methods.ann",
        "from bntt.methods import _shared",
        "from . import ann",
        "from .ann import build",
        "EXTENDS = ['bntt.methods.ann']",
    ],
)
def test_a_method_that_builds_on_another_changes_with_it(package, tmp_path, line):
    (package / "methods" / "_shared.py").write_text("from bntt.methods.ann import build\n")
    (package / "methods" / "mine.py").write_text(
        f'"""Mine."""\nfrom bntt.training.loop import fit\n{line}\nOPTIONS = {{}}\n'
    )
    forget()
    mine = experiment(tmp_path, rows={"mine": {"method": "mine"}, "ann": {"method": "ann"}}, protocol={}).runs
    changed = changed_by(mine, lambda: add_a_statement(package / "methods" / "ann.py"))
    assert changed == of("mine", "ann")


def test_a_helper_of_a_dataset_or_a_method_outside_its_folder_counts(package, tmp_path):
    """What a plug-in imports of the package decides its numbers, wherever it lies."""
    (package / "data" / "_reader.py").write_text("LEVELS = 16\n")
    append(package / "data" / "digits.py", "\nfrom bntt.data._reader import LEVELS\n")
    (package / "simulation.py").write_text("STEP = 1\n")
    append(package / "methods" / "ann.py", "\nfrom bntt.simulation import STEP\n")
    runs = experiment(tmp_path).runs
    assert changed_by(runs, lambda: (package / "data" / "_reader.py").write_text("LEVELS = 17\n")) >= TRAIN
    assert "train ann" in changed_by(runs, lambda: (package / "simulation.py").write_text("STEP = 2\n"))


def test_a_renamed_variable_is_a_change(package, runs):
    """The hash is of syntax, not of meaning: it errs on the side of running again."""

    def rename(tree):
        renamed = next(node for node in ast.walk(tree) if isinstance(node, ast.arg))
        for node in ast.walk(tree):
            if isinstance(node, ast.arg) and node.arg == renamed.arg:
                node.arg = "another_name"
            elif isinstance(node, ast.Name) and node.id == renamed.arg:
                node.id = "another_name"

    assert changed_by(runs, lambda: rewrite(package / "methods" / "ann.py", rename)) == of("ann")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 1", "x = 1  # one", True),
        ("x = 'a'", 'x = "a"', True),
        ("x = 1", "x = 1.0", False),
        ("x = 1", "x = True", False),
        ("x = -1", "x = +1", False),
        ("x = a - b", "x = b - a", False),
        ("x = (1, 2)", "x = [1, 2]", False),
        ("x = None", "x = ()", False),
        ("def f():\n return", "def f():\n return None", False),
        ("def f():\n 'doc'\n return 1", "def f():\n return 1", True),
        ("def f():\n return 1", "def f():\n 2\n return 1", False),
        ("def f(a, /): pass", "def f(a): pass", False),
        ("def f(*, a=1): pass", "def f(a=1): pass", False),
        ("x = f'{a}'", "x = f'{a!r}'", False),
        ("if a:\n b\nelse:\n c", "if a:\n b\nc", False),
        ("for a in b:\n c\nelse:\n d", "for a in b:\n c\nd", False),
    ],
)
def test_canonical_text_tells_programs_apart_and_spellings_alike(tmp_path, one, other, same):
    assert (code_hash._canonical(ast.parse(one)) == code_hash._canonical(ast.parse(other))) is same
