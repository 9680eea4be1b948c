"""Verdicts on frames made by hand: every claim can hold, fail, stay undecided, and say what is missing."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bntt.paper import claims
from bntt.paper.claims import CLAIMS, Claim, Evidence, Part, above, below
from bntt.results.collect import Results
from bntt.results.intervals import Estimate

IMAGES = 400  # accuracies are given as counts out of 200, each image twice
METHODS = {"bntt": "surrogate", "surrogate": "surrogate", "ann": "ann", "conversion": "conversion"}
LAST = {"bntt": 4, "surrogate": 8, "ann": 1, "conversion": 8}
LAYERS = ("conv1", "conv2", "fc1", "fc2")
BY_NAME = {function.__name__.replace("_", "-"): function for function in CLAIMS}


def bits(right: int) -> str:
    """The first so many of 200 right."""
    text = "11" * right + "00" * (200 - right)
    return f"{int(text, 2):0{IMAGES // 4}x}"


def anytime(**right: int) -> pd.DataFrame:
    """After step t, ``right`` images are right at the last step of each row, and as many at every step before."""
    return pd.DataFrame(
        (row, t, right.get(row, 100) / 2, bits(right.get(row, 100))) for row in METHODS for t in range(1, LAST[row] + 1)
    ).set_axis(["row", "time_step", "accuracy", "correct"], axis=1)


def image_spikes(**per_step: float) -> pd.DataFrame:
    """Spikes per neuron of each image: so many per step, give or take a little."""
    wobble = np.linspace(-0.01, 0.01, IMAGES)
    return pd.DataFrame(
        (row, step, i, per_step.get(row, 1.0) * step + wobble[i])
        for row in METHODS
        if row != "ann"
        for step in {4, LAST[row]}
        for i in range(IMAGES)
    ).set_axis(["row", "time_step", "sample", "spikes"], axis=1)


def uneven(spikes: pd.DataFrame) -> pd.DataFrame:
    """The same means, but bntt's images differ by two spikes in turn."""
    return spikes.assign(spikes=spikes["spikes"] + np.where(spikes["row"] == "bntt", spikes["sample"] % 2 * 2 - 1, 0))


def gamma(peaks, row="bntt", channels=6) -> pd.DataFrame:
    """Layers whose channels all peak at the given step; a pair of steps splits the channels between them."""
    lines = []
    for layer, peak in zip(LAYERS, peaks, strict=True):
        steps = peak if isinstance(peak, tuple) else (peak,)
        lines += [
            (row, layer, t, c, math.exp(-((t - steps[c % len(steps)]) ** 2)))
            for t in range(1, 5)
            for c in range(channels)
        ]
    return pd.DataFrame(lines, columns=["row", "layer", "time_step", "channel", "gamma"])


def noise(**right: int) -> pd.DataFrame:
    """Two noise levels and none; so many images right at each, after the last step."""
    return pd.DataFrame(
        (row, sigma, LAST[row], right.get(row, 100) / 2, bits(right.get(row, 100)))
        for row in METHODS
        for sigma in (0.0, 0.4, 0.8)
    ).set_axis(["row", "sigma", "time_step", "accuracy", "correct"], axis=1)


def energy(**spent: float) -> pd.DataFrame:
    """Two layers of 1 mJ each when dense; a spiking row spends so much in each, under every reading."""
    return pd.DataFrame(
        {
            "row": row,
            "time_step": LAST[row],
            "layer": layer,
            "macs": 10,
            "count_own": 1.0,
            "dense_mj": 1.0,
            **dict.fromkeys(("own_mj", "events_mj", "mass_mj"), math.nan if row == "ann" else spent.get(row, 0.5)),
        }
        for row in METHODS
        for layer in ("conv1", "fc1")
    ).assign(dataset="digits", seed=0)


def approximations(**columns) -> pd.DataFrame:
    """Four layers at two steps. A column is a number, or one number for each layer."""
    usual = {"relative_mean": 0.01, "scale_change": 0.01, "variance": 1.0, "spikes": 1.0, "wrong": 0.01} | columns
    lines = []
    for k, layer in enumerate(LAYERS):
        for t in (1, 2):
            own = {name: value[k] if isinstance(value, list) else value for name, value in usual.items()}
            own = {name: value[t - 1] if isinstance(value, tuple) else value for name, value in own.items()}
            lines.append({"row": "bntt", "layer": layer, "time_step": t, **own})
    return pd.DataFrame(lines)


def early_exit(step=2, exits=1) -> pd.DataFrame:
    return pd.DataFrame({"row": ["bntt"], "threshold": [0.1], "exit_step": [step], "exits": [exits]})


def evidence(absent=None, diverged=(), dead=None, **frames) -> Evidence:
    """Everything as the paper has it, but for the frames and rows given."""
    usual = {
        "anytime": anytime(bntt=195, surrogate=150, conversion=150, ann=190),
        "image_spikes": image_spikes(bntt=0.1),
        "gamma": gamma([1, 2, 3, 4]),
        "noise": noise(bntt=180),
        "early_exit": early_exit(),
        "energy": energy(bntt=0.1),
        "approximations": approximations(),
        "spikes": pd.DataFrame(
            [(row, layer, 1, 1.0 + (row != "bntt")) for row in METHODS if row != "ann" for layer in LAYERS],
            columns=["row", "layer", "time_step", "spikes"],
        ),
    } | frames
    absent = absent or {}
    kept = {name: frame[~frame["row"].isin(list(absent))] for name, frame in usual.items()}
    return Evidence(METHODS, absent, frozenset(diverged), kept, IMAGES, 0.1, "digits", dead or {})


def judged(name: str, **changed) -> Claim:
    return BY_NAME[name](evidence(**changed))


def decisive(claim: Claim) -> Part:
    """The first part that makes the outcome of a claim what it is."""
    return next(part for part in claim.parts if part.counts and part.outcome == claim.outcome)


def estimate(claim: Claim) -> Estimate | None:
    return decisive(claim).estimate


# -- how outcomes are made


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [((1, 0.5, 2), "holds"), ((-1, -2, -0.5), "fails"), ((0.1, -1, 1), "undecided"), ((1, 0, 2), "undecided"),
     ((2, 2, 2), "holds"), ((0, 0, 0), "fails")],
)  # fmt: skip
def test_above_and_below_are_mirror_images(estimate, verdict):
    value, low, high = estimate
    assert above(Estimate(*estimate)) == verdict
    assert below(Estimate(5 - value, 5 - high, 5 - low), 5) == verdict


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [("hhh", "holds"), ("huh", "undecided"), ("huf", "fails"), ("", "undecided"), ("hF", "holds"), ("F", "undecided"),
     ("hnh", "not decidable"), ("nu", "not decidable"), ("nf", "fails"), ("hN", "holds")],
)  # fmt: skip
def test_a_claim_fails_with_one_part_and_holds_with_all(verdicts, together):
    words = {"h": "holds", "u": "undecided", "f": "fails", "n": "not decidable"}
    parts = [Part("x", Estimate.exact(i), words[v.lower()], counts=v.islower()) for i, v in enumerate(verdicts)]
    claim = Claim("", "", "", "", "", parts)
    assert claim.outcome == together


# -- all of them


@pytest.mark.parametrize("name", BY_NAME)
def test_holds_where_the_measurements_are_as_the_paper_says(name):
    claim = judged(name)
    assert claim.outcome == "holds", claim.parts
    assert claim.text and claim.where and claim.statistic
    assert estimate(claim) is not None


@pytest.mark.parametrize("name", BY_NAME)
def test_is_undecided_with_the_reason_where_bntt_is_missing(name):
    claim = judged(name, absent={"bntt": "no result yet"})
    assert claim.outcome == "undecided"
    assert any("row bntt: no result yet" in part.note for part in claim.parts)


@pytest.mark.parametrize("name", BY_NAME)
def test_is_undecided_where_nothing_was_run(name):
    claim = judged(name, absent=dict.fromkeys(METHODS, "no result yet"))
    assert claim.outcome == "undecided" and estimate(claim) is None


FAILING = {
    "gamma-peaks-later": {"gamma": gamma([4, 3, 2, 1])},
    "fewer-spikes": {"image_spikes": image_spikes(bntt=3.0)},
    "fewer-spikes-at-equal-steps": {"image_spikes": image_spikes(bntt=1.5)},
    "early-exit-saves": {"early_exit": early_exit(step=4)},
    "better-under-noise": {"noise": noise(bntt=150, ann=190)},
    "surrogate-trains-worse": {"anytime": anytime(bntt=150, surrogate=190)},
    "low-energy": {"energy": energy(bntt=0.6)},
    "mean-negligible": {"approximations": approximations(relative_mean=0.2)},
    "scale-varies-slowly": {"approximations": approximations(scale_change=0.2)},
    "variance-alike": {"approximations": approximations(variance=(1.0, 2.0))},
    "threshold-equivalent": {"approximations": approximations(wrong=0.5)},
}
UNDECIDED = {
    "gamma-peaks-later": {"gamma": gamma([2, (1, 4), (4, 1), 2])},
    "fewer-spikes": {"image_spikes": uneven(image_spikes(bntt=2.0))},  # 2.0 x 4 steps, as the others' 1.0 x 8
    "fewer-spikes-at-equal-steps": {"image_spikes": uneven(image_spikes(bntt=1.0))},
    "better-under-noise": {"noise": noise(bntt=180, ann=181)},
    "surrogate-trains-worse": {"anytime": anytime(bntt=191, surrogate=190)},
    "mean-negligible": {"approximations": approximations(relative_mean=[0.01, 0.01, 0.2, 0.2])},
    "scale-varies-slowly": {"approximations": approximations(scale_change=[0.01, 0.01, 0.2, 0.2])},
    "variance-alike": {"approximations": approximations(variance=[(1.0, 1.1), (1.0, 1.1), (1.0, 9.0), (0.0, 1.0)])},
    "threshold-equivalent": {"approximations": approximations(wrong=[0.01, 0.01, 0.5, 0.5])},
}  # fmt: skip


@pytest.mark.parametrize("name", BY_NAME)
def test_fails_where_the_measurements_are_the_other_way_round(name):
    claim = judged(name, **FAILING[name])
    assert claim.outcome == "fails", claim.parts


@pytest.mark.parametrize("name", UNDECIDED)
def test_is_undecided_where_the_interval_includes_the_border(name):
    claim = judged(name, **UNDECIDED[name])
    assert claim.outcome == "undecided", claim.parts
    low, high = estimate(claim)[1:]
    assert low < high


# -- one by one


def test_peaks_are_named_and_other_rows_stand_beside():
    both = pd.concat([gamma([1, 2, 3, 4]), gamma([4, 3, 2, 1], row="surrogate")])
    claim = judged("gamma-peaks-later", gamma=both)
    assert claim.parts[0].note == "peak steps: conv1 1, conv2 2, fc1 3, fc2 4"
    assert claim.outcome == "holds" and estimate(claim).value == 1
    assert claim.parts[1].outcome == "fails" and not claim.parts[1].counts


def test_fewer_spikes_is_the_mean_difference_at_each_ones_own_steps():
    claim = judged("fewer-spikes")
    surrogate = claim.parts[0]
    assert surrogate.estimate == pytest.approx((8 - 0.4,) * 3)  # 1.0 x 8 steps - 0.1 x 4, the same wobble in both
    assert surrogate.note == "T = 8; bntt is lower in 4 of 4 layers"
    equal = judged("fewer-spikes-at-equal-steps").parts[0]
    assert equal.estimate.value == pytest.approx(4 - 0.4)
    assert equal.note == "accuracy after 4 steps: surrogate 75.0 %, bntt 97.5 %"


def test_spikes_that_are_not_reported_at_that_step_are_missing():
    frame = image_spikes()
    claim = judged("fewer-spikes-at-equal-steps", image_spikes=frame[frame["time_step"] == 8])
    assert claim.outcome == "undecided"
    assert "spikes are not reported after" in claim.parts[0].note


def test_a_diverged_baseline_does_not_stand_in_the_way():
    changed = {"absent": {"surrogate": "diverged: loss is nan"}, "diverged": ["surrogate"]}
    assert judged("fewer-spikes", **changed).outcome == "holds"
    assert judged("better-under-noise", **changed).outcome == "holds"
    assert judged("low-energy", **changed).outcome == "holds"
    worse = judged("surrogate-trains-worse", **changed)
    assert worse.outcome == "holds" and estimate(worse) is None
    assert worse.parts[0].note == "row surrogate diverged: loss is nan"


def test_nothing_is_decided_against_a_diverged_baseline_without_bntt():
    changed = {"absent": {"surrogate": "diverged: x", "bntt": "no result yet"}, "diverged": ["surrogate"]}
    assert judged("surrogate-trains-worse", **changed).outcome == "undecided"


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("word", ["silent", "at chance"])
def test_nothing_is_decidable_about_a_dead_network(name, word):
    claim = judged(name, dead={"bntt": f"{word} after 4 time-steps"})
    assert claim.outcome == "not decidable" and estimate(claim) is None
    assert decisive(claim).note == f"row bntt is {word} after 4 time-steps"


def test_only_how_badly_a_baseline_trains_is_decided_by_a_dead_one():
    dead = {"surrogate": "at chance after 8 time-steps"}
    frame = anytime(bntt=195, surrogate=20)
    for name in ("fewer-spikes", "fewer-spikes-at-equal-steps", "better-under-noise", "low-energy"):
        assert judged(name, dead=dead).outcome == "not decidable"
    refuted = judged("low-energy", dead=dead, energy=energy(bntt=0.6))
    assert refuted.outcome == "fails" and decisive(refuted).label != "surrogate"
    worse = judged("surrogate-trains-worse", dead=dead, anytime=frame)
    assert worse.outcome == "holds" and worse.parts[0].note.endswith("; at chance after 8 time-steps")
    both = judged("surrogate-trains-worse", dead=dead | {"bntt": "silent"}, anytime=frame)
    assert both.outcome == "not decidable"


@pytest.mark.parametrize("word", ["silent", "at chance"])
def test_a_network_that_is_dead_after_so_few_steps_is_not_compared(word):
    """bntt has 4 steps; the conversion spikes from step 5 on only, or is right from then on only."""
    late = evidence().frames["spikes"].assign(time_step=5)
    early = anytime(bntt=195)
    early.loc[(early["row"] == "conversion") & (early["time_step"] == 4), "accuracy"] = 11.0
    changed = {"spikes": late} if word == "silent" else {"anytime": early}
    claim = judged("fewer-spikes-at-equal-steps", **changed)
    (part,) = [one for one in claim.parts if one.label == "conversion"]
    assert part.outcome == claim.outcome == "not decidable"
    assert part.note.startswith(f"row conversion is {word} after 4 time-steps: ")
    assert judged("fewer-spikes", **changed).outcome == "holds"


def test_differences_under_noise_are_given_of_dead_networks_too():
    found = claims.noise_differences(evidence(dead={"bntt": "at chance", "ann": "at chance"}))
    assert set(found["row"]) == {"surrogate", "ann", "conversion"}


def test_a_missing_baseline_leaves_a_claim_undecided_unless_another_refutes_it():
    changed = {"absent": {"surrogate": "no result yet"}}
    assert judged("low-energy", **changed).outcome == "undecided"
    assert judged("low-energy", energy=energy(bntt=0.6), **changed).outcome == "fails"


def test_an_experiment_without_conversions_says_so():
    rows = {row: method for row, method in METHODS.items() if method != "conversion"}
    claim = BY_NAME["fewer-spikes"](replace(evidence(), rows=rows))
    assert claim.outcome == "undecided"
    assert claim.parts[-1].note == "this experiment has no row conversion"


def test_early_exit_counts_steps_and_compares_the_same_images():
    saved, change = judged("early-exit-saves").parts
    assert saved.estimate == (50, 50, 50) and saved.note == "2 of 4 steps"
    assert change.estimate.value == 0 and change.estimate.low > -2


def exit_accuracy(at_exit: int) -> pd.DataFrame:
    """bntt has 195 images right in the end, and so many at step 2, its exit."""
    frame = anytime(bntt=195)
    early = (frame["row"] == "bntt") & (frame["time_step"] == 2)
    return frame.assign(correct=frame["correct"].mask(early, bits(at_exit)))


def test_early_exit_that_loses_too_much_fails_and_on_the_border_is_undecided():
    assert judged("early-exit-saves", anytime=exit_accuracy(150)).outcome == "fails"
    lost = judged("early-exit-saves", anytime=exit_accuracy(193)).parts[1]  # 1.0 points, +- more than 1
    assert lost.estimate.value == pytest.approx(-1) and lost.outcome == "undecided"


def test_no_exit_fails_and_says_so():
    claim = judged("early-exit-saves", early_exit=early_exit(step=4, exits=0))
    assert claim.outcome == "fails" and estimate(claim).value == 0
    assert "no exit" in decisive(claim).note


def test_noise_says_who_wins_and_where():
    claim = judged("better-under-noise", noise=noise(bntt=150, ann=190))
    assert {part.label: part.outcome for part in claim.parts} == {
        "surrogate": "holds", "conversion": "holds", "ann": "fails",
    }  # fmt: skip
    assert decisive(claim).label == "ann" and estimate(claim).value == pytest.approx(-20)
    assert decisive(claim).note == "bntt is better at no sigma, worse at sigma 0.4 and 0.8"
    assert claim.note.startswith("Mean accuracy over sigma > 0: ann 95.0 %, bntt 75.0 %")


def test_noise_sigma_by_sigma():
    frame = claims.noise_differences(evidence(noise=noise(bntt=150, ann=190)))
    ann = frame[frame["row"] == "ann"]
    assert ann["sigma"].tolist() == [0, 0.4, 0.8]
    assert ann["difference"].tolist() == pytest.approx([-20] * 3)
    assert (ann["high"] < 0).all()


def test_images_without_noise_do_not_count_and_levels_count_alike():
    """After 200, 120 and 60 right of 200 for the dense network; the differences are -50, 30 and -5 points."""
    frame = noise()
    for row, right in (("ann", (200, 120, 60)), ("bntt", (100, 180, 50))):
        for sigma, count in zip((0.0, 0.4, 0.8), right, strict=True):
            here = (frame["row"] == row) & (frame["sigma"] == sigma)
            frame = frame.assign(
                accuracy=frame["accuracy"].mask(here, count / 2), correct=frame["correct"].mask(here, bits(count))
            )
    claim = judged("better-under-noise", noise=frame)
    ann = next(part for part in claim.parts if part.label == "ann")
    assert ann.estimate.value == pytest.approx(12.5) and ann.outcome == "holds"
    assert ann.note == "bntt is better at sigma 0.4, worse at sigma 0.8"
    assert "bntt 57.5 %" in claim.note and "ann 45.0 %" in claim.note
    by_level = claims.noise_differences(evidence(noise=frame)).set_index(["row", "sigma"])["difference"]
    assert by_level.loc["ann"].to_dict() == pytest.approx({0.0: -50, 0.4: 30, 0.8: -5})


def test_energy_is_judged_by_the_papers_reading():
    """Under another one bntt would need twice the dense network's energy."""
    frame = energy(bntt=0.1)
    of_bntt = (frame["row"] == "bntt") & (frame["layer"] == "fc1")
    by_row = {part.label: part for part in judged("low-energy", energy=frame.assign(
        events_mj=frame["events_mj"].mask(of_bntt, 4.0))).parts}  # fmt: skip
    assert by_row["ann"].estimate == pytest.approx((10, 10, 10)) and by_row["ann"].outcome == "holds"
    assert by_row["ann"].note == "same outcome under 4 of 6 readings of the formula"


def test_energy_compares_ratios_and_counts_the_readings():
    claim = judged("low-energy")
    by_row = {part.label: part for part in claim.parts}
    assert by_row["ann"].estimate == pytest.approx((10, 10, 10))  # 1 mJ / 0.1 mJ
    assert by_row["surrogate"].estimate.value == pytest.approx(5)  # 0.5 mJ / 0.1 mJ
    assert by_row["ann"].note == "same outcome under 6 of 6 readings of the formula"


def test_wrong_spikes_are_counted_over_all_layers():
    claim = judged("threshold-equivalent", approximations=approximations(wrong=[0.0, 0.0, 0.0, 2.0]))
    assert claim.note == "All layers together: 50 wrong spikes for every 100 spikes."
    assert claim.parts[0].note == "below 0.1 in 3 of 4 layers: conv1, conv2 and fc1"


def test_a_layer_with_a_variance_of_zero_is_not_alike():
    claim = judged("variance-alike", approximations=approximations(variance=(0.0, 1.0)))
    assert claim.outcome == "fails" and estimate(claim).value == math.inf


def test_noise_on_images_is_no_claim_about_recordings(tmp_path):
    found = Results.of("demo", tmp_path)
    of_images, of_recordings = ([claim.name for claim in claims.weigh(found, one)] for one in ("digits", "digits-dvs"))
    assert set(of_images) - set(of_recordings) == {"better-under-noise"}
    assert len(of_images) == len(claims.CLAIMS)
