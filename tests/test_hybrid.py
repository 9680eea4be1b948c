"""Hybrid training: the delayed neuron by plain loops and by hand, and the converted network from which it starts."""

import math
import shutil

import numpy as np
import pytest
import torch
from tiny import EXPERIMENT, assert_one_line, experiment, images
from torch import nn

from bntt.classifiers import SpikingClassifier
from bntt.common.errors import UserError
from bntt.data import store
from bntt.methods import _balancing, ann, hybrid
from bntt.runs import pipeline
from bntt.runs.directory import RunDirectory
from bntt.spiking.encoding import rates
from bntt.spiking.networks import initialise
from bntt.spiking.randomness import key
from bntt.spiking.stateful import FixedDropout

torch.set_num_threads(1)
CPU = torch.device("cpu")


# -- the neuron ---------------------------------------------------------------------------------------------


def naive(currents, upstream, left, threshold, leak, surrogate, alpha, beta):
    """Spikes of one neuron, its last membrane, and the gradient in its currents of sum(upstream * spikes) + left * u.

    Written out from the equations, with plain numbers: the gradient in u[t] comes from u[t + 1], and from s[t + 1].
    """
    membrane, last, spikes, slopes = 0.0, None, [], []
    for t, current in enumerate(currents):
        if surrogate == "linear":
            slopes.append(alpha * max(0.0, 1 - abs(membrane / threshold - 1)))
        else:
            slopes.append(alpha * math.exp(-beta * (t + 999 if last is None else t - last)))
        spikes.append(1.0 if membrane > threshold else 0.0)
        last = t if spikes[-1] else last
        membrane = leak * membrane + current - threshold * spikes[-1]
    gradient, in_membrane = [0.0] * len(currents), left
    for t in reversed(range(len(currents))):
        gradient[t] = in_membrane
        in_membrane = leak * in_membrane + upstream[t] * slopes[t] / threshold
    return spikes, membrane, gradient


@pytest.mark.parametrize("surrogate", ["linear", "stdb"])
@pytest.mark.parametrize(("threshold", "leak"), [(1.0, 1.0), (0.6, 1.0), (1.7, 0.9)])
def test_the_neuron_is_a_plain_loop_forward_and_backward(surrogate, threshold, leak):
    draws = np.random.default_rng(3)
    currents, upstream = draws.normal(0.4, 0.8, (40, 6)), draws.normal(size=(40, 6))
    left = draws.normal(size=6)
    settings = (threshold, leak, surrogate, 0.4, 0.05)
    neuron, given = hybrid.Delayed(*settings), torch.tensor(currents, requires_grad=True)
    spikes, (membrane, _) = neuron(given)
    ((spikes * torch.tensor(upstream)).sum() + (membrane * torch.tensor(left)).sum()).backward()
    expected = [naive(currents[:, i], upstream[:, i], left[i], *settings) for i in range(6)]
    columns = [torch.tensor(np.array(column).T) for column in zip(*expected, strict=True)]
    assert 0 < columns[0].mean() < 1
    assert torch.equal(spikes.detach(), columns[0])
    torch.testing.assert_close((membrane.detach(), given.grad), (columns[1], columns[2]))


def test_the_linear_gradient_by_hand():
    """Threshold 2, no leak: u = 1, 3, then 3 + 0.5 - 2; the spike is that of the third step, from u = 3."""
    current = torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64)[:, None].requires_grad_()
    spikes, (membrane, _) = hybrid.Delayed(2.0, 1.0, "linear", 0.3, 0.0)(current)
    assert spikes.flatten().tolist() == [0, 0, 1, 0]
    assert membrane.item() == 1.5
    spikes.sum().backward()
    # Membranes before the steps are 0, 1, 3, 1.5: (1 - |u / 2 - 1|) is 0, 1/2, 1/2, 3/4, and 0.3 / 2 times it counts.
    slopes = [0.15 * share for share in (0, 0.5, 0.5, 0.75)]
    expected = [sum(slopes[1:]), sum(slopes[2:]), slopes[3], 0]
    torch.testing.assert_close(current.grad.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_the_spike_time_dependent_gradient_by_hand():
    """A spike at step 1: from then on the derivative falls with the steps since; before, it is that of long silence."""
    current = torch.tensor([1.5, 0.1, 0.1, 0.1], dtype=torch.float64)[:, None].requires_grad_()
    spikes, _ = hybrid.Delayed(1.0, 1.0, "stdb", 0.3, 0.5)(current)
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    spikes.sum().backward()
    one, two, silent = 0.3 * math.exp(-0.5), 0.3 * math.exp(-1.0), 0.3 * math.exp(-0.5 * 1000)
    expected = [silent + one + two, one + two, two, 0]
    torch.testing.assert_close(current.grad.flatten(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("surrogate", ["linear", "stdb"])
def test_a_sequence_in_pieces_is_the_whole_sequence(surrogate):
    draws, neuron = torch.Generator().manual_seed(1), hybrid.Delayed(1.0, 1.0, surrogate, 0.3, 0.1)
    currents = torch.rand(30, 5, generator=draws, dtype=torch.float64)
    whole, (membrane, silence) = neuron(currents)
    state, pieces = None, []
    for piece in currents.split([1, 7, 22]):
        spikes, state = neuron(piece, state)
        pieces.append(spikes)
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(state[0], membrane)
    assert torch.equal(state[1], silence)


# -- where it starts ----------------------------------------------------------------------------------------

OPTIONS = {
    "architecture": "vgg5", "width": 0.05, "time_steps": 60, "reset": "soft", "coding": "signed",
    "calibration_images": 9, "calibration_steps": 40, "percentile": 100.0, "threshold_scale": 1.0,
    "balancing": "network", "leak": 1.0, "surrogate": "linear", "alpha": 0.3, "beta": 0.01, "dropout": 0.2,
}  # fmt: skip


def converted_and_hybrid():
    """A network converted with soft reset, the hybrid network of the same weights and thresholds, and their data."""
    data = images(train=9)
    converted = _balancing.build(OPTIONS, data, {})
    initialise(converted, 0, 2.0)
    thresholds = _balancing.balance(converted.eval(), data, OPTIONS, key(5))
    delayed = hybrid.build(OPTIONS, data, thresholds)
    delayed.load_state_dict(converted.state_dict())
    return converted.double(), delayed.double().eval(), thresholds, data


def test_at_its_start_it_is_the_converted_network_one_step_later_for_each_layer():
    converted, delayed, _, _ = converted_and_hybrid()
    spikes = (torch.rand(60, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    with torch.no_grad():
        expected = converted.resume(spikes, 0, {})
        found = delayed(spikes)
    layers = len(delayed.layers)
    assert layers == 4
    assert not found[:layers].any()
    assert found[layers:].abs().max() > 0
    torch.testing.assert_close(found[layers:], expected[:-layers])


def test_at_its_start_its_output_tends_to_that_of_the_dense_network():
    _, delayed, thresholds, data = converted_and_hybrid()
    samples = torch.arange(9)
    scaled = data.scaled(data.train.unit(samples), True).double()
    dense = ann.build({**OPTIONS, "batch_norm": False}, data).double().eval()
    dense.load_state_dict(delayed.state_dict())
    expected = rates(scaled, True)
    with torch.no_grad():
        target = dense(expected) / math.prod(thresholds.values())
        running = delayed(expected.expand(1024, *expected.shape)).cumsum(0)
    steps = [32, 64, 128, 256, 512, 1024]
    errors = [(running[t - 1] / t - target).norm().item() for t in steps]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.2)
    assert errors[-1] < 0.05 * target.norm()


def test_dropout_follows_the_layers_that_are_not_pooled():
    _, delayed, _, _ = converted_and_hybrid()
    kinds = {}
    for name, layer in delayed.hidden().items():
        parts = [type(part) for part in layer.after.modules()]
        kinds[name] = [kind for kind in (nn.AvgPool2d, FixedDropout) if kind in parts]
    pooled, dropped = [nn.AvgPool2d], [FixedDropout]
    assert kinds == {"conv1": pooled, "conv2": dropped, "conv3": pooled, "fc1": dropped}
    assert delayed.readout == "sum"


# -- runs ---------------------------------------------------------------------------------------------------

HYBRID = {
    "method": "hybrid", "start": "ann", "time_steps": 12, "calibration_images": 16, "calibration_steps": 8,
    "epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Rows from which a hybrid may or may not start, trained, with their folder."""
    root = tmp_path_factory.mktemp("hybrid")
    rows = {
        "ann": EXPERIMENT["rows"]["ann"],
        "ann-bn": {"method": "ann", "batch_norm": True},
        "silent": {"method": "ann", "gain": 1e-60},
    }
    for run in (used := experiment(root, rows=rows)).runs:
        pipeline.train(used, run, root, "cpu")
    return rows, root


def hybrid_run(starts, tmp_path, **options):
    """What a hybrid row on the digits says, its run and its directory."""
    rows, root = starts
    used = experiment(tmp_path, rows=rows | {"row": HYBRID | options})
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    run = used.run("digits", "row", 0)
    return pipeline.train(used, run, tmp_path, "cpu"), run, RunDirectory.of(run, tmp_path)


def test_the_weights_are_those_of_the_start_until_they_are_trained(starts, tmp_path):
    """And thresholds are the balanced ones times a factor that is applied when all of them are found."""
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    said, run, directory = hybrid_run(starts, tmp_path, threshold_scale=0.6, **still)
    assert ": done" in said
    rows, root = starts
    start = RunDirectory.of(experiment(tmp_path, rows=rows).run("digits", "ann", 0), root).weights()
    weights, thresholds = _balancing.parted(directory.weights())
    torch.testing.assert_close(weights, start, atol=1e-9, rtol=0)
    data = store.load("digits").as_asked(CPU, run.options)
    network = _balancing.build(OPTIONS | run.options, data, {})
    network.load_state_dict(start)
    balanced = _balancing.balance(
        network.eval(), data, {**OPTIONS, **run.options, "threshold_scale": 1.0}, key(0, "calibration")
    )
    assert thresholds == pytest.approx({name: 0.6 * value for name, value in balanced.items()}, rel=1e-6)
    assert directory.training()["thresholds"] == pytest.approx(thresholds, rel=1e-6)
    made = hybrid.classifier(run, data, directory.weights())
    assert isinstance(made, SpikingClassifier)
    assert made.network.layers["conv1"].neuron.threshold == thresholds["conv1"]


def test_training_lowers_the_loss(starts, tmp_path):
    _, _, directory = hybrid_run(starts, tmp_path, epochs=6, learning_rate=1e-3, time_steps=20, dropout=0.0)
    losses = directory.table("history.csv")["train_loss"]
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]


def test_what_it_cannot_start_from_is_one_line_and_a_silent_start_is_diverged(starts, tmp_path):
    with pytest.raises(UserError) as raised:
        hybrid_run(starts, tmp_path / "a", start="ann-bn")
    assert_one_line(raised.value, "row row", "ann-bn", "batch_norm: false")
    said, _, directory = hybrid_run(starts, tmp_path / "b", start="silent")
    assert "diverged" in said
    assert "conv1" in directory.training()["reason"]
