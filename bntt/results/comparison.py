"""Paired comparisons: two methods, or the same one in two folders of results, on the same seeds and test images."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from bntt.common.errors import UserError
from bntt.results.collect import Results, at_threshold, last_step, select
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
    for dataset in first.experiment.datasets:
        if dataset not in second.experiment.datasets:
            continue
        images = _same_images(first, second, dataset)
        for row in first.experiment.rows_on(dataset):
            if row not in second.experiment.rows_on(dataset):
                continue
            for metric in _METRICS:
                one, other = (_values(metric, results, dataset, row) for results in (first, second))
                common = one.merge(other, on="seed", suffixes=("", "_other"))
                if common.empty:
                    continue
                means = float(common["accuracy"].mean()), float(common["accuracy_other"].mean())
                estimate, pairing = accuracy_difference(other, one, images if metric == "accuracy" else None)
                lines.append(Difference(dataset, row, metric, *means, estimate, len(common), pairing))
    if not lines:
        raise UserError(f"{first.folder} and {second.folder} have no run of the same dataset, row and seed")
    return lines


def _same_images(first: Results, second: Results, dataset: str) -> int | None:
    """The number of test images, where both have looked at the same ones."""
    one, other = (_seen(results, dataset) for results in (first, second))
    return one[0] if one == other else None


def _seen(results: Results, dataset: str) -> tuple[int | None, set[tuple[str, str]]]:
    """The number of test images, and content and split of the data that they are of."""
    used = [one.training["data"] for one in results.runs if one.run.dataset == dataset and one.training]
    return test_images(results, dataset), {(data["content_sha256"], data["split_sha256"]) for data in used}


def _accuracy(results: Results, dataset: str, row: str) -> pd.DataFrame:
    return last_step(select(results.frame("anytime.csv"), dataset=dataset, row=row))


def _exit_step(results: Results, dataset: str, row: str) -> pd.DataFrame:
    exits = select(results.frame("early_exit.csv"), dataset=dataset, row=row)
    return at_threshold(exits, results.experiment.evaluation["exit_threshold"])


def _energy_ratio(results: Results, dataset: str, row: str) -> pd.DataFrame:
    return last_step(energy_ratios(select(results.frame("energy.csv"), dataset=dataset, row=row)))


# Metric: the frame of its values, and the column that they are in.
_METRICS: dict[str, tuple[Callable[[Results, str, str], pd.DataFrame], str]] = {
    "accuracy": (_accuracy, "accuracy"),
    "exit step": (_exit_step, "exit_step"),
    "E_ANN/E_method": (_energy_ratio, "own"),
}


def _values(metric: str, results: Results, dataset: str, row: str) -> pd.DataFrame:
    """One number of each seed, under the names that the pairing reads: ``seed, accuracy, correct``."""
    read, column = _METRICS[metric]
    frame = read(results, dataset, row)
    values = pd.Series(dtype=float) if frame.empty else frame[column].astype(float)
    bits = frame["correct"] if metric == "accuracy" and len(frame) else ""
    return pd.DataFrame({"seed": frame["seed"].astype(int), "accuracy": values, "correct": bits})
