"""Methods: what every plug-in must do, a norm of one's own as one small file, and the conversions."""

import dataclasses
import shutil
from fractions import Fraction
from importlib import import_module
from math import ceil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import EXPERIMENT, PROJECT, assert_one_line, experiment, images, python, write_experiment
from torch.nn import functional as F

from bntt.common.errors import UserError
from bntt.data import store
from bntt.experiment import declared
from bntt.methods import Task, ann, conversion
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory
from bntt.spiking.encoding import poisson, rates
from bntt.spiking.networks import initialise
from bntt.spiking.randomness import key

torch.set_num_threads(1)
METHODS = declared.plugins("methods", "OPTIONS")
CPU = torch.device("cpu")


# -- the contract -----------------------------------------------------------------------------------------


def trained(method: str, tmp_path, **options):
    """A method's weights on random images, by the calls that the pipeline makes."""
    data = images(train=12, classes=3)
    protocol = {k: EXPERIMENT["protocol"][k] for k in ("architecture", "width", "image_size")}
    known = declared.options(METHODS[method])
    small = {"epochs": 1, "batch_size": 6, "time_steps": 3, "calibration_images": 4, "calibration_steps": 6} | options
    rows = {"row": {"method": method, **{k: v for k, v in small.items() if k in known}}}
    start = None
    if declared.literal(METHODS[method], "NEEDS_START"):
        rows["row"]["start"] = "base"
        rows["base"] = {"method": "ann", "epochs": 1, "batch_size": 6, "gain": 3.0, "learning_rate": 0.01}
    loaded = experiment(tmp_path, protocol=protocol, rows=rows)
    if "base" in rows:
        start = ann.train(Task(loaded.run("digits", "base", 0), data, Checkpoints(tmp_path / "base"))).weights
    run = loaded.run("digits", "row", 0)
    module = import_module(METHODS[method])
    return run, data, module, module.train(Task(run, data, Checkpoints(tmp_path), start))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_its_weights_make_the_same_classifier_after_a_round_trip(method, tmp_path):
    run, data, module, made = trained(method, tmp_path)
    assert made.outcome.diverged is None
    assert made.facts["parameters"] > 0
    save_file({name: value.contiguous() for name, value in made.weights.items()}, tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    samples = torch.arange(len(data.test))
    outputs = []
    for weights in (made.weights, stored, stored):
        classifier = module.classifier(run, data, weights)
        scaled = classifier.scaled(data, data.test.unit(samples))
        pieces = list(classifier.running_logits(scaled, samples, 7))
        assert [start for start, _ in pieces] == np.cumsum([0, *(len(p) for _, p in pieces)])[:-1].tolist()
        outputs.append(torch.cat([piece for _, piece in pieces]))
    assert outputs[0].shape == (classifier.time_steps, len(data.test), data.classes)
    assert classifier.time_steps == run.options.get("time_steps", 1)
    assert [layer.name for layer in classifier.layers][-1].startswith("fc")
    assert outputs[0].isfinite().all()
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("norm", declared.options("bntt.methods.surrogate")["norm"]["choices"])
def test_every_norm_trains_and_its_decay_budget_is_recorded(norm, tmp_path):
    run, _, _, made = trained("surrogate", tmp_path, norm=norm)
    assert made.outcome.diverged is None
    steps, rate = 2, run.options["learning_rate"]
    expected = None if norm == "none" else pytest.approx(steps * rate * run.options["weight_decay"] / 0.1)
    assert made.facts.get("decay_budget") == expected


@pytest.mark.parametrize("signed", ["signed", "unsigned"])
def test_both_codings_train_and_are_used_for_testing_too(signed, tmp_path):
    run, data, module, made = trained("surrogate", tmp_path, coding=signed)
    classifier = module.classifier(run, data, made.weights)
    scaled = classifier.scaled(data, data.test.unit(torch.arange(6)))
    assert classifier.signed is (signed == "signed")
    assert (scaled.min() < 0).item() is (signed == "signed")


def test_the_dense_network_is_trained_on_what_its_conversion_will_see(tmp_path):
    run, data, module, made = trained("ann", tmp_path)
    classifier = module.classifier(run, data, made.weights)
    samples = torch.arange(6)
    scaled = classifier.scaled(data, data.test.unit(samples))
    ((start, logits),) = classifier.running_logits(scaled, samples, 0)
    assert start == 0
    assert torch.equal(logits[0], classifier.network(rates(scaled, True)))
    assert not any("bias" in name or "norm" in name for name in made.weights)


# -- a norm of one's own ----------------------------------------------------------------------------------

OWN_NORM = '''"""BNTT whose scale is the same at all steps but the first: an example of a norm of one's own."""
from bntt.methods import surrogate
from bntt.spiking.norms import BNTT
EXTENDS = ["bntt.methods.surrogate"]
OPTIONS = {"boost": {"default": 2.0, "above": 0.0, "help": "Initial scale of the first step."}}
class Boosted(BNTT):
    boost = 2.0
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.gamma.data[0] *= self.boost
def norm_of(run): return type("Own", (Boosted,), {"boost": run.options["boost"]})
def train(task): return surrogate.train(task, norm=norm_of(task.run))
def classifier(run, data, weights): return surrogate.classifier(run, data, weights, norm=norm_of(run))
'''


def test_a_norm_of_ones_own_is_one_small_file(tmp_path):
    tree = tmp_path / "my copy"
    shutil.copytree(PROJECT / "bntt", tree / "bntt", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "bntt" / "methods" / "boosted.py").write_text(OWN_NORM)
    rows = {"mine": {"method": "boosted", "boost": 3.0, "time_steps": 3}}
    write_experiment(tree / "config", rows=rows)
    script = (
        "from bntt.commands import main\n"
        "assert main(['train', '--experiment', 'tiny', '--row', 'mine']) == 0\n"
        "assert main(['evaluate', '--experiment', 'tiny', '--row', 'mine']) == 0\n"
        "from bntt.results.collect import Results\n"
        "gamma = Results.of('tiny').frame('gamma.csv')\n"
        "print(gamma.groupby('time_step')['gamma'].mean().round().tolist())\n"
    )
    ran = python("-c", script, cwd=tree)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[3.0, 1.0, 1.0]"


# -- conversion -------------------------------------------------------------------------------------------


def random_network(reset="hard", seed=0, **options):
    """An unbalanced network of positive-leaning random weights, and data for it."""
    options = {
        "architecture": "vgg5", "width": 0.05, "time_steps": 12, "reset": reset, "coding": "signed",
        "calibration_images": 7, "calibration_steps": 5, "percentile": 100.0, "threshold_scale": 1.0,
    } | options  # fmt: skip
    data = images(train=9, seed=seed)
    network = conversion.build(options, data, {})
    initialise(network, seed, 2.0)
    return network.eval(), data, options


def naive_currents(network, data, options, thresholds, stop):
    """Currents of layer ``stop`` by a plain loop over images, steps and layers; no batch, no package neurons."""
    found = []
    for image in range(min(options["calibration_images"], len(data.train))):
        sample = torch.tensor([image])
        scaled = (data.train.pixels[sample].float() / 255 - data.mean) / data.deviation
        spikes = poisson(scaled, options["calibration_steps"], key(5), sample, signed=True)
        membranes: dict[str, torch.Tensor] = {}
        for t in range(options["calibration_steps"]):
            x = spikes[t]
            for layer in network.description[:-1]:
                weight = network.layers[layer.name].connection.weight
                current = F.conv2d(x, weight, padding=1) if layer.is_convolution else x.flatten(1) @ weight.t()
                if layer.name == stop:
                    found.append(current.flatten())
                    break
                u = membranes.get(layer.name, torch.zeros_like(current)) + current
                fired = u > thresholds[layer.name]
                u = torch.where(fired, u - thresholds[layer.name] if options["reset"] == "soft" else 0.0, u)
                membranes[layer.name] = u
                x = fired.float()
                x = F.avg_pool2d(x, 2) if layer.pool else x
    return torch.cat(found).detach().double().numpy()


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_thresholds_are_the_largest_current_layer_by_layer(reset, scale, monkeypatch):
    monkeypatch.setattr(conversion, "HELD", 1)  # one image at once
    network, data, options = random_network(reset, threshold_scale=scale)
    thresholds = conversion.balance(network, data, options, key(5))
    assert list(thresholds) == ["conv1", "conv2", "conv3", "fc1"]
    for name, threshold in thresholds.items():
        currents = naive_currents(network, data, options, thresholds, name)
        assert threshold == pytest.approx(scale * currents.max(), rel=1e-5)
        assert network.layers[name].neuron.threshold == threshold


@pytest.mark.parametrize("percentile", [99.0, 97.3, 85.0])
def test_a_percentile_is_exact_over_all_currents(percentile, monkeypatch):
    monkeypatch.setattr(conversion, "HELD", 1)  # one image at once
    network, data, options = random_network(percentile=percentile, seed=3)
    thresholds = conversion.balance(network, data, options, key(5))
    for name, threshold in thresholds.items():
        currents = naive_currents(network, data, options, thresholds, name)
        rank = max(1, ceil(len(currents) * (100 - Fraction(str(percentile))) / 100))
        assert threshold == pytest.approx(np.sort(currents)[-rank], rel=1e-5)
        near = np.percentile(currents, percentile, method="inverted_cdf")
        assert abs((currents >= threshold * (1 - 1e-6)).sum() - (currents >= near).sum()) <= 1


def conversion_rank(total: int, percentile: float) -> int:
    """How many of ``total`` currents ``balance`` lets reach the threshold: counted on currents 1, 2, ..., total."""
    from types import SimpleNamespace

    class Identity(torch.nn.Module):
        def forward(self, x):
            return torch.arange(1.0, total + 1).reshape(1, 1, -1, 1)

    layer = SimpleNamespace(connection=Identity(), neuron=SimpleNamespace(threshold=None))
    network = SimpleNamespace(hidden=lambda: {"only": layer}, description=[SimpleNamespace(neurons=total)])
    options = {"coding": "signed", "calibration_images": 1, "calibration_steps": 1, "percentile": percentile,
               "threshold_scale": 1.0}  # fmt: skip
    threshold = conversion.balance(network, images(train=2), options, 0)["only"]
    return total + 1 - round(threshold)


@pytest.mark.parametrize(
    ("total", "percentile", "rank"),
    [
        (1000, 100.0, 1),
        (1000, 99.9, 1),
        (1000, 99.0, 10),
        (1000, 99.95, 1),
        (100, 50.0, 50),
        (10, 99.99, 1),
        (7, 50.0, 4),
    ],
)
def test_the_rank_of_a_percentile_is_that_of_exact_arithmetic(total, percentile, rank):
    """1 - 99 / 100 is more than 0.01 in floating point, and a thousand currents have ten that reach the 99th."""
    assert conversion_rank(total, percentile) == rank


def test_only_training_images_un_augmented_and_no_more_than_asked_for_are_used():
    network, data, options = random_network()
    blind = dataclasses.replace(data, validation=None, test=None)
    few = conversion.balance(network, blind, options | {"calibration_images": 2}, key(5))
    network, _, _ = random_network()
    assert conversion.balance(network, data, options | {"calibration_images": 2, "flip": True}, key(5)) == few


def test_with_more_steps_a_conversion_comes_nearer_to_its_network():
    """Soft reset loses nothing: output / T times the product of thresholds tends to the dense logits."""
    network, data, options = random_network("soft", time_steps=1024, calibration_steps=64)
    thresholds = conversion.balance(network, data, options, key(5))
    samples = torch.arange(len(data.test))
    scaled = data.scaled(data.test.unit(samples), True)
    dense = ann.build({**options, "batch_norm": False, "dropout": 0.0}, data)
    dense.load_state_dict(network.state_dict())
    target = dense.eval()(rates(scaled, True)).detach().flatten()
    from bntt.classifiers import SpikingClassifier

    pieces = SpikingClassifier(network, True).running_logits(scaled, samples, 1)
    running = torch.cat([piece for _, piece in pieces]).flatten(1)
    product = np.prod(list(thresholds.values()))
    errors = []
    for steps in (16, 128, 1024):
        estimate = running[steps - 1] / steps * product
        errors.append(((estimate - target).norm() / target.norm()).item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1
    assert np.corrcoef(running[1023].numpy(), target.numpy())[0, 1] > 0.99


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Trained rows that conversions may or may not start from, and their experiment's folder."""
    root = tmp_path_factory.mktemp("starts")
    rows = {
        "ann": EXPERIMENT["rows"]["ann"],
        "ann-bn": {"method": "ann", "batch_norm": True},
        "wide": {"method": "ann", "width": 0.2},
        "diverged": {"method": "ann", "learning_rate": 1e12},
        "silent": {"method": "ann", "gain": 1e-60},
        "rmp": EXPERIMENT["rows"]["rmp"],
    }
    used = experiment(root, rows=rows)
    for run in used.runs:
        pipeline.train(used, run, root, "cpu")
    return rows, root


def convert(starts, tmp_path, start, **options):
    rows, root = starts
    used = experiment(tmp_path, rows=rows | {"conversion": EXPERIMENT["rows"]["rmp"] | {"start": start} | options})
    run = used.run("digits", "conversion", 0)
    shutil.copytree(root / "tiny", tmp_path / "tiny", dirs_exist_ok=True)
    return run, pipeline.train(used, run, tmp_path, "cpu")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("ann-bn", ["row conversion", "row ann-bn", "batch_norm: false"]),
        ("wide", ["row conversion", "row wide", "width"]),
        ("rmp", ["row conversion", "row rmp"]),
    ],
)
def test_what_cannot_be_converted_is_one_line(starts, tmp_path, start, said):
    with pytest.raises(UserError) as raised:
        convert(starts, tmp_path, start)
    assert_one_line(raised.value, *said)


def test_a_conversion_of_a_silent_network_is_diverged_and_names_the_layer(starts, tmp_path):
    run, said = convert(starts, tmp_path, "silent")
    assert "diverged" in said and "conv1" in said
    assert RunDirectory.of(run, tmp_path).training()["status"] == "diverged"


def test_a_conversion_of_a_diverged_network_is_diverged_and_names_it(starts, tmp_path):
    run, said = convert(starts, tmp_path, "diverged")
    assert "diverged" in said
    used = experiment(tmp_path, rows=starts[0] | {"conversion": EXPERIMENT["rows"]["rmp"] | {"start": "diverged"}})
    record = RunDirectory.of(run, tmp_path).training()
    assert record["status"] == "diverged"
    assert "row it starts from, diverged" in record["reason"]
    assert "diverged" in pipeline.evaluate(used, run, tmp_path, "cpu")


def test_a_conversion_is_made_again_when_its_start_changed(starts, tmp_path):
    run, _ = convert(starts, tmp_path, "ann")
    _, said = convert(starts, tmp_path, "ann")
    assert "already trained" in said
    rows, _ = starts
    other = rows | {"ann": rows["ann"] | {"gain": 1.5}, "conversion": EXPERIMENT["rows"]["rmp"]}
    used = experiment(tmp_path, rows=other)
    pipeline.train(used, used.run("digits", "ann", 0), tmp_path, "cpu")
    assert "already" not in pipeline.train(used, used.run("digits", "conversion", 0), tmp_path, "cpu")
    assert run.start == "ann"


def test_thresholds_survive_the_round_trip(starts, tmp_path):
    run, _ = convert(starts, tmp_path, "ann")
    directory = RunDirectory.of(run, tmp_path)
    recorded = directory.training()["thresholds"]
    data = store.load(run.dataset).as_asked(CPU, run.options)
    made = conversion.classifier(run, data, directory.weights())
    for name, layer in made.network.layers.items():
        assert layer.neuron.threshold == pytest.approx(recorded[name], rel=1e-7)
        assert layer.neuron.leak == 1.0
        assert layer.neuron.reset == "soft"
        assert layer.norm is None
    weights = RunDirectory.of(experiment(tmp_path, rows=starts[0]).run("digits", "ann", 0), tmp_path).weights()
    assert torch.equal(made.network.classifier.weight, weights["classifier.weight"])
