"""The outcomes of docs/wave.md, computed from the runs of `wave-digits` and `wave-cifar10` by the rules written there.

Differences are paired by seed and have Student's interval. What has no result yet is left out, and an outcome to which
planned runs are missing, or diverged, is called preliminary.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from bntt.common.errors import UserError
from bntt.common.text import DASH, counted, interval, number
from bntt.results.collect import Results, at_threshold, last_step, select
from bntt.results.effects import Effects, cause, holm, p_value, two_by_two
from bntt.results.energy import energy_ratios
from bntt.results.intervals import Estimate, interval_over_seeds, paired_mean_difference, student_interval
from bntt.results.law import correlations, is_silent, late_shares, predictions, settings
from bntt.training.paths import paths

NEITHER, GAMMA, WEIGHTS, BOTH = "decay-neither", "decay-gamma", "decay-weights", "decay-both"
FACTORIAL = (NEITHER, GAMMA, WEIGHTS, BOTH)
CENTRE = "centre"
AT_PAPERS_DECAY = (
    "leak-0", "leak-0-5", "leak-0-8", "leak-1", "steps-15", "steps-40", "vgg5",
    "leak-0-8-steps-15", "leak-0-8-steps-40", "leak-1-steps-15", "leak-1-steps-40",
)  # fmt: skip
WHERE_GAMMA_FALLS = ("falls-leak-0-8", "falls-leak-1", "falls-steps-15", "falls-steps-40", "falls-vgg5")
SHORT_MEMORY = ("leak-0", "leak-0-5")
TRAINED_AT_EXIT = "exit-at-18"
REMEDIES = ("even-decay", "even-updates", "even-updates-no-decay")
MORE_DECAY = (NEITHER, "gamma-milder", GAMMA, "gamma-stronger")
NO_NORM = {25: "no-norm-25", 50: "no-norm-50", 100: "no-norm-100"}
LAW_HOLDS = 0.95  # least correlation of logarithms
MARGIN = 1.0  # of accuracy, in points, that counts as not worse
ENOUGH = 1.5  # steps, the largest median error that counts as a prediction
SILENCED = 20.0  # accuracy on photographs, in per cent, at or below which a run counts as silenced
VERSIONS = ("relative", "absolute", "first step")  # of the law; the last is exploratory
RIVALS = ("same step", "same share")


class Outcome(NamedTuple):
    """One prediction of docs/wave.md, what was found, and whether it was right."""

    part: str
    predicted: str
    found: str
    outcome: str  # right, wrong, undecided; with ``, preliminary`` while planned runs are missing


# -- runs --------------------------------------------------------------------------------------------------------


def by_seed(results: Results) -> pd.DataFrame:
    """One line per measured run: accuracy at T, spikes per neuron, F, exit step, accuracy there, and under noise.

    Spikes are weighted by operations, as in the paper's energy. A run without an exit has the step T. F is missing
    where no neuron spikes. ``silent`` is ``silent`` or ``silenced`` (photographs, at most 20 % right), else empty.
    """
    keys = ["row", "seed"]
    frame = last_step(results.frame("anytime.csv"))[[*keys, "time_step", "accuracy"]]
    spikes = last_step(energy_ratios(results.frame("energy.csv")))[[*keys, "spikes"]]
    exits = at_threshold(results.frame("early_exit.csv"), results.experiment.evaluation["exit_threshold"])
    exits = exits[[*keys, "exit_step", "accuracy"]].rename(columns={"accuracy": "accuracy_at_exit"})
    frame = frame.merge(spikes, on=keys, how="left").merge(late_shares(results), on=keys, how="left")
    frame = frame.merge(exits, on=keys, how="left")
    noise = results.frame("noise.csv")
    for sigma, of_sigma in noise[noise["sigma"] > 0].groupby("sigma"):
        noisy = last_step(of_sigma)[[*keys, "accuracy"]].rename(columns={"accuracy": f"accuracy at σ = {sigma:g}"})
        frame = frame.merge(noisy, on=keys, how="left")
    never = {key for key, part in results.frame("spikes.csv").groupby(keys) if is_silent(part)}
    digits = results.experiment.datasets[0] == "digits"
    words = [
        "silent" if (one.row, one.seed) in never else "silenced" if one.accuracy <= SILENCED and not digits else ""
        for one in frame.itertuples()
    ]
    return frame.assign(silent=words)


def difference(
    runs: pd.DataFrame, row: str, other: str, column: str, other_column: str | None = None
) -> Estimate | None:
    """``column`` of ``row`` minus ``other_column`` (the same, by default) of ``other``; None below two common seeds."""
    return interval_over_seeds(_differences(runs, row, other, column, other_column))


def _differences(runs: pd.DataFrame, row: str, other: str, column: str, other_column: str | None = None) -> pd.Series:
    one = select(runs, row=row).set_index("seed")[column].astype(float)
    return (one - select(runs, row=other).set_index("seed")[other_column or column].astype(float)).dropna()


def rows(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Mean ± standard deviation over seeds of every column of `by_seed`, a line for each row that has runs."""
    columns = [name for name in runs.columns if name not in ("row", "seed", "time_step", "silent")]
    lines = []
    for name in names:
        of_row = select(runs, row=name)
        if len(of_row):
            silent = (of_row["silent"] != "").sum()
            line = {"row": name, "seeds": f"{len(of_row)}" + (f", {silent} silent" if silent else "")}
            cells = {column: (of_row[column].mean(), of_row[column].std()) for column in columns}
            lines.append(line | {key.replace("_", " "): _mean_and_spread(*cell) for key, cell in cells.items()})
    return pd.DataFrame(lines)


def _mean_and_spread(mean: float, spread: float) -> str:
    return DASH if math.isnan(mean) else f"{number(mean, 2)} ± {number(spread, 2)}"


# -- the law -----------------------------------------------------------------------------------------------------


class LawOfLayer(NamedTuple):
    """Whether a layer's gradients follow the law before training; means over seeds, NaN where a seed has no value."""

    layer: str
    leaky_layers: int  # m
    gamma: float  # correlation of the logarithms of gamma's gradient and P_m
    least: float  # the smallest of a seed
    membrane: float  # the same correlation for the membrane's gradient
    last: float  # gamma's gradient at the last step as a share of that at the first
    law: float  # the same by the law
    factor: float  # by which shares of all steps are off in the mean, see `bntt.results.law.distance`
    own: int  # seeds in which no other m has a nearer law
    seeds: int
    holds: bool


def law(results: Results, row: str = GAMMA) -> pd.DataFrame:
    """`LawOfLayer` for each layer of a row, a line each, in the order of the layers."""
    lines = []
    for layer, of_layer in correlations(results, row).groupby("layer", sort=False):
        m, gamma = int(of_layer["leaky_layers"].iloc[0]), of_layer["gamma"].to_numpy()
        one = LawOfLayer(
            layer=str(layer),
            leaky_layers=m,
            gamma=gamma.mean(),
            least=gamma.min(),
            membrane=of_layer["membrane"].to_numpy().mean(),
            last=of_layer["last"].mean(),
            law=of_layer["law"].iloc[0],
            factor=math.exp(of_layer["distance"].mean()),
            own=int((of_layer["nearest"] == m).sum()),
            seeds=len(gamma),
            holds=bool(gamma.mean() >= LAW_HOLDS),
        )
        lines.append(one)
    return pd.DataFrame(lines, columns=LawOfLayer._fields)


def growth_without_a_norm(results: Results) -> dict[tuple[int, int], tuple[Estimate, float]]:
    """For T = 25 to 50 and 50 to 100: by which factor conv1's gradient at t = 1 grows, and by which the law says.

    Of the membrane, before training; the mean over seeds is that of the logarithms.
    """
    gradients = select(results.frame("gradients.csv"), layer="conv1", time_step=1, epoch=0)
    logs = {steps: np.log(select(gradients, row=row).set_index("seed")["membrane"]) for steps, row in NO_NORM.items()}
    found = {}
    for fewer, more in ((25, 50), (50, 100)):
        difference = (logs[more] - logs[fewer]).dropna()
        if len(difference) > 1:
            leak = results.of_row(NO_NORM[fewer])[0].run.options["leak"]
            expected = paths(8, more - 1, leak) / more / (paths(8, fewer - 1, leak) / fewer)
            found[fewer, more] = Estimate(*(math.exp(end) for end in student_interval(difference))), expected
    return found


# -- predicted and measured steps --------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """How a version of the law did: its median error in steps, and its mean error minus that of each rival."""

    version: str
    median_error: float
    minus: dict[str, Estimate]  # over settings; below 0 is better than the rival
    word: str  # predicted, refuted or undecided


def predicted(results: Results, outcome: str) -> pd.DataFrame:
    """Measured and predicted steps of every layer and setting but the centre; ``outcome``: ``reach``, ``half_fall``."""
    others = settings(results, AT_PAPERS_DECAY if outcome == "reach" else WHERE_GAMMA_FALLS, outcome)
    centre = settings(results, [CENTRE if outcome == "reach" else GAMMA], outcome)
    if not centre or not others:
        return pd.DataFrame(columns=["row", "leaky_layers", "measured", *VERSIONS, *RIVALS])
    beyond = int(outcome == "half_fall")
    return pd.concat([predictions(centre[0], other, beyond) for other in others], ignore_index=True)


def verdict(steps: pd.DataFrame, version: str) -> Verdict:
    """Whether a version of the law predicts the ``steps`` of `predicted`. ValueError for fewer than two settings."""
    errors = steps[[version, *RIVALS]].sub(steps["measured"], axis=0).abs()
    medians = errors.median()
    by_setting = errors.groupby(steps["row"], sort=False).mean()
    minus = {rival: paired_mean_difference(by_setting[version], by_setting[rival]) for rival in RIVALS}
    better = medians[version] < medians[list(RIVALS)].min() and all(one.high < 0 for one in minus.values())
    if medians[version] <= ENOUGH and better:
        word = "predicted"
    else:
        word = "refuted" if any(one.low > 0 for one in minus.values()) else "undecided"
    return Verdict(version, float(medians[version]), minus, word)


# -- effects and tests -------------------------------------------------------------------------------------------


def decay_effects(runs: pd.DataFrame) -> tuple[Effects, str, int] | None:
    """Effects of the decay of gamma and of the other weights on F, which makes the fall, and the number of seeds."""
    cells = {row: select(runs, row=row).set_index("seed")["F"].dropna() for row in FACTORIAL}
    common = sorted(set.intersection(*(set(cell.index) for cell in cells.values())))
    if len(common) < 2:
        return None
    found = two_by_two(*(cells[row].loc[common] for row in FACTORIAL))
    word = cause(*found)
    return found, {"first": "gamma decay", "second": "weight decay"}.get(word, word), len(common)


def primaries(digits: pd.DataFrame, photographs: pd.DataFrame) -> pd.DataFrame:
    """The six primary tests of docs/wave.md: their p-values, and which are shown together by Holm's method.

    ``digits`` and ``photographs`` are `by_seed` of the two experiments. UserError if a test has fewer than two seeds.
    """
    cells = {row: select(digits, row=row).set_index("seed")["F"] for row in FACTORIAL}
    main = (cells[GAMMA] - cells[NEITHER] + cells[BOTH] - cells[WEIGHTS]) / 2
    tests: dict[str, tuple[pd.Series, float | None]] = {
        "gamma decay changes F, digits": (main.dropna(), None),
        "trained at the exit step is as good": (
            _differences(digits, TRAINED_AT_EXIT, GAMMA, "accuracy", "accuracy_at_exit"),
            MARGIN,
        ),
        "even-decay is not worse": (_differences(digits, "even-decay", GAMMA, "accuracy"), MARGIN),
        "even-updates is not worse": (_differences(digits, "even-updates", GAMMA, "accuracy"), MARGIN),
        "gamma decay changes F, CIFAR-10": (_differences(photographs, GAMMA, NEITHER, "F"), None),
        "gamma decay changes the accuracy, CIFAR-10": (_differences(photographs, GAMMA, NEITHER, "accuracy"), None),
    }
    found = {}
    for name, (values, margin) in tests.items():
        try:
            found[name] = p_value(values, margin)
        except ValueError as error:
            raise UserError(f"Holm's method needs all six tests, and of `{name}` {error}") from None
    shown = holm(found)
    lines = [
        {"test": name, "mean": float(tests[name][0].mean()), "seeds": len(tests[name][0]), "p": p, "shown": shown[name]}
        for name, p in found.items()
    ]
    return pd.DataFrame(lines)


# -- every prediction --------------------------------------------------------------------------------------------


def outcomes(results: Results, runs: pd.DataFrame) -> list[Outcome]:
    """Every prediction of docs/wave.md about an experiment of which there are results, in the order of the page."""
    about = _Predictions(results, runs)
    return about.of_digits() if results.experiment.datasets[0] == "digits" else about.of_photographs()


class _Predictions:
    def __init__(self, results: Results, runs: pd.DataFrame) -> None:
        self.results, self.runs, self.made = results, runs, list[Outcome]()
        self.law = law(results)

    def add(self, part: str, prediction: str, found: str, outcome: str, needed: Iterable[str]) -> None:
        """Note an outcome that rests on all runs of the rows that are ``needed``."""
        missing = any(not one.status.measured for row in needed for one in self.results.of_row(row))
        self.made.append(Outcome(part, prediction, found, outcome + ", preliminary" * missing))

    def side(
        self, part: str, prediction: str, estimate: Estimate | None, right: Callable[[Estimate], bool],
        wrong: Callable[[Estimate], bool], needed: Iterable[str],
    ) -> None:  # fmt: skip
        """Note a prediction about an interval, which is right, or wrong, or neither."""
        if estimate is not None:
            word = "right" if right(estimate) else "wrong" if wrong(estimate) else "undecided"
            self.add(part, prediction, interval(estimate), word, needed)

    def above(self, part: str, words: str, estimate: Estimate | None, limit: float, needed: Iterable[str]) -> None:
        self.side(part, words, estimate, lambda e: e.low > limit, lambda e: e.high < limit, needed)

    def below(self, part: str, words: str, estimate: Estimate | None, limit: float, needed: Iterable[str]) -> None:
        self.side(part, words, estimate, lambda e: e.high < limit, lambda e: e.low > limit, needed)

    def mean(self, row: str, column: str) -> Estimate | None:
        return interval_over_seeds(select(self.runs, row=row)[column])

    def the_law(self) -> None:
        found = self.law
        if len(found):
            least = found.loc[found["gamma"].fillna(-math.inf).idxmin()]
            words = f"least in {least['layer']}: {number(least['gamma'], 4)}"
            refuted = (found["gamma"] < LAW_HOLDS).any()
            word = "right" if found["holds"].all() else "wrong" if refuted else "undecided"
            self.add("the law", "correlation at least 0.95 in every layer", words, word, [GAMMA])

    def whose_law(self) -> None:
        """Whether each layer is told from the others by its gradients; predicted of photographs only."""
        found = self.law
        if len(found):
            least = found.loc[(found["own"] / found["seeds"]).idxmin()]
            words = f"least often in {least['layer']}: {least['own']} of {counted(least['seeds'], 'seed')}"
            right = "right" if (found["own"] > found["seeds"] / 2).all() else "wrong"
            self.add("the law", "no other m is nearer in most seeds, in every layer", words, right, [GAMMA])

    def of_photographs(self) -> list[Outcome]:
        needed = (GAMMA, NEITHER)
        self.the_law()
        self.whose_law()
        for column, words, limit in (("F", "F is lower by more than 0.3 with decay", -0.3),
                                     ("accuracy", "decay lowers the accuracy", 0.0),
                                     ("spikes", "decay saves spikes", 0.0)):  # fmt: skip
            self.below("photographs", words, difference(self.runs, GAMMA, NEITHER, column), limit, needed)
        return self.made

    def of_digits(self) -> list[Outcome]:
        self.the_law()
        if (effects := decay_effects(self.runs)) is not None:
            (gamma, weights, interaction), word, _ = effects
            text = f"{word}: gamma {interval(gamma)}, weights {interval(weights)}, interaction {interval(interaction)}"
            right = "right" if word == "gamma decay" else "undecided" if word == "undecided" else "wrong"
            self.add("decay of what?", "gamma decay makes the fall", text, right, FACTORIAL)
        self._steps()
        exited = difference(self.runs, TRAINED_AT_EXIT, GAMMA, "accuracy", "accuracy_at_exit")
        words = "trained at the exit step is as good: above -1 point"
        self.above("early exit", words, exited, -MARGIN, (TRAINED_AT_EXIT, GAMMA))
        for row in REMEDIES:
            accuracy, late = (difference(self.runs, row, GAMMA, column) for column in ("accuracy", "F"))
            self.above("remedies", f"{row} is not worse: above -1 point", accuracy, -MARGIN, (row, GAMMA))
            if row != REMEDIES[-1]:
                self.above("remedies", f"{row} has no wave: F larger by more than 0.3", late, 0.3, (row, GAMMA))
        for milder, stronger in pairwise(MORE_DECAY):
            saved = difference(self.runs, stronger, milder, "spikes")
            self.below("more decay", f"fewer spikes in {stronger} than in {milder}", saved, 0, (stronger, milder))
        for row in ("gamma-alone", "slowly", "pooled-step-gamma"):
            self.below("more decay", f"F of {row} below 0.3", self.mean(row, "F"), 0.3, [row])
        self.above("more decay", "F of shared-gamma above 0.7", self.mean("shared-gamma", "F"), 0.7, ["shared-gamma"])
        for (fewer, more), (factor, expected) in growth_without_a_norm(self.results).items():
            near = 0.5 <= factor.value / expected <= 2
            words = (
                f"conv1's gradient grows {number(expected, 1)} times from T = {fewer} to {more}, up to a factor of 2"
            )
            needed = (NO_NORM[fewer], NO_NORM[more])
            self.add("without a norm", words, interval(factor, 1), "right" if near else "wrong", needed)
        return self.made

    def _steps(self) -> None:
        cases = (
            ("reach", "absolute", (CENTRE, *AT_PAPERS_DECAY)),
            ("half_fall", "relative", (GAMMA, *WHERE_GAMMA_FALLS)),
        )
        for outcome, version, needed in cases:
            steps = predicted(self.results, outcome)
            if steps["row"].nunique() > 1:
                one = verdict(steps, version)
                rivals = ", ".join(f"that of {rival} {interval(minus)}" for rival, minus in one.minus.items())
                text = f"{one.word}: median error {number(one.median_error, 1)} steps; mean error minus {rivals}"
                word = {"predicted": "right", "refuted": "wrong"}.get(one.word, one.word)
                name = "reach" if outcome == "reach" else "where gamma falls"
                self.add(name, f"the {version} version of the law predicts it", text, word, needed)
            errors = (steps["relative"] - steps["measured"]).abs().groupby(steps["row"]).median()
            if outcome == "reach" and set(SHORT_MEMORY) <= set(errors.index):
                text = ", ".join(f"median error {number(errors[row], 1)} steps in {row}" for row in SHORT_MEMORY)
                right = "right" if (errors[list(SHORT_MEMORY)] > ENOUGH).all() else "wrong"
                self.add("reach", "the relative version fails at leak 0 and 0.5", text, right, (CENTRE, *SHORT_MEMORY))
