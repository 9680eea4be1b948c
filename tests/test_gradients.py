"""The law of the gradient's fall with time, and the gradients that are measured in training."""

import itertools
import math

import numpy as np
import pytest
import torch
from spiking.helpers import input_spikes, naive_twin, vgg9
from spiking.naive import HIDDEN, Neuron
from tiny import assert_one_line, one_row, result, same
from torch.nn import functional as F

from bntt.common.errors import Stopped, UserError
from bntt.experiment import declared
from bntt.results.collect import Results
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory
from bntt.spiking.networks import SpikingNetwork, WeightLayer
from bntt.spiking.neurons import LIF
from bntt.training import gradients
from bntt.training.paths import driven, paths

torch.set_num_threads(1)


# -- the law ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_paths_are_the_ways_to_divide_a_delay_among_the_layers(layers, lag, leak):
    delays = (sum(each) for each in itertools.product(range(lag + 1), repeat=layers))
    assert paths(layers, lag, leak) == pytest.approx(sum(leak**delay for delay in delays if delay <= lag), rel=1e-12)


@pytest.mark.parametrize("leak", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize(("layers", "lag"), [(1, 24), (3, 7), (8, 39)])
def test_paths_have_the_closed_form(layers, lag, leak):
    terms = (math.comb(j + layers - 1, layers - 1) * leak**j for j in range(lag + 1))
    assert paths(layers, lag, leak) == pytest.approx(math.fsum(terms), rel=1e-12)


@pytest.mark.parametrize(("layers", "lag"), [(0, 3), (2, -1)])
def test_there_are_no_paths_through_no_layer_or_back_in_time(layers, lag):
    with pytest.raises(ValueError, match="at least"):
        paths(layers, lag, 0.9)


def test_the_law_in_the_setting_of_the_paper():
    """The shares that docs/wave.md names: of the last step, in conv1 and in fc1 of VGG9."""
    shares = driven(8, 25, 0.95), driven(1, 25, 0.95)
    assert [len(one) for one in shares] == [25, 25]
    assert [one[0] for one in shares] == [1.0, 1.0]
    assert [f"{one[-1]:.1e}" for one in shares] == ["2.8e-07", "6.9e-02"]


def fully_connected(widths, steps, leak, seed):
    """A network in which every neuron fires at every step, with a membrane that stays just above the threshold.

    So all surrogate slopes are the same. The weights of a neuron are random and sum to the threshold.
    """
    layers = [WeightLayer(f"fc{k}", *pair, None, None) for k, pair in enumerate(itertools.pairwise(widths), 1)]
    network = SpikingNetwork(layers, steps, norm=None, neuron=lambda name: LIF(leak)).double()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.hidden().values():
            weight = layer.connection.weight
            weight.copy_(torch.randn(weight.shape, generator=draws, dtype=weight.dtype))
            weight += (1 + 1e-9 - weight.sum(1, keepdim=True)) / weight.shape[1]
        network.classifier.weight.copy_(torch.randn(network.classifier.weight.shape, generator=draws).double())
    return network


@pytest.mark.parametrize("leak", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_where_slopes_do_not_change_membranes_get_exactly_the_laws_gradient(leak, seed):
    steps, widths = 12, (6, 7, 5, 8, 6, 3)
    network = fully_connected(widths, steps, leak, seed)
    spikes = torch.ones(steps, 4, widths[0], dtype=torch.float64)
    rows = gradients.measure(
        network.hidden(), lambda: F.cross_entropy(network.logits(network(spikes)), torch.tensor([0, 1, 2, 0]))
    )
    for above, name in enumerate(reversed(network.hidden())):
        found = np.array([row["membrane"] for row in rows if row["layer"] == name])
        np.testing.assert_allclose(found / found[0], driven(above + 1, steps, leak), rtol=1e-6)


# -- what is measured ------------------------------------------------------------------------------------------


class Keeping(Neuron):
    """A neuron of the naive loop that keeps the gradients of its membranes."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def step(self, u, current):
        after, spike, before = super().step(u, current)
        before.retain_grad()
        self.kept.append(before)
        return after, spike, before


def root_mean_square(values):
    return math.sqrt((values**2).mean())


@pytest.mark.parametrize("norm", ["bntt", "bntt-shared-gamma", "none"])
def test_gradients_are_those_of_the_naive_loop(norm):
    steps = 5
    network = vgg9(norm, steps, 0.1, 8, seed=3)
    naive = naive_twin(network, norm)
    neuron = Keeping()
    for layer in naive.hidden.values():
        layer.neuron = neuron
    x, labels = input_spikes(1, steps, 4, 3, 8, 8), torch.arange(4)
    rows = gradients.measure(network.hidden(), lambda: F.cross_entropy(network.logits(network(x)), labels))
    F.cross_entropy(naive(x), labels).backward()
    expected = naive.gradients()
    assert [(row["layer"], row["time_step"]) for row in rows] == [(n, t + 1) for n in HIDDEN for t in range(steps)]
    for number, name in enumerate(HIDDEN):
        of_layer = [row for row in rows if row["layer"] == name]
        for t, row in enumerate(of_layer):
            kept = neuron.kept[t * len(HIDDEN) + number].grad.numpy()
            assert row["membrane"] == pytest.approx(root_mean_square(kept), rel=1e-9)
            if norm == "bntt":
                of_gamma = expected[f"layers.{name}.norm.gamma"][t].detach().numpy()
                assert row["gamma"] == pytest.approx(root_mean_square(of_gamma), rel=1e-9)
                assert row["gamma_mean"] == pytest.approx(of_gamma.mean(), rel=1e-9, abs=1e-16)
                assert row["scale"] == pytest.approx(network.hidden()[name].norm.gamma[t].mean().item())
            else:
                assert all(math.isnan(row[column]) for column in ("gamma", "gamma_mean", "scale"))


def test_measuring_leaves_no_trace_in_a_network():
    network = vgg9("bntt", 3, 0.1, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = input_spikes(1, 3, 4, 3, 8, 8)
    gradients.measure(network.hidden(), lambda: network(x).sum())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    for layer in network.hidden().values():
        assert not layer.norm._forward_hooks
        assert not layer.neuron._forward_pre_hooks
        assert layer.norm.tracks
    with pytest.raises(ZeroDivisionError):
        gradients.measure(network.hidden(), lambda: 1 / 0)
    assert all(layer.norm.tracks and not layer.norm._forward_hooks for layer in network.hidden().values())


# -- in a training ---------------------------------------------------------------------------------------------

EPOCHS = {"epochs": 3, "train_limit": 40, "batch_size": 8}


def trained(folder, method="surrogate", keep=None, **options):
    chosen = {"method": method, "time_steps": 3, **({"norm": "bntt"} if method == "surrogate" else {}), **options}
    used, run = one_row(folder, protocol=EPOCHS, **chosen)
    pipeline.train(used, run, folder, "cpu", **({"keep": keep} if keep else {}))
    return used, run


@pytest.mark.parametrize("method", ["surrogate", "tet", "weight-standardised"])
def test_a_training_keeps_gradients_of_the_epochs_asked_for_and_is_the_same(tmp_path, method):
    _, run = trained(tmp_path / "without", method)
    _, watched = trained(tmp_path / "with", method, gradient_epochs=[0, 2, 3])
    assert same(result(run, tmp_path / "without"), result(watched, tmp_path / "with"))
    table = RunDirectory.of(watched, tmp_path / "with").table("gradients.csv")
    assert list(table.columns) == list(gradients.COLUMNS)
    assert sorted(set(table["epoch"])) == [0, 2, 3]
    assert (table["membrane"] > 0).all()
    assert len(table) == 3 * 3 * 4
    assert "gradients.csv" not in RunDirectory.of(run, tmp_path / "without").training()["files"]


def test_gradients_before_training_are_those_of_the_initial_network(tmp_path):
    """The first step's loss has the gradient that was measured, up to its batch: so without a rate all are alike."""
    _, run = trained(tmp_path, gradient_epochs=[0, 1, 2, 3], learning_rate=1e-30)
    table = RunDirectory.of(run, tmp_path).table("gradients.csv").set_index(["layer", "time_step", "epoch"])
    by_epoch = table["gamma"].unstack("epoch")
    assert by_epoch.gt(0).all(axis=None)
    for epoch in (1, 2, 3):
        np.testing.assert_allclose(by_epoch[epoch], by_epoch[0], rtol=1e-5)
    assert (table["scale"] == 1).all()


@pytest.mark.parametrize("step", [1, 5, 7, 15])
def test_a_stopped_training_keeps_the_same_gradients(tmp_path, step):
    class Stopping(Checkpoints):
        steps = 0

        def due(self):
            self.steps += 1
            return self.steps == step

        def save(self, state):
            super().save(state)
            raise Stopped("by the test", interrupted=False)

    whole = trained(tmp_path / "whole", gradient_epochs=[0, 1, 3])[1]
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", keep=Stopping, gradient_epochs=[0, 1, 3])
    run = trained(tmp_path / "stopped", gradient_epochs=[0, 1, 3])[1]
    tables = [
        RunDirectory.of(one, folder).table("gradients.csv")
        for one, folder in ((whole, tmp_path / "whole"), (run, tmp_path / "stopped"))
    ]
    assert tables[0].equals(tables[1])
    assert RunDirectory.of(run, tmp_path / "stopped").training()["pieces"] == 2


def test_there_must_be_the_epochs_that_are_asked_for(tmp_path):
    with pytest.raises(UserError) as error:
        trained(tmp_path, gradient_epochs=[0, 4])
    assert_one_line(error.value, "row", "gradient_epochs names 4", "3 epochs")


def test_a_frame_of_gradients_has_its_columns_even_where_no_run_has_any(tmp_path):
    used, run = trained(tmp_path)
    frame = Results(used, tmp_path).frame("gradients.csv")
    assert list(frame.columns) == ["dataset", "row", "seed", *gradients.COLUMNS]
    assert frame.empty
    pipeline.evaluate(used, run, tmp_path, "cpu")
    assert Results(used, tmp_path).frame("gradients.csv").empty


def test_a_frame_of_gradients_has_every_run_that_measured_them(tmp_path):
    used, run = trained(tmp_path, gradient_epochs=[0])
    pipeline.evaluate(used, run, tmp_path, "cpu")
    frame = Results(used, tmp_path).frame("gradients.csv", row="row")
    assert len(frame) == 3 * 4
    assert declared.literal("bntt.training.gradients", "COLUMNS") == gradients.COLUMNS
