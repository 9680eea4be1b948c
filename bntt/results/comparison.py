"""Paired comparisons: two methods, or the same one in two folders of results, on the same seeds and test images."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from bntt.common.errors import UserError, check_name
from bntt.results.collect import Results, at_threshold, last_step
from bntt.results.energy import energy_ratios
from bntt.results.facts import test_images
from bntt.results.intervals import Estimate, decode_bits, paired_difference, paired_mean_difference

BY_SEED, BY_IMAGE = "paired by seed, Student", "paired by image, Tango; over images, not over seeds"


def accuracy_difference(both: pd.DataFrame, images: int | None) -> tuple[Estimate | None, str]:
    """``accuracy`` minus ``accuracy_other`` of two methods on their common seeds, and how it was paired.

    Several seeds are paired by seed, with Student's interval. One seed is paired by image, with Tango's interval, from
    the bits ``correct`` and ``correct_other``. This interval is over images, and says nothing of the spread over seeds.
    The difference is None if the bits or the number of images are unknown.
    """
    if len(both) > 1:
        both = both.sort_values("seed")
        return paired_mean_difference(both["accuracy"], both["accuracy_other"]), BY_SEED
    if len(both) == 1 and images is not None and all(bits := both[["correct", "correct_other"]].iloc[0]):
        return paired_difference(*(decode_bits(one, images) for one in bits)).times(100), BY_IMAGE
    return None, ""


@dataclass(frozen=True)
class Difference:
    """One metric of a row in two results folders, or of two rows in one, and the paired difference."""

    dataset: str
    row: str
    metric: str
    first: float  # means over the common seeds; the difference is second minus first
    second: float
    estimate: Estimate | None
    seeds: int
    pairing: str


def compare(first: Results, second: Results) -> list[Difference]:
    """Accuracy, exit step and energy ratio of all rows that both have; raises UserError if they have no common run."""
    keys = ["dataset", "row", "metric", "seed"]
    both = _numbers(first).merge(_numbers(second), on=keys, suffixes=("_other", ""))
    lines = _differences(both, lambda dataset: _same_images(first, second, dataset))
    if not lines:
        raise UserError(f"{first.folder} and {second.folder} have no run of the same dataset, row and seed")
    return lines


def compare_with(results: Results, row: str) -> list[Difference]:
    """The same of every row of an experiment and one of them: row by row, minus ``row``, on common seeds.

    Raises UserError if there is no such row, or no other one with a dataset and a seed in common.
    """
    check_name("row", row, results.experiment.rows, f"experiment {results.experiment.name}")
    numbers = _numbers(results)
    base = numbers[numbers["row"] == row].drop(columns="row")
    both = base.merge(numbers[numbers["row"] != row], on=["dataset", "metric", "seed"], suffixes=("_other", ""))
    lines = _differences(both, lambda dataset: test_images(results, dataset))
    if not lines:
        raise UserError(f"{results.folder} has no numbers of row {row} and of another row on the same dataset and seed")
    return lines


def _differences(both: pd.DataFrame, images_of: Callable[[str], int | None]) -> list[Difference]:
    """A difference for each dataset, row and metric of joined numbers; ``_other`` is what is subtracted."""
    lines = []
    for (dataset, row), of_row in both.groupby(["dataset", "row"], sort=False):
        images = images_of(str(dataset))
        for metric, common in of_row.groupby("metric", sort=False):
            means = float(common["accuracy_other"].mean()), float(common["accuracy"].mean())
            estimate, pairing = accuracy_difference(common, images if metric == "accuracy" else None)
            lines.append(Difference(str(dataset), str(row), str(metric), *means, estimate, len(common), pairing))
    return lines


def _same_images(first: Results, second: Results, dataset: str) -> int | None:
    """The number of test images, if both used the same ones (same data and split), else None."""

    def seen(results: Results) -> tuple[int | None, set[tuple[str, str]]]:
        used = [one.training["data"] for one in results.runs if one.run.dataset == dataset and one.training]
        return test_images(results, dataset), {(data["content_sha256"], data["split_sha256"]) for data in used}

    return seen(first)[0] if seen(first) == seen(second) else None


def _numbers(results: Results) -> pd.DataFrame:
    """One number of each run and metric, in the columns that `accuracy_difference` reads."""
    exits = at_threshold(results.frame("early_exit.csv"), results.experiment.evaluation["exit_threshold"])
    ratios = last_step(energy_ratios(results.frame("energy.csv")))
    metrics = {
        "accuracy": last_step(results.frame("anytime.csv")),
        "exit step": exits.assign(accuracy=exits["exit_step"].astype(float), correct=""),
        "E_ANN/E_method": ratios.assign(accuracy=ratios["own"], correct=""),
    }
    columns = ["dataset", "row", "seed", "metric", "accuracy", "correct"]
    return pd.concat([frame.assign(metric=metric)[columns] for metric, frame in metrics.items()])
