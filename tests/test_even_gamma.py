"""BNTT whose gamma is trained alike at every time-step."""

import math

import numpy as np
import pytest
import torch
from tiny import assert_one_line, one_row

from bntt.common.errors import UserError
from bntt.methods import even_gamma
from bntt.methods.even_gamma import LIMIT, reshaped
from bntt.runs import pipeline
from bntt.runs.directory import RunDirectory
from bntt.training.paths import driven
from bntt.training.schedule import undriven

torch.set_num_threads(1)

STEPS, CHANNELS = 6, 5


def random(seed):
    draws = np.random.default_rng(seed)
    falls = np.array(driven(3, STEPS, 0.8))
    gradient = draws.normal(size=(STEPS, CHANNELS)) * falls[:, None] * draws.uniform(0.5, 2, (STEPS, 1))
    return draws.normal(size=(STEPS, CHANNELS)), gradient, falls


def found(gamma, gradient, falls, updates="plain", decay=0.0, shape="even"):
    gamma, gradient, falls = (torch.from_numpy(one) for one in (gamma, gradient, falls))
    return reshaped(gamma, gradient, updates, falls, decay, shape).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_plain_updates_with_even_decay_are_the_gradient(seed):
    gamma, gradient, falls = random(seed)
    np.testing.assert_array_equal(found(gamma, gradient, falls, decay=0.3), gradient)


@pytest.mark.parametrize("seed", range(3))
def test_normalised_updates_have_one_size_and_their_own_direction(seed):
    gamma, gradient, falls = random(seed)
    made = found(gamma, gradient, falls, "normalised")
    sizes = [math.sqrt(sum(g**2 for g in step) / CHANNELS) for step in gradient]
    for step, given, size in zip(made, gradient, sizes, strict=True):
        np.testing.assert_allclose(step, given * max(sizes) / size, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_updates_by_paths_undo_the_laws_fall(seed):
    gamma, gradient, falls = random(seed)
    made = found(gamma, gradient, falls, "by-paths")
    np.testing.assert_allclose(made * falls[:, None], gradient, rtol=1e-12)


@pytest.mark.parametrize("updates", ["by-paths", "normalised"])
def test_no_step_is_enlarged_beyond_the_limit(updates):
    gamma, gradient, falls = np.ones((2, 2)), np.array([[1.0, 1.0], [1e-9, 1e-9]]), np.array([1.0, 1e-9])
    np.testing.assert_allclose(found(gamma, gradient, falls, updates)[1], LIMIT * 1e-9, rtol=1e-12)


def test_a_step_without_a_gradient_keeps_none():
    gamma, gradient, falls = random(0)
    gradient[4] = 0
    assert (found(gamma, gradient, falls, "normalised")[4] == 0).all()
    assert (found(gamma, 0 * gradient, falls, "normalised") == 0).all()


@pytest.mark.parametrize("updates", ["plain", "normalised"])
def test_decay_in_the_shape_of_the_paths(updates):
    """With what the optimiser adds, decay * gamma, a step decays by its share of it."""
    gamma, gradient, falls = random(1)
    alone = found(gamma, gradient, falls, updates)
    shaped = found(gamma, gradient, falls, updates, 0.3, "paths")
    np.testing.assert_allclose(shaped + 0.3 * gamma, alone + 0.3 * falls[:, None] * gamma, rtol=1e-12)


# -- in a training ---------------------------------------------------------------------------------------------

PROTOCOL = {"epochs": 2, "train_limit": 40, "batch_size": 8}


def trained(folder, method="even-gamma", **options):
    folder.mkdir(exist_ok=True)
    used, run = one_row(folder, protocol=PROTOCOL, method=method, time_steps=4, **options)
    pipeline.train(used, run, folder, "cpu")
    directory = RunDirectory.of(run, folder)
    return directory.weights(), directory.training(), run


def gammas(weights):
    return {name: value for name, value in weights.items() if name.endswith("gamma")}


def test_without_its_options_it_is_bntt(tmp_path):
    plain, _, _ = trained(tmp_path / "plain", "surrogate", norm="bntt", gamma_decay=0.1)
    even, facts, run = trained(tmp_path / "even", gamma_decay=0.1)
    assert all(torch.equal(value, plain[name]) for name, value in even.items())
    assert facts["undriven_gamma"] == undriven(run.options, 40)


@pytest.mark.parametrize("updates", ["by-paths", "normalised"])
def test_its_first_step_is_the_plain_one_reshaped_once(tmp_path, updates):
    """One step of one batch, without decay: gamma moves by the rate times its gradient."""
    once = {"epochs": 1, "batch_size": 40, "gamma_decay": 0.0, "leak": 0.5}
    plain, _, _ = trained(tmp_path / "plain", "surrogate", norm="bntt", **once)
    even, _, _ = trained(tmp_path / "even", gamma_updates=updates, **once)
    for layers, (name, value) in enumerate(reversed(gammas(plain).items()), 1):
        moved, reshaped_move = (one.double().numpy() - 1 for one in (value, even[name]))
        sizes = np.sqrt((moved**2).mean(1))
        assert (sizes > 0).all()
        factors = sizes.max() / sizes if updates == "normalised" else 1 / np.array(driven(layers, 4, 0.5))
        np.testing.assert_allclose(reshaped_move, moved * factors[:, None], atol=1e-6 * factors.max())


def test_decay_takes_a_layers_gamma_by_its_share_alone_where_there_is_no_gradient(tmp_path):
    """Neurons that cannot fire within these steps leave gamma to its decay, layer by layer and step by step."""
    options = {"gamma_decay": 0.2, "gamma_decay_shape": "paths", "threshold": 1e6, "leak": 0.5, "gamma_init": 2.0}
    weights, facts, run = trained(tmp_path, **options)
    assert "undriven_gamma" not in facts
    assert "decay_budget" not in facts
    for layers, gamma in enumerate(reversed(gammas(weights).values()), 1):
        for value, share in zip(gamma, driven(layers, 4, 0.5), strict=True):
            expected = undriven({**run.options, "gamma_decay": 0.2 * share}, 40)
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-5)


def test_it_needs_the_decay_of_sgd(tmp_path):
    with pytest.raises(UserError) as error:
        trained(tmp_path, optimiser="adam")
    assert_one_line(error.value, "row", "SGD", "adam")


def test_the_layers_of_gammas_come_in_order_of_depth(tmp_path):
    weights, _, _ = trained(tmp_path)
    assert list(gammas(weights)) == [f"layers.{name}.norm.gamma" for name in ("conv1", "conv2", "conv3", "fc1")]
    assert even_gamma.EXTENDS == ["bntt.methods.surrogate"]
