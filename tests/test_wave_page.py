"""The tables of docs/wave.md are what the committed measurements give by its rules."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from tiny import PROJECT

from bntt.common.text import interval, number
from bntt.experiment.schema import load
from bntt.results import wave_study as wave
from bntt.results.collect import Results, select
from bntt.results.law import leaky_layers, log_correlation, settings

PAGE = (PROJECT / "docs" / "wave.md").read_text(encoding="utf-8")
REFERENCE = PROJECT / "results" / "reference"
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
             f"{one.last:.1e}", f"{one.law:.1e}")
        for one in wave.law(results(name)).itertuples()
    ]  # fmt: skip


def row_lines(rows=tuple(ROWS), name="wave-digits"):
    table = wave.rows(runs(name), rows)
    columns = [column for column in table.columns if column != "accuracy at exit"]
    return [line(f"`{cells[0]}`", *cells[1:]) for cells in table[columns].itertuples(index=False)]


def step_lines(outcome):
    """Measured and predicted steps of each setting, from its first layer to its last."""
    steps = wave.predicted(results(), outcome)
    version = "absolute" if outcome == "reach" else "relative"
    fitted = settings(results(), [wave.CENTRE if outcome == "reach" else wave.GAMMA], outcome)[0]
    centre = ", ".join(number(step, 1) for step in fitted.measured.values())
    return [line(f"`{fitted.row}`", centre, "fitted")] + [
        line(f"`{row}`", *(", ".join(number(step, 1) for step in part[column]) for column in ("measured", version)))
        for row, part in steps.groupby("row", sort=False)
    ]


DIFFERENCES = [
    ("decay-gamma", "decay-neither", ("accuracy", "spikes", "accuracy at σ = 0.4")),
    ("exit-at-18", "decay-gamma", ("spikes",)),
    ("even-updates", "decay-gamma", ("spikes", "accuracy at σ = 0.4")),
    ("even-decay", "decay-gamma", ("spikes", "accuracy at σ = 0.4")),
]


def difference_lines():
    """Differences that were not predicted."""
    return [
        line(f"`{row}` minus `{other}`", column, interval(wave.difference(runs(), row, other, column)))
        for row, other, columns in DIFFERENCES
        for column in columns
    ]


def anytime_lines():
    """Mean accuracy over seeds after some steps."""
    curves = results().frame("anytime.csv").groupby(["row", "time_step"])["accuracy"].mean()
    steps = (3, 5, 7, 9, 12, 15, 18)
    return [
        line(f"`{row}`", *(number(curves[row, step], 1) for step in steps))
        for row in ("decay-neither", "decay-gamma", "exit-at-18", "even-updates", "even-decay")
    ]


def training_lines():
    """Mean over seeds of the correlation of gamma's gradient with the law, by epoch, without decay of gamma."""
    gradients = results().frame("gradients.csv", row=wave.NEITHER)
    lines = []
    for epoch, of_epoch in gradients.groupby("epoch"):
        means = []
        for layer, m in leaky_layers(gradients["layer"]).items():
            curves = select(of_epoch, layer=layer).pivot(index="time_step", columns="seed", values="gamma")
            means.append(curves.apply(log_correlation, args=(m, 0.95)).mean())
        lines.append(line(epoch, *(number(mean, 3) for mean in means)))
    return lines


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


@pytest.mark.parametrize(
    "lines",
    [
        outcome_lines,
        law_lines,
        training_lines,
        row_lines,
        lambda: step_lines("reach"),
        lambda: step_lines("half_fall"),
        difference_lines,
        anytime_lines,
        front_lines,
    ],
    ids=["outcomes", "law", "training", "rows", "reach", "fall", "differences", "anytime", "front"],
)
@pytest.mark.slow
def test_each_line_of_the_page_is_what_was_measured(lines):
    expected = lines()
    assert len(expected) >= 4
    missing = [one for one in expected if one not in PAGE.splitlines()]
    assert not missing


def test_the_page_names_every_planned_row():
    planned = set(results().experiment.rows) - set(wave.NO_NORM.values())
    assert planned == set(ROWS)
