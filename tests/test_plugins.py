"""Errors inside plug-ins: theirs, in one line with file and line; never said of weights, data or options."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from tiny import assert_one_line, experiment

from bntt.common.errors import Stopped, UserError
from bntt.data import store
from bntt.experiment import plugins
from bntt.runs import pipeline, status
from bntt.runs.directory import RunDirectory

METHOD = '''"""Mine."""
import torch
from bntt.methods import Trained
EXTENDS = ["bntt.methods.ann"]
OPTIONS = {}
def train(task):
    return Trained({"weight": torch.zeros(3)})
def classifier(run, data, weights):
    return None
'''


@pytest.fixture
def write(package, monkeypatch):
    """Writes a plug-in into a copy of the package, from which it is also imported."""
    loaded = set(sys.modules)
    for folder in plugins.FOLDERS:
        module = import_module(f"bntt.{folder}")
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(package / folder)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(folder: str, text: str, name: str = "mine"):
        path = package / folder / f"{name}.py"
        path.write_text(text)
        return path

    yield written
    for name in set(sys.modules) - loaded:
        if name.startswith("bntt."):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return {}['nope']", ", line 4: KeyError: 'nope'"),
        ("raise ValueError('one\\ntwo')", ", line 4: ValueError: one two"),
        ("assert False", ", line 4: AssertionError"),
        ("import torch; torch.zeros(3).view(2)", ", line 4: RuntimeError: shape"),
        ("import torch; torch.nn.Linear(2, 1).load_state_dict({})", ", line 4: RuntimeError: Error(s) in loading"),
        ("import numpy; numpy.zeros(3).reshape(2)", ", line 4: ValueError: cannot reshape"),
        ("open('/no/such/file')", ", line 4: FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
        ("return given.nope", ", line 4: AttributeError: 'int' object has no attribute 'nope'"),
        ("import not_installed", ", line 4: ModuleNotFoundError: No module named 'not_installed'"),
        ("return 3", ", line 3: `train` must return str, not int"),
        ("return None", ", line 3: `train` must return str, not NoneType"),
        ("raise SystemExit(0)", ", line 4: SystemExit: 0"),
    ],
)
def test_an_error_of_a_plug_in_names_its_file_and_line(write, body, said):
    path = write("methods", f'"""Mine."""\nOPTIONS = {{}}\ndef train(given):\n    {body}\n')
    with pytest.raises(UserError) as raised:
        plugins.call("bntt.methods.mine", "train", 1, returns=str)
    assert_one_line(raised.value, f"{path}{said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("OPTIONS = {}\n", ": defines no function `train`"),
        ("def train():\n    pass\n", ", line 1: TypeError: train() takes 0 positional arguments but 1 was given"),
        ("\n1 / 0\n", ", line 2: ZeroDivisionError: division by zero"),
        ("\nimport torch.nope\n", ", line 2: ModuleNotFoundError"),
        ("\n\ndef train(:\n", ", line 3: SyntaxError: invalid syntax"),
    ],
)
def test_a_plug_in_that_cannot_be_called_is_one_line(write, text, said):
    path = write("methods", text)
    with pytest.raises(UserError) as raised:
        plugins.call("bntt.methods.mine", "train", 1)
    assert_one_line(raised.value, f"{path}{said}")


def test_a_helper_of_a_plug_in_is_named_too(write):
    helper = write("methods", "\ndef half():\n    return {}[0]\n", "_helper")
    write("methods", "from bntt.methods._helper import half\ndef train(given):\n    return half()\n")
    with pytest.raises(UserError) as raised:
        plugins.call("bntt.methods.mine", "train", 1)
    assert_one_line(raised.value, f"{helper}, line 3: KeyError: 0")


@pytest.mark.parametrize("error", [UserError("mine"), Stopped("now", True), MemoryError(), torch.OutOfMemoryError()])
def test_what_is_no_mistake_is_passed_on(write, monkeypatch, error):
    write("methods", "def train(error):\n    raise error\n")
    with pytest.raises(type(error)) as raised:
        plugins.call("bntt.methods.mine", "train", error)
    assert raised.value is error


def test_what_the_mathematics_refuses_is_said_of_the_options(tmp_path):
    tiny = experiment(tmp_path, rows={"row": {"method": "ann", "image_size": 7}})
    with pytest.raises(UserError) as raised:
        pipeline.train(tiny, tiny.runs[0], tmp_path, "cpu")
    assert_one_line(raised.value, "experiment tiny, row row: vgg5 cannot halve a side of 7: use another image size")


def run_of_mine(tmp_path):
    tiny = experiment(tmp_path, protocol={"image_size": 8}, rows={"row": {"method": "mine"}})
    return tiny, tiny.runs[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"weight": torch.zeros(3)}', "task.options['nope']", ", line 7: KeyError: 'nope'"),
        ("torch.zeros(3)", "[0.0]", ", line 7: TypeError: weight 'weight' must be a tensor"),
        ("(3)", "(3).to_sparse()", ", line 7: TypeError: weight 'weight' must be a dense array, not torch.sparse_coo"),
        ("torch.zeros(3)}", "torch.zeros(3)}, facts={'x': float('nan')}", ", line 7: TypeError: fact 'x' must be"),
        ("torch.zeros(3)}", "torch.zeros(3)}, facts={'x': torch.zeros(1)}", ", line 7: TypeError: fact 'x' must be"),
        ('Trained({"weight": torch.zeros(3)})', "None", ", line 6: `train` must return Trained, not NoneType"),
    ],
)
def test_a_mistake_in_train_is_the_methods(write, tmp_path, old, new, said):
    path = write("methods", METHOD.replace(old, new))
    tiny, run = run_of_mine(tmp_path)
    with pytest.raises(UserError) as raised:
        pipeline.train(tiny, run, tmp_path, "cpu")
    assert_one_line(raised.value, f"{path}{said}")
    assert not RunDirectory.of(run, tmp_path).path.exists()


def test_a_method_need_not_declare_the_options_of_images(write, tmp_path):
    write("methods", METHOD.replace('EXTENDS = ["bntt.methods.ann"]\n', ""))
    tiny = experiment(tmp_path, protocol={}, rows={"row": {"method": "mine"}})
    assert pipeline.train(tiny, tiny.runs[0], tmp_path, "cpu").endswith(": done")


def test_tied_weights_are_kept(write, tmp_path):
    """The library that writes them takes no tensors that share memory."""
    tied = '{"weight": a[:3], "same": a[:3], "turned": a[1:].view(2, 2).T}'
    write(
        "methods",
        METHOD.replace('Trained({"weight": torch.zeros(3)})', f"(a := torch.arange(5.0), Trained({tied}))[1]"),
    )
    tiny, run = run_of_mine(tmp_path)
    pipeline.train(tiny, run, tmp_path, "cpu")
    found = RunDirectory.of(run, tmp_path).weights()
    assert {name: a.tolist() for name, a in found.items()} == {
        "weight": [0, 1, 2],
        "same": [0, 1, 2],
        "turned": [[1, 3], [2, 4]],
    }


def test_weights_that_are_not_finite_are_no_result(write, tmp_path):
    write("methods", METHOD.replace("torch.zeros(3)", "torch.tensor([0, float('nan')])"))
    tiny, run = run_of_mine(tmp_path)
    assert "diverged: weights were not finite" in pipeline.train(tiny, run, tmp_path, "cpu")
    assert status.find(tiny, run, tmp_path, training_alone=True).status == "diverged"


def test_a_method_returns_a_classifier(write, tmp_path):
    path = write("methods", METHOD)
    tiny, run = run_of_mine(tmp_path)
    pipeline.train(tiny, run, tmp_path, "cpu")
    with pytest.raises(UserError) as raised:
        pipeline.evaluate(tiny, run, tmp_path, "cpu")
    assert_one_line(raised.value, f"{path}, line 8: `classifier` must return SpikingClassifier or DenseClassifier")


def test_a_mistake_in_classifier_or_measure_is_theirs_and_the_weights_stay_good(write, package, tmp_path):
    """A KeyError there used to be reported as damaged weights."""
    method = write("methods", METHOD.replace("return None", "return weights['wieght']"))
    tiny, run = run_of_mine(tmp_path)
    pipeline.train(tiny, run, tmp_path, "cpu")
    with pytest.raises(UserError) as raised:
        pipeline.evaluate(tiny, run, tmp_path, "cpu")
    assert_one_line(raised.value, f"{method}, line 9: KeyError: 'wieght'")
    assert status.find(tiny, run, tmp_path).status == "trained"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{}['nope']", ", line 3: KeyError: 'nope'"),
        ("None", ", line 2: `measure` must return list or str, not NoneType"),
        ("[{'b': 1}]", ", line 1: every row of `measure` must have the columns of COLUMNS, a, not {'b': 1}"),
        ("[3]", ", line 1: every row of `measure` must have the columns of COLUMNS, a, not 3"),
    ],
)
def test_a_mistake_in_a_measurement_is_its_own(write, package, body, said):
    from bntt.measurements import measure_all

    for other in (package / "measurements").glob("[a-z]*.py"):
        if other.stem not in ("observation", "operations"):
            other.unlink()
    path = write("measurements", f"COLUMNS = {{'a': 'A.'}}\ndef measure(subject):\n    return {body}\n")
    all_of_them = SimpleNamespace(run=SimpleNamespace(evaluation={"measurements": []}))
    with pytest.raises(UserError) as raised:
        measure_all(all_of_them)
    assert_one_line(raised.value, f"{path}{said}")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise OSError(28, 'No space left on device')", ", line 3: OSError: [Errno 28] No space left"),
        ("return downloads['nope']", ", line 3: TypeError: "),
        ("return None", ", line 2: `read` must return Parts, not NoneType"),
        ("from bntt.data._parts import Parts; return Parts(1, None, 2, False)", ", line 3: TypeError: train must be"),
    ],
)
def test_a_mistake_in_a_dataset_is_its_own_and_earlier_data_stay(write, tmp_path, monkeypatch, body, said):
    monkeypatch.setenv("BNTT_DATA", str(tmp_path / "data"))
    facts = {"title": "Mine", "source": "me", "classes": 2, "shape": [1, 2, 2], "images": {}}
    path = write("data", f"DATASET = {facts}\ndef read(source, downloads):\n    {body}\n")
    store.folder("mine").mkdir(parents=True)
    (store.folder("mine") / "manifest.json").write_text("of an earlier version")
    with pytest.raises(UserError) as raised:
        store.prepare("mine")
    assert_one_line(raised.value, f"{path}{said}")
    assert (store.folder("mine") / "manifest.json").read_text() == "of an earlier version"
