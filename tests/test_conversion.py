"""Conversions of dense networks: thresholds, the limit of many steps, tuning, and what cannot be converted."""

import dataclasses
import shutil
from fractions import Fraction
from math import ceil
from unittest import mock

import numpy as np
import pytest
import torch
from tiny import EXPERIMENT, assert_one_line, experiment, images
from torch.nn import functional as F

from bntt.common.errors import UserError
from bntt.data import store
from bntt.methods import _balancing, ann, cao, conversion
from bntt.runs import pipeline
from bntt.runs.directory import RunDirectory
from bntt.spiking.encoding import poisson, rates
from bntt.spiking.layers import SpikingLayer
from bntt.spiking.networks import initialise
from bntt.spiking.randomness import key

torch.set_num_threads(1)
CPU = torch.device("cpu")


def random_network(reset="hard", seed=0, **options):
    """An unbalanced network of positive-leaning random weights, and data for it."""
    options = {
        "architecture": "vgg5", "width": 0.05, "time_steps": 12, "reset": reset, "coding": "signed",
        "calibration_images": 7, "calibration_steps": 5, "percentile": 100.0, "threshold_scale": 1.0,
        "balancing": "network",
    } | options  # fmt: skip
    data = images(train=9, seed=seed)
    network = _balancing.build(options, data, {})
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
    monkeypatch.setattr(_balancing, "HELD", 1)  # one image at once
    network, data, options = random_network(reset, threshold_scale=scale)
    thresholds = _balancing.balance(network, data, options, key(5))
    assert list(thresholds) == ["conv1", "conv2", "conv3", "fc1"]
    for name, threshold in thresholds.items():
        currents = naive_currents(network, data, options, thresholds, name)
        assert threshold == pytest.approx(scale * currents.max(), rel=1e-5)
        assert network.layers[name].neuron.threshold == threshold


@pytest.mark.parametrize("balancing", ["network", "local"])
def test_spikes_that_are_kept_between_layers_save_work_and_change_no_threshold(balancing, monkeypatch):
    monkeypatch.setattr(_balancing, "HELD", 1)  # one image at once
    found, runs = [], []
    for kept in (0, 7 * 5 * 50, 2**28):  # nothing; what comes out of a pooling; everything
        monkeypatch.setattr(_balancing, "KEPT", kept)
        network, data, options = random_network(balancing=balancing)
        with mock.patch.object(SpikingLayer, "resume", autospec=True, side_effect=SpikingLayer.resume) as resume:
            found.append(_balancing.balance(network, data, options, key(5)))
        runs.append(resume.call_count)
    assert found[0] == found[1] == found[2]
    assert runs == [7 * (1 + 2 + 3), 7 * (1 + 1 + 2), 7 * (1 + 1 + 1)]  # of 7 images, before each but the first layer


@pytest.mark.parametrize("percentile", [99.0, 97.3, 85.0])
def test_a_percentile_is_exact_over_all_currents(percentile, monkeypatch):
    monkeypatch.setattr(_balancing, "HELD", 1)  # one image at once
    network, data, options = random_network(percentile=percentile, seed=3)
    thresholds = _balancing.balance(network, data, options, key(5))
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
               "threshold_scale": 1.0, "balancing": "network"}  # fmt: skip
    threshold = _balancing.balance(network, images(train=2), options, 0)["only"]
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
    few = _balancing.balance(network, blind, options | {"calibration_images": 2}, key(5))
    network, _, _ = random_network()
    assert _balancing.balance(network, data, options | {"calibration_images": 2, "flip": True}, key(5)) == few


def test_with_more_steps_a_conversion_comes_nearer_to_its_network():
    """Soft reset loses nothing: output / T times the product of thresholds tends to the dense logits."""
    network, data, options = random_network("soft", time_steps=1024, calibration_steps=64)
    thresholds = _balancing.balance(network, data, options, key(5))
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


# -- thresholds of channels, and the limit of many steps ----------------------------------------------------


def naive_local(network, description, spikes, options):
    """A plain loop in float64 on the dense weights: thresholds by channel, voltage, and spike counts by layer.

    A spike of channel c is passed on as its threshold, which is what the copied weights must amount to. Thresholds are
    the largest currents of ``spikes [T, N, C, H, W]``, layer by layer.
    """
    x, thresholds, counts = spikes.double(), {}, {}
    for layer in description:
        weight = network[layer.name].double()
        currents = []
        for step in x:
            step = step if layer.is_convolution else step.flatten(1)
            currents.append(F.conv2d(step, weight, padding=1) if layer.is_convolution else step @ weight.T)
        currents = torch.stack(currents)
        if layer is description[-1]:
            return thresholds, currents.sum(0), counts
        by_channel = currents.movedim(2, 0).flatten(1).amax(1) * options["threshold_scale"]
        by_channel = torch.where(by_channel > 0, by_channel, by_channel.max())
        thresholds[layer.name] = by_channel
        level = by_channel.reshape(-1, *[1] * (currents.dim() - 3))
        membrane, passed, counts[layer.name] = torch.zeros_like(currents[0]), [], 0
        for current in currents:
            membrane = membrane + current
            fired = membrane > level
            left = membrane - level if options["reset"] == "soft" else torch.zeros_like(membrane)
            membrane = torch.where(fired, left, membrane)
            counts[layer.name] += int(fired.sum())
            out = fired * level
            passed.append(F.avg_pool2d(out, 2) if layer.pool else out)
        x = torch.stack(passed)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("held", [1, 2**26])
def test_local_thresholds_are_the_largest_currents_of_channels_and_weights_hold_them(reset, scale, held, monkeypatch):
    monkeypatch.setattr(_balancing, "HELD", held)  # one image at once, or all
    network, data, options = random_network(
        reset, threshold_scale=scale, balancing="local", calibration_images=9, calibration_steps=20
    )
    network, samples = network.double(), torch.arange(9)
    data = dataclasses.replace(data, mean=data.mean.double())
    dense = dict(
        zip([layer.name for layer in network.description], map(torch.clone, network.parameters()), strict=True)
    )
    spikes = poisson(data.scaled(data.train.unit(samples), True), 20, key(5), samples, signed=True)
    found = _balancing.balance(network, data, options, key(5))
    expected, voltage, counts = naive_local(dense, network.description, spikes, options)
    assert list(found) == list(expected)
    for name, thresholds in expected.items():
        torch.testing.assert_close(torch.tensor(found[name], dtype=torch.float64), thresholds)
        assert len(set(found[name])) > 1
        assert network.hidden()[name].neuron.threshold == 1
    seen = {}
    with torch.no_grad():
        contributions = network.resume(spikes, 0, {}, lambda name, step: seen.update({name: int(step.spikes.sum())}))
    assert {name: seen[name] for name in counts} == counts
    torch.testing.assert_close(contributions.sum(0), voltage)


def test_a_channel_without_positive_current_gets_the_largest_threshold_of_its_layer():
    network, data, options = random_network(balancing="local")
    with torch.no_grad():
        network.layers["conv1"].connection.weight[1] = 0
    largest = naive_currents(network, data, options, {}, "conv1").max()
    thresholds = _balancing.balance(network, data, options, key(5))["conv1"]
    assert thresholds[1] == pytest.approx(largest, rel=1e-5)
    assert 0 < min(thresholds) < largest
    with torch.no_grad():
        network.layers["conv2"].connection.weight.zero_()
    with pytest.raises(_balancing.Silent, match="conv2"):
        _balancing.balance(network, data, options, key(5))


STEPS = [2**n for n in range(5, 12)]


def errors_of_rates(network, dense, scales, inputs, steps):
    """Root mean square of rate - ReLU activation, over the neurons of each layer: layer -> one for each of ``steps``.

    ``scales`` is what a layer's rate is multiplied by, a number or ``[C]``. ``inputs(start, steps)`` gives the input.
    """
    activations = {}
    for name, layer in dense.layers.items():
        layer.activation.register_forward_hook(lambda _m, _i, out, name=name: activations.update({name: out}))
    target = dense(inputs.expected).detach()
    totals, state, errors = {}, {}, {}

    def watch(name, step):
        totals[name] = totals.get(name, 0) + (step.current if name == last else step.spikes).sum(0)

    last, done = network.description[-1].name, 0
    for until in steps:
        with torch.no_grad():
            network.resume(inputs(done, until - done), done, state, watch)
        done = until
        for name, total in totals.items():
            scale = torch.as_tensor(scales[name], dtype=torch.float64)
            estimate = total / until * (scale.reshape(-1, *[1] * (total.dim() - 2)) if scale.dim() else scale)
            wanted = target if name == last else activations[name]
            relative = (estimate - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
            errors.setdefault(name, []).append(relative.item())
    return errors


@pytest.mark.parametrize("balancing", ["network", "local"])
@pytest.mark.parametrize(("constant", "exponent", "band"), [(True, -1.0, 0.15), (False, -0.5, 0.3)])
def test_rates_approach_the_relu_activations(constant, exponent, band, balancing):
    """As 1 / T under a constant current, of which soft reset loses nothing, and as 1 / sqrt(T) under Poisson spikes.

    Poisson spikes add their noise to the 1 / T, and layers average it, so that in deeper layers it shows at larger T.
    """
    network, data, options = random_network("soft", calibration_steps=50, balancing=balancing, width=0.02)
    network, samples = network.double(), torch.arange(len(data.train))
    data = dataclasses.replace(data, mean=data.mean.double())
    scaled = data.scaled(data.train.unit(samples), True).double()
    dense = ann.build({**options, "batch_norm": False, "dropout": 0.0}, data).double().eval()
    dense.load_state_dict(network.state_dict())
    options["calibration_images"] = len(samples)
    thresholds = _balancing.balance(network, data, options, key(5))

    class Inputs:
        expected = rates(scaled, True)

        def __call__(self, start, steps):
            if constant:
                return self.expected.expand(steps, *scaled.shape)
            return poisson(scaled, steps, key(7), samples, signed=True, start=start)

    if balancing == "local":
        scales = thresholds | {"fc2": 1.0}
    else:
        names = [layer.name for layer in network.description]
        products = np.cumprod([*thresholds.values(), 1.0])
        scales = dict(zip(names, products, strict=True))
    errors = errors_of_rates(network, dense, scales, Inputs(), STEPS)
    assert list(errors) == [layer.name for layer in network.description]
    for name, of_layer in errors.items():
        first = 0 if constant or name == "conv1" else STEPS.index(256)
        slope = np.polyfit(np.log(STEPS[first:]), np.log(of_layer[first:]), 1)[0]
        assert slope == pytest.approx(exponent, abs=0.1 if name == "conv1" else band), name
        assert of_layer[-1] < (0.02 if constant else 0.05), name


# -- tuning -------------------------------------------------------------------------------------------------


TUNED = {"tune": "validation", "percentile": 100.0, "calibration_images": 24, "calibration_steps": 20}


def by_hand(starts, tmp_path, options, percentile, scale):
    """Accuracy on validation images of a conversion with this pair, and its run's weights."""
    pair = {"percentile": percentile, "threshold_scale": scale}
    name = f"by-hand-{percentile:g}-{scale:g}"
    run, _ = convert(starts, tmp_path / name, "ann", **options | {"tune": None} | pair)
    data = store.load(run.dataset).as_asked(CPU, run.options)
    weights = RunDirectory.of(run, tmp_path / name).weights()
    made = conversion.classifier(run, data, weights)
    samples = torch.arange(options["tune_images"])
    pieces = made.running_logits(made.scaled(data, data.validation.unit(samples)), samples, key(0, "tuning noise"))
    running = torch.cat([piece for _, piece in pieces])[options["tune_steps"] - 1]
    right = (running.argmax(1) == data.validation.labels[samples]).double().mean().item()
    return 100 * right, weights


@pytest.mark.parametrize("balancing", ["network", "local"])
def test_tuning_picks_the_best_pair_of_the_grid_and_records_all(starts, tmp_path, monkeypatch, balancing):
    percentiles, scales = (100.0, 97.0, 90.0), (1.0, 0.3)
    monkeypatch.setattr(conversion, "PERCENTILES", percentiles)
    monkeypatch.setattr(conversion, "SCALES", scales)
    options = TUNED | {"balancing": balancing, "tune_images": 90, "tune_steps": 30, "time_steps": 40}
    run, _ = convert(starts, tmp_path / "tuned", "ann", **options)
    directory = RunDirectory.of(run, tmp_path / "tuned")
    tuned = directory.training()["tuned"]
    expected = {(p, s): by_hand(starts, tmp_path, options, p, s) for p in percentiles for s in scales}
    found = {(point["percentile"], point["threshold_scale"]): point["accuracy"] for point in tuned["grid"]}
    assert found == {pair: pytest.approx(accuracy) for pair, (accuracy, _) in expected.items()}
    assert len(set(found.values())) > 2
    best = max(expected, key=lambda pair: (round(expected[pair][0], 6), *pair))
    assert (tuned["percentile"], tuned["threshold_scale"]) == best
    assert (tuned["images"], tuned["steps"]) == (90, 30)
    weights = directory.weights()
    assert weights.keys() == expected[best][1].keys()
    assert all(torch.equal(value, expected[best][1][name]) for name, value in weights.items())


def tuning(monkeypatch, accuracies, **options):
    """What tuning chooses where the pairs of the grid have these accuracies."""
    given = iter(accuracies)
    monkeypatch.setattr(conversion, "PERCENTILES", (100.0, 99.0))
    monkeypatch.setattr(conversion, "SCALES", (1.0, 0.5))
    monkeypatch.setattr(conversion, "_validated", lambda *_: next(given))
    network, data, defaults = random_network(**{"tune_images": 2, "tune_steps": 5} | options)
    blind = dataclasses.replace(data, test=None)
    found = conversion.tuned(network, blind, defaults, 0)
    return found["percentile"], found["threshold_scale"]


@pytest.mark.parametrize(
    ("accuracies", "pair"),
    [
        ((50, 50, 50, 50), (100.0, 1.0)),
        ((40, 50, 50, 50), (100.0, 0.5)),
        ((40, 40, 50, 50), (99.0, 1.0)),
        ((40, 40, 40, 50), (99.0, 0.5)),
    ],
)
def test_of_equal_pairs_the_one_nearer_to_the_published_rule_is_taken(accuracies, pair, monkeypatch):
    assert tuning(monkeypatch, accuracies) == pair


def test_tuning_needs_validation_images_and_chooses_both_options_itself():
    network, data, options = random_network(tune_images=2, tune_steps=5)
    without = images(train=9, validation=0)
    with pytest.raises(UserError) as raised:
        conversion.tuned(network, without, options, 0)
    assert_one_line(raised.value, "validation images", "random", "held_out")
    for name, value in (("percentile", 99.0), ("threshold_scale", 0.5)):
        with pytest.raises(UserError) as raised:
            conversion.tuned(network, data, options | {name: value}, 0)
        assert_one_line(raised.value, name, str(value).removesuffix(".0"))


def test_tuning_takes_no_more_steps_than_the_network_has(monkeypatch):
    network, data, options = random_network(tune_images=2, tune_steps=100, time_steps=6)
    monkeypatch.setattr(conversion, "PERCENTILES", (100.0,))
    assert conversion.tuned(network, data, options, 0)["steps"] == 6


def test_a_pair_without_thresholds_has_no_accuracy_and_is_not_taken(monkeypatch):
    network, data, options = random_network(tune_images=2, tune_steps=5)
    monkeypatch.setattr(conversion, "PERCENTILES", (100.0, 1e-9))  # the second is the smallest current
    tuned = conversion.tuned(network, data, options, 0)
    assert [point["accuracy"] is None for point in tuned["grid"]] == [False] * 4 + [True] * 4
    assert tuned["percentile"] == 100
    with torch.no_grad():
        network.layers["conv1"].connection.weight.zero_()
    with pytest.raises(_balancing.Silent, match="conv1"):
        conversion.tuned(network, data, options, 0)


# -- Cao et al. ---------------------------------------------------------------------------------------------


def test_cao_is_a_loop_over_neurons_that_are_reset_to_zero(tmp_path):
    rows = {
        "base": {"method": "ann", "architecture": "cao5", "coding": "unsigned", "epochs": 2, "gain": 3.0},
        "row": {"method": "cao", "architecture": "cao5", "start": "base", "time_steps": 30},
    }
    used = experiment(tmp_path, rows=rows)
    for run in used.runs:
        pipeline.train(used, run, tmp_path, "cpu")
    run = used.run("digits", "row", 0)
    assert run.options["coding"] == "unsigned"
    start = RunDirectory.of(used.run("digits", "base", 0), tmp_path).weights()
    weights = RunDirectory.of(run, tmp_path).weights()
    assert weights.keys() == start.keys()
    assert all(torch.equal(value, start[name]) for name, value in weights.items())

    data = store.load("digits").as_asked(CPU, run.options)
    made = cao.classifier(run, data, {name: value.double() for name, value in weights.items()})
    made.network.double()
    assert len(made.layers) == 5
    samples = torch.arange(8)
    unit = data.test.unit(samples).double()
    voltage = [piece for _, piece in made.running_logits(unit, samples, 3)]
    x, total, fired_at_all = poisson(unit, 30, 3, samples, signed=False), 0, []
    assert x.min() == 0
    membranes = {}
    for step in x:
        for layer in made.layers:
            weight = weights["classifier.weight" if layer.name == "fc2" else f"layers.{layer.name}.connection.weight"]
            weight = weight.double()
            current = F.conv2d(step, weight, padding=1) if layer.is_convolution else step.flatten(1) @ weight.T
            if layer.name == "fc2":
                total = total + current
                break
            membrane = membranes.get(layer.name, 0) + current
            fired = membrane > 1
            fired_at_all.append((layer.name, bool(fired.any())))
            membranes[layer.name] = membrane * ~fired
            step = F.avg_pool2d(fired.double(), 2) if layer.pool else fired.double()
    assert {name for name, fired in fired_at_all if fired} >= {"conv1", "conv2"}
    torch.testing.assert_close(torch.cat(voltage)[-1], total)
