"""The outcomes of docs/wave.md, computed from the runs of `wave-digits` and `wave-cifar10` by the rules written there.

Every function takes the results and returns a tidy frame, or named estimates. Differences are paired by seed, with
Student's interval. A row that has no result yet is left out; a comparison with fewer than two common seeds is None.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from bntt.common.errors import UserError
from bntt.results.collect import Results, at_threshold, last_step, select
from bntt.results.dead import SILENT
from bntt.results.effects import Effects, cause, holm, p_value, two_by_two
from bntt.results.energy import energy_ratios
from bntt.results.intervals import Estimate, paired_mean_difference, student_interval
from bntt.results.law import correlations, late_shares, predictions, settings

NEITHER, GAMMA, WEIGHTS, BOTH = "decay-neither", "decay-gamma", "decay-weights", "decay-both"
CENTRE = "centre"
AT_PAPERS_DECAY = (
    "leak-0", "leak-0-5", "leak-0-8", "leak-1", "steps-15", "steps-40", "vgg5",
    "leak-0-8-steps-15", "leak-0-8-steps-40", "leak-1-steps-15", "leak-1-steps-40",
)  # fmt: skip
WHERE_GAMMA_FALLS = ("falls-leak-0-8", "falls-leak-1", "falls-steps-15", "falls-steps-40", "falls-vgg5")
TRAINED_AT_EXIT = "exit-at-18"
REMEDIES = ("even-decay", "even-updates", "even-updates-no-decay")
LAW_HOLDS = 0.95  # least correlation of logarithms
MARGIN = 1.0  # of accuracy, in points, that counts as not worse
ENOUGH = 1.5  # steps, the largest median error that counts as a prediction
SILENCED = 20.0  # accuracy on CIFAR-10, in per cent, at or below which a run counts as silenced


def last_steps(time_steps: int) -> int:
    """How many steps are the end of T: a fifth, as 21 .. 25 of 25 and 13 .. 15 of 15."""
    return -(-time_steps // 5)


def has_wave_rows(results: Results) -> bool:
    """Whether an experiment compares gamma with and without decay."""
    return {NEITHER, GAMMA} <= set(results.experiment.rows)


# -- the law -----------------------------------------------------------------------------------------------------


def law(results: Results, row: str = GAMMA) -> pd.DataFrame:
    """For each layer the mean correlation over seeds, for gamma and for the membrane, and whether the law holds."""
    found = correlations(results, row)
    means = found.groupby("layer", sort=False).agg(
        leaky_layers=("leaky_layers", "first"),
        gamma=("gamma", "mean"),
        least=("gamma", "min"),
        membrane=("membrane", "mean"),
        last=("last", "mean"),
        law=("law", "first"),
        seeds=("seed", "nunique"),
    )
    return means.assign(holds=means["gamma"] >= LAW_HOLDS).reset_index()


# -- predicted and measured steps --------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """How a version of the law did: its median error in steps, and its mean error minus that of each rival."""

    version: str
    median_error: float
    minus: dict[str, Estimate]  # over settings; below 0 is better than the rival
    word: str  # predicted, refuted or undecided


RIVALS = ("same step", "same share")


def predicted(results: Results, outcome: str) -> pd.DataFrame:
    """Measured and predicted steps of every layer and setting but the centre; ``outcome``: ``reach``, ``half_fall``."""
    rows = AT_PAPERS_DECAY if outcome == "reach" else WHERE_GAMMA_FALLS
    centre = settings(results, [CENTRE if outcome == "reach" else GAMMA], outcome)
    others = settings(results, rows, outcome)
    if not centre or not others:
        return pd.DataFrame(columns=["row", "leaky_layers", "measured", "relative", "absolute", *RIVALS])
    return pd.concat([predictions(centre[0], other) for other in others], ignore_index=True)


def verdict(steps: pd.DataFrame, version: str) -> Verdict:
    """Whether a version of the law predicts the ``steps`` of `predicted`, by the rule of docs/wave.md."""
    errors = steps[[version, *RIVALS]].sub(steps["measured"], axis=0).abs()
    medians = errors.median()
    by_setting = errors.groupby(steps["row"], sort=False).mean()
    minus = {rival: student_interval(by_setting[version] - by_setting[rival]) for rival in RIVALS}
    better = medians[version] < medians[list(RIVALS)].min() and all(one.high < 0 for one in minus.values())
    if medians[version] <= ENOUGH and better:
        word = "predicted"
    else:
        word = "refuted" if any(one.low > 0 for one in minus.values()) else "undecided"
    return Verdict(version, float(medians[version]), minus, word)


# -- rows --------------------------------------------------------------------------------------------------------


def by_seed(results: Results) -> pd.DataFrame:
    """One line per measured run: accuracy at T, spikes per neuron, F, exit step, accuracy there, and under noise.

    Spikes are weighted by operations, as in the paper's energy. A run without an exit has the step T. F is missing
    where no neuron spikes.
    """
    keys = ["row", "seed"]
    frame = last_step(results.frame("anytime.csv"))[[*keys, "time_step", "accuracy"]]
    spikes = last_step(energy_ratios(results.frame("energy.csv")))[[*keys, "spikes"]]
    steps = int(frame["time_step"].max()) if len(frame) else 0
    exits = at_threshold(results.frame("early_exit.csv"), results.experiment.evaluation["exit_threshold"])
    exits = exits[[*keys, "exit_step", "exits", "accuracy"]].rename(columns={"accuracy": "accuracy_at_exit"})
    frame = frame.merge(spikes, on=keys, how="left").merge(late_shares(results, last_steps(steps)), on=keys, how="left")
    frame = frame.merge(exits, on=keys, how="left")
    noise = results.frame("noise.csv")
    for sigma, of_sigma in noise[noise["sigma"] > 0].groupby("sigma"):
        noisy = last_step(of_sigma)[[*keys, "accuracy"]].rename(columns={"accuracy": f"accuracy at σ = {sigma:g}"})
        frame = frame.merge(noisy, on=keys, how="left")
    words = {(one.run.row, one.run.seed): results.dead(one) for one in results.runs}
    silent = {key for key, dead in words.items() if dead is not None and dead.word == SILENT}
    return frame.assign(silent=[key in silent for key in zip(frame["row"], frame["seed"], strict=True)])


def difference(
    runs: pd.DataFrame, row: str, other: str, column: str, other_column: str | None = None
) -> Estimate | None:
    """``column`` of ``row`` minus ``other_column`` (the same, by default) of ``other``, paired by seed."""
    values = _paired(runs, row, other, column, other_column)
    return paired_mean_difference(values["one"], values["other"]) if len(values) > 1 else None


def _paired(runs: pd.DataFrame, row: str, other: str, column: str, other_column: str | None = None) -> pd.DataFrame:
    one = select(runs, row=row).set_index("seed")[column]
    two = select(runs, row=other).set_index("seed")[other_column or column]
    return pd.DataFrame({"one": one, "other": two}).dropna().astype(float)


def decay_effects(runs: pd.DataFrame) -> tuple[Effects, str, int] | None:
    """Effects of weight decay on gamma and on the other weights on F, which of them makes the fall, number of seeds."""
    cells = {row: select(runs, row=row).set_index("seed")["F"].dropna() for row in (NEITHER, GAMMA, WEIGHTS, BOTH)}
    common = sorted(set.intersection(*(set(cell.index) for cell in cells.values())))
    if len(common) < 2:
        return None
    found = two_by_two(*(cells[row].loc[common] for row in (NEITHER, GAMMA, WEIGHTS, BOTH)))
    word = {"first": "gamma decay", "second": "weight decay"}.get(cause(*found), cause(*found))
    return found, word, len(common)


def rows(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of each row, with the number of seeds and of silent ones."""
    columns = [name for name in runs.columns if name not in ("row", "seed", "time_step", "exits", "silent")]
    grouped = runs[runs["row"].isin(names)].groupby("row", sort=False)
    parts = {column: grouped[column].agg(["mean", "std"]) for column in columns}
    table = pd.concat(parts, axis=1)
    table.insert(0, "seeds", grouped.size())
    table.insert(1, "silent", grouped["silent"].sum())
    return table.reindex([name for name in names if name in table.index])


def primaries(digits: pd.DataFrame | None, photographs: pd.DataFrame | None) -> pd.DataFrame:
    """The six primary tests of docs/wave.md: their p-values, and which are rejected together by Holm's method.

    ``digits`` and ``photographs`` are `by_seed` of the two experiments. Raises UserError if one of the tests cannot be
    made yet, as Holm's method needs them all.
    """
    if digits is None or photographs is None:
        raise UserError("Holm's method needs all six primary tests: run wave-digits and wave-cifar10 first")
    cells = {row: select(digits, row=row).set_index("seed")["F"] for row in (NEITHER, GAMMA, WEIGHTS, BOTH)}
    main = (cells[GAMMA] - cells[NEITHER] + cells[BOTH] - cells[WEIGHTS]) / 2

    def differ(runs: pd.DataFrame, row: str, other: str, column: str, other_column: str | None = None) -> pd.Series:
        values = _paired(runs, row, other, column, other_column)
        return values["one"] - values["other"]

    tests = {
        "gamma decay changes F, digits": p_value(main.dropna()),
        "trained at the exit step is as good": p_value(
            differ(digits, TRAINED_AT_EXIT, GAMMA, "accuracy", "accuracy_at_exit"), MARGIN
        ),
        "even-decay is not worse": p_value(differ(digits, "even-decay", GAMMA, "accuracy"), MARGIN),
        "even-updates is not worse": p_value(differ(digits, "even-updates", GAMMA, "accuracy"), MARGIN),
        "gamma decay changes F, CIFAR-10": p_value(differ(photographs, GAMMA, NEITHER, "F")),
        "gamma decay changes the accuracy, CIFAR-10": p_value(differ(photographs, GAMMA, NEITHER, "accuracy")),
    }
    rejected = holm(tests)
    return pd.DataFrame([{"test": name, "p": p, "shown": rejected[name]} for name, p in tests.items()])
