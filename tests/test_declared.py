"""What modules declare about themselves, read from their source without importing them."""

import ast
import itertools
import shutil
import sys

import pytest
from edits import forget
from tiny import EXPERIMENT, PROJECT, assert_one_line, bntt_here, experiment, python, write_experiment

from bntt.common.errors import UserError
from bntt.data import store
from bntt.experiment import code_hash, declared
from bntt.experiment.manual import reference, schema
from bntt.experiment.options import Strict, options_model, validated
from bntt.experiment.schema import EVALUATION
from bntt.runs import provenance

FOLDERS = (("methods", "OPTIONS"), ("data", "DATASET"), ("measurements", "COLUMNS"))


def test_plug_ins_are_found_by_folder_and_named_with_hyphens(package):
    (package / "methods" / "my_method.py").write_text('"""Mine."""\nOPTIONS = {}\n')
    (package / "methods" / "_helper.py").write_text("OPTIONS = {}\n")
    (package / "methods" / "no_method.py").write_text("X = 1\n")
    found = declared.plugins("methods", "OPTIONS")
    assert found["my-method"] == "bntt.methods.my_method"
    assert {"surrogate", "ann", "conversion"} <= set(found)
    assert not {"no-method", "helper", "-helper"} & set(found)


def test_options_are_those_of_what_a_module_extends_overlaid_with_its_own(package):
    (package / "methods" / "mine.py").write_text(
        'EXTENDS = ["bntt.methods.surrogate"]\n'
        'OPTIONS = {"leak": {"default": 0.5, "help": "Mine."}, "extra": {"default": 1, "help": "Mine."}}\n'
    )
    options = declared.options("bntt.methods.mine")
    assert options["leak"]["default"] == 0.5
    assert options["extra"]["default"] == 1
    assert {"epochs", "crop_padding", "coding", "architecture"} <= set(options)
    assert declared.options("bntt.methods.surrogate")["leak"]["default"] == 0.95


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ('"""Mine, of 2024."""\nTITLE = "My training, {norm}"\n', "My training, {norm}"),
        ('"""Time surfaces: events, averaged."""\n', "Time surfaces"),
        ('"""Spike-based backprop (Lee et al. 2020)."""\n', "Spike-based backprop"),
        ("", "my-method"),
    ],
)
def test_a_method_is_called_by_its_title_else_its_docstring_else_its_name(package, source, title):
    (package / "methods" / "my_method.py").write_text(source + 'OPTIONS = {"norm": {"default": "a", "help": "A."}}\n')
    assert declared.title("bntt.methods.my_method") == title


@pytest.mark.parametrize(
    ("title", "said"),
    [("3", "TITLE must be a text, not 3"), ("' '", "TITLE must be a text"), ("f'x'", "TITLE must be a literal"),
     ("'a, {nrm}'", "TITLE: unknown option 'nrm'; did you mean 'norm'?")],
)  # fmt: skip
def test_a_title_that_cannot_be_shown_is_one_line(package, title, said):
    (package / "methods" / "mine.py").write_text(
        f'TITLE = {title}\nOPTIONS = {{"norm": {{"default": 1, "help": "A."}}}}\n'
    )
    with pytest.raises(UserError) as raised:
        declared.title("bntt.methods.mine")
    assert_one_line(raised.value, "methods/mine.py, line 1", said)


def test_every_method_has_a_title_that_can_be_filled():
    for module in declared.plugins("methods", "OPTIONS").values():
        assert set(declared.fields(declared.title(module))) <= set(declared.options(module))


def test_an_option_that_methods_declare_differently_is_checked_as_each_declares_it(package, tmp_path):
    for name, most in (("narrow", 3), ("wide", 9)):
        options = {"key": {"default": 1, "max": most, "help": "Of both."}}
        (package / "methods" / f"{name}.py").write_text(f"OPTIONS = {options}\n")

    def loaded(key, *methods):
        rows = {name: {"method": name} for name in methods}
        return experiment(tmp_path, protocol={"key": key}, rows=rows).runs

    assert [run.options for run in loaded(3, "narrow", "wide")] == [{"key": 3}, {"key": 3}]
    assert [run.options for run in loaded(9, "wide")] == [{"key": 9}]
    for key, said in ((9, "rows: narrow: key must be at most 3, not 9"), (10, "protocol: key must be at most")):
        with pytest.raises(UserError) as raised:
            loaded(key, "narrow", "wide")
        assert_one_line(raised.value, said)


def test_a_default_that_its_own_declaration_refuses_is_one_line(package, tmp_path):
    text = 'OPTIONS = {"key": {"default": 0, "min": 1, "help": "Mine."}}\n'
    (package / "methods" / "mine.py").write_text(text)
    with pytest.raises(UserError) as raised:
        experiment(tmp_path, protocol={}, rows={"row": {"method": "mine"}})
    assert_one_line(raised.value, "rows: row: key must be at least 1, not 0")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"OPTIONS = {}\ndef train(:\n", ", line 2: invalid syntax"),
        (b"\n\nOPTIONS = dict(a=1)\n", ", line 3: OPTIONS must be a literal"),
        (b"OPTIONS = {[]: 1}\n", ", line 1: OPTIONS must be a literal"),
        (b"OPTIONS = ['a']\n", ", line 1: OPTIONS must be a dictionary, not ['a']"),
        (b"OPTIONS = {'a': 1}\n", ", line 1: OPTIONS: a must be a dictionary with 'default' and 'help', not 1"),
        (b"OPTIONS = {'a': {'help': 'A.'}}\n", ", line 1: OPTIONS: a must be a dictionary with 'default'"),
        (b"OPTIONS = {'a': {'default': 1, 'help': 'A.', 'mni': 0}}\n", "OPTIONS: a: unknown key 'mni'; did you mean"),
        (b"OPTIONS = {'a': {'default': None, 'help': 'A.'}}\n", ", line 1: OPTIONS: KeyError: 'NoneType'"),
        (b"OPTIONS = {'a': {'default': 1, 'choices': 3, 'help': 'A.'}}\n", ", line 1: OPTIONS: TypeError: 'int'"),
        (b"OPTIONS = {}\nEXTENDS = ['bntt.training.lop']\n", ", line 2: EXTENDS: there is no module 'bntt.training"),
        (b"OPTIONS = {}\nEXTENDS = 'bntt.training.loop'\n", ", line 2: EXTENDS must be a list"),
        (b"OPTIONS = {}\nEXTENDS = ['bntt.methods.broken']\n", "RecursionError"),
        (b"OPTIONS = {}\n\n# \xff\n", ", line 3: the text is not in utf-8"),
        (b"OPTIONS = {}\0\n", "null bytes"),
        (None, "broken.py: No such file or directory"),
    ],
)
def test_a_broken_method_is_one_line_where_it_is_used_and_nothing_elsewhere(package, tmp_path, content, said):
    path = package / "methods" / "broken.py"
    if content is None:
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(content)
    runs = experiment(tmp_path).runs
    assert all(code_hash.training_code(run) and code_hash.evaluation_code(run) for run in runs)
    for use in (lambda: experiment(tmp_path, rows={"a": {"method": "broken"}}), reference, schema):
        with pytest.raises(UserError) as raised:
            use()
        assert_one_line(raised.value, str(path), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("DATASET = {\n", ", line 1: "),
        ("DATASET = 3\n", ", line 1: DATASET must be a dictionary with classes, images, shape, source, title, not 3"),
        ("\nDATASET = {'title': 'Mine'}\n", ", line 2: DATASET must be a dictionary"),
    ],
)
def test_a_broken_dataset_is_one_line_where_it_is_used_and_nothing_elsewhere(package, tmp_path, content, said):
    path = package / "data" / "broken.py"
    path.write_text(content)
    assert code_hash.training_code(experiment(tmp_path).runs[0])
    for use in (lambda: experiment(tmp_path, datasets=["digits", "broken"]), lambda: store.facts("broken")):
        with pytest.raises(UserError) as raised:
            use()
        assert_one_line(raised.value, str(path), said)


# What editors, copies and file managers leave beside a source.
STRAY = (
    ".#{}.py", "#{}.py#", "{}.py~", ".{}.py.swp", "{} (copy).py", "{}-old.py", "{}.orig.py", "._{}.py", "1{}.py",
    ".ipynb_checkpoints/{}-checkpoint.py", "__pycache__/{}.pyc", ".#{}.cpp", "{} (copy).cpp", ".#{}.yaml",
)  # fmt: skip


def test_stray_files_change_nothing(package, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", package.parent)  # which is not in git

    def seen():
        forget()
        runs = experiment(tmp_path).runs
        codes = [code(run) for run in runs for code in (code_hash.training_code, code_hash.evaluation_code)]
        return (
            codes,
            code_hash.drawing_code(),
            [declared.plugins(*one) for one in FOLDERS],
            reference(),
            provenance.source(),
        )

    before = seen()
    for folder, name in itertools.product(("methods", "data", "measurements", "spiking", "drawing"), STRAY):
        path = package / folder / name.format("ann")
        path.parent.mkdir(exist_ok=True)
        if path.name.startswith(".#"):
            path.symlink_to("somebody@somewhere.1234:5678")  # Emacs' lock
        else:
            path.write_bytes(b"OPTIONS = DATASET = COLUMNS = {} \xff (\n")
    (package / "methods" / "folder.py").mkdir()
    (package / "methods" / "ann").mkdir()  # beside ann.py
    assert seen() == before


def test_a_half_written_measurement_makes_no_result_outdated(package, tmp_path):
    runs = experiment(tmp_path).runs
    before = code_hash.evaluation_code(runs[0])
    (package / "measurements" / "half.py").write_text("COLUMNS = {}\ndef measure(subject\n")
    forget()
    assert code_hash.evaluation_code(runs[0]) == before


def test_a_plug_in_may_begin_with_a_byte_order_mark_and_annotate_its_options(package, tmp_path):
    text = '"""Mine."""\nOPTIONS: dict = {"key": {"default": 1, "help": "Mine."}}\n'
    (package / "methods" / "mine.py").write_text(text, encoding="utf-8-sig")
    (package / "methods" / "latin.py").write_bytes(b'# -*- coding: latin-1 -*-\n"""Caf\xe9."""\nOPTIONS = {}\n')
    for name in ("mine", "latin"):
        (run,) = experiment(tmp_path, protocol={}, rows={"row": {"method": name}}).runs
        assert run.options == ({"key": 1} if name == "mine" else {})
        assert code_hash.training_code(run)
    assert "Café." in reference()


@pytest.mark.parametrize(("folder", "marker"), FOLDERS)
def test_every_module_of_a_plug_in_folder_is_a_plug_in_or_private(folder, marker):
    declaring = set(declared.plugins(folder, marker).values())
    shared = {
        "images",
        "store",
        "sheet",
        "observation",
        "passes",
        "operations",
    }  # what the plug-ins of a folder share, for other rooms too
    files = {
        path.stem
        for path in (PROJECT / "bntt" / folder).glob("*.py")
        if not path.stem.startswith("_") and path.stem not in shared
    }
    assert {module.rsplit(".", 1)[1] for module in declaring} == files


def declared_options():
    literals = {module: declared.options(module) for module in declared.plugins("methods", "OPTIONS").values()}
    for module, options in (literals | {"evaluation": EVALUATION}).items():
        for key, entry in options.items():
            yield pytest.param(entry, id=f"{module}:{key}")


@pytest.mark.parametrize("entry", list(declared_options()))
def test_every_option_has_a_default_that_it_accepts_and_says_what_it_is(entry):
    assert set(entry) <= {"default", "help", "min", "max", "above", "below", "choices", "type"}
    assert entry["help"].strip().endswith(".")
    model = options_model("one", {"key": entry}, Strict)
    assert validated(model, {"key": entry["default"]}, "here") == model()


def test_the_choices_of_norm_and_architecture_are_what_the_mathematics_has():
    from bntt.spiking.networks import ARCHITECTURES, OPTIONS
    from bntt.spiking.norms import NORMS

    assert declared.options("bntt.methods.surrogate")["norm"]["choices"] == list(NORMS)
    assert OPTIONS["architecture"]["choices"] == list(ARCHITECTURES)


def test_the_reference_lists_every_key_with_its_default():
    text = reference()
    for module in declared.plugins("methods", "OPTIONS").values():
        for key in declared.options(module):
            assert f"| `{key}` | `" in text, key
    for key in ("report_steps", "noise_sigmas", "threads", "seeds"):
        assert f"`{key}`" in text
    assert bntt_here("keys").stdout == text


# -- planning is cheap ------------------------------------------------------------------------------------

NO_TORCH = """
import sys
sys.path.insert(0, {project!r})
{work}
loaded = sorted(name for name in sys.modules if name in ("torch", "sklearn", "matplotlib", "snakemake"))
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "work",
    [
        "import bntt; dir(bntt)",
        "from bntt.experiment.schema import load; load('demo')",
        "from bntt.experiment import code_hash; from bntt.experiment.schema import load\n"
        "for run in load('demo').runs: code_hash.training_code(run), code_hash.evaluation_code(run)\n"
        "code_hash.drawing_code()",
        "from bntt.commands import main; main(['runs'])",
        "from bntt.commands import main; main(['keys'])",
        "from bntt.commands import main; main(['data', 'list'])",
        "from bntt.commands import main; assert main(['runs', '--experiment', 'nosuch']) == 2",
        "from bntt.commands import main\n"
        "for command in ('', 'train', 'evaluate', 'runs', 'data', 'notebook', 'keys'):\n"
        "    try: main([command, '--help'] if command else ['--help'])\n"
        "    except SystemExit as end: assert end.code == 0",
    ],
    ids=["import", "load", "code", "runs", "keys", "data", "error", "help"],
)
def test_planning_does_not_load_torch(tmp_path, work):
    ran = python("-c", NO_TORCH.format(project=str(PROJECT), work=work), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_a_dry_run_of_the_workflow_does_not_load_torch(tmp_path):
    """Counted by Python itself, in the process that plans; the plan itself is tested in test_workflow.py."""
    write_experiment(tmp_path)
    ran = python(
        "-X", "importtime", "-m", "snakemake", "-n", "--quiet", "--directory", tmp_path,
        "-s", PROJECT / "Snakefile", "--workflow-profile", "none",
        "--config", f"experiment={tmp_path}/tiny.yaml", "--", "results/tiny/runs/digits/rmp/seed-0/train.json",
        cwd=tmp_path,
    )  # fmt: skip
    imported = {line.rsplit("|", 1)[1].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    assert ran.returncode == 0, ran.stdout
    assert "bntt.experiment.schema" in imported
    assert not {"torch", "sklearn", "matplotlib"} & imported


def test_public_names_of_the_package_are_there():
    import bntt as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'BNT'"):
        _ = package.BNT


# -- what a bare machine has ------------------------------------------------------------------------------

GUARD = '''
import sys
ALLOWED = {
    "torch", "numpy", "scipy", "pandas", "yaml", "pydantic", "safetensors", "sklearn", "threadpoolctl", "filelock",
    "pynvml", "tqdm", "bntt",
}
HERE = sys.argv.pop(1)
class Guard:
    """Refuses what a file of the package imports beyond the allowed; what those import is theirs."""
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame and frame.f_code.co_filename.startswith(HERE) and root not in ALLOWED | sys.stdlib_module_names:
            raise ImportError(f"{frame.f_code.co_filename} imports {name}")
sys.meta_path.insert(0, Guard())
from bntt.commands import main
status = 0
while "--next" in sys.argv[1:] or len(sys.argv) > 1:
    rest = sys.argv[1:]
    cut = rest.index("--next") if "--next" in rest else len(rest)
    status = status or main(rest[:cut])
    sys.argv[1:] = rest[cut + 1:]
raise SystemExit(status)
'''


def test_train_and_evaluate_need_nothing_but_what_a_bare_machine_has(tmp_path):
    """From a copied source tree, without git, and with every other import blocked."""
    tree = tmp_path / "source tree"
    shutil.copytree(PROJECT / "bntt", tree / "bntt", ignore=shutil.ignore_patterns("__pycache__"))
    write_experiment(tree / "config", protocol=EXPERIMENT["protocol"] | {"test_limit": 40})
    (tree / "guard.py").write_text(GUARD)
    commands: list[str] = []
    for row in ("bntt", "ann", "rmp"):
        for command in ("train", "evaluate"):
            commands += [command, "--experiment", "tiny", "--row", row, "--next"]
    ran = python("guard.py", f"{tree}/bntt", *commands[:-1], cwd=tree, PATH=str(tmp_path / "no git here"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("test accuracy") == 3
    record = (tree / "results/tiny/runs/digits/bntt/seed-0/train.json").read_text()
    assert "source_sha256" in record
    assert not set(tmp_path.parts[1:3]) & set(record.split('"'))


def test_the_guard_would_notice(tmp_path):
    shutil.copytree(PROJECT / "bntt", tmp_path / "bntt", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "bntt" / "runs" / "status.py"
    path.write_text(path.read_text().replace("import Path\n", "import Path\n\nimport matplotlib\n", 1))
    write_experiment(tmp_path / "config")
    (tmp_path / "guard.py").write_text(GUARD)
    ran = python("guard.py", f"{tmp_path}/bntt", "runs", "--experiment", "tiny", cwd=tmp_path)
    assert ran.returncode == 1
    assert "imports matplotlib" in ran.stderr


def test_the_package_needs_a_python_that_can_parse_it():
    for path in (PROJECT / "bntt").rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 11))
    assert sys.version_info >= (3, 11)
