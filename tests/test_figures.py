"""The figures draw what the frames say, in the paper's panels, axes and scales, and never fail for what is missing."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bntt.drawing import palette
from bntt.drawing.figures import figure1, figure2, figure3, figure4, figure5, figure6, style
from bntt.paper import figures as paper
from bntt.results.collect import select

LAYERS = ("conv1", "conv4", "conv7")
STEPS = {"bntt": 6, "bntt-unscaled": 6, "surrogate": 8, "conversion": 12, "ann": 1, "mine": 6}
SPIKING = ("bntt", "surrogate", "conversion", "mine")
COLUMNS = ["dataset", "row", "seed"]


UNDRIVEN = 0.9  # no gamma made here is near it, unless a test says so


def summary(rows=tuple(STEPS), seeds=(0,), dataset="digits", dead=None, **status):
    """`Results.summary` by hand; ``status`` overrides a row's ``done``, hyphens as underscores.

    ``dead`` gives the word for a row, or a tuple with one for each seed.
    """
    lines = []
    for row in rows:
        for seed in seeds:
            one = status.get(row.replace("-", "_"), "done")
            one = one[seed] if isinstance(one, tuple) else one
            word = (dead or {}).get(row, "")
            word = word[seed] if isinstance(word, tuple) else word
            budget = {"bntt": 5.25, "bntt-unscaled": 0.5}.get(row)
            lines.append((dataset, row, seed, one, STEPS[row], budget, "content" if one == "done" else None, word))
    names = [*COLUMNS, "status", "time_steps", "decay_budget", "data_state", "dead"]
    return pd.DataFrame(lines, columns=names).assign(undriven_gamma=UNDRIVEN)


def spikes(rows=SPIKING, seeds=(0,)):
    """Every neuron of layer k fires 0.1 (k + 1) times a step; in bntt only at step k + 2."""
    return pd.DataFrame(
        [
            ("digits", row, seed, layer, t, 0.1 * (k + 1 + seed) * (row != "bntt" or t == k + 2))
            for row in rows
            for seed in seeds
            for k, layer in enumerate(LAYERS)
            for t in range(1, STEPS[row] + 1)
        ],
        columns=[*COLUMNS, "layer", "time_step", "spikes"],
    )


def gamma(rows=("bntt",), seeds=(0,), dataset="digits", steps=6):
    """Two channels, apart by 0.2, whose mean is 0.5 at step k + 2 of layer k and -0.001 elsewhere."""
    return pd.DataFrame(
        [
            (dataset, row, seed, layer, t, c, (0.5 if t == k + 2 else -0.001) + (0.1, -0.1)[c])
            for row in rows
            for seed in seeds
            for k, layer in enumerate(LAYERS)
            for t in range(1, steps + 1)
            for c in (0, 1)
        ],
        columns=[*COLUMNS, "layer", "time_step", "channel", "gamma"],
    )


def early_exit(rows=("bntt",), seeds=(0,), dataset="digits"):
    lines = [(0.05, 6, 0, 99.0), (0.1, 4, 1, 98.0), (0.4, 4, 1, 98.0), (0.6, 1, 1, 40.0)]
    return pd.DataFrame(
        [(dataset, row, seed, *line) for row in rows for seed in seeds for line in lines],
        columns=[*COLUMNS, "threshold", "exit_step", "exits", "accuracy"],
    )


def anytime(rows=("bntt", "surrogate", "conversion", "ann", "mine"), seeds=(0,)):
    """10 test images, of which ``t`` are right after ``t`` steps, at most 9."""
    return pd.DataFrame(
        [
            ("digits", row, seed, t, 10.0 * min(t, 9), f"{((1 << min(t, 9)) - 1) << (12 - min(t, 9)):03x}")
            for row in rows
            for seed in seeds
            for t in range(1, STEPS[row] + 1)
        ],
        columns=[*COLUMNS, "time_step", "accuracy", "correct"],
    )


def noise(rows=("bntt", "surrogate", "conversion", "ann", "mine"), seeds=(0,)):
    """At the last step 8 of 10 images are right without noise, and 2 with; seeds differ by 10 points."""
    return pd.DataFrame(
        [
            ("digits", row, seed, sigma, "pixel", t, value + 10.0 * seed, {80.0: "ff0", 20.0: "c00", 0.0: "000"}[value])
            for row in rows
            for seed in seeds
            for sigma, last in ((0.0, 80.0), (0.8, 20.0))
            for t, value in {1: 0.0, STEPS[row]: last}.items()
        ],
        columns=[*COLUMNS, "sigma", "space", "time_step", "accuracy", "correct"],
    )


def nothing(frame: pd.DataFrame) -> pd.DataFrame:
    """The measurement as `Results.frame` gives it where no run has it."""
    return pd.DataFrame(columns=frame.columns, dtype=float)


def words(figure: Figure) -> str:
    """Everything written in a figure."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(matplotlib.text.Text))


def lines_with(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


# -- Figure 1 --------------------------------------------------------------------------------------------------------


def test_figure1_has_the_papers_panels_and_a_line_for_each_layer():
    figure = figure1.draw(spikes(), summary())
    assert [axes.get_title() for axes in figure.axes] == ["(a) conversion", "(b) surrogate", "(c) bntt"]
    for axes, steps in zip(figure.axes, (12, 8, 6), strict=True):
        curves = [line for line in axes.lines if line.get_gid() is None]
        assert [line.get_label() for line in curves] == list(LAYERS)
        assert all(list(line.get_xdata()) == list(range(1, steps + 1)) for line in curves)
        assert axes.get_xlabel() == "Time-steps"
    assert "Average number of spikes" in figure.axes[0].get_ylabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(LAYERS)


def test_figure1_marks_peaks_of_layers_that_rise_and_fall_only():
    conversion, _, bntt = figure1.draw(spikes(), summary()).axes
    assert lines_with(conversion, "peak") == []
    assert [float(dot.get_xdata()[0]) for dot in lines_with(bntt, "peak")] == [2, 3, 4]


def test_figure1_averages_seeds_and_shows_their_spread():
    axes = figure1.draw(spikes(seeds=(0, 1)), summary(seeds=(0, 1))).axes[1]
    assert axes.lines[0].get_ydata()[0] == pytest.approx(0.15)
    (band,) = [c.get_paths()[0].vertices[:, 1] for c in axes.collections[:1]]
    assert (band.max() - band.min()) / 2 == pytest.approx(np.std([0.1, 0.2], ddof=1))


def test_figure1_says_what_is_missing():
    figure = figure1.draw(spikes(rows=("bntt",)), summary(surrogate="diverged", conversion="missing"))
    assert "training diverged" in figure.axes[1].texts[0].get_text()
    assert "Missing: conversion (no result yet), surrogate (training diverged)." in words(figure)


def test_figure1_names_the_layers_without_a_spike():
    frame = spikes()
    frame.loc[(frame["row"] == "surrogate") & (frame["layer"] != "conv1"), "spikes"] = 0.0
    frame.loc[frame["row"] == "bntt", "spikes"] = 0.0
    figure = figure1.draw(frame, summary(dead={"surrogate": "silent", "bntt": "silent"}))
    conversion, surrogate, bntt = figure.axes
    assert conversion.get_title() == "(a) conversion"
    assert surrogate.get_title() == "(b) surrogate, silent\nno spike in conv4 and conv7"
    assert bntt.get_title() == "(c) bntt, silent" and bntt.texts[0].get_text() == "no spike in any layer"
    assert not bntt.lines
    assert "Silent: some layer has no spike on any test image." in words(figure)


# -- Figure 2 --------------------------------------------------------------------------------------------------------


def test_figure2_membrane_and_gradient_are_the_neurons():
    from bntt.spiking.neurons import LIF

    lif = LIF(leak=0.5, threshold=1.0, alpha=0.3)
    trace = figure2.membrane(lif, np.array([0.6, 0.9, 0.0, 3.0], dtype=np.float32))
    assert trace["before"].tolist() == pytest.approx([0.6, 1.2, 0.1, 3.05])
    assert trace["after"].tolist() == pytest.approx([0.6, 0.2, 0.1, 2.05])
    assert trace["spike"].tolist() == [0, 1, 0, 1]
    slope = figure2.gradient(LIF(threshold=2.0), np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    assert slope.tolist() == pytest.approx([0, 0, 0.15, 0.3, 0.15, 0, 0])


def test_figure2_has_both_panels_and_the_threshold():
    from bntt.spiking.neurons import LIF

    figure = figure2.draw(LIF(leak=0.95))
    assert {"(a) LIF neuron with soft reset", "(b) Approximate gradient"} <= {a.get_title() for a in figure.axes}
    middle = figure.axes[0]
    assert middle.get_ylabel() == "Membrane potential u"
    assert any(np.allclose(line.get_ydata(), 1.0) for line in middle.lines)
    assert "threshold θ" in words(figure) and "leak λ = 0.95" in words(figure)


# -- Figure 3 --------------------------------------------------------------------------------------------------------


def test_figure3_prints_the_mean_gammas_and_the_exit():
    figure = figure3.draw(gamma(), early_exit(), summary())
    axes = figure.axes[0]
    assert figure.get_suptitle() == "Threshold: 0.1"
    assert "bntt: early exit at t = 4; decay budget 5.2 e-folds" in axes.get_title()
    printed = np.array([text.get_text() for text in axes.texts]).reshape(3, 6)
    expected = np.full((3, 6), "0.00")  # never -0.00
    expected[[0, 1, 2], [1, 2, 3]] = "0.50"
    assert (printed == expected).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == list(LAYERS)
    assert [label.get_text() for label in axes.get_xticklabels()] == list("123456")
    # The cell of step 4 ends at 4: the line lies after the last step that is computed.
    (line,) = lines_with(axes, "exit")
    assert list(line.get_xdata()) == [4, 4] and line.get_linestyle() != "-"


def test_figure3_hatches_what_decay_alone_made():
    """Of two channels in two seeds, at least half within 1 % of the seed's own undriven value."""
    frame, about = gamma(seeds=(0, 1)), summary(seeds=(0, 1))
    about.loc[about["seed"] == 1, "undriven_gamma"] = 0.4
    values = {(0, 0): 0.908, (0, 1): 0.892, (1, 0): 0.41, (1, 1): 0.3}  # by seed and channel

    def hatched(values):
        there = frame.copy()
        for (seed, channel), value in values.items():
            at = (there["seed"] == seed) & (there["channel"] == channel)
            there.loc[at & (there["layer"] == "conv4") & (there["time_step"] == 5), "gamma"] = value
        figure = figure3.draw(there, early_exit(seeds=(0, 1)), about)
        return [one.get_xy() for one in figure.axes[0].patches if one.get_gid() == "undriven"], words(figure)

    found, text = hatched(values)
    assert found == [(4, 1)]
    assert "Hatched" in text
    found, text = hatched(values | {(0, 1): 0.89})
    assert found == []
    assert "Hatched" not in text
    assert hatched(values | {(0, 1): 0.89, (1, 0): 0.397})[0] == [(4, 1)]


def test_figure5_greys_what_decay_alone_made():
    about = summary()
    assert "Grey" not in words(figure5.draw(gamma(), about))
    about["undriven_gamma"] = 0.6
    figure = figure5.draw(gamma(), about)
    assert "Grey" in words(figure)
    for number, axes in enumerate(figure.axes):  # the upper channel at the step of the peak
        counts = {one.get_gid(): one.get_data().values for one in axes.patches if one.get_gid()}
        foot = number + 2 - figure5.HEIGHT / 2
        np.testing.assert_allclose(counts["undriven"].max() - foot, figure5.HEIGHT)
        assert (counts["undriven"] > foot).sum() == 1
        assert (counts["peak"] > foot).sum() == 2


def test_figure3_no_exit_has_no_line():
    figure = figure3.draw(gamma(), early_exit(), summary(), threshold=0.05)
    assert lines_with(figure.axes[0], "exit") == []
    assert "bntt: no exit" in figure.axes[0].get_title()


def test_figure3_panels_share_a_scale_and_name_their_budget():
    both = ["bntt", "bntt-unscaled"]
    frame = gamma(both)
    frame.loc[frame["row"] == "bntt-unscaled", "gamma"] += 0.4
    figure = figure3.draw(frame, early_exit(both), summary(), both)
    assert [axes.collections[0].get_clim() for axes in figure.axes[:2]] == [(0.0, 0.9)] * 2
    assert "bntt-unscaled" in figure.axes[1].get_title() and "0.5 e-folds" in figure.axes[1].get_title()
    assert figure.axes[2].get_ylabel() == "Average γ"


def test_figure3_each_seed_has_its_exit():
    exits = early_exit(seeds=(0, 1))
    exits.loc[(exits["seed"] == 1) & (exits["threshold"] == 0.1), "exit_step"] = 5
    assert figure3.exits(exits, 0.1) == ([4, 5], "early exit at t = 4 or 5")
    exits.loc[(exits["seed"] == 1) & (exits["threshold"] == 0.1), "exits"] = 0
    assert figure3.exits(exits, 0.1) == ([4], "early exit at t = 4, no exit for 1 of 2 seeds")


def test_the_papers_values_are_drawn_on_its_dataset_only():
    for dataset, drawn in (("cifar10", 1), ("digits", 0)):
        frame, about = gamma(dataset=dataset, steps=25), summary(dataset=dataset)
        figure = figure3.draw(frame, early_exit(dataset=dataset), about)
        assert len(lines_with(figure.axes[0], "paper")) == drawn
        assert ("paper's exit" in words(figure)) == bool(drawn)
        figure = figure5.draw(frame, about)
        assert [len(lines_with(axes, "paper")) for axes in figure.axes] == [0, drawn, drawn]
        assert ("paper's peak" in words(figure)) == bool(drawn)
        assert ("the paper's figure is of CIFAR-10" in words(figure)) == (not drawn)


def test_peaks():
    assert figure3.peaks(gamma(), "gamma")["bntt"].to_dict() == {"conv1": 2, "conv4": 3, "conv7": 4}
    assert figure3.peaks(nothing(gamma()), "gamma").empty


# -- Figure 4 --------------------------------------------------------------------------------------------------------


def drawn4(seeds=(0,), **status) -> Figure:
    rows = ("bntt", "surrogate", "conversion", "ann", "mine")
    there = [row for row in rows if status.get(row, "done") == "done"]
    return figure4.draw(
        spikes([row for row in there if row != "ann"], seeds),
        anytime(there, seeds),
        noise(there, seeds),
        summary(rows, seeds, **status),
        rows,
        10,
    )


def test_figure4a_is_logarithmic_and_sums_over_time():
    left = drawn4().axes[0]
    assert left.get_yscale() == "log"
    assert [label.get_text() for label in left.get_xticklabels()] == list(LAYERS)
    curves = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    assert curves == {
        "bntt (60.0% / 6 steps)": pytest.approx([0.1, 0.2, 0.3]),
        "surrogate (80.0% / 8 steps)": pytest.approx([0.8, 1.6, 2.4]),
        "conversion (90.0% / 12 steps)": pytest.approx([1.2, 2.4, 3.6]),
        "mine (60.0% / 6 steps)": pytest.approx([0.6, 1.2, 1.8]),
    }


def test_figure4a_shows_a_layer_without_spikes():
    silent = spikes()
    silent.loc[(silent["row"] == "surrogate") & (silent["layer"] == "conv7"), "spikes"] = 0.0
    figure = figure4.draw(silent, anytime(), noise(), summary())
    assert "Open triangles: layers without a spike." in words(figure)
    (marker,) = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert list(marker.get_xdata()) == [2]


def bars(container) -> list[float]:
    """Half-lengths of a curve's error bars."""
    return [float(np.ptp(segment[:, 1]) / 2) for segment in container.lines[2][0].get_segments()]


def test_figure4b_has_binomial_errors_for_one_seed():
    right = drawn4().axes[1]
    assert (right.get_xlabel(), right.get_ylabel()) == ("Noise stddev σ", "Accuracy (%)")
    names = [container.get_label() for container in right.containers]
    assert names == ["bntt", "surrogate", "conversion", "ann", "mine"]
    assert list(right.containers[0].lines[0].get_ydata()) == [80, 20]  # after all steps, not after one
    assert bars(right.containers[0]) == pytest.approx([100 * np.sqrt(0.8 * 0.2 / 10)] * 2)
    assert "added to images in [0, 1], then clipped" in words(right.figure)


def test_figure4b_has_standard_deviations_for_several_seeds():
    figure = drawn4(seeds=(0, 1, 2))
    assert list(figure.axes[1].containers[0].lines[0].get_ydata()) == [90, 30]
    assert bars(figure.axes[1].containers[0]) == pytest.approx([10, 10])
    assert bars(figure.axes[0].containers[0]) == pytest.approx([0.1] * 3)
    assert "n = 3 seeds (0, 1, 2)" in words(figure) and "± 1 s.d. over seeds" in words(figure)


def test_a_caption_says_which_rows_have_fewer_seeds():
    summary = pd.DataFrame(
        {"row": ["bntt"] * 3 + ["ann-bn"], "seed": [0, 1, 2, 0], "dataset": "digits", "status": "done", "dead": ""}
    )
    assert "n = 3 seeds (0, 1, 2), 1 of ann-bn;" in style.data_sentence(summary, ["bntt", "ann-bn"])
    assert "n = 3 seeds (0, 1, 2);" in style.data_sentence(summary, ["bntt"])


def test_figure4b_says_that_recordings_have_no_noise():
    right = figure4.draw(spikes(), anytime(), nothing(noise()), summary()).axes[1]
    assert [text.get_text() for text in right.texts] == ["accuracy under noise was not measured"]
    right = figure4.draw(nothing(spikes()), nothing(anytime()), nothing(noise()), summary()).axes[1]
    assert [text.get_text() for text in right.texts] == ["no row has a result yet"]


def test_figure4_goes_on_without_missing_rows():
    figure = drawn4(surrogate="diverged", ann="missing")
    assert [c.get_label() for c in figure.axes[1].containers] == ["bntt", "conversion", "mine"]
    assert "Missing: surrogate (training diverged), ann (no result yet)." in words(figure)


def test_figure4_tables():
    table = figure4.spike_count_table(spikes())
    assert list(table.columns) == ["bntt", "surrogate", "conversion", "mine"]
    assert table.loc["conv4", "surrogate"] == pytest.approx(1.6)
    assert figure4.noise_table(noise(seeds=(0, 1))).loc[0.8, "ann"] == pytest.approx(25)
    assert figure4.spike_count_table(nothing(spikes())).empty and figure4.noise_table(nothing(noise())).empty


def test_figure4_says_that_nothing_spikes():
    frame = spikes()
    frame["spikes"] = 0.0
    left = figure4.draw(frame, anytime(), noise(), summary()).axes[0]
    assert " ".join(left.texts[0].get_text().split()) == "no spike in any layer of bntt, surrogate and conversion"
    assert left.get_legend() is None


def test_figure4_legends_cover_no_line():
    figure = drawn4()
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        legend, inside = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.y1 < inside.y0
        assert legend.y0 > 0


def test_many_rows_get_pictures_in_which_no_two_look_alike():
    rows = ["ann", *(f"mine-{number}" for number in range(20)), "bntt", "surrogate"]
    assert style.pictures(rows[:7]) == [["ann", *rows[1:7]]]
    first, *further = style.pictures(rows)
    assert first == ["bntt", "surrogate", "ann"]
    assert [row for part in further for row in part[1:]] == rows[1:21]
    for part in further:
        assert part[0] == "bntt" and len(set(style.looks(part).values())) == len(part)


def deep_and_shallow():
    """Spikes of a network of 15 layers behind one of three, which share the names of their first and last layers."""
    deep = [*(f"conv{number}" for number in range(1, 14)), "fc1", "fc2"]
    layers = [("mine", ["conv1", "conv2", "fc1"]), ("bntt", deep)]
    lines = [("digits", row, 0, layer, t, 0.1 * t) for row, own in layers for layer in own for t in (1, 2)]
    return pd.DataFrame(lines, columns=[*COLUMNS, "layer", "time_step", "spikes"]), deep


def test_layers_are_in_order_of_depth_whichever_row_comes_first():
    frame, deep = deep_and_shallow()
    assert style.layers_by_depth(frame) == deep
    figure = figure4.draw(frame, anytime(), noise(), summary(), ("mine", "bntt"), 10)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == deep
    assert axes.get_legend().get_window_extent().y1 < axes.xaxis.label.get_window_extent().y0
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {60.0}  # or they run into each other
    assert {label.get_rotation() for label in drawn4().axes[0].get_xticklabels()} == {0.0}
    legend = figure1.draw(frame, summary(), ("mine", "bntt")).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == deep


def test_figure1_has_a_letter_for_each_of_many_panels():
    rows = [f"mine-{number}" for number in range(28)]
    frame = pd.concat([spikes(["mine"]).assign(row=row) for row in rows])
    about = pd.concat([summary(["mine"]).assign(row=row) for row in rows])
    titles = [axes.get_title() for axes in figure1.draw(frame, about, rows).axes]
    assert titles[25:] == ["(z) mine-25", "(aa) mine-26", "(bb) mine-27"]


def test_figure4_marks_chance_where_its_axis_reaches_it_and_names_dead_rows():
    low, high = noise(), noise()
    high["accuracy"] += 60.0
    about = summary(dead={"ann": "at chance", "mine": ("silent",)})
    figure = figure4.draw(spikes(), anytime(), low.assign(accuracy=12.0), about, ("bntt", "ann", "mine"), 10)
    assert [line.get_ydata()[0] for line in lines_with(figure.axes[1], "chance")] == [10.0]
    assert "Grey dotted line: chance, 10 % (10 classes)." in words(figure)
    assert "At chance: accuracy not significantly above 10 % (10 classes)." in words(figure)
    assert [c.get_label() for c in figure.axes[1].containers] == ["bntt", "ann, at chance", "mine, silent"]
    figure = figure4.draw(spikes(), anytime(), high, summary(), ("bntt",), 10)
    assert lines_with(figure.axes[1], "chance") == [] and "hance" not in words(figure)


# -- Figure 5 --------------------------------------------------------------------------------------------------------


def realisations():
    """In pixel space, accuracy is 90 - 10 sigma + seed, and in the other 10 less; a realisation adds -2, 0 or 2."""
    return pd.DataFrame(
        [
            ("digits", row, seed, sigma, space, draw, 90 - 10 * sigma + seed - less + 2 * (draw - 1))
            for row in ("surrogate", "bntt")
            for seed in (0, 1)
            for space, less in (("pixel", 0), ("normalised", 10))
            for sigma in (0.2, 0.4)
            for draw in range(3)
        ],
        columns=[*COLUMNS, "sigma", "space", "draw", "accuracy"],
    )


def test_figure4_shows_both_spaces_with_means_over_realisations_and_deviations_over_seeds():
    figure = figure4.draw_spaces(realisations(), summary(seeds=(0, 1)), ("bntt", "surrogate", "ann"))
    pixel, normalised = figure.axes
    for axes, less in ((pixel, 0), (normalised, 10)):
        curves = {curve.get_label(): curve for curve in axes.containers}
        assert list(curves) == ["bntt", "surrogate"]
        line, _, (bars,) = curves["bntt"].lines
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), [88.5 - less, 86.5 - less])
        half = 0.5**0.5  # of two seeds that differ by 1
        for bar, middle in zip(bars.get_segments(), (88.5 - less, 86.5 - less), strict=True):
            np.testing.assert_allclose(bar[:, 1], [middle - half, middle + half])
        spans = [one for one in axes.collections if len(one.get_segments()) == 2 and one.get_linewidth() == [0.6]]
        np.testing.assert_allclose(spans[0].get_segments()[0][:, 1], [86 - less, 91 - less])
    assert "3 realisations of the noise and over seeds. Error bars: ± 1 s.d." in words(figure)
    alone = select(realisations(), seed=0, draw=0)
    figure = figure4.draw_spaces(alone, summary(seeds=(0,)), ("bntt", "surrogate"))
    assert "Error bars" not in words(figure)
    assert "Thin lines" not in words(figure)


def test_figure4_in_numbers_has_the_spread_over_realisations_alone():
    table = figure4.realisation_table(realisations())
    assert table.loc[("pixel", 0.2), "bntt"] == "88.5 (2.0)"
    assert table.loc[("normalised", 0.4), "surrogate"] == "76.5 (2.0)"
    assert list(table.columns) == ["bntt", "surrogate"]


def test_figure5_has_a_histogram_for_each_layer_and_step():
    figure = figure5.draw(gamma(), summary())
    assert len(figure.axes) == 3
    for axes, layer, peak in zip(figure.axes, LAYERS, (2, 3, 4), strict=True):
        assert axes.get_title(loc="left") == f"{layer}: mean γ peaks at t = {peak} with 0.50, ends with 0.00"
        assert len(axes.patches) == 6
        marked = [matplotlib.colors.same_color(patch.get_facecolor(), palette.VERMILLION) for patch in axes.patches]
        assert marked == [step == peak for step in range(1, 7)]
    assert figure.axes[-1].get_xlabel() == "Time-steps"


@pytest.mark.parametrize(
    ("curve", "course"),
    [([0.5, 0.49, 0.48, 0.48, 0.48, 0.48], "has no clear peak, is 0.48 to 0.50, ends with 0.48"),
     ([-0.4] * 6, "has no clear peak, is −0.40 to −0.40, ends with −0.40"),
     ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "has no clear peak, is 0.10 to 0.60, ends with 0.60"),
     ([0.5, 0.4, 0.3, 0.2, 0.1, -0.001], "peaks at t = 1 with 0.50, ends with 0.00"),
     ([0.0, 0.0, 0.003, 0.0, 0.0, 0.0], "peaks at t = 3 with 0.00, ends with 0.00")],
)  # fmt: skip
def test_figure5_states_no_peak_of_a_curve_that_does_not_fall(curve, course):
    frame = gamma().query("layer == 'conv1'").sort_values(["time_step", "channel"])
    frame["gamma"] = np.repeat(curve, 2) + np.tile([0.1, -0.1], 6)
    figure = figure5.draw(frame, summary(), layers=("conv1",))
    assert figure.axes[0].get_title(loc="left") == f"conv1: mean γ {course}"
    coloured = [patch for patch in figure.axes[0].patches if patch.get_gid() == "peak"]
    peak = "no clear peak" not in course
    assert len(coloured) == peak
    assert ("its peak is the histogram in another colour" in words(figure)) == peak
    assert (figure3.peaks(frame, "gamma").loc["conv1", "bntt"] != "none") == peak


def test_figure5_keeps_its_ticks_beside_a_layer_that_is_not_there():
    figure = figure5.draw(gamma(), summary(), layers=("conv1", "conv9"))
    first, absent = figure.axes
    assert len(first.get_yticks()) > 2 and first.get_xlabel() == "Time-steps" and not absent.get_xlabel()
    assert [label.get_text() for label in first.get_xticklabels() if label.get_visible()] == list("123456")


def test_figure5_counts_channels():
    part = gamma()[lambda frame: frame["layer"] == "conv1"]
    counts = figure5.histograms(part, np.array([-0.2, 0.0, 0.3, 0.5, 0.7]))
    assert counts.loc[1].tolist() == [1, 1, 0, 0]
    assert counts.loc[2].tolist() == [0, 0, 1, 1]


def test_figure5_names_a_layer_that_is_not_there():
    figure = figure5.draw(gamma(), summary(), layers=("conv1", "conv9"))
    assert "no layer conv9" in words(figure)


# -- Figure 6 --------------------------------------------------------------------------------------------------------


def test_figure6_has_two_axes():
    left, right = figure6.draw(early_exit(), summary(), images=100).axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("Accuracy (%)", "Early exit time (time-steps)")
    assert list(left.containers[0].lines[0].get_ydata()) == [99, 98, 98, 40]
    assert list(right.containers[0].lines[0].get_ydata()) == [6, 4, 4, 1]
    assert list(right.containers[0].lines[0].get_xdata()) == [0.05, 0.1, 0.4, 0.6]
    assert bars(left.containers[0])[-1] == pytest.approx(100 * np.sqrt(0.4 * 0.6 / 100))
    for axes in (left, right):  # open where there is no exit
        (open_symbols,) = lines_with(axes, "no exit")
        assert list(open_symbols.get_xdata()) == [0.05] and open_symbols.get_markerfacecolor() == "white"
    assert [line.get_xdata()[0] for line in lines_with(left, "paper")] == [0.1]


@pytest.mark.parametrize(
    ("accuracies", "least", "most"),
    [([99.5, 99.4, 99.3, 99.5], 94, 100), ([1.2, 1.0, 0.9, 1.1], 0, 6), ([52, 52, 51, 33], 33, 52), ([50] * 4, 47, 53)],
)
def test_figure6_fits_its_axis_to_the_accuracies_but_does_not_magnify_noise(accuracies, least, most):
    figure = figure6.draw(early_exit().assign(accuracy=accuracies), summary(dataset="cifar100"))
    low, high = figure.axes[0].get_ylim()
    rim = 0.1 * (most - least)
    assert least - rim < low < least and most < high < most + 4 * rim
    ticks = figure.axes[0].get_yticks()
    assert len(ticks) >= 3 and min(ticks) >= max(low, 0) and max(ticks) <= min(high, 100)
    assert len(lines_with(figure.axes[0], "chance")) == (least == 0)
    assert ("chance, 1 % (100 classes)" in words(figure)) == (least == 0)


def test_figure6_shows_all_of_every_error_bar():
    frame = early_exit()  # 40 % of 16 images, give or take 12 points
    axes = figure6.draw(frame, summary(), images=16).axes[0]
    assert axes.get_ylim()[0] < 40 - 100 * np.sqrt(0.4 * 0.6 / 16)


def test_figure6_explains_open_symbols_and_error_bars_only_if_there_are_some():
    exits, several = early_exit().query("exits == 1"), early_exit(seeds=(0, 1))
    assert "Open symbols" in words(figure6.draw(early_exit(), summary()))
    figure = figure6.draw(exits, summary())
    assert "Open symbols" not in words(figure) and lines_with(figure.axes[0], "no exit") == []
    assert "Error bars" not in words(figure6.draw(exits, summary()))
    assert "± 1 binomial standard error over test images." in words(figure6.draw(exits, summary(), images=100))
    assert "Error bars: ± 1 s.d. over seeds." in words(figure6.draw(several, summary(seeds=(0, 1)), images=100))


# -- what all share --------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_without_any_result():
    about = summary(**dict.fromkeys(("bntt", "surrogate", "ann"), "missing"))
    about["status"] = "missing"
    for figure in (
        figure1.draw(nothing(spikes()), about),
        figure3.draw(nothing(gamma()), nothing(early_exit()), about, ["bntt", "bntt-unscaled"]),
        figure4.draw(nothing(spikes()), nothing(anytime()), nothing(noise()), about),
        figure5.draw(nothing(gamma()), about),
        figure6.draw(nothing(early_exit()), about, ["bntt", "bntt-unscaled"]),
    ):
        figure.canvas.draw()
        assert "bntt (no result yet)" in words(figure)
        for explained in ("Dots", "differ", "Line:", "line:", "histogram over", "Error bars", "symbols", "Sum over",
                          "γ: mean", "Decay budget", "chance", "Silent", "Threshold:", "overlaid"):  # fmt: skip
            assert explained not in words(figure)


def test_captions_explain_only_what_is_drawn():
    flat, exits = spikes(["surrogate"]), early_exit()
    one = words(figure1.draw(flat, summary(["surrogate"]), ["surrogate"]))
    assert "Dots" not in one and "axes differ" not in one and "bands" not in one
    both = words(figure1.draw(spikes(seeds=(0, 1)), summary(seeds=(0, 1))))
    assert "Dots" in both and "axes differ" in both and "bands: ± 1 s.d." in both
    single = summary(["bntt", "surrogate"], (0, 1))[lambda frame: (frame["row"] == "bntt") | (frame["seed"] == 0)]
    assert "bands" not in words(figure1.draw(spikes(["surrogate"]), single, ["surrogate"]))
    never = exits.assign(exits=0)
    assert "Yellow" in words(figure3.draw(gamma(), exits, summary()))
    assert "Yellow" not in words(figure3.draw(gamma(), never, summary()))
    assert "Decay budget" not in words(figure3.draw(gamma(["mine"]), early_exit(["mine"]), summary(), ["mine"]))
    of_paper = summary(dataset="cifar10")
    assert "paper's exit" not in words(figure3.draw(gamma(dataset="cifar10"), exits, of_paper))
    assert "paper's peak" not in words(figure5.draw(gamma(dataset="cifar10"), of_paper))
    assert "Error bars" not in words(figure4.draw(spikes(), anytime(), noise(), summary()))  # images are not known


def test_a_dead_row_is_named_in_every_figure_and_for_how_many_seeds():
    about = summary(seeds=(0, 1), dead={"bntt": ("silent", ""), "surrogate": "at chance"})
    assert style.labelled(about, "bntt") == "bntt, silent for 1 of 2 seeds"
    assert style.labelled(about, "surrogate") == "surrogate, at chance" and style.labelled(about, "ann") == "ann"
    seeds = {"seeds": (0, 1)}
    for figure in (
        figure1.draw(spikes(**seeds), about),
        figure3.draw(gamma(**seeds), early_exit(**seeds), about),
        figure4.draw(spikes(**seeds), anytime(**seeds), noise(**seeds), about),
        figure5.draw(gamma(**seeds), about),
        figure6.draw(early_exit(**seeds), about),
    ):
        assert "bntt, silent for 1 of 2 seeds" in words(figure)
        assert "Silent: some layer has no spike on any test image." in words(figure)


def test_a_row_that_does_not_spike_or_has_no_gamma_says_so():
    assert "does not spike" in words(figure1.draw(spikes(), summary(), ["ann"]))
    assert "no γ that changes with time" in words(figure5.draw(gamma(), summary(), "surrogate"))


def test_a_figure_is_of_one_dataset():
    two = pd.concat([summary(), summary(dataset="cifar10")])
    with pytest.raises(ValueError, match="one dataset"):
        figure1.draw(spikes(), two)
    assert select(two, dataset="cifar10")["dataset"].unique().tolist() == ["cifar10"]
    assert style.drawn_dataset(["digits", "cifar10"]) == "cifar10"
    assert style.drawn_dataset(["digits"]) == "digits"


def test_rows_look_different_and_keep_the_papers_looks():
    rows = [*paper.ROWS, *"abcdef"]
    drawn = style.looks(rows)
    assert len({look.color for look in drawn.values()}) == len({look.marker for look in drawn.values()}) == 10
    assert style.looks(["z", "bntt"])["bntt"] == drawn["bntt"]


def test_rows_with_gamma_include_variants_that_are_still_to_come():
    about = summary(bntt_unscaled="missing", surrogate="missing")
    assert style.rows_with_gamma(gamma(["mine", "bntt"]), about) == ["bntt", "bntt-unscaled", "mine"]


# Settings that a user may have in a matplotlibrc, each of which would change a figure.
PERSONAL = {
    "text.usetex": True, "savefig.bbox": "tight", "savefig.pad_inches": 1.0, "axes.facecolor": "black",
    "figure.facecolor": "black", "text.color": "white", "lines.solid_capstyle": "round", "path.sketch": (1, 100, 2),
    "axes.formatter.use_locale": True, "axes.xmargin": 0.5, "xtick.direction": "in", "legend.loc": "center",
    "mathtext.fontset": "stix", "image.cmap": "gray", "figure.dpi": 33, "pdf.compression": 0, "svg.image_inline": False,
}  # fmt: skip


def test_saved_figures_are_the_same_bytes_every_time_whatever_the_settings(tmp_path, monkeypatch):
    saved = []
    for folder, moment, personal in (("first", "1", {}), ("second", "1000000000", PERSONAL)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", moment)
        with matplotlib.rc_context(personal):
            path = style.save(figure6.draw(early_exit(), summary()), tmp_path / folder / "figures", "figure6")
        assert path == tmp_path / folder / "figures" / "figure6.png"
        saved.append({one.name: one.read_bytes() for one in sorted(path.parent.iterdir())})
    assert list(saved[0]) == ["figure6.pdf", "figure6.png", "figure6.svg"]
    assert saved[0] == saved[1]
    assert b"dc:date" not in saved[0]["figure6.svg"] and b"CreationDate" not in saved[0]["figure6.pdf"]


def test_the_callers_style_is_left_alone():
    before = dict(matplotlib.rcParams)
    figure1.draw(spikes(), summary())
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == []
