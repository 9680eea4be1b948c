"""Each statistic against numbers worked out by hand, from its source, or by scipy as a second opinion."""

import math

import numpy as np
import pytest

from bntt.results import intervals
from bntt.results.intervals import Estimate, Z

# -- accuracies


def test_bits_are_images_most_significant_first():
    # 8 = 1000, 1 = 0001, and c = 11(00) with two digits of padding
    assert intervals.decode_bits("81c", 10).tolist() == [True, *[False] * 6, True, True, True]


def test_bits_agree_with_the_measurements_that_write_them():
    torch = pytest.importorskip("torch")
    from bntt.measurements import to_bits

    right = np.random.default_rng(1).random(541) < 0.9
    assert (intervals.decode_bits(to_bits(torch.from_numpy(right)), 541) == right).all()


@pytest.mark.parametrize("text", ["81", "81c0", 81.0])
def test_bits_of_another_number_of_images_are_refused(text):
    with pytest.raises(ValueError, match="10 images need 3 hexadecimal digits"):
        intervals.decode_bits(text, 10)


def test_standard_error_by_hand():
    assert intervals.standard_error(90, 100) == pytest.approx(math.sqrt(0.9 * 0.1 / 100))  # 0.03
    assert intervals.standard_error(100, 100) == 0


def test_paired_difference_without_discordant_pairs():
    # b = c = 0: the score test is n d / (1 - d) = z^2, so d = z^2 / (n + z^2)
    right = [True] * 90 + [False] * 10
    end = Z**2 / (100 + Z**2)
    assert intervals.paired_difference(right, right) == pytest.approx((0, -end, end))


def test_tango_gives_the_published_interval():
    # Airway hyper-responsiveness of 21 children before and after (Bentur et al. 2009), as in Fagerland, Lydersen and
    # Laake (2014, Stat. Med. 33:2850): -0.286 [-0.517, -0.026].
    assert intervals.tango(1, 7, 21) == pytest.approx((-0.286, -0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (1, 7, 21), (0, 3, 540), (30, 28, 540)])
def test_tango_ends_are_where_the_score_test_turns(b, c, n):
    """Second opinion: the likeliest probabilities under each end by brute force, and the test with them."""
    value, low, high = intervals.tango(b, c, n)
    assert low < value < high
    for d in (low, high):
        q = np.linspace(max(0, -d) + 1e-9, (1 - d) / 2 - 1e-9, 400_001)  # P(second alone); first alone is q + d
        likelihood = c * np.log(q) + b * np.log(q + d) + (n - b - c) * np.log(1 - 2 * q - d)
        best = q[likelihood.argmax()]
        assert abs(b - c - n * d) / math.sqrt(n * (2 * best + d * (1 - d))) == pytest.approx(Z, abs=2e-3)


def test_tango_agrees_with_mcnemar_at_zero():
    for b, c in [(14, 5), (13, 5), (12, 5), (5, 14), (9, 3), (8, 3)]:
        rejected = abs(b - c) / math.sqrt(b + c) > Z
        _, low, high = intervals.tango(b, c, 200)
        assert rejected == (low > 0 or high < 0)


def test_tango_turns_round_with_its_arguments_and_reaches_the_ends():
    value, low, high = intervals.tango(9, 4, 80)
    assert intervals.tango(4, 9, 80) == pytest.approx((-value, -high, -low))
    # b = n, c = 0: q = (1 - d) / 2, so the score is n (1 - d) / (1 + d) = z^2
    assert intervals.tango(5, 0, 5) == pytest.approx((1, (5 - Z**2) / (5 + Z**2), 1))
    assert intervals.tango(0, 5, 5)[:2] == (-1, -1)


def test_unpaired_images_are_refused():
    with pytest.raises(ValueError, match="paired"):
        intervals.paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="paired"):
        intervals.paired_mean_difference([1.0], [1.0, 2.0])


# -- means


def test_mean_and_deviation_by_hand():
    assert intervals.mean_std([1, 2, 3]) == (2, 1)
    mean, deviation = intervals.mean_std([5])
    assert mean == 5 and math.isnan(deviation)


def test_student_interval_by_hand():
    # t(0.975, 2) = 4.3027; 2 -+ 4.3027 * 1 / sqrt(3)
    assert intervals.student_interval([1, 2, 3]) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-3)
    with pytest.raises(ValueError, match="two values"):
        intervals.student_interval([1])


def test_student_interval_is_the_tables():
    """t(0.975, n - 1) as printed in every table of Student's distribution, by 2, 4, 10 and 540 values."""
    for count, quantile in ((2, 12.706), (4, 3.182), (10, 2.262), (540, 1.964)):
        values = np.arange(count, dtype=float)
        mean, low, high = intervals.student_interval(values)
        half = quantile * values.std(ddof=1) / math.sqrt(count)
        assert (mean - low, high - mean) == pytest.approx((half, half), rel=3e-4)


def test_prediction_interval_by_hand():
    # 2 -+ 4.3027 * 1 * sqrt(1 + 1/3); of equal values it is a point
    assert intervals.prediction_interval([1, 2, 3]) == pytest.approx((2, 2 - 4.9683, 2 + 4.9683), abs=1e-3)
    assert intervals.prediction_interval([4, 4]) == (4, 4, 4)
    with pytest.raises(ValueError, match="two values"):
        intervals.prediction_interval([1])


def test_paired_means_use_the_pairs():
    # the differences are 1, 1, 1 whatever the images are: no uncertainty
    assert intervals.paired_mean_difference([11, 102, 1003], [10, 101, 1002]) == (1, 1, 1)


# -- peaks


def wave(peak: int, channels: int = 4) -> np.ndarray:
    """``[10, channels]``: every channel peaks at the step."""
    return np.exp(-((np.arange(1, 11)[:, None] - peak) ** 2)) * np.ones(channels)


def test_peak_step_is_counted_from_one():
    assert intervals.peak_step(wave(1)) == 1
    assert intervals.peak_step(wave(7)) == 7
    assert intervals.peak_step([[0, 5], [3, 3], [3, 3]]) == 2  # of the mean, not of a channel; the first of equals


def test_estimates_change_their_unit():
    assert Estimate(0.5, 0.25, 1.0).times(100) == (50, 25, 100)
    assert Estimate.exact(3) == (3, 3, 3)
