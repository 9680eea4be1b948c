"""Travelling waves: what is a peak, and when the order of peaks in depth is more than chance."""

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tiny import PROJECT

from bntt.experiment.schema import load
from bntt.results import collect
from bntt.results.collect import gammas
from bntt.results.waves import LEAST_LAYERS, Order, clear_peak, fall, peak_order, trained
from bntt.spiking.norms import NORMS
from bntt.training.schedule import learning_rate, undriven

REFERENCE = PROJECT / "results" / "reference"
SIGNIFICANT = 0.025  # one-sided


def decided(order):
    return order is not None and min(order.p_later, order.p_earlier) <= SIGNIFICANT


def pulse(peak, steps=25, width=4.0, height=0.35):
    return height * np.exp(-(((np.arange(1, steps + 1) - peak) / width) ** 2))


def plateau(suppressed, steps=25, level=0.48):
    """A gamma that training has lowered at its first steps, and left alone at all others."""
    return level * np.minimum(1.0, 0.4 + 0.6 * np.arange(steps) / suppressed)


# -- informative steps ---------------------------------------------------------------------------------------


def test_a_step_informs_if_fewer_than_half_of_its_channels_are_undriven():
    gamma = [
        [0.5, 0.5, 0.1, 0.1],  # half of them are
        [0.5, 0.1, 0.1, 0.1],
        [0.504, 0.496, 0.5, 0.1],  # within 1 %
        [0.506, 0.494, 0.5, 0.1],
        [-0.5, -0.5, -0.5, -0.5],
    ]
    assert trained(gamma, 0.5).tolist() == [False, True, False, True, True]
    assert trained([[0.0, 0.0], [1e-30, 1e-30]], 0.0).tolist() == [False, True]
    assert trained([[-0.504], [-0.506]], -0.5).tolist() == [False, True]


# -- peaks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "peak"),
    [
        ([1, 2, 3, 2, 1], 3),
        ([3, 2, 1, 1, 1], 1),
        ([1, 3, 3, 1, 1], 2),  # the first of equals
        ([1, 2, 3, 4, 5], None),  # it rises
        ([1, 5, 5, 5, 5, 5, 5, 5, 5, 5], None),  # to a plateau
        ([1, 5, 5, 5, 5, 5, 5, 5, 1, 5], None),  # with a dip
        ([1, 5, 5, 5, 5, 5, 5, 5, 5, 1], None),  # also at the end: a fifth of the steps are two
        ([1, 5, 5, 5, 5, 5, 5, 5, 1, 1], 2),
        ([1, 5, 5, 5, 5, 1], None),  # two of six, too
        ([1, 5, 5, 5, 1, 1], 2),
        ([1, 5, 1, 1, 1, 1, 1, 1, 1, 5], None),  # it falls, and rises again
        ([1.0, 10.0, 9.0, 9.0, 9.0], None),  # by a tenth
        ([1.0, 10.0, 9.0, 9.0, 8.9], 2),
        ([4.0] * 5, None),
        ([0.0] * 5, None),
        ([-4.0] * 5, None),
        ([0.0, 0.0, 0.003, 0.0, 0.0], 3),
        ([-1.0, -0.1, 0.3, 0.25, 0.25], None),  # what it falls by is little beside its rise
        ([5.0], None),
        ([], None),
        ([1, math.nan, 3, 2, 1], None),
        ([1, 2, math.inf, 2, 1], None),
        ([1, math.inf, math.inf], None),
    ],
)
def test_a_clear_peak_falls_and_stays_low(curve, peak):
    assert clear_peak(curve) == peak
    assert clear_peak(np.multiply(curve, 7)) == peak
    assert clear_peak(curve, [True] * len(curve)) == peak
    assert clear_peak(curve, [False] * len(curve)) is None


def test_a_peak_counts_only_where_gamma_informs():
    curve = [1, 2, 5, 2, 1]
    assert clear_peak(curve, [False, False, True, False, False]) == 3
    assert clear_peak(curve, [True, True, False, True, True]) is None
    with pytest.raises(ValueError, match="5 steps"):
        clear_peak(curve, [True] * 4)


@pytest.mark.parametrize("steps", [5, 10, 15, 25, 50])
@pytest.mark.parametrize("noise", [0.005, 0.01, 0.02])
def test_noise_on_a_plateau_is_no_peak(steps, noise):
    generator = np.random.default_rng(1)
    curves = plateau(3, steps) * (1 + noise * generator.standard_normal((1000, steps)))
    assert sum(clear_peak(curve) is not None for curve in curves) <= 5


def test_fall():
    assert fall([1, 4, 2]) == 0.5
    assert fall([1, 2, 4]) == 1
    assert fall([4, -1]) == -0.25
    for nothing in ([], [0, 0], [-2, -1], [1, math.nan], [math.inf, 1]):
        assert fall(nothing) is None


# -- their order ---------------------------------------------------------------------------------------------


def by_enumeration(steps):
    """Tau and both p-values from all orders, each with scipy's tau."""
    depth = range(len(steps))
    tau = stats.kendalltau(depth, steps).statistic
    taus = np.array([stats.kendalltau(depth, order).statistic for order in itertools.permutations(steps)])
    return tau, (taus >= tau - 1e-9).mean(), (taus <= tau + 1e-9).mean()


@pytest.mark.parametrize(
    "steps", [(1, 3, 2, 4, 5), (5, 3, 4, 2, 1), (2, 2, 7, 7, 9), (4, 9, 4, 4, 1), (3, 3, 3, 3, 8), (3, 8, 8, 1, 1, 1)]
)
def test_the_order_agrees_with_an_enumeration(steps):
    order = peak_order([steps])
    assert order[:3] == pytest.approx(by_enumeration(steps), rel=1e-12)
    assert order[3:] == (len(steps), steps)
    mirrored = peak_order([steps[::-1]])
    assert (mirrored.tau, mirrored.p_later, mirrored.p_earlier) == (-order.tau, order.p_earlier, order.p_later)


@pytest.mark.parametrize("layers", [5, 8, 10, 16])
def test_without_ties_the_order_agrees_with_scipy(layers):
    steps = np.random.default_rng(layers).permutation(layers).tolist()
    order = peak_order([steps])
    for side, found in (("greater", order.p_later), ("less", order.p_earlier)):
        expected = stats.kendalltau(range(layers), steps, method="exact", alternative=side)
        assert (order.tau, found) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert peak_order([range(layers)])[:3] == pytest.approx((1.0, 1 / math.factorial(layers), 1.0), rel=1e-12)


def test_equal_peaks_are_no_order():
    assert peak_order([[4] * 8]) == Order(0.0, 1.0, 1.0, 8, (4.0,) * 8)


def test_fewer_layers_could_not_be_significant():
    assert 1 / math.factorial(LEAST_LAYERS) <= SIGNIFICANT < 1 / math.factorial(LEAST_LAYERS - 1)
    assert decided(peak_order([range(LEAST_LAYERS)]))
    assert peak_order([range(LEAST_LAYERS - 1)]) is None
    assert peak_order([[1, 2, None, 3, 4]]) is None
    assert peak_order([]) is None and peak_order([[], []]) is None


def test_a_layer_stands_at_its_mean_over_seeds_and_counts_once():
    seeds = [[1, 2, 3, None, 5, None, 9, 4], [2, 2, None, None, 6, 8, 9, 9], [3, 3, None, 7, 7, None, None, 9]]
    order = peak_order(seeds)
    assert order.steps == (2, 7 / 3, None, None, 6, None, 9, 22 / 3)  # a peak in one of three seeds is none
    assert order.layers == 5
    assert order[:3] == pytest.approx(by_enumeration([2, 7 / 3, 6, 9, 22 / 3]))
    assert peak_order([seeds[0], seeds[1]]).steps == (1.5, 2, 3, None, 5.5, 8, 9, 6.5)  # but in one of two it counts
    with pytest.raises(ValueError):
        peak_order([[1, 2, 3, 4, 5], [1, 2, 3, 4]])


def test_more_seeds_do_not_make_the_order_more_certain():
    steps = [3, 1, 4, 6, 5, 9]
    assert peak_order([steps]) == peak_order([steps] * 7)


# -- chance and power ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [5, 6, 7])
@pytest.mark.parametrize("most", [2, 4, 7])
def test_of_all_orders_at_most_one_in_twenty_is_decided(layers, most):
    """Of the steps 1..layers, in which those from ``most`` on are one step."""
    orders = [peak_order([steps]) for steps in itertools.permutations(np.minimum(range(1, layers + 1), most).tolist())]
    for side in ("p_later", "p_earlier"):
        assert sum(getattr(order, side) <= SIGNIFICANT for order in orders) <= SIGNIFICANT * len(orders)


@pytest.mark.parametrize("layers", [6, 7, 8])
@pytest.mark.parametrize("last", [6, 12, 10**6])
def test_random_peaks_are_decided_in_at_most_one_of_twenty_cases(layers, last):
    """Peak steps of three seeds anywhere in 1..last; chance alone exceeds the bound by less than its error."""
    drawn = np.random.default_rng(layers).integers(1, last + 1, (1000, 3, layers))
    share = np.mean([decided(peak_order(seeds.tolist())) for seeds in drawn])
    assert 0.005 < share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


def test_curves_with_random_peaks_are_decided_in_at_most_one_of_twenty_cases():
    generator = np.random.default_rng(5)
    outcomes = []
    for centres in generator.uniform(1, 18, (1000, 8)):
        curves = [pulse(centre) + 0.005 * generator.standard_normal(25) for centre in centres]
        outcomes.append(peak_order([[clear_peak(curve) for curve in curves]]))
    assert sum(order is not None for order in outcomes) > 900
    assert 0.005 < np.mean([decided(order) for order in outcomes]) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("noise", "seeds"), [(0.01, 1), (0.05, 3)])
def test_a_wave_is_nearly_always_seen(noise, seeds):
    """Peaks from step 2 to step 12.5, and noise of up to a twentieth of their height."""
    generator = np.random.default_rng(6)
    waves = np.stack([pulse(2 + 1.5 * layer) for layer in range(8)])
    for curves in (waves, waves[::-1]):
        noisy = curves + 0.35 * noise * generator.standard_normal((200, seeds, *waves.shape))
        orders = [peak_order([[clear_peak(curve) for curve in seed] for seed in one]) for one in noisy]
        side = "p_later" if curves is waves else "p_earlier"
        assert np.mean([order is not None and getattr(order, side) <= SIGNIFICANT for order in orders]) > 0.95


def test_an_untrained_plateau_is_no_wave():
    """Early steps are low, and longer so in deeper layers; the late steps, at which gamma is largest, are undriven."""
    generator = np.random.default_rng(7)
    for _ in range(200):
        curves = [plateau(2 + 2.5 * layer) * (1 + 0.01 * generator.standard_normal(25)) for layer in range(8)]
        assert peak_order([[clear_peak(curve) for curve in curves]]) is None


def test_an_undriven_largest_value_is_no_peak():
    """Even where the undriven steps are not the last ones."""
    gamma = np.array([0.2, 0.3, 0.48, 0.48, 0.3, 0.2, 0.1, 0.1])[:, None].repeat(6, axis=1)
    assert clear_peak(gamma.mean(axis=1)) == 3
    assert clear_peak(gamma.mean(axis=1), trained(gamma, 0.48)) is None


# -- the committed measurements ------------------------------------------------------------------------------


def reference(name):
    """Gamma of each layer of a committed run of bntt, and the value of a gamma that no gradient reached."""
    folder = REFERENCE / name / "runs" / "cifar10" / "bntt" / "seed-0"
    training = json.loads((folder / "train.json").read_text())
    options = {"drop_last": False} | training["config"]["options"]
    images = min(training["data"]["images"]["train"], options["train_limit"] or math.inf)
    layers = [frame.to_numpy() for frame in gammas(pd.read_csv(folder / "gamma.csv")).values()]
    return layers, undriven(options, int(images))


@pytest.mark.parametrize(
    ("name", "peaks"),
    [
        ("cifar10-small", [None] * 8),
        ("cifar10-lease", [2, 9, 11, 11, 12, 12, 10, 10]),
        ("cifar10", [1, 3, 3, 4, 4, 4, 5, 4]),
    ],
)
def test_the_peaks_of_committed_runs(name, peaks):
    """In the short training all late steps are undriven; in the longer one, gamma fell to a twentieth."""
    layers, untouched = reference(name)
    assert np.median(layers[0][-1]) == pytest.approx(untouched, rel=1e-4)  # what SGD left of 1 in a real training
    assert [clear_peak(gamma.mean(axis=1), trained(gamma, untouched)) for gamma in layers] == peaks
    falls = [fall(gamma.mean(axis=1)) for gamma in layers]
    assert min(falls) > 0.9 if name == "cifar10-small" else max(falls) < 0.1
    assert decided(peak_order([peaks])) == (name == "cifar10")  # the paper's protocol


@pytest.mark.parametrize("norm", ["bntt", "bn-pooled-step-gamma", "tebn", "tab", "tab-released", "tsbn"])
@pytest.mark.parametrize("kept", [None, 2])
def test_the_summarys_undriven_value_is_that_of_the_scale_that_is_measured(norm, kept):
    """A norm whose parameters get no gradient, in SGD: gamma decays, and with it the weights of the steps."""
    run = next(run for run in load("demo").runs if run.row == "bntt" and run.dataset == "digits")
    options = {**run.options, "norm": norm, "epochs": 5, "batch_size": 10}
    module = NORMS[norm](3, 4)
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=options["weight_decay"])
    for epoch in range(kept or 5):
        optimiser.param_groups[0]["lr"] = learning_rate(options, epoch)
        for _ in range(3):
            for parameter in module.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimiser.step()
    one = SimpleNamespace(run=replace(run, options=options))
    training = {"decay_budget": 1.0} | ({"selected_epoch": kept} if kept else {})
    value = collect._undriven(one, training, {"train": 30})
    torch.testing.assert_close(module.temporal_scale(), torch.full((4, 3), value), rtol=1e-5, atol=0)


def test_what_has_no_gamma_has_no_undriven_value():
    run = load("demo").runs[0]
    assert collect._undriven(SimpleNamespace(run=run), {}, {"train": 30}) is None
    assert (
        collect._undriven(SimpleNamespace(run=replace(run, options={})), {"decay_budget": 1.0}, {"train": 30}) is None
    )
