"""The tables of docs/wave.md are what the committed measurements give by its rules."""

from functools import cache

import pytest
from tiny import PROJECT

from bntt.common.text import number
from bntt.experiment.schema import load
from bntt.results import wave_study as wave
from bntt.results.collect import Results

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
    return [
        line(f"`{row}`", *(", ".join(number(step, 1) for step in part[column]) for column in ("measured", version)))
        for row, part in steps.groupby("row", sort=False)
    ]


@pytest.mark.parametrize(
    "lines",
    [outcome_lines, law_lines, row_lines, lambda: step_lines("reach"), lambda: step_lines("half_fall")],
    ids=["outcomes", "law", "rows", "reach", "fall"],
)
def test_each_line_of_the_page_is_what_was_measured(lines):
    expected = lines()
    assert len(expected) >= 4
    missing = [one for one in expected if one not in PAGE.splitlines()]
    assert not missing


def test_the_page_names_every_planned_row():
    planned = set(results().experiment.rows) - set(wave.NO_NORM.values())
    assert planned == set(ROWS)
