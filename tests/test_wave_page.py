"""The tables of docs/wave.md, and some of its sentences, are what the committed measurements give by its rules."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from tiny import PROJECT

from bntt.common.text import interval, number
from bntt.experiment.schema import load
from bntt.results import wave_study as wave
from bntt.results.collect import Results, select
from bntt.results.law import correlations, leaky_layers, log_correlation, settings

PAGE = (PROJECT / "docs" / "wave.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
REFERENCE = PROJECT / "results" / "reference"
PHOTOGRAPHS = "wave-cifar10"
ROWS = [
    *wave.FACTORIAL, "gamma-alone", "gamma-milder", "gamma-stronger", "slowly", "shared-gamma", "pooled-step-gamma",
    wave.TRAINED_AT_EXIT, *wave.REMEDIES, wave.CENTRE, *wave.AT_PAPERS_DECAY, *wave.WHERE_GAMMA_FALLS,
]  # fmt: skip


@cache
def results(name="wave-digits"):
    return Results(load(name), REFERENCE, here=False)


@cache
def runs(name="wave-digits"):
    return wave.by_seed(results(name))


def line(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def outcome_lines(name="wave-digits"):
    return [line(one.part, one.predicted, one.found, one.outcome) for one in wave.outcomes(results(name), runs(name))]


def law_lines(name="wave-digits"):
    return [
        line(one.layer, one.leaky_layers, *(number(value, 4) for value in (one.gamma, one.least, one.membrane)),
             f"{one.last:.1e}", f"{one.law:.1e}", number(one.factor, 2), f"{one.own} of {one.seeds}")
        for one in wave.law(results(name)).itertuples()
    ]  # fmt: skip


def row_lines(rows=tuple(ROWS), name="wave-digits"):
    table = wave.rows(runs(name), rows)
    columns = [column for column in table.columns if column != "accuracy at exit"]
    return [line(f"`{cells[0]}`", *cells[1:]) for cells in table[columns].itertuples(index=False)]


def steps_of(values):
    return ", ".join(number(step, 1) for step in values)


def step_lines(outcome, versions):
    """Measured and predicted steps of each setting, from its first layer to its last."""
    steps = wave.predicted(results(), outcome)
    (fitted,) = settings(results(), [wave.CENTRE if outcome == "reach" else wave.GAMMA], outcome)
    return [line(f"`{fitted.row}`", steps_of(fitted.measured.values()), *["fitted"] * len(versions))] + [
        line(f"`{row}`", *(steps_of(part[column]) for column in ("measured", *versions)))
        for row, part in steps.groupby("row", sort=False)
    ]


def version_lines():
    """How each version of the prediction does: errors in steps over all settings, at another depth, and in numbers."""
    steps = wave.predicted(results(), "reach")
    lines = []
    for version in (*wave.VERSIONS, *wave.RIVALS):
        errors = (steps[version] - steps["measured"]).abs()
        of_depth = errors[steps["row"] == "vgg5"]
        numbers = [number(one, 1) for one in (errors.median(), errors.mean(), of_depth.median())]
        cells = ["–", "–", "–"]
        if version in wave.VERSIONS:
            one = wave.verdict(steps, version)
            cells = [*map(interval, one.minus.values()), one.word]
        lines.append(line(version, *numbers, *cells))
    return lines


MORE_DECAY = (wave.GAMMA, "slowly", wave.TRAINED_AT_EXIT, "gamma-milder", "gamma-stronger", *wave.WHERE_GAMMA_FALLS)


def reach_lines(rows=MORE_DECAY, name="wave-digits"):
    """The exit step of rows, and how far their gamma is driven; means over seeds."""
    exits = runs(name).groupby("row")["exit_step"].mean()
    return [
        line(f"`{one.row}`", one.seeds, number(exits[one.row], 1), steps_of(one.measured.values()))
        for one in settings(results(name), rows, "reach", seeds=8)
    ]


DIFFERENCES = [
    ("decay-gamma", "decay-neither", ("accuracy", "spikes", "accuracy at σ = 0.4")),
    ("exit-at-18", "decay-gamma", ("spikes",)),
    ("slowly", "decay-gamma", ("spikes", "accuracy at σ = 0.4")),
    ("slowly", "decay-neither", ("accuracy at σ = 0.4",)),
    ("even-updates", "decay-gamma", ("spikes", "accuracy at σ = 0.4")),
    ("even-updates", "decay-neither", ("accuracy at σ = 0.4",)),
    ("even-decay", "decay-gamma", ("spikes", "accuracy at σ = 0.4")),
]


def difference_lines():
    """Differences that were not predicted."""
    return [
        line(f"`{row}` minus `{other}`", column, interval(wave.difference(runs(), row, other, column)))
        for row, other, columns in DIFFERENCES
        for column in columns
    ]


def anytime_lines(rows, steps, name="wave-digits"):
    """Mean accuracy over seeds after some steps."""
    curves = results(name).frame("anytime.csv").groupby(["row", "time_step"])["accuracy"].mean()
    return [line(f"`{row}`", *(number(curves[row, step], 1) for step in steps)) for row in rows]


def training_lines(row, name="wave-digits"):
    """Mean over seeds of the correlation of gamma's gradient with the law, by epoch; none where a gradient is 0."""
    gradients = results(name).frame("gradients.csv", row=row)
    lines = []
    for epoch, of_epoch in gradients.groupby("epoch"):
        means = []
        for layer, m in leaky_layers(gradients["layer"]).items():
            curves = select(of_epoch, layer=layer).pivot(index="time_step", columns="seed", values="gamma")
            means.append(curves.apply(log_correlation, args=(m, 0.95)).mean(skipna=False))
        lines.append(line(f"`{row}`", epoch, *(number(mean, 3) for mean in means)))
    return lines


def sharpness_lines():
    """Without decay of gamma, by epoch: how often the own m is nearest, and by which factors shares are off."""
    lines = []
    for epoch in (0, 5, 10, 20):
        found = correlations(results(), wave.NEITHER, seeds=8, epoch=epoch)
        own = int((found["nearest"] == found["leaky_layers"]).sum())
        factors = np.exp(found.groupby("layer")["distance"].mean())
        lines.append(line(epoch, f"{own} of {len(found)}", f"{number(factors.min(), 2)} to {number(factors.max(), 2)}"))
    return lines


def setting_lines():
    """The law before training in the settings of the reach: least mean correlation of a layer, and own m."""
    lines = []
    for row in (wave.CENTRE, *wave.AT_PAPERS_DECAY):
        found = correlations(results(), row)
        means = found.groupby("layer")["gamma"].mean()
        own = int((found["nearest"] == found["leaky_layers"]).sum())
        same = means.isna().all()  # leak 0: no gradient falls, whatever m is
        cells = ["–", "–"] if same else [f"{number(means.min(), 3)} ({means.idxmin()})", f"{own} of {len(found)}"]
        lines.append(line(f"`{row}`", *cells))
    return lines


def last_step_lines():
    """The last steps of `even-updates`: mean gamma of three layers, and spikes, mean over layers; over seeds."""
    gammas, spikes = (results().frame(name, row="even-updates") for name in ("gamma_quartiles.csv", "spikes.csv"))
    mean, counts = gammas.groupby(["time_step", "layer"])["mean"].mean(), spikes.groupby("time_step")["spikes"].mean()
    return [
        line(t, *(number(mean[t, layer], 2) for layer in ("conv1", "conv4", "fc1")), number(counts[t], 3))
        for t in range(21, 26)
    ]


def front_lines():
    """With decay of gamma: when a layer's input arrives, its gamma rises, and gamma and spikes peak; means over seeds.

    Input arrives at the first step at which the layer below has a tenth of its largest spikes; gamma rises at the first
    at which its mean has half of its largest value.
    """
    gammas = results().frame("gamma_quartiles.csv", row=wave.GAMMA)
    spikes = results().frame("spikes.csv", row=wave.GAMMA)
    found = {}
    for seed in sorted(set(gammas["seed"])):
        mean, counts = (
            select(frame, seed=seed).pivot(index="time_step", columns="layer", values=value)
            for frame, value in ((gammas, "mean"), (spikes, "spikes"))
        )
        for below, layer in pairwise(dict.fromkeys(gammas["layer"])):
            arrives = (counts[below] >= 0.1 * counts[below].max()).idxmax()
            rises = (mean[layer] >= mean[layer].max() / 2).idxmax()
            peaks = mean[layer].idxmax(), counts[layer].idxmax()
            found.setdefault(layer, []).append((arrives, rises, *peaks))
    return [line(layer, *(number(step, 1) for step in np.mean(of_seeds, axis=0))) for layer, of_seeds in found.items()]


def primary_lines():
    found = wave.primaries(runs(), runs(PHOTOGRAPHS))
    return [
        line(one.test, number(one.mean, 2), one.seeds, f"{one.p:.1e}", "yes" if one.shown else "no")
        for one in found.itertuples()
    ]


TABLES = {
    "outcomes": outcome_lines,
    "rows": row_lines,
    "law": law_lines,
    "settings": setting_lines,
    "training": lambda: [*training_lines(wave.NEITHER), *training_lines(wave.GAMMA)],
    "sharpness": sharpness_lines,
    "versions": version_lines,
    "reach": lambda: step_lines("reach", ("absolute", "first step")),
    "fall": lambda: step_lines("half_fall", ("relative",)),
    "driven": reach_lines,
    "anytime": lambda: anytime_lines(
        (wave.NEITHER, wave.GAMMA, wave.TRAINED_AT_EXIT, "even-updates", "even-decay"), (3, 5, 7, 9, 12, 15, 18)
    ),
    "last": last_step_lines,
    "differences": difference_lines,
    "front": front_lines,
    "outcomes on photographs": lambda: outcome_lines(PHOTOGRAPHS),
    "rows on photographs": lambda: row_lines((wave.NEITHER, wave.GAMMA), PHOTOGRAPHS),
    "anytime on photographs": lambda: anytime_lines((wave.NEITHER, wave.GAMMA), (2, 4, 5, 6, 7, 9, 15), PHOTOGRAPHS),
    "driven on photographs": lambda: reach_lines((wave.NEITHER, wave.GAMMA), PHOTOGRAPHS),
    "law on photographs": lambda: law_lines(PHOTOGRAPHS),
    "training on photographs": lambda: [
        *training_lines(wave.NEITHER, PHOTOGRAPHS),
        *training_lines(wave.GAMMA, PHOTOGRAPHS),
    ],
    "primaries": primary_lines,
}


def blocks(text):
    """The tables of a page: the lines of each after its heading and the line under it."""
    found = [[]]
    for one in text.splitlines():
        if one.startswith("| "):
            found[-1].append(one)
        elif found[-1]:
            found.append([])
    return [block[2:] for block in found if block]


@pytest.mark.slow
def test_every_table_of_the_page_is_what_was_measured():
    """In this order, and there is no other table among the results."""
    page = blocks(PAGE.partition("## What came out")[2])
    expected = [lines() for lines in TABLES.values()]
    for name, there, made in zip(TABLES, page, expected, strict=True):
        assert there == made, name


@pytest.mark.slow
def test_what_the_page_says_of_correlation_and_of_zeros():
    """Any m correlates by 0.97; with decay, gamma's gradient is 0 only where the layer below hardly spikes."""
    gradients = results().frame("gradients.csv", row=wave.GAMMA)
    before = gradients[(gradients["epoch"] == 0) & (gradients["seed"] < 5)]
    for _, of_layer in before.groupby("layer"):
        curves = of_layer.pivot(index="time_step", columns="seed", values="gamma")
        assert all(curves.apply(log_correlation, args=(m, 0.95)).mean() >= 0.97 for m in range(1, 10))

    spikes = results().frame("spikes.csv", row=wave.GAMMA).set_index(["seed", "layer", "time_step"])["spikes"]
    ended = select(gradients, epoch=20)
    layers = list(dict.fromkeys(ended["layer"]))
    assert (select(ended, layer="conv1")["gamma"] > 0).all()
    for below, layer in pairwise(layers):
        zero = select(ended, layer=layer, gamma=0)
        there = [spikes[seed, below, t] for seed, t in zip(zero["seed"], zero["time_step"], strict=True)]
        largest = [spikes[seed, below].max() for seed in zero["seed"]]
        assert (np.array(there) < 0.02 * np.array(largest)).all()


@pytest.mark.slow
def test_with_even_decay_spikes_start_later_in_deeper_layers_and_later_than_with_decay():
    def starts(row):
        """Mean over seeds of the first step with a tenth of the layer's largest spikes."""
        spikes = results().frame("spikes.csv", row=row)
        curves = spikes.pivot(index="time_step", columns=["layer", "seed"], values="spikes")
        return (curves >= 0.1 * curves.max()).idxmax().groupby(level="layer", sort=False).mean()

    even, decayed = starts("even-decay"), starts(wave.GAMMA)
    assert even.is_monotonic_increasing
    assert (even > decayed).all()


@pytest.mark.slow
def test_what_the_page_says_of_photographs():
    of_row = {row: select(runs(PHOTOGRAPHS), row=row) for row in (wave.NEITHER, wave.GAMMA)}
    assert round(of_row[wave.NEITHER]["spikes"].mean() / of_row[wave.GAMMA]["spikes"].mean()) == 24
    assert (of_row[wave.GAMMA]["exit_step"] == 9).all()
    lost = wave.difference(runs(PHOTOGRAPHS), wave.GAMMA, wave.GAMMA, "accuracy", "accuracy_at_exit")
    assert f"loses {interval(lost)} at its exit at t = 9" in TEXT

    raised = wave.difference(runs(PHOTOGRAPHS), wave.GAMMA, wave.NEITHER, "accuracy")
    assert f"{interval(raised, 1)} points more accurate" in (PROJECT / "README.md").read_text(encoding="utf-8")
    saved = wave.difference(runs(PHOTOGRAPHS), wave.NEITHER, wave.GAMMA, "spikes")
    findings = (PROJECT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert f"raises the accuracy by {interval(raised)} points" in findings
    assert f"saves {interval(saved)} of {number(of_row[wave.NEITHER]['spikes'].mean(), 2)} spikes" in findings

    small = Results(load("cifar10-small"), REFERENCE, here=False)
    (bntt,) = wave.by_seed(small).query("row == 'bntt'").itertuples()
    assert f"has {number(bntt.accuracy, 2)} % and {number(bntt.spikes, 3)} spikes, with one seed" in TEXT

    spikes = results(PHOTOGRAPHS).frame("spikes.csv", row=wave.NEITHER)
    curves = spikes.groupby(["time_step", "layer"])["spikes"].mean().unstack("layer")
    assert (curves.drop(columns="fc1").loc[15] >= 0.99 * curves.drop(columns="fc1").max()).all()
    assert curves["fc1"].loc[2:6].is_monotonic_decreasing
    assert curves["fc1"].loc[6:].is_monotonic_increasing


def test_the_page_names_every_planned_row():
    planned = set(results().experiment.rows) - set(wave.NO_NORM.values())
    assert planned == set(ROWS)
