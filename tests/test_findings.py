"""What docs/findings.md says of the committed measurements is computed again from their files."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_methods_page import accuracies, runs, seconds, spikes, spread
from tiny import PROJECT

from bntt.common.text import interval
from bntt.experiment.schema import load
from bntt.results.intervals import decode_bits, paired_difference, paired_mean_difference, student_interval
from bntt.results.waves import peak_order

PAGE = (PROJECT / "docs/findings.md").read_text(encoding="utf-8")
PROTOCOL, LEASE, SMALL, RECORDINGS = (
    PAGE.partition(f"results/reference/{name}`)")[2].partition("\n## ")[0]
    for name in ("cifar10", "cifar10-lease", "cifar10-small", "dvs-sim-small")
)
RECORDED = "dvs-cifar10-sim"


def measured(experiment: str, row: str, name: str, dataset: str = "cifar10") -> pd.DataFrame:
    """A measurement of seed 0."""
    return pd.read_csv(runs(experiment, row, dataset)[0] / name, dtype={"correct": str})


def right(experiment: str, row: str, step: int | None = None, dataset: str = "cifar10") -> np.ndarray:
    """Which test images seed 0 classifies correctly after a step, or after the last one."""
    found = measured(experiment, row, "anytime.csv", dataset).set_index("time_step")["correct"]
    return decode_bits(found[step] if step else found.iloc[-1], 1000 if dataset == RECORDED else 10_000)


def accuracy(correct: np.ndarray) -> str:
    share = correct.mean()
    return f"{100 * share:.2f} ± {100 * (share * (1 - share) / len(correct)) ** 0.5:.2f}"


def difference(one: np.ndarray, other: np.ndarray) -> str:
    return interval(paired_difference(one, other).times(100))


def over_draws(experiment: str, row: str) -> str:
    draws = measured(experiment, row, "draws.csv")
    return f"{draws[draws['time_step'] == draws['time_step'].max()]['accuracy'].std():.2f}"


def cells(text: str, first: str) -> list[str]:
    line = re.search(rf"^\| {re.escape(first)} \|.*$", text, flags=re.MULTILINE)
    return [cell.strip() for cell in line[0].strip("|").split("|")]


@pytest.mark.parametrize("row", ["bntt", "surrogate", "ann", "conversion", "rmp"])
def test_the_table_of_the_small_cifar10(row):
    correct, noise = right("cifar10-small", row), measured("cifar10-small", row, "noise.csv")
    last = noise[(noise["sigma"] == 0.2) & (noise["time_step"] == noise["time_step"].max())]["accuracy"].item()
    shown = cells(SMALL, f"`{row}`")
    assert shown[2].removesuffix(", no exit") == accuracy(correct)
    assert shown[4] == ("" if row == "bntt" else difference(correct, right("cifar10-small", "bntt")))
    assert shown[7] == f"{last:.2f}"
    if row != "ann":
        count = spikes("cifar10-small", row, "cifar10").item()
        assert (shown[3], shown[5]) == (over_draws("cifar10-small", row), f"{count:.3f}")
        assert shown[6] == f"{4.6 / (0.9 * count):.3g}"  # 4.6 pJ for each operation, 0.9 pJ for each spike's


def exits(experiment: str) -> pd.Series:
    return measured(experiment, "bntt", "early_exit.csv").set_index("threshold")["exit_step"]


def beside_the_paper(experiment: str) -> dict[str, str]:
    """The lines of a table that puts BNTT beside the paper's numbers."""
    last, left = right(experiment, "bntt"), right(experiment, "bntt", exits(experiment)[0.1])
    count = spikes(experiment, "bntt", "cifar10").item()
    return {
        "accuracy at T = 25": f"{accuracy(last)}; over draws {over_draws(experiment, 'bntt')}",
        "early exit at threshold 0.1": f"t = {exits(experiment)[0.1]}",
        "accuracy there": f"{accuracy(left)}; a change of {difference(left, last)}",
        "spikes per neuron, weighted by operations": f"{count:.3f}",
        "E_ANN/E_method": f"{4.6 / (0.9 * count):.2f}",
    }


def test_the_table_of_the_lease():
    for what, here in beside_the_paper("cifar10-lease").items():
        assert cells(LEASE, what)[1] == here
        assert cells(PROTOCOL, what)[3] == here.partition(";")[0]
    last, left, earlier = (right("cifar10-lease", "bntt", step) for step in (None, 18, 13))
    assert exits("cifar10-lease")[0.1] == 18
    assert f"changes the accuracy by {difference(left, last)} points" in " ".join(LEASE.split())
    assert exits("cifar10-lease")[0.3] == 13 and f"at t = 13, changes it by {difference(earlier, last)}." in LEASE


def test_the_table_of_the_papers_protocol():
    for what, here in beside_the_paper("cifar10").items():
        assert cells(PROTOCOL, what)[1] == here
    last, lease = right("cifar10", "bntt"), right("cifar10-lease", "bntt")
    text = " ".join(PROTOCOL.split())
    assert f"changes the accuracy by {difference(right('cifar10', 'bntt', 14), last)} points" in text
    assert f"gave {difference(last, lease)} points" in text
    noise = measured("cifar10", "bntt", "noise.csv").set_index("sigma")["accuracy"]
    assert f"leaves {noise[0.1]:.2f} %, 0.2 leaves {noise[0.2]:.2f} % and 0.4 leaves {noise[0.4]:.2f} %" in text
    trained = [
        measured(name, "bntt", "history.csv")["train_accuracy"].iloc[-1] for name in ("cifar10-lease", "cifar10")
    ]
    assert "Training accuracy went from {:.1f} to {:.1f} %".format(*trained) in text


def test_gamma_and_spikes_by_the_papers_protocol():
    text, (decayed, steps, _) = " ".join(PROTOCOL.split()), decay_alone(runs("cifar10", "bntt", "cifar10")[0])
    assert f"goes from 1 to {decayed:.1e} in these {steps:,} steps".replace("e-09", "e-9") in text
    gammas = measured("cifar10", "bntt", "gamma.csv")
    conv1 = gammas.query("layer == 'conv1' and time_step == 25")["gamma"]
    assert f"{conv1.median():.2e}" == f"{decayed:.2e}"
    means = gammas.groupby(["time_step", "layer"])["gamma"].mean().unstack()
    assert means.loc[9:].max().max() < 0.1 <= means.loc[8].max() and "From t = 9 on, mean gamma is below 0.1" in text
    assert f"at t = 13; here it is at {means.loc[13, 'conv7']:.2f}" in text
    assert f"at most {means.loc[25].max():.4f}" in cells(PROTOCOL, "mean gamma at t = 25")[2]
    layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "conv7", "fc1"]
    shown = ", ".join(str(step) for step in means.idxmax()[layers])
    assert cells(PROTOCOL, "step at which mean gamma peaks, conv1 to fc1")[1] == shown
    counts = measured("cifar10", "bntt", "spikes.csv").pivot(index="time_step", columns="layer", values="spikes")
    peaks = counts.idxmax()[layers]
    assert "(t = {};".format(", ".join(map(str, peaks))) in text
    for of_layers in (means.idxmax()[layers], peaks):
        order = peak_order([[int(step) for step in of_layers]])
        assert f"tau {order.tau:.2f}, {100 * order.p_later:.1f} %" in text


def undriven(rates: np.ndarray, decay: float) -> float:
    """Where SGD with momentum 0.9 and coupled weight decay takes a gamma of 1 whose gradient is 0 in all steps."""
    gamma, velocity = 1.0, 0.0
    for rate in rates:
        velocity = 0.9 * velocity + decay * gamma
        gamma -= rate * velocity
    return gamma


def decay_alone(run: Path) -> tuple[float, int, int]:
    """Where decay alone takes gamma in a run, in how many steps, and the number of time-steps."""
    training, rates = json.loads((run / "train.json").read_text()), pd.read_csv(run / "history.csv")["learning_rate"]
    options, steps = training["config"]["options"], training["steps"]
    gamma = undriven(np.repeat(rates.to_numpy(), steps // len(rates)), options["weight_decay"])
    return gamma, steps, options["time_steps"]


@pytest.mark.parametrize(("experiment", "text"), [("cifar10-lease", LEASE), ("cifar10-small", SMALL)])
def test_gamma_ends_where_decay_alone_takes_it(experiment, text):
    gamma, steps, time_steps = decay_alone(runs(experiment, "bntt", "cifar10")[0])
    assert f"goes from 1 to {gamma:.3f} in these {steps:,} steps" in " ".join(text.split())
    gammas = measured(experiment, "bntt", "gamma.csv")
    last = gammas.groupby(["time_step", "layer"])["gamma"].mean().loc[time_steps]
    if experiment == "cifar10-lease":
        assert f"between {last.min():.3f} and {last.max():.3f} in all layers" in " ".join(text.split())
    else:
        conv1 = gammas.query("layer == 'conv1' and time_step >= 10")
        assert (conv1["gamma"] - gamma).abs().max() < 0.001
        assert "From t = 10 on all gammas of conv1 are within 0.001" in text
        assert (last.drop("fc1") - gamma).abs().max() < 0.002 and f"fc1 ({last['fc1']:.3f})" in text


def test_the_differences_in_spikes_and_under_noise():
    rows = ("bntt", "surrogate", "ann")
    of_image = [measured("cifar10-small", row, "image_spikes.csv")["spikes"].to_numpy() for row in rows[:2]]
    more = of_image[0] - of_image[1]
    half = 1.96 * more.std(ddof=1) / len(more) ** 0.5
    text = " ".join(SMALL.split())
    assert f"images {of_image[0].mean():.3f} and {of_image[1].mean():.3f}" in text
    assert f"a difference of {more.mean():.3f} [{more.mean() - half:.3f}, {more.mean() + half:.3f}]" in text
    accuracies = [measured("cifar10-small", row, "noise.csv").groupby("sigma")["accuracy"].last() for row in rows]
    lost = [f"{one[0.0] - one[0.2]:.1f}" for one in accuracies]
    assert f"cost the dense network {lost[2]} points, BNTT {lost[0]} and the network without a norm {lost[1]}" in text


@pytest.mark.parametrize("row", ["bntt", "surrogate", "hats", "hots"])
def test_the_table_of_simulated_recordings(row):
    of = "dvs-sim-small", row, RECORDED
    reached, bntt = accuracies(*of), accuracies("dvs-sim-small", "bntt", RECORDED)
    shown = cells(RECORDINGS, f"`{row}`")
    assert shown[1] == str(len(reached))
    if row == "hats":
        hats, other = (right("dvs-sim-small", one, dataset=RECORDED) for one in ("hats", "bntt"))
        assert shown[2] == accuracy(hats) and shown[3] == "" and shown[4] == difference(hats, other)
    else:
        around = student_interval(reached)
        assert shown[2] == spread(reached) and shown[3] == f"[{around.low:.2f}, {around.high:.2f}]"
        assert shown[4] == ("" if row == "bntt" else interval(paired_mean_difference(reached, bntt)))
    assert shown[5] == ("–" if row in ("hats", "hots") else spread(spikes(*of)))
    assert shown[6] == f"{seconds(*of):.0f}"


def test_training_spikes_and_gamma_on_simulated_recordings():
    text = " ".join(RECORDINGS.split())
    counts = [spikes("dvs-sim-small", row, RECORDED) for row in ("bntt", "surrogate")]
    assert f"{interval(paired_mean_difference(*counts))} more spikes" in text
    trained = {
        row: [
            pd.read_csv(run / "history.csv")["train_accuracy"].iloc[-1] for run in runs("dvs-sim-small", row, RECORDED)
        ]
        for row in ("bntt", "surrogate")
    }
    assert f"{min(trained['bntt']):.1f} to {max(trained['bntt']):.1f} % of them" in text
    assert f"without a norm {min(trained['surrogate']):.1f} to {max(trained['surrogate']):.1f}." in text
    for run in runs("dvs-sim-small", "bntt", RECORDED):
        decayed, *_ = decay_alone(run)
        assert f"{decayed:.3f}, where decay alone" in text
        gammas = pd.read_csv(run / "gamma.csv").query("time_step >= 10 and layer.str.startswith('conv')")
        assert (gammas.groupby(["layer", "time_step"])["gamma"].mean() - decayed).abs().max() < 0.01
        assert not pd.read_csv(run / "early_exit.csv").query("threshold == 0.1")["exits"].any()


def on_digits(row: str, name: str) -> pd.DataFrame:
    """A measurement of all seeds of a row of `demo-all`."""
    folder = PROJECT / "results/reference/demo-all/runs/digits" / row
    return pd.concat([pd.read_csv(folder / f"seed-{seed}" / name).assign(seed=seed) for seed in range(3)])


def test_where_decay_alone_takes_gamma_on_the_digits():
    epochs = np.array([10, 4, 4, 2])  # until each milestone, and to the end; an epoch has 17 steps
    rates = np.repeat([0.3, 0.03, 0.003, 0.0003], 17 * epochs)
    decays = {run.row: run.options.get("weight_decay") for run in load("demo-all").runs if run.dataset == "digits"}
    rows = ("bntt-tuned", "bntt")
    ends = [f"{undriven(rates, decays[row]):.3f}" for row in rows]
    text = " ".join(PAGE.split())
    assert f"takes it from 1 to {ends[0]} in `bntt-tuned` and to {ends[1]} in `bntt`" in text
    demo = " ".join((PROJECT / "docs/demo.md").read_text(encoding="utf-8").split())
    assert f"mean gamma ends at {ends[0]} in every layer and seed" in demo
    lasts = [
        on_digits(row, "gamma.csv").query("time_step == 25").groupby(["seed", "layer"])["gamma"].mean() for row in rows
    ]
    assert {f"{value:.3f}" for value in lasts[0]} == {ends[0]}
    assert f"and between {lasts[1].min():.3f} and {lasts[1].max():.3f}." in text
    exits = on_digits("bntt", "early_exit.csv").query("threshold == 0.1")["exit_step"]
    assert "at t = {}, {} and {}".format(*exits) in text and "at t = {}, {} and {}".format(*exits) in demo
    assert not on_digits("bntt-tuned", "early_exit.csv").query("threshold == 0.1")["exits"].any()


def test_the_two_decays_of_demo_all():
    tuned, bntt = (accuracies("demo-all", row) for row in ("bntt-tuned", "bntt"))
    more = interval(paired_mean_difference(bntt, tuned))
    for page in ("findings", "demo"):
        assert f"{more} points more accurate" in " ".join((PROJECT / f"docs/{page}.md").read_text().split())
    counts = [spread(spikes("demo-all", row)) for row in ("bntt-tuned", "bntt")]
    text = " ".join(PAGE.split())
    assert f"are {counts[0]} and {counts[1]}." in text
    above = interval(paired_mean_difference(bntt, accuracies("demo-all", "none")))
    methods = " ".join((PROJECT / "docs/methods.md").read_text().split())
    assert f"is {above} points above" in text and f"is {above} points above" in methods
