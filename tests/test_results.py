"""Frames of many runs by hand: last steps, thresholds, layers in order of depth, energy ratios."""

import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bntt.measurements.operations import AC_PJ, MAC_PJ
from bntt.results import facts
from bntt.results.collect import Results, at_threshold, gammas, images_of, last_step, select
from bntt.results.comparison import BY_IMAGE, BY_SEED, accuracy_difference
from bntt.results.energy import energy_ratios, exit_energy_ratios
from bntt.results.intervals import tango

LAYERS = ["conv1", "conv2", "conv10", "fc1", "fc2"]  # of which sorting by letters would make another order


def test_the_last_step_is_each_runs_own():
    """Runs of one row may differ in T over datasets, and rows and seeds of one dataset too."""
    last = {("a", "x", 0): 3, ("a", "x", 1): 2, ("a", "y", 0): 1, ("b", "x", 0): 4}
    frame = pd.DataFrame([(*run, t) for run, steps in last.items() for t in range(1, steps + 1)])
    frame.columns = ["dataset", "row", "seed", "time_step"]
    found = last_step(frame).set_index(["dataset", "row", "seed"])["time_step"]
    assert found.to_dict() == last
    of_one_run = select(frame, dataset="a", row="x", seed=0)[["time_step"]].assign(row="x")
    assert last_step(of_one_run)["time_step"].tolist() == [3]


def test_a_threshold_is_found_in_the_six_digits_of_the_file_and_no_neighbour():
    exits = pd.DataFrame({"threshold": [0.05, 0.1, 0.1001, 0.11, 0.333333], "exit_step": [5, 4, 3, 2, 1]})
    assert at_threshold(exits, 0.1)["exit_step"].tolist() == [4]
    assert at_threshold(exits, 1 / 3)["exit_step"].tolist() == [1]
    assert at_threshold(exits, 0.2).empty


def test_layers_stay_in_order_of_depth():
    lines = [(name, t, c, 100 * k + 10 * t + c) for k, name in enumerate(LAYERS) for t in (1, 2, 10) for c in range(2)]
    found = gammas(pd.DataFrame(lines, columns=["layer", "time_step", "channel", "gamma"]))
    assert list(found) == LAYERS
    assert found["conv10"].to_numpy().tolist() == [[210, 211], [220, 221], [300, 301]]


def test_frames_may_be_edited_by_who_gets_them(trained):
    results = Results.at(trained / "tiny", str(trained / "tiny.yaml"))
    whole = len(results.frame("anytime.csv"))
    assert whole
    frame = results.frame("anytime.csv")
    frame["accuracy"] = -1.0
    assert (results.frame("anytime.csv")["accuracy"] >= 0).all()
    assert sum(len(results.frame("anytime.csv", seed=seed)) for seed in (0, 1, 2)) == whole


MACS = [10, 50, 30, 20, 5]
COUNTS = [2.0, 0.3, 0.1, 0.4, 0.7]  # own, per neuron or input; the other readings are other multiples


def energy(step: int = 2, **run) -> pd.DataFrame:
    """Energies of one run at a step, in units in which an operation of a dense layer costs 1, and of a spike 0.5."""
    own = [macs * count * step / 2 for macs, count in zip(MACS, COUNTS, strict=True)]
    columns = {"layer": LAYERS, "macs": MACS, "count_own": [count * step for count in COUNTS], "dense_mj": MACS}
    columns |= {"own_mj": own, "events_mj": [2 * e for e in own], "mass_mj": [e * k for k, e in enumerate(own, 1)]}
    return pd.DataFrame(columns).assign(dataset="d", row="x", seed=0, time_step=step).assign(**run)


def test_energy_ratios_are_sums_over_layers_of_each_run_and_step():
    frame = pd.concat([energy(4), energy(2), energy(2, seed=1)])
    found = energy_ratios(frame)
    assert found[["seed", "time_step"]].to_numpy().tolist() == [[0, 4], [0, 2], [1, 2]]  # as in the frame
    own = [m * c for m, c in zip(MACS, COUNTS, strict=True)]  # at step 2; 20, 15, 3, 8, 3.5
    line = found.iloc[1]
    assert line["own"] == pytest.approx(115 / 49.5)
    assert line["own_hidden"] == pytest.approx(105 / 29.5)
    assert line["events"] == pytest.approx(115 / 99)
    assert line["events_hidden"] == pytest.approx(105 / 59)
    assert line["mass"] == pytest.approx(115 / sum(k * e for k, e in enumerate(own, 1)))
    assert line["mass_hidden"] == pytest.approx(105 / sum(k * e for k, e in enumerate(own, 1) if k > 1))
    assert line["spikes"] == pytest.approx(2 * 49.5 / 115)
    assert found.iloc[0]["own"] == pytest.approx(line["own"] / 2)
    dense = energy_ratios(energy().assign(count_own=math.nan, own_mj=math.nan, events_mj=math.nan, mass_mj=math.nan))
    assert dense["own"].tolist() == [1.0] and dense["spikes"].isna().all()
    silent = energy_ratios(energy().assign(own_mj=0.0))
    assert silent["own"].tolist() == [math.inf]


def test_energy_at_an_exit_counts_the_steps_up_to_it():
    """Spikes per step grow with the step, so that one step more or less is another number."""
    spikes = pd.DataFrame(
        [(name, t, count * t) for t in (1, 2, 3, 4) for name, count in zip(LAYERS[:-1], COUNTS[:-1], strict=True)],
        columns=["layer", "time_step", "spikes"],
    )
    found = exit_energy_ratios(pd.concat([energy(2), energy(4)]), spikes, 3)
    counts = [6 * count for count in (*COUNTS[:-1], COUNTS[-2])]  # 1 + 2 + 3; the classifier takes fc1's
    spent = [macs * count for macs, count in zip(MACS, counts, strict=True)]
    unit = MAC_PJ / AC_PJ
    assert found["own"] == pytest.approx(unit * 115 / sum(spent))
    assert found["own_hidden"] == pytest.approx(unit * 105 / sum(spent[1:]))
    assert found["spikes"] == pytest.approx(sum(spent) / 115)


def test_accuracies_are_paired_by_seed_or_else_by_image_and_the_other_is_taken_off():
    frame = pd.DataFrame({"seed": [1, 0], "accuracy": [70.0, 62.5], "accuracy_other": [60.0, 50.0]})
    frame = frame.assign(correct=["fe", "fe"], correct_other=["e0", "e0"])
    difference, pairing = accuracy_difference(frame, 8)
    assert (difference.value, pairing) == (11.25, BY_SEED)  # of 10 and 12.5: s = 1.77, t(0.975, 1) = 12.706
    assert (difference.low, difference.high) == pytest.approx((11.25 - 15.88, 11.25 + 15.88), abs=0.01)
    difference, pairing = accuracy_difference(frame[:1], 8)
    assert (difference.value, pairing) == (50.0, BY_IMAGE)  # in points: seven of eight right, and three
    assert 0 < difference.low < 50 < difference.high < 100
    assert accuracy_difference(frame[:1], None) == (None, "")
    assert accuracy_difference(frame[:1].assign(correct=""), 8) == (None, "")
    assert accuracy_difference(frame[:0], 8) == (None, "")


@pytest.mark.parametrize(
    ("deviation", "differing", "expected"), [(0.0, 0.25, 0.05), (0.005, 0.25, 0.26), (0.005, 0.1, 0.42)]
)
def test_how_often_one_seed_decides_between_equal_methods(deviation, differing, expected):
    """Accuracies have a standard deviation over seeds, and two methods differ on a share of 10,000 images.

    The expected share follows from the normal distribution of the difference, whose variance the interval over images
    covers only in part.
    """
    images, trials, draws = 10_000, 1000, np.random.default_rng(0)
    decided = 0
    for difference in draws.normal(0, deviation * math.sqrt(2), trials):
        shares = [(differing + difference) / 2, (differing - difference) / 2, 1 - differing]
        only_first, only_second, _ = draws.multinomial(images, shares)
        interval = tango(only_first, only_second, images)
        decided += not interval.low <= 0 <= interval.high
    over_images, over_seeds = differing / images, 2 * deviation**2
    normal = 2 * NormalDist().cdf(-1.96 * math.sqrt(over_images / (over_images + over_seeds)))
    assert normal == pytest.approx(expected, abs=0.005)
    assert decided / trials == pytest.approx(normal, abs=0.05)  # three standard errors


def test_the_test_images_are_those_of_the_dataset_within_the_limit():
    def run(dataset, limit, there):
        training = None if there is None else {"data": {"images": {"train": 90, "validation": 7, "test": there}}}
        options = {"test_limit": limit, "train_limit": None, "held_out": 0}
        return SimpleNamespace(run=SimpleNamespace(dataset=dataset, options=options), training=training)

    runs = [run("a", 5, None), run("a", 5, 8), run("b", 50, 9), run("c", None, 10), run("d", None, None)]
    found = SimpleNamespace(runs=runs)
    assert [facts.test_images(found, dataset) for dataset in "abcd"] == [5, 9, 10, None]
    held_out = run("a", 50, 9)
    held_out.run.options["held_out"] = 20
    assert (images_of(runs[0]), images_of(held_out)) == (None, {"train": 70, "test": 9})
