"""The code hash: what changes it, and what must not."""

import shutil

import pytest
from tiny import PROJECT, experiment

from bntt.experiment import code_hash, declared

PARSED: dict = {}
HASHED: dict = {}


def forget() -> None:
    declared.options.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, in a folder with a space, from which hashes are made.

    Within a process sources are taken not to change, so they are parsed once each. Here they do change, and what is
    remembered goes by their content.
    """
    copy = tmp_path / "another place" / "bntt"
    shutil.copytree(PROJECT / "bntt", copy, ignore=shutil.ignore_patterns("__pycache__"))
    parse, digest = declared.syntax_tree.__wrapped__, code_hash._file_digest.__wrapped__

    def remember(memory, function):
        def remembered(path):
            known = (path.suffix, path.read_bytes())
            if known not in memory:
                memory[known] = function(path)
            return memory[known]

        return remembered

    monkeypatch.setattr(declared, "PACKAGE", copy)
    monkeypatch.setattr(declared, "syntax_tree", remember(PARSED, parse))
    monkeypatch.setattr(code_hash, "_file_digest", remember(HASHED, digest))
    forget()
    yield copy
    forget()


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


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}: this test must follow it"
    path.write_text(text.replace(old, new, 1))


def append(path, text: str) -> None:
    path.write_text(path.read_text() + text)


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


@pytest.mark.parametrize(
    "file", ["training/loop.py", "spiking/norms.py", "methods/surrogate.py", "data/digits.py", "measurements/noise.py"]
)
def test_comments_blank_lines_and_docstrings_change_nothing(package, runs, file):
    path = package / file

    def change():
        text = path.read_text()
        start = text.index('"""')
        end = text.index('"""', start + 3)
        text = text[:start] + '"""Other words.\n\nAnd more of them.\n' + text[end:]
        path.write_text("# a comment\n\n\n" + text.replace("\n\n\n", "\n\n\n\n# another\n") + "\n\n# the last\n")

    assert changed_by(runs, change) == set()


def test_docstrings_of_functions_and_classes_change_nothing(package, runs):
    assert (
        changed_by(runs, lambda: edit(package / "training/loop.py", '"""What a training left', '"""That which'))
        == set()
    )
    assert (
        changed_by(runs, lambda: edit(package / "training/loop.py", '"""Accuracy in per', '"""The accuracy')) == set()
    )
    assert changed_by(runs, lambda: edit(package / "spiking/norms.py", '"""Moments over all', '"""All the')) == set()


def test_a_string_that_is_no_docstring_counts(package, runs):
    assert changed_by(runs, lambda: edit(package / "training/loop.py", '"training noise"', '"other noise"')) >= TRAIN


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "methods/surrogate.py",
            "decay_budget(options, -(-len",
            "decay_budget(options, -(-1 * len",
            of("bntt", "plain"),
        ),
        ("methods/ann.py", "torch.manual_seed(key(noise,", "torch.manual_seed(1 + key(noise,", of("ann")),
        ("methods/conversion.py", "HELD = 2**26", "HELD = 2**25", of("rmp")),
        ("spiking/norms.py", "a[: t + 1]", "a[: t + 2]", TRAIN | EVALUATE),
        ("spiking/kernels/plain.py", "x.mean(1)", "x.sum(1)", TRAIN | EVALUATE),
        ("spiking/encoding.py", "images / 2", "images / 3", TRAIN | EVALUATE),
        ("data/digits.py", "255 / 16", "255 / 17", TRAIN | EVALUATE),
        ("data/images.py", "chosen / 255", "chosen / 256", TRAIN | EVALUATE),
        ("data/splits/digits.json", "[0, 2,", "[2, 0,", TRAIN | EVALUATE),
        ("spiking/randomness.py", "2.0**-24", "2.0**-25", TRAIN | EVALUATE),
        ("training/loop.py", "epoch * 1_000_000", "epoch * 999_999", TRAIN | EVALUATE),
        ("measurements/operations.py", "AC_PJ = 0.9", "AC_PJ = 1.9", EVALUATE),
        ("measurements/observation.py", "argmax(2)", "argmin(2)", EVALUATE),
        ("results/collect.py", '"decay_budget"', '"budget"', {"draw"}),
        ("paper/tables.yaml", "4.6", "4.7", {"draw"}),
        ("commands/_options.py", "listed", "enumerated", set()),
        ("runs/devices.py", "poll_seconds: float = 0.5", "poll_seconds: float = 0.6", set()),
    ],
)
def test_an_edit_changes_what_it_decides_and_nothing_else(package, runs, file, old, new, expected):
    assert changed_by(runs, lambda: edit(package / file, old, new)) == expected


@pytest.mark.parametrize("file", ["classifiers.py", "methods/__init__.py", "training/arithmetic.py"])
def test_what_lies_between_a_run_and_its_numbers_counts_for_them(package, runs, file):
    """Classifiers decide what is measured; methods/__init__.py what a method is given."""
    changed = changed_by(runs, lambda: append(package / file, "\nNEW = 1\n"))
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


@pytest.mark.parametrize("file", DRAWN)
def test_every_file_that_draws_counts_for_drawing_alone(package, runs, file):
    path = package / file
    text = "\nNEW = 1\n" if path.suffix == ".py" else "\n# new: 1\nnew: 1\n"
    assert changed_by(runs, lambda: append(path, text)) == {"draw"}


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
    changed = changed_by(mine, lambda: append(package / "methods" / "ann.py", "\nNEW = 1\n"))
    assert changed == of("mine", "ann")


def test_a_helper_of_a_dataset_or_a_method_outside_its_folder_counts(package, tmp_path):
    """What a plug-in imports of the package decides its numbers, wherever it lies."""
    (package / "data" / "_reader.py").write_text("LEVELS = 16\n")
    edit(
        package / "data" / "digits.py", "import numpy as np", "import numpy as np\nfrom bntt.data._reader import LEVELS"
    )
    (package / "simulation.py").write_text("STEP = 1\n")
    edit(package / "methods" / "ann.py", "import torch\n", "import torch\nfrom bntt.simulation import STEP\n")
    runs = experiment(tmp_path).runs
    assert changed_by(runs, lambda: (package / "data" / "_reader.py").write_text("LEVELS = 17\n")) >= TRAIN
    assert "train ann" in changed_by(runs, lambda: (package / "simulation.py").write_text("STEP = 2\n"))


def test_a_renamed_variable_and_swapped_operands_are_changes(package, runs):
    """The hash is of syntax, not of meaning: it errs on the side of running again."""
    path = package / "methods" / "ann.py"
    assert changed_by(runs, lambda: edit(path, "def forward(unit, samples, noise)", "def forward(unit, samples, n)"))


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
    import ast

    assert (code_hash._canonical(ast.parse(one)) == code_hash._canonical(ast.parse(other))) is same
