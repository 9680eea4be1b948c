"""The checks of a method's contract: each finds the method that breaks what it is for, and `bntt test` says so."""

import sys
from importlib import import_module

import pytest
import torch
from pydantic import ConfigDict, create_model
from tiny import assert_one_line, bntt_here

from bntt.common.errors import UserError
from bntt.runs import contract

torch.set_num_threads(1)

GOOD = '''"""A linear classifier of the mean of pixels or frames, by SGD: a method that keeps the contract."""
import torch
from bntt.classifiers import DenseClassifier
from bntt.common.errors import UserError
from bntt.experiment.schema import Run
from bntt.methods import Task, Trained
from bntt.methods.ann import build, classifier, train as of_ann
from bntt.spiking.networks import initialise
EXTENDS = ["bntt.methods.ann"]
OPTIONS = {"flavour": {"default": "plain", "choices": ["plain"], "help": "Nothing."}}
def train(task):
    return of_ann(task)
'''
TRAIN = "def train(task):\n"


@pytest.fixture
def write(package, monkeypatch):
    """Writes a method into a copy of the package, from which it is also imported; returns its name."""
    loaded, module = set(sys.modules), import_module("bntt.methods")
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(package / "methods")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(text):
        (package / "methods" / "mine.py").write_text(text)
        return "mine"

    yield written
    for name in set(sys.modules) - loaded:
        if name.startswith("bntt.methods."):
            del sys.modules[name]


def results(method, folder, kind="grey images"):
    """The words and reasons of all checks, by name."""
    trial = contract.Trial(method, kind, folder)
    return {name: contract.check(name, trial) for name in contract.CHECKS}


def failed(found):
    return {name: result.text for name, result in found.items() if result.word == "failed"}


CLASSIFIER = "\n_made = classifier\ndef classifier(run, data, weights):\n"
NO_EVENTS = '''"""Counts events."""
import torch
from bntt.classifiers import EventClassifier
from bntt.methods import Trained
OPTIONS = {}
SEEDED = False
NEEDS_EVENTS = True
def train(task):
    events = task.data.train.events
    return Trained({"count": torch.tensor([0.0 if events is None else len(events.words)])})
def classifier(run, data, weights):
    return EventClassifier(lambda streams: torch.zeros(len(streams), data.classes))
'''
PLANTED = {
    "draws from PyTorch's generator": (
        TRAIN + "    drawn = torch.rand(())\n    made = of_ann(task)\n"
        "    made.weights['classifier.weight'].add_(drawn)\n    return made\n",
        "is decided by its seed",
        "weight classifier.weight is another",
    ),
    "draws from NumPy's generator": (
        "import numpy\n" + TRAIN + "    made = of_ann(task)\n"
        "    made.weights['classifier.weight'].add_(numpy.random.rand())\n    return made\n",
        "is decided by its seed",
        "weight classifier.weight is another",
    ),
    "ignores the seed": (
        "from dataclasses import replace\n" + TRAIN
        + "    return of_ann(replace(task, run=replace(task.run, seed=0)))\n",
        "uses its seed",
        "declare SEEDED = False",
    ),
    "says that it has no randomness, and has": (
        "SEEDED = False\n",
        "uses its seed",
        "as SEEDED = False says, found that weight",
    ),
    "says that seeds matter with another option only": (
        "SEEDED = {'flavour': 'other'}\n",
        "uses its seed",
        "as SEEDED = {'flavour': 'other'} says, found that weight",
    ),
    "forgets a weight": (
        TRAIN + "    made = of_ann(task)\n    del made.weights['classifier.weight']\n    return made\n" + CLASSIFIER
        + "    torch.manual_seed(run.seed)\n"
        "    return _made(run, data, {**weights, 'classifier.weight': torch.rand(data.classes, 102)})\n",
        "reloads",
        "whatever the classifier needs belongs to the weights",
    ),
    "has a weight in memory alone": (
        "kept = []\n" + TRAIN + "    made = of_ann(task)\n    kept.append(made.weights.pop('classifier.weight'))\n"
        "    return made\n" + CLASSIFIER + "    return _made(run, data, {**weights, 'classifier.weight': kept[-1]})\n",
        "reloads",
        "belongs to the weights",
    ),
    "raises": (TRAIN + "    return {}['nope']\n", "trains", "KeyError: 'nope'"),
    "refuses in two lines": (TRAIN + "    raise UserError('one\\ntwo')\n", "trains", "to be one line"),
    "diverges": (
        "from bntt.training.loop import Outcome\n" + TRAIN + "    return Trained({}, Outcome(diverged='lost'))\n",
        "trains",
        "diverged: lost",
    ),
    "has weights that are NaN": (
        TRAIN + "    made = of_ann(task)\n    made.weights['classifier.weight'][0] = float('nan')\n    return made\n",
        "trains",
        "classifier.weight is not",
    ),
    "gives logits that are NaN": (
        CLASSIFIER + "    made = _made(run, data, weights)\n"
        "    made.network.classifier.register_forward_hook(lambda *a: a[2] / 0)\n    return made\n",
        "predicts",
        "finite logits",
    ),
    "gives logits of a wrong shape": (
        CLASSIFIER + "    made = _made(run, data, weights)\n"
        "    made.network.classifier.register_forward_hook(lambda *a: a[2][:, :2])\n    return made\n",
        "predicts",
        "shape [1, 9, 3], found [1, 9, 2]",
    ),
    "has other time-steps than its options": (
        CLASSIFIER + "    made = _made(run, data, weights)\n    made.time_steps = 2\n    return made\n",
        "predicts",
        "expected 1 time-steps",
    ),
    "counts its parameters wrongly": (
        TRAIN + "    made = of_ann(task)\n    made.facts['parameters'] += 1\n    return made\n",
        "predicts",
        "the fact parameters = ",
    ),
    "reads test images in training": (
        TRAIN + "    made = of_ann(task)\n"
        "    made.weights['classifier.weight'].add_(task.data.test.pixels.float().mean())\n    return made\n",
        "reads no test images",
        "weight classifier.weight is another",
    ),
    "reads test labels in training": (
        TRAIN + "    made = of_ann(task)\n"
        "    made.weights['classifier.weight'].add_(task.data.test.labels[0])\n    return made\n",
        "reads no test images",
        "weight classifier.weight is another",
    ),
    "changes its data": (
        TRAIN + "    made = of_ann(task)\n    task.data.train.pixels[0] = 0\n    return made\n",
        "keeps what it is given",
        "the train data",
    ),
    "changes its weights in classification": (
        CLASSIFIER + "    made = _made(run, data, weights)\n    weights['classifier.weight'].add_(1)\n"
        "    return made\n",
        "keeps what it is given",
        "weight classifier.weight is another",
    ),
    "begins again after a stop": (
        "from dataclasses import replace\nclass Forgets:\n"
        "    def __init__(self, keeper): self.keeper = keeper\n"
        "    def __getattr__(self, name): return getattr(self.keeper, name)\n"
        "    def load(self): return None\n"
        + TRAIN + "    return of_ann(replace(task, keeper=Forgets(task.keeper)))\n",
        "resumes",
        "expected 5 more steps after a stop at step 1 of 6, found 6",
    ),
    "goes on without its momentum": (
        "from dataclasses import replace\nclass Forgets:\n"
        "    def __init__(self, keeper): self.keeper = keeper\n"
        "    def __getattr__(self, name): return getattr(self.keeper, name)\n"
        "    def load(self):\n        state = self.keeper.load()\n"
        "        if state: state['optimiser']['state'] = {}\n        return state\n"
        + TRAIN + "    return of_ann(replace(task, keeper=Forgets(task.keeper)))\n",
        "resumes",
        "the same weights after a stop",
    ),
    "does not save when its keeper says so": (
        "from dataclasses import replace\nclass Forgets:\n"
        "    def __init__(self, keeper): self.keeper = keeper\n"
        "    def __getattr__(self, name): return getattr(self.keeper, name)\n"
        "    def save(self, state): pass\n"
        + TRAIN + "    return of_ann(replace(task, keeper=Forgets(task.keeper)))\n",
        "resumes",
        "saves its state after step 1",
    ),
    "does not ask its keeper": (
        "from dataclasses import replace\nclass Forgets:\n"
        "    def __init__(self, keeper): self.keeper = keeper\n"
        "    def __getattr__(self, name): return getattr(self.keeper, name)\n"
        "    def due(self): return False\n"
        + TRAIN + "    return of_ann(replace(task, keeper=Forgets(task.keeper)))\n",
        "resumes",
        "found that it never does",
    ),
    "gives a reason of two lines": (
        CLASSIFIER + "    made = _made(run, data, weights)\n    made.not_spiking = 'one\\ntwo'\n    return made\n",
        "measures",
        "the reason why",
    ),
    "cannot be measured": (
        CLASSIFIER + "    made = _made(run, data, weights)\n    made.gammas = None\n    return made\n",
        "measures",
        "TypeError",
    ),
    "fails at images of another size": (
        CLASSIFIER + "    made = _made(run, task_data(data, run), weights)\n    return made\n"
        "def task_data(data, run):\n    from dataclasses import replace\n"
        "    return replace(data, train=replace(data.train, pixels=data.train.pixels[..., :8, :8]))\n",
        "rejects images of another size",
        "expected that `classifier` refuses images of 16 x 16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_check_finds_the_method_that_breaks_it(name, write, tmp_path):
    body, check, said = PLANTED[name]
    result = contract.check(check, contract.Trial(write(GOOD + body), "grey images", tmp_path))
    assert result.word == "failed"
    assert said in result.text
    assert_one_line(UserError(result.text), "expected", "found")


def test_a_method_that_accepts_data_without_the_events_that_it_needs_is_found(write, tmp_path):
    found = failed(results(write(NO_EVENTS), tmp_path, "recordings"))
    assert list(found) == ["rejects data without events"]


def test_seeds_may_matter_with_some_values_of_options(write, tmp_path):
    method = write(GOOD + "SEEDED = {'flavour': 'plain'}\n")
    assert contract.check("uses its seed", contract.Trial(method, "grey images", tmp_path / "mine")).word == "passed"
    for decision, said in (("forest", ""), ("votes", "nothing is random")):
        trial = contract.Trial("hfirst", "recordings", tmp_path / decision, {"decision": decision})
        result = contract.check("uses its seed", trial)
        assert (result.word, result.text) == ("passed", said)


def test_an_undescribed_method_is_found(write, tmp_path):
    found = failed(results(write(GOOD.partition("\n")[2]), tmp_path))
    assert list(found) == ["declares itself"]


def test_a_wrong_option_that_is_accepted_is_found(write, tmp_path, monkeypatch):
    trial = contract.Trial(write(GOOD), "grey images", tmp_path)
    monkeypatch.setattr(contract, "_model", lambda method: create_model("lax", __config__=ConfigDict(extra="allow")))
    assert contract.check("rejects wrong options", trial).word == "failed"


def test_a_kind_that_is_refused_in_one_line_is_accepted_but_one_kind_must_be_taken(write, tmp_path):
    refuses = "    if task.data.recordings: raise UserError('images alone')\n    return of_ann(task)\n"
    method = write(GOOD + TRAIN + refuses)
    found = results(method, tmp_path, "recordings")
    assert found["trains"].word == "passed"
    assert found["trains"].text == "does not accept them: images alone"
    assert {found[name].word for name in contract.CHECKS if name not in ("trains", "declares itself")} == {
        "not applicable"
    }
    all_of_them = list(contract.check_all(method, tmp_path / "all"))
    assert all_of_them[-1].word == "passed"


def test_a_method_that_refuses_every_kind_is_found(write, tmp_path):
    *_, last = contract.check_all(write(GOOD + TRAIN + "    raise UserError('never')\n"), tmp_path)
    assert (last.check, last.word) == ("accepts some kind of data", "failed")
    assert last.text.endswith("never")


@pytest.mark.parametrize("kind", contract.KINDS)
def test_made_up_data_are_of_their_kind_and_the_same_each_time(kind):
    one, again, other = (contract.made_up(kind, events=True, other_test=o) for o in (False, False, True))
    assert one.recordings == (kind == "recordings")
    assert (one.train.events is not None) == one.recordings
    for part in contract.COUNTS:
        pixels = [getattr(data, part).pixels for data in (one, again, other)]
        assert torch.equal(pixels[0], pixels[1])
        assert torch.equal(pixels[0], pixels[2]) == (part != "test")
        assert set(getattr(one, part).labels.tolist()) == set(range(one.classes))
    if one.recordings:  # the frames count the events
        assert one.train.pixels.sum() == len(one.train.events.words)


def test_options_are_small_and_within_their_bounds(write):
    options = '{"images": {"default": 50000, "min": 20, "help": "A."}, "steps": {"default": 3, "help": "B."}, '
    options += '"epochs": {"default": 9, "min": 4, "help": "C."}, "tau": {"default": 50000, "help": "D."}}'
    method = write(f'"""Mine."""\nOPTIONS = {options}\n')
    assert contract.small(method, {}) == {"images": 20, "steps": 3, "epochs": 9, "tau": 50000}
    assert contract.small(method, {"images": 30})["images"] == 30
    with pytest.raises(UserError) as raised:
        contract.small(method, {"images": 3})
    assert_one_line(raised.value, "method mine: images must be at least 20")


def test_the_command_prints_a_line_for_each_result_and_its_status_says_whether_one_failed(write):
    done = bntt_here("test", write(GOOD))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "passed          resumes (grey images, colour images and recordings)" in lines
    assert lines[-1].startswith("mine: ") and " 0 failed" in lines[-1]


def test_the_commands_status_is_1_if_a_check_fails(write):
    ran = bntt_here("test", write(GOOD + TRAIN + "    raise KeyError(task.options['epochs'])\n"), "--set", "epochs=3")
    assert ran.returncode == 1
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("failed")]
    assert line.startswith("failed          trains (grey images, colour images and recordings): ")
    assert line.endswith("KeyError: 3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ann", "--set", "epochs"], "write OPTION=VALUE"),
        (["ann", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["ann", "--set", "epochs=many"], "epochs must be a whole number"),
        (["ann", "--set", "epochs=2001-99-99"], "--set epochs=2001-99-99: not valid YAML"),
        (["ann", "--set", "epochs=5e-4"], "epochs must be a whole number, not 0.0005"),
        (["anm"], "unknown method 'anm'; did you mean 'ann'?"),
    ],
)
def test_a_mistake_of_the_user_is_one_line(arguments, said):
    assert_one_line(bntt_here("test", *arguments), said)
