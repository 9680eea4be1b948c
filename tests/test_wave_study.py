"""The outcomes of docs/wave.md from made results: which seeds and rows count, and which word an interval gives."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bntt.common.errors import UserError
from bntt.drawing.figures import wave_study as figures
from bntt.experiment.schema import load
from bntt.results import wave_study as wave
from bntt.results.collect import select
from bntt.results.intervals import Estimate, paired_mean_difference, student_interval
from bntt.results.law import settings
from bntt.runs.status import Status
from bntt.training.paths import driven, paths
from bntt.training.schedule import undriven

LAYERS = ("conv1", "conv2", "fc1")


class Results:
    """Results from memory. ``values`` gives for each row and seed: accuracy, late spikes, T."""

    def __init__(self, name, values, missing=(), gradients=None):
        self.experiment, self.gradients = load(name), gradients
        self.values = values
        self.runs = [
            SimpleNamespace(run=run, status=Status.DIVERGED if run.row in missing else Status.DONE)
            for run in self.experiment.runs
        ]

    def of_row(self, row):
        return [one for one in self.runs if one.run.row == row]

    def frame(self, name, **keys):
        made = pd.DataFrame(getattr(self, name.removesuffix(".csv"))())
        return made if made.empty else made.assign(dataset=self.experiment.datasets[0])

    def each(self):
        for (row, seed), (accuracy, late, steps) in self.values.items():
            yield {"row": row, "seed": seed}, accuracy, late, steps

    def anytime(self):
        return [
            key | {"time_step": t, "accuracy": accuracy if t == steps else 1.0}
            for key, accuracy, _, steps in self.each()
            for t in range(1, steps + 1)
        ]

    def spikes(self):
        """One spike a step until the last fifth, in which there are ``late``."""
        return [
            key
            | {"layer": layer, "time_step": t, "spikes": (0 if late is None else late if t > steps - steps // 5 else 1)}
            for key, _, late, steps in self.each()
            for layer in LAYERS
            for t in range(1, steps + 1)
        ]

    def energy(self):
        return [
            key
            | {"time_step": steps, "layer": layer, "macs": 10.0, "count_own": late or 0.0, "dense_mj": 1.0}
            | {f"{name}_mj": 0.5 for name in ("own", "events", "mass")}
            for key, _, late, steps in self.each()
            for layer in LAYERS
        ]

    def early_exit(self):
        return [
            key | {"threshold": 0.1, "exit_step": 7, "exits": 1, "accuracy": accuracy - 0.5}
            for key, accuracy, _, _ in self.each()
        ]

    def noise(self):
        return [
            key | {"sigma": sigma, "time_step": steps, "accuracy": accuracy - 10 * sigma}
            for key, accuracy, _, steps in self.each()
            for sigma in (0.0, 0.4)
        ]


def factorial(seeds=range(4), **changed):
    """F is 1 without gamma's decay and 0 with it, up to a little of each seed."""
    values = {}
    for number, row in enumerate(wave.FACTORIAL):
        for seed in seeds:
            values[row, seed] = (98 + 0.1 * seed + number, (1 - number % 2) + 0.001 * ((seed * (number + 1)) % 3), 25)
    return values | changed


def test_a_runs_numbers():
    runs = wave.by_seed(
        Results("wave-digits", {("decay-gamma", 3): (98.0, 0.25, 25), ("steps-40", 0): (97.0, 0.5, 40)})
    )
    first, second = runs.to_dict("records")
    assert first == {
        "row": "decay-gamma", "seed": 3, "time_step": 25, "accuracy": 98.0, "spikes": 0.25, "F": 0.25, "exit_step": 7,
        "accuracy_at_exit": 97.5, "accuracy at σ = 0.4": 94.0, "silent": "",
    }  # fmt: skip
    assert second["F"] == 0.5  # of its own last fifth, whatever T others have


def test_a_silent_run_has_no_late_share_and_is_named():
    runs = wave.by_seed(
        Results("wave-digits", {("decay-gamma", 0): (10.0, None, 25), ("decay-gamma", 1): (15.0, 1.0, 25)})
    )
    assert runs["silent"].tolist() == ["silent", ""]
    assert runs["F"].isna().tolist() == [True, False]
    assert wave.rows(runs, ["decay-gamma"])["seeds"].tolist() == ["2, 1 silent"]


def test_photographs_are_silenced_at_a_fifth_right():
    values = {("decay-gamma", seed): (accuracy, 1.0, 15) for seed, accuracy in enumerate((20.0, 20.1))}
    runs = wave.by_seed(Results("wave-cifar10", values))
    assert runs["silent"].tolist() == ["silenced", ""]


def test_differences_are_paired_by_the_seeds_that_both_have():
    runs = pd.DataFrame(
        [
            ("a", 0, 5.0, 1.0),
            ("a", 2, 7.0, 2.0),
            ("a", 1, 6.5, 0.0),
            ("b", 2, 4.0, 9.0),
            ("b", 1, 4.5, 9.0),
            ("b", 5, 0, 9),
        ],
        columns=["row", "seed", "x", "y"],
    )
    assert wave.difference(runs, "a", "b", "x") == paired_mean_difference([6.5, 7.0], [4.5, 4.0])
    assert wave.difference(runs, "a", "b", "x", "y") == paired_mean_difference([6.5, 7.0], [9.0, 9.0])
    assert wave.difference(runs, "a", "c", "x") is None


def test_decay_of_what():
    runs = wave.by_seed(Results("wave-digits", factorial()))
    (gamma, weights, interaction), word, seeds = wave.decay_effects(runs)
    assert word == "gamma decay"
    assert seeds == 4
    assert gamma.value == pytest.approx(-1, abs=0.01)
    assert abs(weights.value) < 0.01
    assert abs(interaction.value) < 0.01
    swapped = runs.replace({"row": {wave.GAMMA: wave.WEIGHTS, wave.WEIGHTS: wave.GAMMA}})
    assert wave.decay_effects(swapped)[1] == "weight decay"
    assert wave.decay_effects(runs[runs["row"] != wave.BOTH]) is None


def made(outcomes, part):
    return [one for one in outcomes if one.part == part]


def without_law(monkeypatch):
    """Results from memory have neither gradients nor gammas."""
    monkeypatch.setattr(wave, "law", lambda results, row="": pd.DataFrame())
    monkeypatch.setattr(
        wave, "predicted", lambda results, outcome: pd.DataFrame(columns=["row", "relative", "measured"])
    )
    monkeypatch.setattr(wave, "growth_without_a_norm", lambda results: {})


@pytest.mark.parametrize(
    ("accuracy", "word"),
    [([98.0, 98.2, 97.9], "right"), ([90.0, 91.0, 90.5], "wrong"), ([99.0, 96.0, 97.0], "undecided")],
)
def test_as_good_at_the_exit_step(monkeypatch, accuracy, word):
    """The stopped network's accuracy is 98, 98.1 and 98.2 at its exit."""
    without_law(monkeypatch)
    values = {("decay-gamma", seed): (98.5 + 0.1 * seed, 0.0, 25) for seed in range(3)}
    values |= {("exit-at-18", seed): (one, 0.5, 18) for seed, one in enumerate(accuracy)}
    results = Results("wave-digits", values)
    (found,) = made(wave.outcomes(results, wave.by_seed(results)), "early exit")
    expected = student_interval(np.array(accuracy) - [98.0, 98.1, 98.2])
    assert found.outcome == word
    assert f"{expected.value:.2f}".replace("-", "−") in found.found
    results = Results("wave-digits", values, missing=["exit-at-18"])
    (found,) = made(wave.outcomes(results, wave.by_seed(results)), "early exit")
    assert found.outcome == f"{word}, preliminary"


def test_remedies_and_more_decay(monkeypatch):
    without_law(monkeypatch)
    late = {"decay-neither": 9.0, "gamma-milder": 4.0, "decay-gamma": 0.1, "gamma-stronger": 0.2, "even-decay": 0.6,
            "even-updates": 0.2, "shared-gamma": 0.9, "gamma-alone": 0.1, "slowly": 0.4}  # fmt: skip
    values = {(row, seed): (98.0 + seed, value + 0.01 * (seed + number) % 3, 25) for number, (row, value) in
              enumerate(late.items()) for seed in range(3)}  # fmt: skip
    results = Results("wave-digits", values)
    found = wave.outcomes(results, wave.by_seed(results))
    remedies = {one.predicted: one.outcome for one in made(found, "remedies")}
    assert remedies == {
        "even-decay is not worse: above -1 point": "right",
        "even-decay has no wave: F larger by more than 0.3": "right",
        "even-updates is not worse: above -1 point": "right",
        "even-updates has no wave: F larger by more than 0.3": "wrong",
    }
    words = [(one.predicted.rpartition(" than ")[0] or one.predicted, one.outcome) for one in made(found, "more decay")]
    assert words == [
        ("fewer spikes in gamma-milder", "right"),
        ("fewer spikes in decay-gamma", "right"),
        ("fewer spikes in gamma-stronger", "wrong"),
        ("F of gamma-alone below 0.3", "right"),
        ("F of slowly below 0.3", "wrong"),
        ("F of shared-gamma above 0.7", "right"),
    ]


def test_photographs(monkeypatch):
    without_law(monkeypatch)
    values = {("decay-gamma", seed): (50.0 + seed % 2, 0.1, 15) for seed in range(5)}
    values |= {("decay-neither", seed): (49.0 - seed % 2, 0.9, 15) for seed in range(5)}
    results = Results("wave-cifar10", values)
    found = wave.outcomes(results, wave.by_seed(results))
    assert [one.outcome for one in found] == ["right", "wrong", "right"]


def test_the_law_is_said_of_the_layer_that_follows_it_least(monkeypatch):
    without_law(monkeypatch)
    table = pd.DataFrame({"layer": ["conv1", "fc1"], "gamma": [0.99, 0.94], "own": [3, 2], "seeds": [5, 5]})
    monkeypatch.setattr(wave, "law", lambda results, row="": table.assign(holds=table["gamma"] >= 0.95))
    results = Results("wave-cifar10", {("decay-gamma", 0): (50.0, 0.1, 15)})
    first, second = wave.outcomes(results, wave.by_seed(results))[:2]
    assert (first.part, first.found, first.outcome) == ("the law", "least in fc1: 0.9400", "wrong")
    assert (second.found, second.outcome) == ("least often in fc1: 2 of 5 seeds", "wrong")
    table["gamma"], table["own"] = [0.99, np.nan], [3, 4]  # a gradient of 0 has no logarithm
    first, second = wave.outcomes(results, wave.by_seed(results))[:2]
    assert (first.found, first.outcome) == ("least in fc1: –", "undecided")
    assert (second.found, second.outcome) == ("least often in conv1: 3 of 5 seeds", "right")


def gradients_of(sizes):
    """``gradients.csv`` of row `decay-gamma` with the law's shape: ``sizes`` gives for each seed the size at t = 1."""
    for seed, size in enumerate(sizes):
        for epoch, layer, t in product((0, 5), LAYERS, range(1, 26)):
            m = 3 - LAYERS.index(layer)
            law = size * driven(m, 25, 0.95)[t - 1] * (1 + 9 * (epoch == 5) * t)
            yield {"row": "decay-gamma", "seed": seed, "epoch": epoch, "layer": layer, "time_step": t,
                   "gamma": law**2 if seed == 1 and layer == "conv2" else law, "membrane": law**3}  # fmt: skip


def test_the_law_of_five_seeds_before_training():
    results = Results("wave-digits", {}, gradients=lambda: gradients_of([1.0, 2.0, 0.5, 1.0, 4.0, 0.0]))
    found = wave.law(results).set_index("layer")
    assert found["leaky_layers"].to_dict() == {"conv1": 3, "conv2": 2, "fc1": 1}
    np.testing.assert_allclose(found[["gamma", "least", "membrane"]], 1, atol=1e-9)
    assert found["own"].to_dict() == {"conv1": 5, "conv2": 4, "fc1": 5}
    assert set(found["seeds"]) == {5}
    away = np.sqrt(np.mean(np.log(driven(2, 25, 0.95)) ** 2))  # of the square, from the law
    np.testing.assert_allclose(found["factor"], [1, np.exp(away / 5), 1])
    np.testing.assert_allclose(found["last"]["fc1"], found["law"]["fc1"])


def test_the_law_of_a_row_without_gradients_is_empty():
    found = wave.law(Results("wave-digits", {}, gradients=lambda: gradients_of([1.0])), "centre")
    assert found.empty
    assert {"last", "law", "holds"} <= set(found)


def test_the_law_of_a_layer_whose_gradient_is_zero_is_not_its_own():
    rows = [one | {"gamma": one["gamma"] * (one["time_step"] < 20)} for one in gradients_of([1.0])]
    found = wave.law(Results("wave-digits", {}, gradients=lambda: rows))
    assert found["own"].tolist() == [0, 0, 0]
    assert found["gamma"].isna().all()


def measured(row, seed, ends, spikes=1.0, size=1.0):
    """A run with two layers, whose mean gamma is 1 up to a step of its own, ``ends``, and undriven beyond."""
    run = load("wave-digits").run("digits", row, seed)
    alone = undriven(dict(run.options), 1437)
    steps = np.arange(1, run.options["time_steps"] + 1)
    of_layers = list(zip(("conv1", "fc1"), ends, strict=True))

    def of_steps(**columns):
        return [pd.DataFrame({"layer": layer, "time_step": steps} | {name: of(end) for name, of in columns.items()})
                for layer, end in of_layers]  # fmt: skip

    before = of_steps(gamma=lambda end: size * np.array(driven(end, len(steps), run.options["leak"])))
    after = of_steps(gamma=lambda end: steps)
    tables = {
        "gamma_quartiles": of_steps(mean=lambda end: np.where(steps <= end, 1, alone), deviation=lambda end: 0 * steps),
        "spikes": of_steps(spikes=lambda end: spikes * (steps == 1)),
        "gradients": [part.assign(epoch=epoch) for epoch, parts in ((0, before), (5, after)) for part in parts],
    }
    images = {"train": 1437, "validation": 0, "test": 360}
    return SimpleNamespace(
        run=run, status=Status.DONE, training={"data": {"images": images}},
        table=lambda name: pd.concat(tables[name.removesuffix(".csv")], ignore_index=True),
    )  # fmt: skip


def test_a_setting_is_the_mean_over_its_first_seeds_that_spike():
    ends, sizes = [(4, 9), (5, 10), (1, 1), (20, 20)], (1.0, 4.0, 1.0, 1.0)
    runs = [measured("decay-gamma", seed, ends[seed], float(seed != 2), sizes[seed]) for seed in range(4)]
    results = SimpleNamespace(of_row=lambda row: runs if row == "decay-gamma" else [])
    (found,) = settings(results, ["decay-gamma", "centre"], "reach")
    assert (found.row, found.time_steps, found.leak, found.seeds) == ("decay-gamma", 25, 0.95, 2)
    assert found.measured == {2: 4.5, 1: 9.5}
    of_seeds = np.log([np.array(driven(4, 25, 0.95)), 4 * np.array(driven(5, 25, 0.95))])
    np.testing.assert_allclose(found.gradients[2], of_seeds.mean(0))
    (found,) = settings(results, ["decay-gamma"], "half_fall")
    assert found.measured == {2: 5.5, 1: 10.5}
    (found,) = settings(results, ["decay-gamma"], "reach", seeds=4)
    assert (found.seeds, found.measured[1]) == (3, 13)


def steps(version, other):
    """Eleven settings of eight layers: errors of about 0.5 steps for one version, and of ``other`` for its rivals."""
    lines = []
    for setting in range(11):
        for m in range(8):
            lines.append({"row": f"s{setting}", "measured": 10.0, version: 10.5 + 0.01 * setting,
                          "same step": 10.0 - other - 0.1 * setting, "same share": 10.0 + other + 0.1 * m})  # fmt: skip
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("other", "shift", "word"), [(4, 0, "predicted"), (0.1, 0, "refuted"), (4, 1.5, "undecided"), (1.0, 4, "refuted")]
)
def test_a_version_of_the_law_predicts_if_it_is_near_and_nearer_than_both_others(other, shift, word):
    frame = steps("relative", other)
    frame["relative"] += shift
    found = wave.verdict(frame, "relative")
    assert found.word == word
    errors = (frame["relative"] - 10).abs()
    assert found.median_error == pytest.approx(errors.median())


def test_six_primary_tests_are_corrected_together():
    digits = factorial() | {("exit-at-18", s): (99.0 + 0.1 * (s % 2), 0.5, 18) for s in range(4)}
    digits |= {("even-decay", s): (98.9 + 0.2 * s, 0.5, 25) for s in range(4)}
    digits |= {("even-updates", s): (95.0 - s, 0.5, 25) for s in range(4)}
    photographs = {("decay-gamma", s): (50.0 + s, 0.1 + 0.01 * s, 15) for s in range(5)}
    photographs |= {("decay-neither", s): (50.0 + (s + 1) % 5, 0.9, 15) for s in range(5)}
    frames = [wave.by_seed(Results(name, of)) for name, of in (("wave-digits", digits), ("wave-cifar10", photographs))]
    found = wave.primaries(*frames)
    assert found["shown"].tolist() == [True, True, True, False, True, False]
    assert found["seeds"].tolist() == [4, 4, 4, 4, 5, 5]
    without = frames[0][frames[0]["row"] != "even-decay"]
    with pytest.raises(UserError, match="even-decay"):
        wave.primaries(without, frames[1])


def test_growth_without_a_norm():
    ratio = {25: 1.0, 50: 30.0, 100: 300.0}
    others = list(product(range(3), (0, 1), ("conv1", "conv2"), (1, 2)))
    rows = [
        {"row": row, "seed": seed, "epoch": epoch, "layer": layer, "time_step": t, "membrane": size / t}
        for steps, row in wave.NO_NORM.items()
        for seed, epoch, layer, t in others
        for size in [ratio[steps] * (1 + 0.1 * seed * (steps == 50)) * (1 + epoch) * len(layer)]
    ]
    results = Results("wave-digits", {}, gradients=lambda: rows)
    found = wave.growth_without_a_norm(results)
    logs = np.log([30.0, 33.0, 36.0])
    estimate, expected = found[25, 50]
    assert estimate == pytest.approx(Estimate(*np.exp(student_interval(logs))))
    assert expected == pytest.approx(paths(8, 49, 0.95) / paths(8, 24, 0.95) / 2)
    assert found[50, 100][0].value == pytest.approx(np.exp(np.log(300) - logs.mean()))


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_figure_of_the_law_shows_shares_of_the_first_step_and_the_law_itself():
    keys = list(product((0, 1), (0, 5), ("conv1", "fc1"), range(1, 5)))
    gradients = pd.DataFrame(keys, columns=["seed", "epoch", "layer", "time_step"]).assign(row="centre")
    gradients["gamma"] = 4.0 ** (gradients["seed"] + gradients["epoch"]) * 2.0 ** -gradients["time_step"]
    figure = figures.draw_law(gradients, {"leak-0": 0.0, "centre": 0.95})
    empty, panel = figure.axes
    assert not empty.lines
    assert panel.get_title() == "leak 0.95 (centre)"
    dots, law, *_ = panel.lines
    np.testing.assert_allclose(np.asarray(dots.get_ydata(), float), [1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(np.asarray(law.get_ydata(), float), driven(2, 4, 0.95))
    np.testing.assert_allclose(np.asarray(panel.lines[3].get_ydata(), float), driven(1, 4, 0.95))
    assert panel.get_yscale() == "log"


@pytest.mark.parametrize("panels", [1, 3])
def test_the_legend_of_the_law_fits_its_figure(panels):
    layers = [f"conv{number}" for number in range(1, 8)] + ["fc1"]
    keys = list(product(range(panels), layers, range(1, 4)))
    gradients = pd.DataFrame(keys, columns=["row", "layer", "time_step"]).assign(seed=0, epoch=0, gamma=1.0)
    figure = figures.draw_law(gradients, {row: 0.95 for row in range(panels)})
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == layers
    there, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= there.x0 < there.x1 <= whole.x1


def test_the_figure_of_steps_has_every_setting_and_layer_once_in_each_panel():
    frame = steps("absolute", 4)
    figure = figures.draw_steps(frame, "reach", ["absolute", "same step", "same share"])
    assert [axes.get_title().rpartition("\n")[2] for axes in figure.axes] == [
        f"median error {(frame[version] - 10).abs().median():.1f} steps"
        for version in ("absolute", "same step", "same share")
    ]
    for axes, version in zip(figure.axes, ("absolute", "same step", "same share"), strict=True):
        marks = axes.lines[1:]
        assert len({(line.get_marker(), line.get_color()) for line in marks}) == 11
        np.testing.assert_allclose(np.concatenate([line.get_xdata() for line in marks]), frame[version])
        np.testing.assert_allclose(np.concatenate([line.get_ydata() for line in marks]), frame["measured"])


def test_the_figure_of_rows_has_means_over_layers_and_seeds():
    rows = ["decay-neither", "decay-gamma"]
    keys = pd.DataFrame(product(rows, (0, 1), (1, 2), (0, 1)), columns=["row", "seed", "time_step", "layer"])
    layers = keys.assign(
        mean=keys["time_step"] + keys["seed"] + keys["layer"], spikes=keys["time_step"] * keys["layer"]
    )
    anytime = select(keys, layer=0).assign(accuracy=50.0 * keys["time_step"] - keys["seed"])
    summary = select(keys, layer=0, time_step=1).assign(dataset="digits", status="done", dead="")
    figure = figures.draw_rows(layers, layers, anytime, summary, [*rows, "even-decay"])
    for axes, expected in zip(figure.axes, ([2.0, 3.0], [0.5, 1.0], [49.5, 99.5]), strict=True):
        assert len(axes.lines) == 2
        for line in axes.lines:
            np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)
    caption = figure.get_supxlabel()
    assert "Data: digits, n = 2 seeds (0, 1)" in caption
    assert "paper" not in caption  # it has no such figure
