"""How far gamma is driven, where it falls, and what is predicted of it; effects and tests of docs/wave.md."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bntt.results import law
from bntt.results.effects import Effects, cause, holm, p_value, two_by_two
from bntt.results.intervals import Estimate
from bntt.results.law import (
    Setting,
    distance,
    half_fall,
    last_above,
    late_share,
    level_at,
    log_correlation,
    nearest,
    predictions,
    reach,
)
from bntt.training.paths import driven, paths

# -- curves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "leak"), [(1, 0.95), (8, 0.95), (3, 0.5), (5, 1.0)])
def test_a_gradient_that_follows_the_law_correlates_with_it_whatever_its_size_and_power(layers, leak):
    shape = np.array(driven(layers, 25, leak))
    assert log_correlation(3e-7 * shape, layers, leak) == pytest.approx(1, abs=1e-9)
    assert log_correlation(shape**2, layers, leak) == pytest.approx(1, abs=1e-9)
    assert log_correlation(1 / shape, layers, leak) == pytest.approx(-1, abs=1e-9)
    noisy = shape * np.exp(np.random.default_rng(0).normal(size=25) * 0.1)
    expected = stats.pearsonr(np.log(noisy), np.log(shape)).statistic
    assert log_correlation(noisy, layers, leak) == pytest.approx(expected, rel=1e-9)


def test_there_is_no_correlation_with_what_does_not_change():
    assert math.isnan(log_correlation(np.ones(5), 3, 0.9))
    assert math.isnan(log_correlation(np.arange(1, 6), 3, 0.0))


def test_a_gradient_of_zero_has_no_correlation_and_is_infinitely_far():
    assert math.isnan(log_correlation([1.0, 0.5, 0.0], 2, 0.9))
    assert math.isinf(distance([1.0, 0.5, 0.0], 2, 0.9))
    assert nearest([1.0, 0.5, 0.0], 0.9, most=3) is None


@pytest.mark.parametrize("layers", [1, 3, 8])
def test_the_law_of_a_layer_is_told_from_the_others(layers):
    """Correlation is high for any number of layers; the distance is 0 for the right one alone."""
    gradients = 3e-7 * np.array(driven(layers, 25, 0.95))
    away = {m: distance(gradients, m, 0.95) for m in range(1, 10)}
    assert away[layers] == pytest.approx(0, abs=1e-9)
    assert min(far for m, far in away.items() if m != layers) > 0.5
    assert min(log_correlation(gradients, m, 0.95) for m in away) > 0.95
    assert nearest(gradients, 0.95, most=9) == layers
    assert distance([2.0, 4.0], 1, 0.5) == pytest.approx(math.log(2 / (1 / 1.5)) / math.sqrt(2))


def test_reach_is_the_last_step_at_which_gamma_is_away_from_its_undriven_value():
    channels = np.array([[0.9, 0.2], [0.51, 0.49], [0.5, 0.53], [0.5, 0.51], [0.5, 0.5]])
    mean, deviation = channels.mean(1), channels.std(1)
    distances = np.sqrt(((channels - 0.5) ** 2).mean(1))
    assert [d >= law.MOVED for d in distances] == [True, True, True, False, False]
    assert reach(mean, deviation, 0.5) == 3
    assert reach(mean, deviation, 0.5, least=0.1) == 1
    assert reach(mean, deviation, 0.4) == 5
    assert reach(mean[3:], deviation[3:], 0.5) == 0


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ([1, 4, 3, 1.9, 0.1], 4),
        ([4, 2, 2, 2], 5),
        ([4, 1.99, 4], 2),
        ([0.1, 1, 1, 1], 5),
        ([0.1, 0.2, 1, 0.4], 4),
        ([-1, -0.5, -0.6], 4),
        ([0, 0, 0], 4),
    ],
)
def test_where_a_curve_falls_below_half_its_peak(curve, step):
    assert half_fall(curve) == step


def test_the_late_share_is_a_mean_over_layers_that_spike():
    spikes = [[0, 4, 2, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert late_share(spikes) == pytest.approx((0 / 4 + 1) / 2)
    assert late_share([row * 2 for row in spikes]) == pytest.approx((0.5 / 4 + 1) / 2)
    assert late_share([row * 2 + [8] for row in spikes]) == pytest.approx((3 / 8 + 10 / 24 + 8 / 24) / 3)
    assert late_share([[0, 0], [0, 0]]) is None


@pytest.mark.parametrize("step", [1, 1.5, 3.25, 5])
def test_a_level_and_where_a_curve_crosses_it_are_inverse(step):
    curve = np.array([5.0, 3.0, 2.0, -1.0, -4.0])
    assert last_above(curve, level_at(curve, step)) == pytest.approx(step)


def test_where_a_curve_is_last_above_a_level():
    assert last_above([1, 2, 3], 5) == 0
    assert last_above([1, 2, 3], 2) == 3
    assert last_above([3, 1, 3, 1], 2) == 3.5
    assert level_at([3.0, 1.0], 0) == math.inf
    assert level_at([3.0, 1.0], 2.5) == -math.inf


# -- predictions -----------------------------------------------------------------------------------------------


def lawful(row, steps, leak, layers=8, size=1.0, needed=1e-5, gradients=True):
    """A setting whose gradients follow the law, and whose gamma is driven where they reach ``needed``."""
    curves = {m: np.log([size * paths(m, steps - t, leak) / steps for t in range(1, steps + 1)]) for m in
              range(layers, 0, -1)}  # fmt: skip
    return Setting(
        row, steps, leak, {m: last_above(curve, math.log(needed)) for m, curve in curves.items()},
        curves if gradients else {}, 3,
    )  # fmt: skip


def test_the_absolute_law_predicts_networks_that_follow_it():
    """One constant for all layers, settings of another leak, length and depth."""
    centre = lawful("centre", 25, 0.95, size=1e-8)
    assert len({round(step) for step in centre.measured.values()}) > 3
    inside = [m for m, step in centre.measured.items() if 1 < step < 25]
    centre = centre._replace(measured={m: centre.measured[m] for m in inside})
    for steps, leak, layers in [(15, 0.95, 8), (40, 1.0, 8), (25, 0.8, 8), (25, 0.95, 5)]:
        other = lawful("other", steps, leak, layers, size=1e-8)
        other = other._replace(measured={m: step for m, step in other.measured.items() if m in inside})
        found = predictions(centre, other)
        for version in ("absolute", "first step"):
            np.testing.assert_allclose(found[version], found["measured"], atol=1e-6)


def test_from_the_first_step_only_the_size_is_measured():
    """Gradients that leave the law after the first step move one version and not the other."""
    centre, other = lawful("centre", 25, 0.95, 2, needed=0.1), lawful("other", 25, 0.8, 2, needed=0.1)
    before = predictions(centre, other)
    bent = {m: np.concatenate([curve[:1], curve[1:] - 1]) for m, curve in other.gradients.items()}
    after = predictions(centre, other._replace(gradients=bent))
    assert after["first step"].tolist() == before["first step"].tolist()
    assert (after["absolute"] < before["absolute"]).all()
    larger = {m: curve + 1 for m, curve in other.gradients.items()}
    assert (predictions(centre, other._replace(gradients=larger))["first step"] > before["first step"]).all()


def test_a_layer_of_the_centre_that_is_driven_nowhere_has_no_constant():
    centre, other = lawful("centre", 25, 0.95, 3, needed=0.1), lawful("other", 15, 0.95, 3, needed=0.1)
    without = centre._replace(measured=centre.measured | {2: 0.0})
    found = predictions(without, other)
    np.testing.assert_allclose(found["absolute"], found["measured"], atol=1e-6)
    nowhere = predictions(centre._replace(measured=dict.fromkeys(centre.measured, 0.0)), other)
    assert nowhere["absolute"].isna().all()


@pytest.mark.parametrize(("steps", "leak"), [(15, 0.95), (40, 1.0), (25, 0.8)])
def test_the_relative_law_predicts_gammas_that_are_driven_down_to_a_share(steps, leak):
    share = {m: 0.5 * 0.6**m for m in range(1, 9)}

    def relative(row, steps, leak):
        measured = {m: last_above(np.log(driven(m, steps, leak)), math.log(share[m])) for m in share}
        return Setting(row, steps, leak, measured, {}, 3)

    found = predictions(relative("centre", 25, 0.95), relative("other", steps, leak))
    np.testing.assert_allclose(found["relative"], found["measured"], atol=1e-6)
    assert found["absolute"].isna().all()
    assert (found["same step"] - found["measured"]).abs().max() > 1


def test_without_a_leak_nothing_falls():
    found = predictions(lawful("centre", 25, 0.95), lawful("leak-0", 25, 0.0))
    assert (found["relative"] == 25).all()


def test_a_fall_that_does_not_come_is_one_step_beyond_the_end():
    centre = Setting("centre", 20, 0.9, {2: 21.0, 1: 12.0}, {}, 3)
    found = predictions(centre, Setting("other", 10, 0.9, {2: 11.0, 1: 11.0}, {}, 3), beyond=1)
    assert found["relative"][0] == 11
    assert found["same step"].tolist() == [11, 11]
    assert found["same share"].tolist() == [10.5, 6]
    none = predictions(centre, Setting("other", 10, 0.0, {2: 11.0, 1: 11.0}, {}, 3), beyond=1)
    assert none["relative"].tolist() == [11, 11]


def test_a_layer_that_is_never_driven_in_the_centre_is_driven_nowhere():
    centre = Setting("centre", 20, 0.9, {1: 0.0}, {}, 3)
    assert predictions(centre, Setting("other", 20, 0.0, {1: 0.0}, {}, 3))["relative"].tolist() == [0]


def test_what_is_predicted_without_a_law():
    centre = Setting("centre", 20, 0.9, {2: 10.0, 1: 18.0}, {}, 3)
    found = predictions(centre, Setting("other", 10, 0.9, {2: 4.0, 1: 9.0}, {}, 3))
    assert found["same step"].tolist() == [10, 10]
    assert found["same share"].tolist() == [5, 9]
    assert found["leaky_layers"].tolist() == [2, 1]


# -- effects and tests -----------------------------------------------------------------------------------------


def test_effects_of_a_design_without_noise():
    seeds = np.array([0.0, 0.1, 0.2])
    found = two_by_two(1 + seeds, 0.3 + seeds, 0.9 + seeds, 0.1 + seeds)
    assert [effect.value for effect in found] == pytest.approx([-0.75, -0.15, -0.1])


def test_effects_are_those_of_a_linear_model_of_each_seed():
    draws = np.random.default_rng(0)
    cells = draws.normal(size=(2, 2, 6))
    found = two_by_two(cells[0, 0], cells[1, 0], cells[0, 1], cells[1, 1])
    design = np.array([[1, a, b, a * b] for a, b in itertools.product([-0.5, 0.5], repeat=2)])
    fits = np.array([np.linalg.solve(design, cells[:, :, seed].ravel()) for seed in range(6)])[:, 1:]
    for effect, of_seeds in zip(found, fits.T, strict=True):
        low, high = stats.t.interval(0.95, 5, of_seeds.mean(), stats.sem(of_seeds))
        assert effect == pytest.approx((of_seeds.mean(), low, high))


def test_the_four_cells_have_the_same_seeds():
    with pytest.raises(ValueError, match="same seeds"):
        two_by_two([1, 2], [1, 2], [1, 2, 3], [1, 2])


FALLS, SMALL, NONE = Estimate(-0.8, -0.9, -0.6), Estimate(0.0, -0.05, 0.05), Estimate(0.0, -0.3, 0.3)


@pytest.mark.parametrize(
    ("effects", "word"),
    [
        (Effects(FALLS, SMALL, SMALL), "first"),
        (Effects(SMALL, FALLS, SMALL), "second"),
        (Effects(FALLS, NONE, SMALL), "undecided"),
        (Effects(FALLS, FALLS, Estimate(-0.3, -0.5, -0.2)), "both"),
        (Effects(FALLS, FALLS, Estimate(0.3, 0.2, 0.5)), "both"),
        (Effects(FALLS, FALLS, NONE), "undecided"),
        (Effects(Estimate(-0.6, -0.9, -0.4), SMALL, SMALL), "undecided"),
        (Effects(FALLS, Estimate(0.0, -0.05, 0.11), SMALL), "undecided"),
        (Effects(FALLS, Estimate(0.0, -0.11, 0.05), SMALL), "undecided"),
        (Effects(FALLS, SMALL, Estimate(0.4, 0.3, 0.5)), "first"),
        (Effects(FALLS, FALLS, Estimate(0.05, 0.01, 0.09)), "undecided"),
    ],
)
def test_which_decay_is_called_the_cause(effects, word):
    assert cause(*effects) == word


def test_p_values_are_students():
    values = [0.5, 1.0, 0.7, -0.1]
    t = np.mean(values) / (np.std(values, ddof=1) / 2)
    assert p_value(values) == pytest.approx(2 * stats.t.sf(t, 3))
    beyond = (np.mean(values) + 1) / (np.std(values, ddof=1) / 2)
    assert p_value(values, margin=1.0) == pytest.approx(2 * stats.t.sf(beyond, 3))
    assert p_value([-3.0, -2.0, -2.5], margin=1.0) == 1


@pytest.mark.parametrize(
    ("values", "margin", "p"),
    [([0, 0], None, 1), ([1, 1], None, 0), ([-1, -1], None, 0), ([0, 0], 1, 0), ([-2, -2], 1, 1)],
)
def test_equal_differences_have_a_p_value(values, margin, p):
    assert p_value(values, margin) == p


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_a_test_needs_two_differences(values):
    with pytest.raises(ValueError, match="two"):
        p_value(values)
    with pytest.raises(ValueError, match="two"):
        p_value(values, 1.0)


def test_holms_method_stops_at_the_first_that_is_not_rejected():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.02}) == {"a": True, "b": True, "c": True}
    assert holm({"a": 0.01, "b": 0.051, "c": 0.02}) == {"a": True, "b": False, "c": True}
    assert holm({"a": 0.018, "b": 0.001, "c": 0.03}) == {"a": True, "b": True, "c": True}
    assert holm({"a": 0.026, "b": 0.001, "c": 0.03}) == {"a": False, "b": True, "c": False}
