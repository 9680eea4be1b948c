"""Paired comparisons: two methods, or the same one in two folders of results, on the same seeds and test images."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from bntt.common.errors import UserError
from bntt.results.collect import Results, at_threshold, last_step
from bntt.results.energy import energy_ratios
from bntt.results.facts import test_images
from bntt.results.intervals import Estimate, decode_bits, paired_difference, paired_mean_difference

BY_SEED, BY_IMAGE = "paired by seed, Student", "paired by image, Tango"


def accuracy_difference(first: pd.DataFrame, second: pd.DataFrame, images: int | None) -> tuple[Estimate | None, str]:
    """First minus second in points, over the seeds that both frames have, and how it was paired.

    With several common seeds it is paired by seed, with Student's interval; with one, by image, with Tango's. Frames
    have ``seed``, ``accuracy`` in per cent and ``correct``, the bits of the test images.
    """
    both = first.merge(second, on="seed", suffixes=("", "_other")).sort_values("seed")
    if len(both) > 1:
        return paired_mean_difference(both["accuracy"], both["accuracy_other"]), BY_SEED
    if len(both) == 1 and images is not None:
        one = both.iloc[0]
        if one["correct"] and one["correct_other"]:
            bits = (decode_bits(one[name], images) for name in ("correct", "correct_other"))
            return paired_difference(*bits).times(100), BY_IMAGE
    return None, ""


@dataclass(frozen=True)
class Difference:
    """A number of a row in two folders of results, and the paired difference, second minus first."""

    dataset: str
    row: str
    metric: str
    first: float  # means over the common seeds
    second: float
    estimate: Estimate | None
    seeds: int
    pairing: str


def compare(first: Results, second: Results) -> list[Difference]:
    """Accuracy, exit step and energy ratio of every row that both have, on every dataset."""
    lines: list[Difference] = []
    for dataset in _common(first.experiment.datasets, second.experiment.datasets):
        images = _same_images(first, second, dataset)
        for row in _common(*(results.experiment.rows_on(dataset) for results in (first, second))):
            values, others = (_values(results, dataset, row) for results in (first, second))
            for metric, one in values.items():
                other = others[metric]
                common = one.merge(other, on="seed", suffixes=("", "_other"))
                if common.empty:
                    continue
                means = float(common["accuracy"].mean()), float(common["accuracy_other"].mean())
                estimate, pairing = accuracy_difference(other, one, images if metric == "accuracy" else None)
                lines.append(Difference(dataset, row, metric, *means, estimate, len(common), pairing))
    if not lines:
        raise UserError(f"{first.folder} and {second.folder} have no run of the same dataset, row and seed")
    return lines


def _common(first: Iterable[str], second: Iterable[str]) -> list[str]:
    second = set(second)
    return [one for one in first if one in second]


def _same_images(first: Results, second: Results, dataset: str) -> int | None:
    """The number of test images, where both have looked at the same ones: of the same data and the same split."""

    def seen(results: Results) -> tuple[int | None, set[tuple[str, str]]]:
        used = [one.training["data"] for one in results.runs if one.run.dataset == dataset and one.training]
        return test_images(results, dataset), {(data["content_sha256"], data["split_sha256"]) for data in used}

    return seen(first)[0] if seen(first) == seen(second) else None


def _values(results: Results, dataset: str, row: str) -> dict[str, pd.DataFrame]:
    """Of each metric one number of each seed, under the names that the pairing reads: ``seed, accuracy, correct``."""
    anytime, exits, energy = (
        results.frame(f"{name}.csv", dataset=dataset, row=row) for name in ("anytime", "early_exit", "energy")
    )
    exits = at_threshold(exits, results.experiment.evaluation["exit_threshold"])
    ratios = last_step(energy_ratios(energy))
    return {
        "accuracy": last_step(anytime)[["seed", "accuracy", "correct"]],
        "exit step": exits[["seed"]].assign(accuracy=exits["exit_step"], correct=""),
        "E_ANN/E_method": ratios[["seed"]].assign(accuracy=ratios["own"], correct=""),
    }
