"""What the realisation of noise and its space change: accuracies with known spreads, and what findings.md says."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from tiny import PROJECT

from bntt.common.text import interval
from bntt.drawing.figures.figure4 import realisation_table
from bntt.experiment.schema import load
from bntt.results.collect import Results
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


# -- the committed measurements --------------------------------------------------------------------------------------


def test_findings_say_of_noise_on_digits_what_was_measured():
    results = Results(load("noise-digits"), PROJECT / "results" / "reference", here=False)
    frame = results.frame("noise_draws.csv")
    page = (PROJECT / "docs" / "findings.md").read_text(encoding="utf-8")
    section = page.partition("`results/reference/noise-digits`")[2].partition("\n## ")[0]
    table = realisation_table(frame)
    words = {"pixel": "before scaling", "normalised": "after scaling"}
    lines = [f"| {words[space]} | {sigma:g} | {' | '.join(cells)} |" for (space, sigma), *cells in table.itertuples()]
    assert [one for one in section.splitlines() if one.startswith("| ")][2:] == lines
    assert list(table.columns) == ["bntt", "surrogate", "conversion", "ann"]

    said = " ".join(section.split())
    of_cases = spreads(frame)
    assert f"in {(of_cases['within'] < of_cases['between']).sum()} of {len(of_cases)} cases" in said
    less = of_cases[of_cases["within"] < of_cases["between"]].groupby("row").size()
    counts = [f"{less[row]} of `{row}`" for row in ("bntt", "surrogate", "ann")]
    assert f"in {less['conversion']} of 12 of `conversion`, {counts[0]}, {counts[1]} and {counts[2]}" in said
    turned = {(one.sigma, one.row, one.other): one for one in turns(frame)}
    assert len(turned) == 6
    one = turned[0.4, "bntt", "surrogate"]
    assert f"{interval(one.pixel)} points at σ = 0.4 before scaling and {interval(one.normalised)} after it" in said
    of_rows = [one.value for one in costs(frame).values()]
    assert all(estimate.high < 0 for estimate in costs(frame).values())
    assert f"by {-max(of_rows):.0f} to {-min(of_rows):.0f} points" in said

    means = frame.groupby(["space", "sigma", "row"])["accuracy"].mean().unstack()
    assert (means.loc["normalised"].idxmax(axis=1) == "bntt").all()
    pixel = means.loc["pixel"]
    for row in ("surrogate", "ann"):
        assert pixel.index[pixel["bntt"] < pixel[row]].tolist() == [0.3, 0.4, 0.6, 0.8]
