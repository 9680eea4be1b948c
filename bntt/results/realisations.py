"""How far accuracy under noise depends on the noise's realisation and on its space, from ``noise_draws.csv``.

The paper does not say whether noise is added to images in [0, 1] (space ``pixel``) or after they are scaled
(``normalised``), nor how often it was drawn. Accuracies and their differences are in points.
"""

from itertools import combinations
from typing import NamedTuple

import pandas as pd

from bntt.results.intervals import Estimate, interval_over_seeds

CASE = ["row", "space", "sigma"]


def spreads(realisations: pd.DataFrame) -> pd.DataFrame:
    """A line for each row, space and level of noise, with two standard deviations of the accuracy.

    ``within`` is that over realisations with the seed held fixed, the root of the mean over seeds of the variance;
    ``between`` is that over seeds of the means over realisations.
    """
    of_seeds = realisations.groupby([*CASE, "seed"], sort=False)["accuracy"].agg(["mean", "var"]).groupby(CASE)
    return pd.DataFrame({"within": of_seeds["var"].mean() ** 0.5, "between": of_seeds["mean"].std()}).reset_index()


class Turn(NamedTuple):
    """Two rows whose order under noise of one level depends on its space: accuracy of ``row`` minus ``other``."""

    sigma: float
    row: str
    other: str
    pixel: Estimate
    normalised: Estimate


def turns(realisations: pd.DataFrame) -> list[Turn]:
    """Where the order of two rows is shown to be one in pixel space, and the opposite after scaling.

    Differences are of means over realisations, paired by seed, with Student's interval; in each space it must lie away
    from 0. Rows with fewer than two common seeds are left out.
    """
    found = []
    means = _of_seeds(realisations)
    for sigma in realisations["sigma"].unique():
        for row, other in combinations(realisations["row"].unique(), 2):
            pixel, normalised = (
                interval_over_seeds(means[space, sigma, row] - means[space, sigma, other])
                for space in ("pixel", "normalised")
            )
            if pixel and normalised and _sign(pixel) * _sign(normalised) < 0:
                found.append(Turn(float(sigma), row, other, pixel, normalised))
    return found


def _sign(estimate: Estimate) -> int:
    """1 or -1 if the whole interval lies above or below 0, else 0."""
    return (estimate.low > 0) - (estimate.high < 0)


def costs(realisations: pd.DataFrame) -> dict[str, Estimate]:
    """For each row the accuracy under noise in pixel space minus that under as much noise after scaling.

    Means over realisations and levels, paired by seed, with Student's interval.
    """
    means = _of_seeds(realisations).T.groupby(["space", "row"], sort=False).mean()
    found = {
        row: interval_over_seeds(means.loc["pixel", row] - means.loc["normalised", row])
        for row in means.loc["pixel"].index
    }
    return {row: estimate for row, estimate in found.items() if estimate}


def _of_seeds(realisations: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over realisations: seeds by (space, sigma, row)."""
    return realisations.pivot_table("accuracy", "seed", ["space", "sigma", "row"], aggfunc="mean", sort=False)
