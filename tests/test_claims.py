"""Outcomes on frames made by hand: every claim can hold, fail, stay undecided, and say what is missing.

How often a claim is decided wrongly is in test_claim_rates.py.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bntt.drawing import overview
from bntt.paper import claims
from bntt.paper.claims import (
    CLAIMS,
    Claim,
    Component,
    Evidence,
    Part,
    _behaviour,
    decide,
    ordered,
    over_seeds,
    together,
)
from bntt.paper.claims._evidence import Disqualified, Group
from bntt.results.collect import Results
from bntt.results.intervals import Estimate, student_interval, tango
from bntt.results.waves import Order
from bntt.training.schedule import undriven

IMAGES = 400  # accuracies are given as counts out of 200, each image twice
METHODS = {
    "bntt": "surrogate", "surrogate": "surrogate", "bn-pooled": "surrogate", "ann": "ann", "conversion": "conversion",
}  # fmt: skip
LAST = {"bntt": 4, "surrogate": 8, "bn-pooled": 4, "ann": 1, "conversion": 8}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1")
STEPS = 12  # of the curves over time
RISING = (1, 2, 3, 4, 5, 6)
TRAINING = {
    "weight_decay": 5e-4, "gamma_decay": None, "momentum": 0.9, "batch_size": 64, "drop_last": False, "epochs": 2,
    "milestones": [0.5], "learning_rate": 0.1, "decay_factor": 10,
}  # fmt: skip
OPTIONS = {row: TRAINING | {"norm": row if row.startswith("bn") else "none"} for row in METHODS}
BY_NAME = {function.__name__.replace("_", "-"): function for function in CLAIMS}
ABOUT_OTHERS = ("surrogate-beats-dense-under-strong-noise", "standard-bn-does-not-help")
COSTS = ("fewer-spikes", "fewer-spikes-at-equal-steps", "low-energy", "early-exit-saves")


def bits(right: int) -> str:
    """The first so many of 200 right."""
    text = "11" * right + "00" * (200 - right)
    return f"{int(text, 2):0{IMAGES // 4}x}"


def anytime(**right: int) -> pd.DataFrame:
    """After step t, ``right`` images are right at the last step of each row, and as many at every step before."""
    counts = {"bntt": 195, "surrogate": 150, "conversion": 160, "ann": 190, "bn-pooled": 150} | right
    return pd.DataFrame(
        (row, t, counts[row] / 2, bits(counts[row])) for row in METHODS for t in range(1, LAST[row] + 1)
    ).set_axis(["row", "time_step", "accuracy", "correct"], axis=1)


def exit_accuracy(at_exit: int) -> pd.DataFrame:
    """bntt has 195 images right in the end, and so many at step 2, its exit."""
    frame = anytime()
    early = (frame["row"] == "bntt") & (frame["time_step"] == 2)
    return frame.assign(
        correct=frame["correct"].mask(early, bits(at_exit)), accuracy=frame["accuracy"].mask(early, at_exit / 2)
    )


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


def wave(peak: float, end: float = 0.0) -> list[float]:
    """A curve over time-steps with its peak of 1 at a step; at least ``end`` afterwards."""
    return [max(math.exp(-((t - peak) ** 2) / 8), end if t > peak else 0) for t in range(1, STEPS + 1)]


def gamma(peaks=RISING, row="bntt", height=0.7, end=0.0) -> pd.DataFrame:
    """Four channels for each layer, which all peak at the given step; the last layer ends at ``end`` of its height."""
    return pd.DataFrame(
        [
            (row, layer, t, channel, height * value)
            for layer, peak in zip(LAYERS, peaks, strict=True)
            for t, value in enumerate(wave(peak, end if layer == LAYERS[-1] else 0.0), 1)
            for channel in range(4)
        ],
        columns=["row", "layer", "time_step", "channel", "gamma"],
    )


def spikes(peaks=RISING, **total: float | list[float]) -> pd.DataFrame:
    """Spikes of each layer over time: in all so many per neuron, one number or one for each layer."""
    lines = []
    for row in METHODS:
        totals = total.get(row, 0.5 if row == "bntt" else 1.0)
        for k, (layer, peak) in enumerate(zip(LAYERS, peaks, strict=True)):
            curve = np.array(wave(peak))
            curve *= (totals[k] if isinstance(totals, list) else totals) / curve.sum()
            lines += [(row, layer, t, value) for t, value in enumerate(curve, 1) if row != "ann"]
    return pd.DataFrame(lines, columns=["row", "layer", "time_step", "spikes"])


def noise(**right: int) -> pd.DataFrame:
    """Two noise levels and none; so many images right at each, after the last step."""
    counts = {"bntt": 180, "surrogate": 130} | right
    return pd.DataFrame(
        (row, sigma, LAST[row], counts.get(row, 100) / 2, bits(counts.get(row, 100)))
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
    """All layers at two steps. A column is a number, one number for each layer (list), or one for each step (tuple)."""
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


USUAL = {
    "anytime": anytime(),
    "image_spikes": image_spikes(bntt=0.1),
    "gamma": gamma(),
    "noise": noise(),
    "early_exit": early_exit(),
    "energy": energy(bntt=0.1),
    "approximations": approximations(),
    "spikes": spikes(),
}


def evidence(seed=0, absent=None, diverged=(), dead=None, **frames) -> Evidence:
    """Everything as the paper has it, but for the frames and rows given."""
    absent = absent or {}
    kept = {name: frame[~frame["row"].isin(list(absent))] for name, frame in (USUAL | frames).items()}
    return Evidence(
        seed, METHODS, OPTIONS, {"conversion": "ann"}, absent, frozenset(diverged), kept,
        dict.fromkeys(METHODS, 128), IMAGES, 0.1, "digits", dead or {},
    )  # fmt: skip


def judged(name: str, seeds: int = 1, **changed) -> Claim:
    """A claim on seeds that all have the same measurements."""
    return BY_NAME[name]([evidence(seed, **changed) for seed in range(seeds)])


def over(name: str, *by_seed: dict) -> Claim:
    """A claim on seeds that differ from the usual measurements in these ways."""
    return BY_NAME[name]([evidence(seed, **changed) for seed, changed in enumerate(by_seed)])


def line(claim: Claim, label: str) -> Part:
    return next(part for part in claim.parts if part.label == label)


def decisive(claim: Claim) -> Part:
    """The first part that makes the outcome of a claim what it is."""
    return next(part for part in claim.parts if part.counts and part.outcome == claim.outcome)


def estimate(claim: Claim) -> Estimate | None:
    return decisive(claim).estimate


# -- the rule of decision


def at(value: float, half: float, **sides) -> Component:
    """A component whose interval is half as wide at 95 % as at any higher level."""

    def interval(level: float) -> Estimate:
        wide = half * (1 + (level > 0.95))
        return Estimate(value, value - wide, value + wide)

    return Component("", interval, **sides)


@pytest.mark.parametrize(
    ("value", "half", "outcome"),
    [(1, 0.5, "holds"), (-1, 0.5, "fails"), (0.1, 1, "undecided"), (1, 1, "undecided"), (2, 0, "holds"),
     (0, 0, "undecided"), (-2, 0, "fails")],
)  # fmt: skip
def test_above_and_below_are_mirror_images(value, half, outcome):
    assert decide([at(value, half)]) == [outcome]
    assert decide([at(5 - value, half, border=5, above=False)]) == [outcome]
    assert decide([at(5 + value, half, border=5)]) == [outcome]


def test_refuting_needs_a_higher_level_with_more_components_and_holding_does_not():
    assert decide([at(-1, 0.6)]) == ["fails"]
    assert decide([at(-1, 0.6), at(1, 0.6)]) == ["undecided", "holds"]  # at 97.5 % it reaches from -2.2 to 0.2
    levels = []
    decide([Component("", lambda level: levels.append(level) or Estimate(-1, -2, -0.5))] * 4)
    assert set(levels) == {0.95, 1 - 0.05 / 4}


def test_an_undecided_part_says_that_it_is_only_by_the_level():
    """Two rows, 3 seeds: at 95 % the surrogate's energy is below bntt's, at 98.3 % not."""
    ratios = (0.8, 0.75, 0.86)
    claim = over("low-energy", *({"energy": energy(bntt=0.1, surrogate=0.1 * ratio)} for ratio in ratios))
    part = line(claim, "surrogate")
    logs = [math.log(ratio) for ratio in ratios]
    assert part.estimate == pytest.approx([math.exp(end) for end in student_interval(logs)])
    assert part.estimate.high < 1 < math.exp(student_interval(logs, 1 - 0.05 / 3).high)
    assert part.outcome == "undecided"
    assert "on the other side at 95 %, but not at 98.3 %, which refuting needs here" in part.note


def test_the_worst_component_is_worst_by_outcome_and_then_by_distance():
    """A value far on the other side but uncertain is not as bad as one that refutes."""
    far = Component("far", lambda level: Estimate(-9, -99, 99))
    near = Component("near", lambda level: Estimate(-1, -2, -0.5))
    for components in ([far, near], [near, far]):
        part = Group("row", components, 3, noun="layer").part(decide(components), 0.975)
        assert part.outcome == "fails" and part.estimate == (-1, -2, -0.5)
        assert part.note == "worst of 2 layers: near; holds in 0 of 2; undecided in far; fails in near"


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [("hhh", "holds"), ("huh", "undecided"), ("huf", "fails"), ("", "undecided"), ("hF", "holds"), ("F", "undecided"),
     ("hnh", "not decidable"), ("nu", "not decidable"), ("nf", "fails"), ("hN", "holds")],
)  # fmt: skip
def test_a_claim_fails_with_one_part_and_holds_with_all(verdicts, outcome):
    words = {"h": "holds", "u": "undecided", "f": "fails", "n": "not decidable"}
    parts = [Part("x", Estimate.exact(i), words[v.lower()], counts=v.islower()) for i, v in enumerate(verdicts)]
    assert Claim("", "", "", "", "", parts).outcome == outcome
    assert together(part.outcome for part in parts if part.counts) == outcome


@pytest.mark.parametrize(
    ("parts", "word"),
    [([("holds", 3), ("holds", 3)], "holds"), ([("holds", 3), ("holds", 1)], "holds (one seed)"),
     ([("fails", 3), ("fails", 1)], "fails"), ([("fails", 1), ("holds", 3)], "fails (one seed)"),
     ([("undecided", 1)], "undecided"), ([("not decidable", 0)], "not decidable")],
)  # fmt: skip
def test_a_word_names_one_seed_if_the_outcome_rests_on_it(parts, word):
    claim = Claim("", "", "", "", "", [Part("", None, outcome, seeds=seeds) for outcome, seeds in parts])
    assert claim.word == word
    assert claim.parts[0].word == parts[0][0] + (" (one seed)" if parts[0] in [("fails", 1), ("holds", 1)] else "")


@pytest.mark.parametrize(
    ("later", "earlier", "outcome"),
    [(0.025, 1.0, "holds"), (0.026, 1.0, "undecided"), (1.0, 0.025, "fails"), (1.0, 0.026, "undecided")],
)
def test_an_order_is_decided_at_two_and_a_half_per_cent_on_either_side(later, earlier, outcome):
    assert ordered(Order(0.0, later, earlier, 6, (1.0,) * 6)) == outcome
    assert ordered(None) == "undecided"


def test_intervals_over_seeds_by_hand():
    half = 4.302653 * math.sqrt(1 / 3)  # t of two degrees of freedom, s = 1
    assert over_seeds([1, 2, 3])(0.95) == pytest.approx((2, 2 - half, 2 + half))
    assert over_seeds([1, 2, 3])(0.99) == pytest.approx((2, 2 - 9.924843 / 3**0.5, 2 + 9.924843 / 3**0.5))
    assert over_seeds(np.exp([1, 2, 3]), log=True)(0.95) == pytest.approx(np.exp([2, 2 - half, 2 + half]))
    assert over_seeds([math.inf] * 2)(0.95) == (math.inf,) * 3
    assert over_seeds([math.inf, 1])(0.95) == (math.inf, -math.inf, math.inf)
    value, *ends = over_seeds([math.nan, 1])(0.95)
    assert math.isnan(value) and ends == [-math.inf, math.inf]


def test_an_interval_of_ratios_too_wide_for_a_float_is_infinite():
    assert over_seeds([1e300, 1.0], log=True)(0.95) == (pytest.approx(1e150), 0.0, math.inf)


def test_equal_accuracies_leave_the_error_of_rounding():
    """Three times the same multiple of 0.25: s is at least 0.25 / sqrt(12)."""
    value, low, high = student_interval([1.0, 1.0, 1.0], unit=0.25)
    assert (value, high - 1, 1 - low) == pytest.approx((1, *[4.302653 * 0.25 / 6] * 2))
    assert student_interval([1, 2, 3], unit=0.25) == student_interval([1, 2, 3])


def test_tangos_interval_at_another_level_is_that_of_its_score_test():
    """With b = c = 0, it is +- z^2 / (n + z^2); z at 99 % is 2.575829."""
    square = 2.575829**2
    assert tango(0, 0, 100, 0.99)[1:] == pytest.approx([-square / (100 + square), square / (100 + square)], abs=1e-6)


# -- all of them


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", BY_NAME)
def test_holds_where_the_measurements_are_as_the_paper_says(name, seeds):
    claim = judged(name, seeds)
    assert claim.outcome == "holds", claim.parts
    assert claim.word == ("holds" if seeds == 3 else "holds (one seed)")
    assert claim.text and claim.where and claim.statistic
    assert ("3 seeds" in claim.statistic) == (seeds == 3) and ("one seed" in claim.statistic) == (seeds == 1)
    assert estimate(claim) is not None


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in ABOUT_OTHERS])
def test_is_undecided_with_the_reason_where_bntt_is_missing(name):
    claim = judged(name, absent={"bntt": "no result yet"})
    assert claim.outcome == "undecided"
    assert any("row bntt: no result yet" in part.note for part in claim.parts)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", BY_NAME)
def test_is_undecided_where_nothing_was_run(name, seeds):
    claim = judged(name, seeds, absent=dict.fromkeys(METHODS, "no result yet"))
    assert claim.word == "undecided" and estimate(claim) is None
    assert ("Student" in claim.statistic or "3 seeds" in claim.statistic) or seeds == 1


FAILING = {
    "gamma-peaks-later": {"gamma": gamma(RISING[::-1])},
    "spikes-peak-later": {"spikes": spikes(RISING[::-1])},
    "gamma-falls": {"gamma": gamma(end=0.7)},
    "fewer-spikes": {"spikes": spikes(bntt=[0.5] * 5 + [1.5])},
    "fewer-spikes-at-equal-steps": {"image_spikes": image_spikes(bntt=1.5)},
    "early-exit-saves": {"anytime": exit_accuracy(150)},
    "better-under-noise": {"noise": noise(ann=190)},
    "surrogate-beats-dense-under-strong-noise": {"noise": noise(surrogate=100, ann=130)},
    "surrogate-trains-worse": {"anytime": anytime(bntt=150, surrogate=190)},
    "standard-bn-does-not-help": {"anytime": anytime(**{"bn-pooled": 190})},
    "low-energy": {"energy": energy(bntt=0.6)},
    "mean-negligible": {"approximations": approximations(relative_mean=[0.2] + [0.01] * 5)},
    "scale-varies-slowly": {"approximations": approximations(scale_change=[0.2] + [0.01] * 5)},
    "variance-alike": {"approximations": approximations(variance=(1.0, 2.0))},
    "threshold-equivalent": {"approximations": approximations(wrong=[0.5] + [0.01] * 5)},
}
UNDECIDED = {  # by seed; one seed where the interval is over images or layers
    "gamma-peaks-later": [{"gamma": gamma((3, 1, 5, 2, 6, 4))}],
    "spikes-peak-later": [{"spikes": spikes((3, 1, 5, 2, 6, 4))}],
    "gamma-falls": [{"gamma": gamma(end=end)} for end in (0.4, 0.5, 0.55)],
    "fewer-spikes": [{"spikes": spikes(bntt=[0.5] * 5 + [last])} for last in (0.9, 1.1, 0.95)],
    "fewer-spikes-at-equal-steps": [{"image_spikes": uneven(image_spikes(bntt=1.0))}],
    "early-exit-saves": [{"early_exit": early_exit(step=step)} for step in (3, 4, 3)],
    "better-under-noise": [{"noise": noise(ann=179)}],
    "surrogate-beats-dense-under-strong-noise": [{"noise": noise(ann=129)}],
    "surrogate-trains-worse": [{"anytime": anytime(bntt=191, surrogate=190)}],
    "standard-bn-does-not-help": [{"anytime": anytime(**{"bn-pooled": 152})}],
    "low-energy": [{"energy": energy(bntt=spent)} for spent in (0.4, 0.5, 0.55)],
    "mean-negligible": [{"approximations": approximations(relative_mean=mean)} for mean in (0.05, 0.1, 0.12)],
    "scale-varies-slowly": [{"approximations": approximations(scale_change=change)} for change in (0.05, 0.1, 0.12)],
    "variance-alike": [{"approximations": approximations(variance=(1.0, most))} for most in (1.1, 1.4, 1.7)],
    "threshold-equivalent": [{"approximations": approximations(wrong=share)} for share in (0.05, 0.1, 0.12)],
}


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", BY_NAME)
def test_fails_where_the_measurements_are_the_other_way_round(name, seeds):
    claim = judged(name, seeds, **FAILING[name])
    assert claim.outcome == "fails", claim.parts
    assert claim.word == ("fails" if seeds == 3 else "fails (one seed)")


@pytest.mark.parametrize("name", BY_NAME)
def test_is_undecided_where_the_interval_includes_the_border(name):
    claim = over(name, *UNDECIDED[name])
    assert claim.outcome == "undecided", claim.parts
    low, high = estimate(claim)[1:]
    assert low < high or name.endswith("peak-later") or name.endswith("peaks-later")


@pytest.mark.parametrize("name", BY_NAME)
def test_the_first_seed_alone_does_not_decide(name):
    """Three claims' statistics are exact in one seed. The first of three seeds is as the paper says, the others not."""
    claim = over(name, {}, FAILING[name], FAILING[name])
    assert judged(name).outcome == "holds" and claim.outcome != "holds"


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in ABOUT_OTHERS])
@pytest.mark.parametrize("word", ["silent", "at chance"])
def test_nothing_is_decidable_about_a_dead_network(name, word):
    claim = judged(name, dead={"bntt": f"{word} after 4 time-steps"})
    assert claim.outcome == "not decidable" and estimate(claim) is None
    assert decisive(claim).note == f"row bntt is {word} after 4 time-steps"
    second = over(name, {}, {"dead": {"bntt": word}}, {})
    assert second.outcome == "not decidable" and decisive(second).note == f"seed 1: row bntt is {word}"


# -- seeds


def test_the_value_of_a_seed_is_paired_and_the_interval_is_over_seeds():
    gains = ((195, 150), (190, 160), (194, 140))
    claim = over("surrogate-trains-worse", *({"anytime": anytime(bntt=a, surrogate=b)} for a, b in gains))
    assert estimate(claim) == pytest.approx(student_interval([(a - b) / 2 for a, b in gains]))
    assert decisive(claim).seeds == 3 and decisive(claim).note == "bntt 96.5 % at T = 4, surrogate 75.0 % at T = 8"


def test_with_one_common_seed_the_interval_is_over_images():
    """The surrogate was planned for the first seed only; which images are right then decides."""
    of_one = replace(evidence(0))
    rows = {row: method for row, method in METHODS.items() if row != "surrogate"}
    others = [replace(evidence(seed), rows=rows) for seed in (1, 2)]
    claim = BY_NAME["surrogate-trains-worse"]([of_one, *others])
    assert claim.word == "holds (one seed)"
    assert estimate(claim) == pytest.approx(tango(90, 0, 400).times(100))
    assert decisive(claim).note == "bntt 97.5 % at T = 4, surrogate 75.0 % at T = 8"
    assert "Tango's interval" in claim.statistic and "Student" not in claim.statistic


def test_a_planned_seed_without_a_result_is_named():
    claim = over("surrogate-trains-worse", {}, {"absent": {"surrogate": "outdated: code"}}, {})
    assert claim.outcome == "holds" and decisive(claim).seeds == 2
    assert decisive(claim).note.endswith("; without seed 1: row surrogate: outdated: code")


def test_bntt_that_diverged_in_one_seed_is_not_left_out():
    changed = {"absent": {"bntt": "diverged: loss is nan"}, "diverged": ["bntt"]}
    for name in BY_NAME:
        claim = over(name, {}, changed, {})
        assert claim.outcome == ("holds" if name in ABOUT_OTHERS else "undecided"), name
    assert decisive(over("gamma-falls", {}, changed, {})).note == "seed 1: row bntt: diverged: loss is nan"


def test_one_seed_without_the_bits_is_undecided_and_several_do_not_need_them():
    frame = anytime().assign(correct="")
    assert judged("surrogate-trains-worse", 3, anytime=frame).outcome == "holds"
    claim = judged("surrogate-trains-worse", anytime=frame)
    assert claim.outcome == "undecided"
    assert decisive(claim).note == "row bntt does not record which images are right after 4 steps"


# -- networks that do not work


def test_a_baseline_that_does_not_work_decides_nothing():
    """ann has 95 %; a conversion of 75 % is 20 points under it and works, one of 74.5 % does not."""
    names = ("fewer-spikes", "fewer-spikes-at-equal-steps", "better-under-noise", "low-energy")
    for name in names:
        assert judged(name, anytime=anytime(conversion=150)).outcome == "holds"
        claim = judged(name, anytime=anytime(conversion=149))
        assert claim.outcome == "undecided"
        assert line(claim, "conversion").note == (
            "conversion: 74.5 % is 20.5 points under ann, from which it was made; "
            "a baseline that does not work decides nothing"
        )
    one_of_three = over("low-energy", {}, {"anytime": anytime(conversion=149)}, {})
    assert one_of_three.outcome == "undecided" and line(one_of_three, "conversion").note.startswith("seed 1: ")


def test_a_baseline_works_if_it_is_five_standard_errors_above_chance():
    """10 classes: 10 + 5 * sqrt(10 * 90 / 400) = 17.5 %, which 35 of 200 right are."""
    for right, outcome in ((36, "holds"), (35, "undecided")):
        claim = judged("low-energy", anytime=anytime(surrogate=right))
        assert line(claim, "surrogate").outcome == claim.outcome == outcome
    assert line(claim, "surrogate").note == (
        "surrogate: 17.5 % is not clearly above chance, 10 % (10 classes); "
        "a baseline that does not work decides nothing"
    )
    assert judged("surrogate-trains-worse", anytime=anytime(surrogate=30)).outcome == "holds"


@pytest.mark.parametrize("name", COSTS)
def test_bntt_must_work_where_it_saves_something(name):
    far = judged(name, anytime=anytime(bntt=149, conversion=160))
    assert far.outcome == "undecided"
    assert all("bntt: 74.5 % is 20.5 points under ann; a network" in part.note for part in far.parts)
    without_dense = judged(
        name, anytime=anytime(bntt=149), absent={"ann": "no result yet", "conversion": "no result yet"}
    )
    assert not any("under ann" in part.note for part in without_dense.parts)
    assert without_dense.outcome == ("holds" if name == "early-exit-saves" else "undecided")


def test_a_network_is_compared_with_the_one_that_it_was_made_from():
    made = replace(evidence(anytime=anytime(bntt=149, surrogate=160)), starts={"bntt": "surrogate"})
    made.working("bntt", dense="ann")
    with pytest.raises(Disqualified, match="points under surrogate, from which it was made"):
        replace(made, frames=made.frames | {"anytime": anytime(bntt=149, surrogate=194)}).working("bntt", dense="ann")


def test_a_conversion_whose_dense_network_is_unknown_is_not_compared():
    claim = judged("fewer-spikes", absent={"ann": "no result yet"})
    assert (
        line(claim, "conversion").outcome == "undecided" and line(claim, "conversion").note == "row ann: no result yet"
    )


def test_a_diverged_baseline_does_not_stand_in_the_way():
    changed = {"absent": {"surrogate": "diverged: loss is nan"}, "diverged": ["surrogate"]}
    for seeds in (1, 3):
        assert judged("fewer-spikes", seeds, **changed).outcome == "holds"
        assert judged("better-under-noise", seeds, **changed).outcome == "holds"
        assert judged("low-energy", seeds, **changed).outcome == "holds"
        worse = judged("surrogate-trains-worse", seeds, **changed)
        assert worse.outcome == "holds" and estimate(worse) is None and worse.parts[0].seeds == seeds
        assert worse.parts[0].note == "row surrogate diverged: loss is nan"
        helped = judged("standard-bn-does-not-help", seeds, **changed)
        assert helped.outcome == "undecided" and helped.parts[0].note == "row surrogate: diverged: loss is nan"


def test_a_baseline_that_diverged_in_some_seeds_counts_as_at_chance_there():
    changed = {"absent": {"surrogate": "diverged: loss is nan"}, "diverged": ["surrogate"]}
    claim = over("surrogate-trains-worse", {}, changed, {})
    assert estimate(claim) == pytest.approx(student_interval([22.5, 87.5, 22.5]))  # 97.5 - 10 in the second
    assert decisive(claim).note.endswith("surrogate 75.0 % at T = 8; seed 1 diverged: loss is nan")
    spikes_of = over("fewer-spikes", {}, changed, {})
    assert line(spikes_of, "surrogate").seeds == 2
    assert line(spikes_of, "surrogate").note.endswith("; without seed 1: row surrogate: diverged: loss is nan")


def test_nothing_is_decided_against_a_diverged_baseline_without_bntt():
    changed = {"absent": {"surrogate": "diverged: x", "bntt": "no result yet"}, "diverged": ["surrogate"]}
    assert judged("surrogate-trains-worse", **changed).outcome == "undecided"


def test_only_how_badly_a_baseline_trains_is_decided_by_a_dead_one():
    dead = {"surrogate": "at chance after 8 time-steps"}
    frame = anytime(bntt=195, surrogate=20)
    for name in ("fewer-spikes", "fewer-spikes-at-equal-steps", "better-under-noise", "low-energy", *ABOUT_OTHERS):
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
    late = spikes()
    late.loc[(late["row"] == "conversion") & (late["time_step"] < 5), "spikes"] = 0.0
    early = anytime()
    early.loc[(early["row"] == "conversion") & (early["time_step"] == 4), "accuracy"] = 11.0
    changed = {"spikes": late} if word == "silent" else {"anytime": early}
    claim = judged("fewer-spikes-at-equal-steps", **changed)
    part = line(claim, "conversion")
    assert part.outcome == claim.outcome == "not decidable"
    assert part.note.startswith(f"row conversion is {word} after 4 time-steps: ")
    assert judged("low-energy", **changed).outcome == "holds"


def test_a_missing_baseline_leaves_a_claim_undecided_unless_another_refutes_it():
    changed = {"absent": {"surrogate": "no result yet"}}
    assert judged("low-energy", **changed).outcome == "undecided"
    assert judged("low-energy", energy=energy(bntt=0.6), **changed).outcome == "fails"


def test_an_experiment_without_conversions_says_so():
    rows = {row: method for row, method in METHODS.items() if method != "conversion"}
    claim = BY_NAME["fewer-spikes"]([replace(evidence(), rows=rows)])
    assert claim.outcome == "undecided"
    assert claim.parts[-1].note == "this experiment has no row conversion"


# -- peaks


def test_peaks_are_named_and_other_rows_stand_beside():
    both = pd.concat([gamma(), gamma(RISING[::-1], row="bn-pooled")])
    claim = judged("gamma-peaks-later", gamma=both)
    assert claim.parts[0].note == (
        "peak steps: conv1 1, conv2 2, conv3 3, conv4 4, conv5 5, fc1 6; "
        "p = 0.0014 that a random order rises so, 1 that it falls so"  # one of 6! orders
    )
    assert claim.word == "holds (one seed)" and estimate(claim) == (1, 1, 1)
    assert claim.parts[1].outcome == "fails" and not claim.parts[1].counts


def test_the_unit_is_the_layer_with_its_mean_peak_over_seeds():
    claim = over("gamma-peaks-later", *({"gamma": gamma([p + more for p in RISING])} for more in (0, 1, 1)))
    assert claim.word == "holds"
    assert claim.parts[0].note.startswith("peak steps: conv1 1.67, conv2 2.67, ")


def test_layers_without_a_clear_peak_are_named():
    """The last layer rises to a plateau; the first peaks where no gradient changed gamma."""
    untouched = undriven(OPTIONS["bntt"], 128)
    frame = gamma(end=0.95)
    frame.loc[(frame["layer"] == "conv1") & (frame["time_step"] == 1), "gamma"] = untouched
    claim = judged("gamma-peaks-later", gamma=frame)
    assert claim.outcome == "undecided" and estimate(claim) is None
    assert claim.parts[0].note == (
        "a clear peak in 4 of 6 layers, 5 are needed; peak steps: conv2 2, conv3 3, conv4 4, conv5 5; "
        "peak at a step without training: conv1; no clear peak: fc1"
    )


def test_a_method_without_the_papers_training_is_judged_by_its_peaks_alone():
    options = OPTIONS | {"bntt": {"norm": "bntt"}}
    claim = BY_NAME["gamma-peaks-later"]([replace(evidence(), options=options)])
    assert claim.outcome == "holds"


def test_gamma_that_is_never_positive_is_undecided():
    frame = gamma()
    frame.loc[frame["layer"] == "conv2", "gamma"] *= -1
    claim = judged("gamma-falls", gamma=frame)
    assert claim.outcome == "undecided"
    assert decisive(claim).note == "row bntt: mean gamma is at no step positive in conv2"


def test_gamma_falls_in_the_layer_where_it_falls_least():
    claim = judged("gamma-falls", gamma=gamma(end=0.7))
    assert estimate(claim).value == pytest.approx(0.7)
    assert decisive(claim).note == "below 0.5 in 5 of 6 layers: conv1, conv2, conv3, conv4 and conv5; largest in fc1"


# -- spikes and energy


def test_fewer_spikes_is_about_every_layer():
    claim = judged("fewer-spikes")
    assert line(claim, "surrogate").estimate == pytest.approx((2, 2, 2))  # 1.0 / 0.5
    assert line(claim, "surrogate").note == "worst of 6 layers: conv1; holds in 6 of 6; T = 8"
    worse = judged("fewer-spikes", spikes=spikes(bntt=[0.5, 1.2, 0.5, 2.0, 0.5, 1.0]))
    part = line(worse, "conversion")
    assert part.estimate == pytest.approx((0.5, 0.5, 0.5)) and part.outcome == "fails"
    assert part.note == "worst of 6 layers: conv4; holds in 3 of 6; undecided in fc1; fails in conv2 and conv4; T = 8"


def test_a_baseline_with_other_layers_is_not_compared():
    frame = spikes()
    claim = judged("fewer-spikes", spikes=frame[(frame["row"] != "conversion") | (frame["layer"] != "conv5")])
    assert line(claim, "conversion").note == "row conversion has other layers than bntt"


def test_spikes_at_equal_steps_by_image():
    equal = line(judged("fewer-spikes-at-equal-steps"), "surrogate")
    assert equal.estimate == pytest.approx((4 - 0.4,) * 3)  # the same wobble in both
    assert equal.note == "accuracy after 4 steps: surrogate 75.0 %, bntt 97.5 %"


def test_spikes_that_are_not_reported_at_that_step_are_missing():
    frame = image_spikes()
    claim = judged("fewer-spikes-at-equal-steps", image_spikes=frame[frame["time_step"] == 8])
    assert claim.outcome == "undecided"
    assert "spikes are not reported after" in claim.parts[0].note


def test_claims_of_ours_stand_apart_and_are_not_counted():
    assert [name for name in BY_NAME if judged(name).ours] == ["fewer-spikes-at-equal-steps"]
    page = overview.claims_list([judged("fewer-spikes-at-equal-steps"), judged("low-energy")])
    assert page.index("less energy") < page.index("Claims of ours") < page.index("equally many time-steps")
    assert "Claims of ours" not in overview.claims_list([judged("low-energy")])
    assert "holds (one seed)" in page and "color:#1c6b43" in page


def test_energy_is_judged_by_the_papers_reading():
    """Under another one bntt would need twice the dense network's energy."""
    frame = energy(bntt=0.1)
    of_bntt = (frame["row"] == "bntt") & (frame["layer"] == "fc1")
    changed = frame.assign(events_mj=frame["events_mj"].mask(of_bntt, 4.0))
    for seeds in (1, 3):
        part = line(judged("low-energy", seeds, energy=changed), "ann")
        assert part.estimate == pytest.approx((10, 10, 10)) and part.outcome == "holds"
        assert part.note == "same outcome under 4 of 6 readings of the formula"


def test_energy_compares_ratios_and_counts_the_readings():
    claim = judged("low-energy")
    assert line(claim, "ann").estimate == pytest.approx((10, 10, 10))  # 1 mJ / 0.1 mJ
    assert line(claim, "surrogate").estimate.value == pytest.approx(5)  # 0.5 mJ / 0.1 mJ
    assert line(claim, "ann").note == "same outcome under 6 of 6 readings of the formula"


# -- early exit


def test_early_exit_counts_steps_and_compares_the_same_images():
    saved, change = judged("early-exit-saves").parts
    assert saved.estimate == (50, 50, 50) and saved.note == "2 of 4 steps"
    assert change.estimate.value == 0 and change.estimate.low > -1.1


def test_early_exit_that_loses_too_much_fails_and_on_the_border_is_undecided():
    assert judged("early-exit-saves", anytime=exit_accuracy(150)).outcome == "fails"
    lost = judged("early-exit-saves", anytime=exit_accuracy(193)).parts[1]  # 1.0 points, +- more than 1
    assert lost.estimate.value == pytest.approx(-1) and lost.outcome == "undecided"


def test_equal_losses_of_three_seeds_are_known_to_a_rounding_error_only():
    """1.0 points in each, +- 0.18: t * 0.25 / sqrt(12 * 3)."""
    lost = judged("early-exit-saves", 3, anytime=exit_accuracy(193)).parts[1]
    assert lost.estimate.low == pytest.approx(-1 - 4.302653 * 0.25 / 6) and lost.outcome == "undecided"


def test_no_exit_fails_and_says_in_which_seeds():
    claim = judged("early-exit-saves", early_exit=early_exit(step=4, exits=0))
    assert claim.outcome == "fails" and estimate(claim).value == 0
    assert "4 of 4 steps; no exit, because" in decisive(claim).note
    mixed = over("early-exit-saves", {}, {"early_exit": early_exit(step=4, exits=0)}, {})
    assert mixed.parts[0].note.startswith("2, 4 and 2 of 4 steps; no exit in seed 1, because gamma")


@pytest.mark.parametrize(
    ("steps", "last", "at_exit", "at_last"), [(20, 25, 90.3, 90.5), (30, 50, 65.8, 66.6), (25, 30, 56.8, 57.8)]
)
def test_the_early_exits_of_table_1_pass(steps, last, at_exit, at_last):
    """So little is enough, and so much is little; the second loss, of rounded numbers, may be 1.1 points."""
    assert 100 * (last - steps) / last > _behaviour.SAVED_PERCENT
    assert at_last - at_exit < _behaviour.LITTLE_POINTS


# -- noise


def test_noise_says_who_wins_and_where():
    claim = judged("better-under-noise", noise=noise(ann=190))
    outcomes = {part.label: part.outcome for part in claim.parts}
    assert outcomes == {"surrogate": "holds", "conversion": "holds", "ann": "fails", "bn-pooled": "holds"}
    assert decisive(claim).label == "ann" and estimate(claim).value == pytest.approx(-5)
    assert decisive(claim).note == "worst of 2 noise levels: 0.4; holds in 0 of 2; fails in 0.4 and 0.8"
    assert claim.note.startswith("Mean accuracy over sigma > 0: ann 95.0 %, bntt 90.0 %")


def of_levels(**by_sigma: tuple[int, int, int]) -> pd.DataFrame:
    """Noise measurements in which rows have so many of 200 right without noise, at 0.4 and at 0.8."""
    frame = noise()
    for row, right in by_sigma.items():
        for sigma, count in zip((0.0, 0.4, 0.8), right, strict=True):
            here = (frame["row"] == row) & (frame["sigma"] == sigma)
            frame = frame.assign(
                accuracy=frame["accuracy"].mask(here, count / 2), correct=frame["correct"].mask(here, bits(count))
            )
    return frame


def test_one_noise_level_refutes_and_images_without_noise_do_not_count():
    """The differences to ann are -50, 30 and -5 points; their mean over sigma > 0 is positive."""
    frame = of_levels(ann=(200, 120, 60), bntt=(100, 180, 50))
    claim = judged("better-under-noise", noise=frame)
    ann = line(claim, "ann")
    assert ann.estimate.value == pytest.approx(-5) and ann.outcome == claim.outcome == "fails"
    assert ann.note == "worst of 2 noise levels: 0.8; holds in 1 of 2; fails in 0.8"
    by_level = claims.noise_differences([evidence(noise=frame)]).set_index(["row", "sigma"])["difference"]
    assert by_level.loc["ann"].to_dict() == pytest.approx({0.0: -50, 0.4: 30, 0.8: -5})
    clean = judged("better-under-noise", noise=of_levels(ann=(200, 100, 100), bntt=(100, 180, 180)))
    assert clean.outcome == "holds"


@pytest.mark.parametrize("fewer", range(3))
def test_seeds_with_different_noise_levels_are_not_compared(fewer):
    one = {"noise": noise().query("sigma < 0.8")}
    claim = over("better-under-noise", *(one if seed == fewer else {} for seed in range(3)))
    assert claim.outcome == "undecided"
    assert {part.note for part in claim.parts} == {"the seeds do not have the same measurements"}


def test_a_method_that_the_paper_does_not_compare_is_shown_for_comparison():
    claim = judged("better-under-noise", noise=noise(**{"bn-pooled": 190}))
    assert claim.outcome == "holds"
    assert line(claim, "bn-pooled").outcome == "fails" and not line(claim, "bn-pooled").counts


def test_strong_noise_is_above_what_the_paper_names():
    """At 0.4 the dense network is better, at 0.8 the surrogate."""
    frame = of_levels(ann=(190, 150, 60), surrogate=(150, 100, 120))
    claim = judged("surrogate-beats-dense-under-strong-noise", noise=frame)
    assert claim.word == "holds (one seed)" and decisive(claim).note == "noise level 0.8"
    weak = judged("surrogate-beats-dense-under-strong-noise", noise=frame[frame["sigma"] < 0.5])
    assert weak.outcome == "undecided" and decisive(weak).note == "no sigma above 0.4 was measured"


def test_noise_sigma_by_sigma():
    frame = claims.noise_differences([evidence(noise=noise(bntt=150, ann=190))])
    ann = frame[frame["row"] == "ann"]
    assert ann["sigma"].tolist() == [0, 0.4, 0.8]
    assert ann["difference"].tolist() == pytest.approx([-20] * 3)
    assert (ann["high"] < 0).all() and set(ann["seeds"]) == {1}


def test_noise_of_several_seeds_is_paired_by_seed():
    """Differences to ann of 10, 20 and 30 points at each sigma: 20 ± 4.303 * 10 / sqrt(3). One row has one seed."""
    seeds = [evidence(noise=noise(bntt=100 + 2 * gain, ann=100)) for gain in (10, 20, 30)]
    for k in (1, 2):
        left = seeds[k].frames["noise"].query("row != 'bn-pooled'")
        seeds[k] = replace(seeds[k], frames=seeds[k].frames | {"noise": left})
    frame = claims.noise_differences(seeds).set_index(["row", "sigma"])
    for sigma in (0, 0.4, 0.8):
        ann = frame.loc["ann", sigma]
        assert ann["difference"] == pytest.approx(20) and ann["seeds"] == 3
        assert ann["high"] - 20 == pytest.approx(4.302652729911275 * 10 / math.sqrt(3))
        assert frame.loc["bn-pooled", sigma]["seeds"] == 1


def test_differences_under_noise_are_given_of_dead_networks_too():
    found = claims.noise_differences([evidence(dead={"bntt": "at chance", "ann": "at chance"})])
    assert set(found["row"]) == set(METHODS) - {"bntt"}


def test_noise_on_images_is_no_claim_about_recordings(tmp_path):
    found = Results.of("demo", tmp_path)
    of_images, of_recordings = ([claim.name for claim in claims.weigh(found, one)] for one in ("digits", "digits-dvs"))
    assert set(of_images) - set(of_recordings) == {"better-under-noise", "surrogate-beats-dense-under-strong-noise"}
    assert len(of_images) == len(claims.CLAIMS) and of_images[-1] == "fewer-spikes-at-equal-steps"


# -- standard batch norm


def test_standard_bn_needs_two_networks_that_work():
    """Whichever does not work, better tuning might decide the claim either way."""
    for row in ("surrogate", "bn-pooled"):
        claim = judged("standard-bn-does-not-help", anytime=anytime(**{row: 35}))
        assert claim.outcome == "undecided" and f"{row}: 17.5 % is not clearly above chance" in decisive(claim).note


def test_standard_bn_says_that_there_is_none():
    options = {row: own | {"norm": "none"} for row, own in OPTIONS.items()}
    claim = BY_NAME["standard-bn-does-not-help"]([replace(evidence(), options=options)])
    assert claim.outcome == "undecided"
    assert decisive(claim).note == "this experiment has no row with norm bn-pooled or bn-repeated"


# -- Section 3


def test_section_3_is_about_every_layer():
    """Five layers of six are far below the border: their median would hold."""
    claim = judged("mean-negligible", approximations=approximations(relative_mean=[0.01] * 5 + [0.3]))
    assert claim.outcome == "fails" and estimate(claim).value == pytest.approx(0.3)
    assert decisive(claim).note == ("below 0.1 in 5 of 6 layers: conv1, conv2, conv3, conv4 and conv5; largest in fc1")


def test_the_worst_layer_is_that_of_each_seed_and_the_note_counts_layers_that_are_so_in_all():
    means = [[0.03] + [0.01] * 5, [0.01] * 5 + [0.04], [0.01, 0.2] + [0.01] * 4]
    claim = over("mean-negligible", *({"approximations": approximations(relative_mean=mean)} for mean in means))
    assert estimate(claim) == pytest.approx(student_interval([0.03, 0.04, 0.2]))
    assert decisive(claim).note == (
        "below 0.1 in 5 of 6 layers in every seed: conv1, conv3, conv4, conv5 and fc1; largest in conv2"
    )


def test_wrong_spikes_are_counted_over_all_layers():
    claim = judged("threshold-equivalent", approximations=approximations(wrong=[0.0] * 5 + [3.0]))
    assert claim.note == "All layers together: 50 wrong spikes for every 100 spikes."


def test_ratios_of_variances_are_averaged_as_logarithms():
    ratios = (1.1, 1.3, 2.0)
    claim = over("variance-alike", *({"approximations": approximations(variance=(1.0, one))} for one in ratios))
    assert estimate(claim) == pytest.approx(np.exp(student_interval(np.log(ratios))))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_a_layer_without_a_value_is_not_left_out(layer, seeds):
    changes = [math.nan if k == layer else 0.01 for k in range(len(LAYERS))]
    claim = judged("scale-varies-slowly", seeds, approximations=approximations(scale_change=changes))
    assert claim.outcome == "undecided" and decisive(claim).note == f"row bntt has no value in {LAYERS[layer]}"


def test_a_layer_without_spikes_says_nothing_of_its_threshold_unless_spikes_were_added():
    none = judged("threshold-equivalent", approximations=approximations(spikes=[0.0] + [1.0] * 5, wrong=0.0))
    assert none.outcome == "undecided" and decisive(none).note == "row bntt has no value in conv1"
    added = judged("threshold-equivalent", approximations=approximations(spikes=[0.0] + [1.0] * 5, wrong=0.01))
    assert added.outcome == "fails" and estimate(added).value == math.inf
    assert judged("threshold-equivalent", approximations=approximations(spikes=0.0, wrong=0.0)).note == ""


def test_a_layer_with_a_variance_of_zero_is_not_alike():
    for seeds in (1, 3):
        claim = judged("variance-alike", seeds, approximations=approximations(variance=(0.0, 1.0)))
        assert claim.outcome == "fails" and estimate(claim).value == math.inf


# -- from frames to the rule: made-up values go in as frames, and come out as the same decision


def of_draw(name: str, rng: np.random.Generator) -> tuple[dict, list[float]]:
    """Frames of one seed, and its value of each component."""
    if name == "surrogate-trains-worse":
        right = rng.integers(150, 190, 2)
        return {"anytime": anytime(bntt=int(right[0]), surrogate=int(right[1]), conversion=180)}, [
            (right[0] - right[1]) / 2
        ]
    if name == "better-under-noise":
        right = {row: int(count) for row, count in zip(METHODS, rng.integers(120, 180, len(METHODS)), strict=True)}
        gains = [(right["bntt"] - count) / 2 for row, count in right.items() if row != "bntt"]
        return {"noise": noise(**right)}, [gain for gain in gains for _ in (0.4, 0.8)]
    if name == "low-energy":
        bntt, surrogate, conversion = rng.uniform(0.2, 0.6, 3)
        spent = energy(bntt=bntt, surrogate=surrogate, conversion=conversion)
        return {"energy": spent}, [1 / bntt, surrogate / bntt, conversion / bntt]
    if name == "fewer-spikes":
        totals = {row: rng.uniform(0.2, 2.0, len(LAYERS)).tolist() for row in ("bntt", "surrogate", "conversion")}
        ratios = [
            b / a for row in ("surrogate", "conversion") for a, b in zip(totals["bntt"], totals[row], strict=True)
        ]
        return {"spikes": spikes(**totals)}, ratios
    if name == "gamma-falls":
        end = rng.uniform(0.3, 0.6)
        return {"gamma": gamma(end=end)}, [end]
    values = rng.uniform(0.02, 0.12, len(LAYERS)).tolist()
    return {"approximations": approximations(wrong=values)}, [max(values)]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "name", ["surrogate-trains-worse", "better-under-noise", "low-energy", "fewer-spikes", "gamma-falls",
             "threshold-equivalent"],
)  # fmt: skip
def test_what_frames_say_is_what_the_rule_says_of_their_values(name, seeds):
    """Independent arithmetic: Student's interval by its formula; all images differ in the same way for one seed."""
    for draw in range(4):
        rng = np.random.default_rng([draw, seeds])
        drawn = [of_draw(name, rng) for _ in range(seeds)]
        border, sign = {"gamma-falls": (0.5, -1), "threshold-equivalent": (0.1, -1)}.get(name, (0, 1))
        ends = {0.95: [], 1.0: []}  # of each component: worse and better end at 95 %, and at the level that refutes
        table = np.array([values for _, values in drawn], dtype=float)
        if name in ("low-energy", "fewer-spikes"):
            table = np.log(table)
        for values in table.T:
            for level in ends:
                at = level if level < 1 else 1 - 0.05 / table.shape[1]
                if seeds > 1:
                    deviation = max(
                        values.std(ddof=1),
                        (0.25 / 12**0.5) * (name in ("surrogate-trains-worse", "better-under-noise")),
                    )
                    half = stats.t.ppf((1 + at) / 2, seeds - 1) * deviation / seeds**0.5
                    low, high = values.mean() - half, values.mean() + half
                elif name in ("surrogate-trains-worse", "better-under-noise"):
                    count = round(abs(4 * values[0]))
                    low, high = tango(*((count, 0) if values[0] > 0 else (0, count)), IMAGES, at).times(100)[1:]
                else:
                    low = high = values[0]
                ends[level].append(sorted((sign * (low - border), sign * (high - border))))
        holds = all(worse > 0 for worse, _ in ends[0.95])
        fails = any(better < 0 for _, better in ends[1.0])
        claim = over(name, *(frames for frames, _ in drawn))
        assert claim.outcome == ("fails" if fails else "holds" if holds else "undecided")
