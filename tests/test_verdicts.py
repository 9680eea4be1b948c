"""Verdicts on hand-computable numbers, and how often chance alone refuses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bntt.paper.verdicts import (
    DECIDED,
    FAVOURABLE,
    WORDS,
    Verdict,
    as_accurate,
    between,
    beyond,
    bought_at,
    judge,
    refusals_by_chance,
    what_chance_does,
)
from bntt.results.intervals import prediction_interval, prediction_interval_of_steps

# Three values 90, 91, 92: mean 91, s = 1, t(2) = 4.303, half-width 4.303 * sqrt(4/3) = 4.968.
THREE = [90.0, 91.0, 92.0]


def test_the_prediction_interval_by_hand():
    found = prediction_interval(THREE)
    assert found.value == 91
    assert found.high - 91 == pytest.approx(4.302652729911275 * math.sqrt(4 / 3), rel=1e-9)
    assert 91 - found.low == pytest.approx(found.high - 91)


@pytest.mark.parametrize(
    ("printed", "tolerance", "direction", "word"),
    [
        (91.0, 0.0, "higher", "MATCH"),
        (91.05, 0.05, "higher", "MATCH"),  # the border belongs to it, though 91.05 - 91 is 0.04999...
        (90.95, 0.05, "higher", "MATCH"),
        (91.06, 0.05, "higher", "CONSISTENT"),
        (95.96, 0.05, "higher", "CONSISTENT"),
        (95.97, 0.05, "higher", "WORSE"),
        (86.04, 0.05, "higher", "CONSISTENT"),
        (86.03, 0.05, "higher", "BETTER"),
        (95.97, 0.05, "lower", "BETTER"),
        (86.03, 0.05, "lower", "WORSE"),
        (95.97, 0.05, "none", "DIFFERS"),
        (86.03, 0.05, "none", "DIFFERS"),
    ],
)
def test_three_seeds(printed, tolerance, direction, word):
    found = judge(printed, THREE, 3, tolerance, direction, percent=True)
    assert found.word == word
    assert found.mean == 91
    assert found.half_width == pytest.approx(4.968, abs=1e-3)
    assert found.weak == (word in ("MATCH", "CONSISTENT"))  # the interval is five points to either side
    assert str(found) == (f"{word} (weak)" if found.weak else word)


@pytest.mark.parametrize(
    ("values", "planned", "reason"),
    [
        ([], 3, "0 of 3 planned seeds; at least 3 are needed"),
        ([91.0], 1, "1 seed; at least 3 are needed"),
        ([91.0, 91.0], 2, "2 seeds; at least 3 are needed"),
        ([91.0, 91.0], 3, "2 of 3 planned seeds; at least 3 are needed"),
        ([91.0] * 4, 5, "4 of 5 planned seeds; at least 3 are needed"),
    ],
)
def test_fewer_seeds_than_planned_or_than_three_are_incomplete(values, planned, reason):
    found = judge(91.0, values, planned, 0.05, "higher")
    assert (found.word, found.reason) == ("INCOMPLETE", reason)
    assert found.mean == (91 if values else None)


@pytest.mark.parametrize(
    ("printed", "spread", "percent", "weak"),
    [(90.0, 0.2, True, False), (90.0, 0.3, True, True), (9.0, 0.1, False, False), (9.0, 0.3, False, True)],
)
def test_consistent_is_weak_beyond_a_point_or_a_tenth(printed, spread, percent, weak):
    """Half-widths are 0.99, 1.49, 0.50 and 1.49."""
    found = judge(printed, [printed + 0.01 + k * spread for k in (-1, 0, 1)], 3, 0.0, "higher", percent=percent)
    assert (found.word, found.weak) == ("CONSISTENT", weak)


def test_a_match_of_scattered_seeds_is_weak():
    """Their mean is 90.5, as printed, and says nothing: one more run may have 40 to 140 %."""
    found = judge(90.5, [71.5, 90.5, 109.5], 3, 0.05, "higher", percent=True)
    assert (found.word, found.weak) == ("MATCH", True)
    assert not judge(90.5, [90.4, 90.5, 90.6], 3, 0.05, "higher", percent=True).weak


def test_values_without_spread_have_no_interval_to_hide_in():
    assert judge(20.0, [20.0] * 3, 3, 0.5, "lower").word == "MATCH"
    assert judge(20.0, [21.0] * 3, 3, 0.5, "lower").word == "WORSE"


def test_whole_numbers_have_the_spread_of_rounding():
    """Three seeds at 20: half-width t(2) sqrt(1/12 * 4/3) = 1.434 steps, so 21 and 19 are inside, and 22 is not."""
    found = prediction_interval_of_steps([20, 20, 20])
    assert found.high - 20 == pytest.approx(4.302652729911275 * math.sqrt((1 / 12) * (4 / 3)))
    words = [judge(printed, [20.0] * 3, 3, 0.5, "lower", whole=True).word for printed in (19, 20, 21, 22, 18)]
    assert words == ["CONSISTENT", "MATCH", "CONSISTENT", "BETTER", "WORSE"]
    many = prediction_interval_of_steps([20] * 10)  # 2.26 * sqrt(1/12 * 1.1) = 0.68: a neighbour is inside all the same
    assert (many.low, many.high) == (19, 21)
    with pytest.raises(ValueError, match="at least two values"):
        prediction_interval_of_steps([20])


def test_a_number_that_is_not_finite_is_no_match_and_no_merit():
    """The energy ratio of a network that spends nothing is infinite."""
    assert judge(9.14, [math.inf] * 3, 3, 0.005, "higher").word == "WORSE"
    assert judge(9.14, [math.nan] * 3, 3, 0.005, "lower").word == "WORSE"
    assert judge(9.14, [math.inf] * 3, 3, 0.005, "none").word == "DIFFERS"
    some = judge(9.14, [0.2, math.inf, 0.2], 3, 0.005, "higher")
    assert (some.word, some.reason) == ("INCOMPLETE", "1 of 3 seeds give no finite number")
    assert some.values == (0.2, math.inf, 0.2)


def test_every_word_is_listed_and_beyond_gives_one_of_them():
    assert len(set(WORDS)) == 9
    assert {beyond(1, 0, side) for side in ("higher", "lower", "none")} == {"BETTER", "WORSE", "DIFFERS"}
    assert set(WORDS) > DECIDED


FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, max_size=8), st.integers(1, 8), FINITE, st.floats(0, 10), st.sampled_from(["higher", "lower"]))
def test_properties(values, planned, printed, tolerance, direction):
    found = judge(printed, values, planned, tolerance, direction)
    assert (found.word == "INCOMPLETE") == (len(values) < max(planned, 3))
    mirrored = judge(
        -printed, [-value for value in values], planned, tolerance, {"higher": "lower", "lower": "higher"}[direction]
    )
    assert mirrored.word == found.word
    if found.word in ("BETTER", "WORSE"):
        assert abs(np.mean(values) - printed) > tolerance
        assert (found.word == "BETTER") == ((np.mean(values) > printed) == (direction == "higher"))
    # A wider tolerance never takes a match away.
    if found.word == "MATCH":
        assert judge(printed, values, planned, tolerance + 1, direction).word == "MATCH"


@pytest.mark.parametrize("seeds", range(3, 11))
def test_a_number_of_the_same_distribution_is_refused_in_five_per_cent_of_cases(seeds):
    """Zero tolerance. First by the rule in one array operation, 40,000 times; then that `judge` is that rule."""
    draws = np.random.default_rng(seeds).normal(90, 0.3, size=(40_000, seeds + 1))
    printed, values = draws[:, 0], draws[:, 1:]
    half = stats.t.ppf(0.975, seeds - 1) * values.std(1, ddof=1) * math.sqrt(1 + 1 / seeds)
    refused = np.abs(values.mean(1) - printed) > half
    assert abs(refused.mean() - 0.05) < 0.005
    for one in range(300):
        found = judge(printed[one], values[one], seeds, 0.0, "higher", percent=True)
        assert (found.word != "CONSISTENT") == refused[one]


@pytest.mark.parametrize("seeds", range(3, 11))
def test_a_whole_number_of_the_same_distribution_is_refused_in_at_most_six_per_cent_of_cases(seeds):
    """For any spread and any place between two whole numbers; in four to six per cent if the spread is 2 or more."""
    random = np.random.default_rng(seeds)
    for spread in (0.05, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5):
        for centre in (20, 20.25, 20.5):
            draws = random.normal(centre, spread, size=(40_000, seeds + 1)).round()
            printed, values = draws[:, 0], draws[:, 1:]
            deviation = np.sqrt(values.var(1, ddof=1) + 1 / 12)  # independent of the interval under test
            half = np.maximum(stats.t.ppf(0.975, seeds - 1) * deviation * math.sqrt(1 + 1 / seeds), 1)
            refused = np.abs(values.mean(1) - printed) > half + 1e-9
            assert refused.mean() < 0.06
            assert refused.mean() > 0.035 or spread < 2
            for one in range(20):
                found = judge(printed[one], values[one], seeds, 0.0, "lower", whole=True)
                assert (found.word in ("BETTER", "WORSE")) == refused[one]


# -- what a number was bought at


def accuracy(*values: float) -> Verdict:
    return judge(90.5, values, 3, 0.05, "higher", percent=True)


ENERGY = {
    "BETTER": [12.0, 12.1, 12.2],
    "MATCH": [9.14] * 3,
    "CONSISTENT": [8.9, 9.1, 9.3],  # weak: 0.99 to either side
    "WORSE": [5.0, 5.1, 5.2],
}


@pytest.mark.parametrize(
    ("reached", "comparable"),
    [
        ([90.4, 90.5, 90.6], True),  # MATCH
        ([90.0, 90.2, 90.4], True),  # CONSISTENT
        ([95.0, 95.1, 95.2], True),  # BETTER
        ([89.9, 89.9, 89.9], False),  # WORSE, though within a point
        ([89.0, 89.5, 90.0], True),  # CONSISTENT, a point under on the dot
        ([80.0, 89.0, 99.0], False),  # CONSISTENT, with a mean of 89.33, more than a point under
        ([60.0, 75.0, 90.0], False),  # CONSISTENT, 15 points under
        ([10.0, 10.0, 10.0], False),
    ],
)
@pytest.mark.parametrize("word", ENERGY)
def test_a_cost_is_judged_together_with_its_accuracy(word, reached, comparable):
    cost = judge(9.14, ENERGY[word], 3, 0.005, "higher")
    assert cost.word == word
    assert as_accurate(accuracy(*reached), 90.5) == comparable
    found = bought_at(cost, accuracy(*reached), 90.5)
    assert found.word == (word if comparable or word == "WORSE" else "INCOMPARABLE")
    assert found.values == cost.values
    if found.word == "INCOMPARABLE":
        less = "WORSE than" if accuracy(*reached).word == "WORSE" else "more than 1 point under"
        assert found.reason == (
            f"{word} by itself, but its accuracy, {np.mean(reached):.2f} %, is {less} the printed 90.5 %"
        )
        assert cost.weak == (word == "CONSISTENT")
        assert not found.weak and found.word not in DECIDED


def test_a_cost_without_a_decided_accuracy_is_as_open_as_that():
    cost = judge(9.14, ENERGY["CONSISTENT"], 3, 0.005, "higher")
    found = bought_at(cost, accuracy(90.5, 90.5), 90.5)
    assert (found.word, found.reason) == ("INCOMPLETE", "its accuracy: 2 of 3 planned seeds; at least 3 are needed")
    assert cost.weak and not found.weak
    open_cost = judge(9.14, [9.14], 3, 0.005, "higher")
    assert bought_at(open_cost, accuracy(10, 10, 10), 90.5) == open_cost


@given(
    st.lists(st.floats(0, 89.4), min_size=3, max_size=6),
    st.lists(st.floats(0, 1e3), min_size=3, max_size=6),
    st.sampled_from(["higher", "lower", "none"]),
)
def test_no_cost_is_favourable_that_was_bought_at_less(reached, costs, direction):
    """A property: whatever is measured, with an accuracy more than a point under the printed one."""
    judged = judge(90.5, reached, 3, 0.05, "higher", percent=True)
    found = bought_at(judge(9.14, costs, 3, 0.5, direction), judged, 90.5)
    assert found.word in ("WORSE", "INCOMPARABLE", "INCOMPLETE") and found.word not in FAVOURABLE


def test_between_by_hand():
    """At both ends each seed is worse than printed; with the items right in some seeds alone it is consistent."""

    def word(values):
        return judge(90.5, values, 3, 0.05, "higher").word

    low, high = (90.2,) * 3, (90.4,) * 3
    assert word(low) == word(high) == "WORSE"
    assert word((90.2, 90.3, 90.4)) == "CONSISTENT"
    assert {word(values) for values in between(low, high)} == {"WORSE", "CONSISTENT"}
    assert {word(values) for values in between((88.0,) * 3, (88.2, 88.2, 88.1))} == {"WORSE"}


@pytest.mark.parametrize("seeds", [3, 5])
def test_no_values_within_the_bounds_have_a_verdict_that_between_misses(seeds):
    random = np.random.default_rng(seeds)
    several = 0
    for _ in range(100):
        low = random.normal(90, 0.4, seeds)
        high = low + random.uniform(0, 0.3)
        printed, tolerance = random.normal(90.1, 0.6), random.choice([0.0, 0.05])

        def word(values, printed=printed, tolerance=tolerance):
            return judge(printed, values, seeds, tolerance, "higher").word

        words = {word(values) for values in between(low, high)}
        assert {word(values) for values in random.uniform(low, high, (100, seeds))} <= words
        several += len(words) > 1
    assert 10 < several < 90


def test_refusals_by_chance_count_what_has_a_spread():
    spread = judge(91.0, THREE, 3, 0.0, "higher")
    setting = judge(25.0, [25.0] * 3, 3, 0.0, "none")
    incomplete = judge(91.0, THREE[:2], 3, 0.0, "higher")
    found = [spread] * 40 + [setting, incomplete, Verdict("NOT_RUN")]
    assert refusals_by_chance(found) == pytest.approx(2.0)
    assert what_chance_does(found) == (
        "Of 41 decided numbers, chance alone would make about 2.0 BETTER, WORSE or DIFFERS on average, if all were "
        "reproduced."
    )
