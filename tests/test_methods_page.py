"""What docs/methods.md and README.md say of `demo-all` and `norms-no-decay` is computed again from committed files.

``python tests/test_methods_page.py`` prints the tables.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from tiny import PROJECT

from bntt.drawing.tables import table1
from bntt.results.collect import Results

REFERENCE = PROJECT / "results/reference"
PAGE = (PROJECT / "docs/methods.md").read_text(encoding="utf-8")
NORMS = (
    "none", "weight-standardised", "bntt-tuned", "bntt-shared-gamma", "bn-pooled", "bn-pooled-step-gamma",
    "bn-repeated", "tdbn", "tebn", "tab", "tab-released", "tsbn", "mpbn",
)  # fmt: skip
NO_DECAY = [row for row in NORMS if row != "none"]
PREDICTED_MORE_SPIKES = ("bntt-tuned", "bn-pooled-step-gamma", "tdbn", "mpbn", "bn-repeated")
SEEDS = (0, 1, 2)
CODE = re.compile(r"^[a-z0-9-]+")
COLUMNS = ("row", "data", "architecture", "time-steps", "accuracy (%)")


def runs(experiment: str, row: str, dataset: str = "digits") -> list[Path]:
    folders = [REFERENCE / experiment / "runs" / dataset / row / f"seed-{seed}" for seed in SEEDS]
    return [folder for folder in folders if folder.exists()]


def accuracies(experiment: str, row: str, dataset: str = "digits", step: int | None = None) -> np.ndarray:
    """Test accuracy of each seed, per cent, after a step or after the last one."""
    frames = [pd.read_csv(run / "anytime.csv", dtype={"correct": str}) for run in runs(experiment, row, dataset)]
    shown = [frame.set_index("time_step")["accuracy"] for frame in frames]
    return np.array([frame.iloc[-1] if step is None else frame[step] for frame in shown])


def spikes(experiment: str, row: str, dataset: str = "digits") -> np.ndarray:
    """Spikes per neuron of each seed, over all steps, weighted by the layers' operations."""
    frames = [pd.read_csv(run / "energy.csv") for run in runs(experiment, row, dataset)]
    last = [frame[frame["time_step"] == frame["time_step"].max()] for frame in frames]
    return np.array([np.average(frame["count_own"], weights=frame["macs"]) for frame in last])


def seconds(experiment: str, row: str, dataset: str = "digits") -> float:
    return np.mean([json.loads((run / "train.json").read_text())["seconds"] for run in runs(experiment, row, dataset)])


def spread(values: np.ndarray, digits: int = 2) -> str:
    text = f"{values.mean():.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {values.std(ddof=1):.{digits}f}"


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval of a difference that is paired by seed."""
    apart = one - other
    half = student.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / math.sqrt(len(apart))
    return apart.mean(), apart.mean() - half, apart.mean() + half


def interval(parts: tuple[float, float, float]) -> str:
    value, low, high = (f"{part:+.2f}".replace("-", "−") for part in parts)
    return f"{value} [{low}, {high}]"


def norm_line(row: str) -> str:
    """A norm with its chosen rate and decay, on both datasets. Without a norm, recordings have row `surrogate`."""
    cells = [f"`{row}`", spread(accuracies("demo-all", row)), spread(spikes("demo-all", row))]
    cells.append(f"{seconds('demo-all', row):.0f}")
    of_events = "surrogate" if row == "none" else row
    cells += [spread(what("demo-all", of_events, "digits-dvs")) for what in (accuracies, spikes)]
    return f"| {' | '.join(cells)} |"


def no_decay_line(row: str) -> str:
    """The same norm without decay of its parameters, minus with it; and whether that was predicted."""
    alone = "bntt" if row == "bntt-tuned" else row
    cells, right = [f"`{row}`"], []
    for what in (accuracies, spikes):
        without = what("norms-no-decay", alone)
        parts = difference(without, what("demo-all", row))
        cells += [spread(without), interval(parts)]
        more = what is spikes and row in PREDICTED_MORE_SPIKES
        right.append(parts[1] > 0 if more else parts[1] <= 0 <= parts[2])
    cells.insert(3, "right" if right[0] else "wrong")
    cells.append(("more: " if row in PREDICTED_MORE_SPIKES else "equal: ") + ("right" if right[1] else "wrong"))
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("row", NORMS)
def test_each_norms_line_is_what_was_measured(row):
    assert len(runs("demo-all", row)) == 3
    assert norm_line(row) in PAGE.splitlines()


@pytest.mark.parametrize("row", NO_DECAY)
def test_each_line_without_decay_is_what_was_measured(row):
    assert len(runs("norms-no-decay", "bntt" if row == "bntt-tuned" else row)) == 3
    assert no_decay_line(row) in PAGE.splitlines()


CONVERTED = {
    "conversion": ("ann", 512), "rmp": ("ann", 512), "conversion-vgg16": ("ann-vgg16", 512),
    "rmp-vgg16": ("ann-vgg16", 512), "conversion-tuned": ("ann", 100), "rmp-tuned": ("ann", 100),
    "conversion-local": ("ann", 100), "cao": ("ann-cao", 400), "hybrid": ("ann", 25), "hybrid-vgg16": ("ann-vgg16", 50),
}  # fmt: skip
EARLY = {"ann": 25, "ann-vgg16": 50}  # the steps of the fine-tuned network that starts from this one


def converted_line(row: str) -> str:
    """A network made from a dense one, minus that one; and its accuracy after the steps of the fine-tuned network."""
    start, steps = CONVERTED[row]
    reached = accuracies("demo-all", row, step=steps)
    early = spread(accuracies("demo-all", row, step=EARLY[start])) if start in EARLY else "–"
    apart = interval(difference(reached, accuracies("demo-all", start)))
    return f"| {' | '.join([f'`{row}`', f'`{start}`', str(steps), spread(reached), apart, early])} |"


@pytest.mark.parametrize("row", CONVERTED)
def test_each_conversions_line_is_what_was_measured(row):
    assert converted_line(row) in PAGE.splitlines()


def readme_lines() -> list[str]:
    """The lines of Table 1 that this experiment runs, as its own table shows them."""
    printed = next(iter(table1(Results.at(REFERENCE / "demo-all", here=False)).sections.values()))
    shown = printed[printed["Here: row"] != "–"][["Method", *(f"Here: {part}" for part in COLUMNS)]].to_numpy()
    lines = [[method.removesuffix(" (ours)"), CODE.sub(r"`\g<0>`", row), *rest] for method, row, *rest in shown]
    return [f"| {' | '.join(line)} |" for line in lines]


def test_the_readme_shows_table_1_of_demo_all():
    text = (PROJECT / "README.md").read_text(encoding="utf-8").partition("| line of Table 1 |")[2].partition("\n\n")[0]
    assert text.splitlines()[2:] == readme_lines()


def test_what_was_predicted_is_what_the_experiment_file_says():
    notes = " ".join((PROJECT / "config/norms-no-decay.yaml").read_text(encoding="utf-8").split())
    named = re.search(r"at least 0\.2 e-folds \(([^)]*)\)", notes)[1]
    assert sorted(re.findall(r"`([\w-]+)`", named)) == sorted({*PREDICTED_MORE_SPIKES, "bntt"} - {"bntt-tuned"})


if __name__ == "__main__":
    print("\n".join(readme_lines()))
    print("\n".join(map(converted_line, CONVERTED)))
    print("\n".join(norm_line(row) for row in NORMS))
    print("\n".join(no_decay_line(row) for row in NO_DECAY))
