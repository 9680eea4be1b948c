"""What the realisation of noise and its space change: against hand-made accuracies whose spreads are known."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from bntt.results.intervals import student_interval
from bntt.results.realisations import costs, spreads, turns


def accuracies(of, rows=("one", "two"), seeds=3, draws=4):
    """A frame of ``of(row, space, sigma, seed, draw)``."""
    keys = list(product(rows, ("pixel", "normalised"), (0.1, 0.4), range(seeds), range(draws)))
    frame = pd.DataFrame(keys, columns=["row", "space", "sigma", "seed", "draw"])
    return frame.assign(accuracy=[float(of(*key)) for key in keys])


def test_spread_over_realisations_and_over_seeds_are_told_apart():
    table = np.random.default_rng(0).random((3, 4))
    frame = accuracies(lambda row, space, sigma, seed, draw: 50 + 10 * sigma * table[seed, draw] + (row == "two"))
    found = spreads(frame)
    assert len(found) == 8
    for sigma in (0.1, 0.4):
        of_sigma = found[found["sigma"] == sigma]
        np.testing.assert_allclose(of_sigma["within"], 10 * sigma * np.sqrt(table.var(axis=1, ddof=1).mean()))
        np.testing.assert_allclose(of_sigma["between"], 10 * sigma * table.mean(axis=1).std(ddof=1))


def order(gap):
    """Row `one` minus `two` is ``gap[space]`` at σ = 0.4, nearly, and 5 at σ = 0.1; realisations cancel out."""
    return accuracies(
        lambda row, space, sigma, seed, draw: (
            60 + (row == "one") * ((gap[space] if sigma == 0.4 else 5) + 0.1 * seed) + (-1) ** draw * 7 * seed
        )
    )


@pytest.mark.parametrize(
    ("pixel", "normalised", "turned"),
    [(3, -3, True), (-3, 3, True), (3, 3, False), (-3, -3, False), (3, -0.1, False), (-0.1, 3, False)],
)
def test_an_order_turns_only_where_both_spaces_show_opposite_orders(pixel, normalised, turned):
    found = turns(order({"pixel": pixel, "normalised": normalised}))
    assert len(found) == turned
    for one in found:
        assert (one.sigma, one.row, one.other) == (0.4, "one", "two")
        assert one.pixel == pytest.approx(student_interval([pixel, pixel + 0.1, pixel + 0.2]))
        assert one.normalised == pytest.approx(student_interval([normalised, normalised + 0.1, normalised + 0.2]))


def test_the_cost_of_pixel_space_is_paired_by_seed():
    def accuracy(row, space, sigma, seed, draw):
        lost = {"one": 4, "two": -1}[row] + seed
        return 90 + 3 * seed - 20 * sigma + draw - (space == "pixel") * lost * (1 + (sigma == 0.4))

    found = costs(accuracies(accuracy))
    assert found["one"] == pytest.approx(student_interval([-6.0, -7.5, -9.0]))
    assert found["two"] == pytest.approx(student_interval([1.5, 0.0, -1.5]))


def test_one_seed_shows_nothing():
    frame = order({"pixel": 3, "normalised": -3}).query("seed == 0")
    assert turns(frame) == []
    assert costs(frame) == {}
    assert spreads(frame)["between"].isna().all()
