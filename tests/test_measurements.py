"""Measurements: counted again by a plain loop, computed again by hand, and independent of batches and chunks."""

import dataclasses
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tiny import images, one_row
from torch.nn import functional as F

from bntt.classifiers import DenseClassifier, SpikingClassifier
from bntt.experiment import declared
from bntt.experiment.schema import EVALUATION
from bntt.measurements import (
    Subject,
    anytime,
    approximations,
    draws,
    early_exit,
    energy,
    gamma,
    gamma_quartiles,
    image_spikes,
    measure_all,
    noise,
    noise_draws,
    per_cent,
    spikes,
    to_bits,
)
from bntt.spiking import randomness
from bntt.spiking.encoding import poisson
from bntt.spiking.networks import DenseNetwork, SpikingNetwork, WeightLayer, initialise, weight_layers
from bntt.spiking.neurons import LIF
from bntt.spiking.randomness import key

torch.set_num_threads(1)
STEPS = 5


def spiking_network(norm="bntt", reset="soft", readout="mean", seed=0):
    """A small network that spikes at every depth, with gammas and tracked moments away from where they start."""
    layers = weight_layers("vgg5", (1, 8, 8), 3, 0.1)
    network = SpikingNetwork(layers, STEPS, norm=norm, neuron=lambda name: LIF(0.9, 0.75, reset), readout=readout)
    initialise(network, seed, 4.0)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            u = torch.rand(tensor.shape, generator=draws)
            if name.endswith(("gamma", "running_var")):
                tensor.mul_(0.5 + u)
            elif name.endswith("running_mean"):
                tensor.add_(0.4 * u - 0.2)
    return network


def subject(tmp_path, classifier=None, chunk=25, **evaluation):
    """A classifier with the data it is judged on."""
    evaluation = {"report_steps": [2, 100], "noise_sigmas": [0.0, 0.5], "batch_size": 90} | evaluation
    _, run = one_row(tmp_path, evaluation=evaluation, method="surrogate", time_steps=STEPS)
    classifier = classifier or SpikingClassifier(spiking_network(), signed=True, chunk=chunk)
    return Subject(run, images(test=11), classifier)


def dense(seed=0):
    network = DenseNetwork(weight_layers("vgg5", (1, 8, 8), 3, 0.1))
    initialise(network, seed, 2.0)
    return DenseClassifier(network, signed=True)


def by_loop(of: Subject):
    """The network on all test images, step by step and layer by layer: inputs, spikes and voltages."""
    network, data = of.classifier.network, of.data
    samples = torch.arange(len(data.test))
    scaled = (data.test.pixels.float() / 255 - data.mean) / data.deviation
    train = poisson(scaled, STEPS, of.noise_key(), samples, signed=True)
    layers = network.description
    inputs = {layer.name: [] for layer in layers}
    fired = {layer.name: [] for layer in layers[:-1]}
    membranes, voltages = {}, []
    for t in range(STEPS):
        x = train[t]
        for layer in layers[:-1]:
            part = network.layers[layer.name]
            inputs[layer.name].append(x)
            current = part.connection(x).detach()
            if part.norm is not None:
                shape = (1, -1) + (1,) * (current.dim() - 2)
                scale, shift = (a[t].float().reshape(shape).detach() for a in part.norm.inference_affine(0, STEPS))
                current = scale * current + shift
            u = part.neuron.leak * membranes.get(layer.name, torch.zeros_like(current)) + current
            spike = (u > part.neuron.threshold).float()
            membranes[layer.name] = u - spike * part.neuron.threshold
            fired[layer.name].append(spike)
            x = F.avg_pool2d(spike, 2) if layer.pool else spike
            x = x.flatten(1) if not layers[layers.index(layer) + 1].is_convolution else x
        inputs[layers[-1].name].append(x)
        voltages.append(network.classifier(x).detach())
    stack = lambda d: {name: torch.stack(values).double() for name, values in d.items()}  # noqa: E731
    return stack(inputs), stack(fired), torch.stack(voltages)


# -- draws ------------------------------------------------------------------------------------------------


def test_each_draw_is_the_accuracy_under_its_own_noise_and_the_first_is_that_of_the_other_measurements(tmp_path):
    of = subject(tmp_path, draws=4)
    rows = draws.measure(of)
    assert [(row["draw"], row["time_step"]) for row in rows] == [
        (draw, step) for draw in range(4) for step in (2, STEPS)
    ]
    curve = {row["time_step"]: row["accuracy"] for row in anytime.measure(of)}
    assert all(row["accuracy"] == curve[row["time_step"]] for row in rows if row["draw"] == 0)
    samples = torch.arange(len(of.data.test))
    for row in rows:
        scaled = of.classifier.scaled(of.data, of.data.test.unit(samples))
        noise = key(of.run.seed, "test noise", row["draw"])
        running = torch.cat([logits for _, logits in of.classifier.running_logits(scaled, samples, noise)])
        right = running[row["time_step"] - 1].argmax(1) == of.data.test.labels
        assert row["accuracy"] == pytest.approx(100 * right.double().mean().item())


@pytest.mark.parametrize("seed", [0, 3])
def test_the_noise_of_each_measurement_is_keyed_by_seed_and_draw(tmp_path, seed):
    watching = Watching(SpikingClassifier(spiking_network(), True))
    of = subject(tmp_path, watching, draws=3, noise_sigmas=[0.3])
    of = dataclasses.replace(of, run=dataclasses.replace(of.run, seed=seed))
    for measurement, used in ((anytime, [0]), (noise, [0]), (draws, [1, 2])):  # draw 0 is the pass that all share
        watching.keys.clear()
        measurement.measure(of)
        assert watching.keys == [key(seed, "test noise", draw) for draw in used]


def test_where_nothing_is_drawn_there_are_no_draws(tmp_path):
    assert "dense" in draws.measure(subject(tmp_path, dense()))


# -- the pass over the test images ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["bntt", "none"])
def test_counts_are_those_of_a_plain_loop(tmp_path, norm):
    of = subject(tmp_path, SpikingClassifier(spiking_network(norm), True, chunk=2), batch_size=4, report_steps=[1, 3])
    inputs, fired, _ = by_loop(of)
    seen = of.observation
    assert sum(values.sum() for values in fired.values()) > 0
    for name, values in fired.items():
        assert torch.equal(seen.spikes[name], values.flatten(1).sum(1))
    for name, values in inputs.items():
        assert torch.equal(seen.input_events[name], (values != 0).double().flatten(1).sum(1))
        assert torch.allclose(seen.input_mass[name], values.abs().flatten(1).sum(1))
        assert seen.input_size[name] == values[0, 0].numel()
    until = sum(values.flatten(2).sum(2) for values in fired.values()).cumsum(0)
    assert torch.equal(seen.spikes_by_image, until[[step - 1 for step in of.report_steps]])


def test_spikes_are_per_neuron_image_and_step(tmp_path):
    of = subject(tmp_path)
    _, fired, _ = by_loop(of)
    expected = {(name, t + 1): values[t].mean().item() for name, values in fired.items() for t in range(STEPS)}
    found = {(row["layer"], row["time_step"]): row["spikes"] for row in spikes.measure(of)}
    assert found == pytest.approx(expected)
    assert max(found.values()) > 0


def test_spikes_of_each_image_are_per_neuron_of_the_whole_network_up_to_the_step(tmp_path):
    of = subject(tmp_path)
    _, fired, _ = by_loop(of)
    neurons = sum(values[0, 0].numel() for values in fired.values())
    rows = image_spikes.measure(of)
    assert [(row["time_step"], row["sample"]) for row in rows] == [(t, i) for t in (2, STEPS) for i in range(11)]
    for row in rows:
        count = sum(values[: row["time_step"], row["sample"]].sum() for values in fired.values())
        assert row["spikes"] == pytest.approx((count / neurons).item())


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_accuracy_and_loss_at_every_step_directly(tmp_path, readout):
    of = subject(tmp_path, SpikingClassifier(spiking_network(readout=readout), True, chunk=2), batch_size=4)
    _, _, voltages = by_loop(of)
    labels = of.data.test.labels
    for row in anytime.measure(of):
        t = row["time_step"]
        logits = voltages[:t].sum(0) / (t if readout == "mean" else 1)
        assert row["accuracy"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
        assert row["loss"] == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-5)
        assert bits(row["correct"], 11) == (logits.argmax(1) == labels).tolist()
    assert t == STEPS


# -- which images are right -------------------------------------------------------------------------------


def bits(text: str, count: int) -> list[bool]:
    """Decode: hexadecimal digits, most significant bit first, filled up with zeros at the end."""
    digits = "".join(f"{int(digit, 16):04b}" for digit in text)
    assert "1" not in digits[count:]
    return [digit == "1" for digit in digits[:count]]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_are_decoded_to_what_was_encoded(right):
    text = to_bits(torch.tensor(right))
    assert bits(text, len(right)) == right
    assert len(text) == -(-len(right) // 4)


def test_bits_by_hand():
    assert to_bits(torch.tensor([True, False, False, False, False, True])) == "84"
    assert to_bits(torch.tensor([False] * 8)) == "00"


def test_bits_are_kept_where_steps_are_few_or_reported(tmp_path):
    of = subject(tmp_path, report_steps=[150])
    seen = SimpleNamespace(right=torch.ones(160, 11, dtype=torch.bool), loss=torch.zeros(160, dtype=torch.float64))
    fake = SimpleNamespace(observation=seen, report_steps=[150, 160])
    listed = [row["time_step"] for row in anytime.measure(fake) if row["correct"]]
    assert listed == [*range(1, 101), 150, 160]
    assert of.report_steps == [STEPS]


# -- energy -----------------------------------------------------------------------------------------------


def counted(spiking=True):
    """Two layers and their counts over two images and two steps, small enough for paper and pencil."""
    layers = [WeightLayer("conv1", 1, 2, 4, "A"), WeightLayer("fc1", 8, 3, None, None)]
    seen = SimpleNamespace(
        spikes={"conv1": torch.tensor([16.0, 48.0]), "fc1": torch.tensor([0.0, 0.0])},
        input_events={"conv1": torch.tensor([8.0, 24.0]), "fc1": torch.tensor([4.0, 12.0])},
        input_mass={"conv1": torch.tensor([8.0, 24.0]), "fc1": torch.tensor([1.0, 3.0])},
        input_size={"conv1": 16, "fc1": 8},
    )
    return SimpleNamespace(
        observation=seen,
        data=SimpleNamespace(test=range(2)),
        report_steps=[1, 2] if spiking else [1],
        classifier=SimpleNamespace(layers=layers, spiking=spiking),
    )


def test_energy_by_hand():
    rows = {(row["time_step"], row["layer"]): row for row in energy.measure(counted())}
    # conv1: 3 * 3 * 4 * 4 * 1 * 2 = 288 operations, 2 * 4 * 4 = 32 neurons, 2 images; fc1: 8 * 3 = 24.
    first, last = rows[1, "conv1"], rows[2, "conv1"]
    assert (first["macs"], rows[1, "fc1"]["macs"]) == (288, 24)
    assert (first["count_own"], last["count_own"]) == (16 / 64, 64 / 64)
    assert (first["count_events"], last["count_events"]) == (8 / 32, 32 / 32)
    assert last["own_mj"] == pytest.approx(288 * 1.0 * 0.9e-9)
    assert last["dense_mj"] == pytest.approx(288 * 4.6e-9)
    classifier = rows[2, "fc1"]
    assert classifier["count_events"] == 16 / 16
    assert classifier["count_mass"] == 4 / 16
    assert classifier["count_own"] == classifier["count_events"]  # it does not spike itself
    assert classifier["mass_mj"] == pytest.approx(24 * 0.25 * 0.9e-9)


def test_a_dense_network_has_one_energy():
    rows = energy.measure(counted(spiking=False))
    assert [row["layer"] for row in rows] == ["conv1", "fc1"]
    assert sum(row["dense_mj"] for row in rows) == pytest.approx((288 + 24) * 4.6e-9)
    assert all(row["count_own"] != row["count_own"] and row["own_mj"] != row["own_mj"] for row in rows)


def test_a_spike_count_of_0_559_is_table_3s_ratio():
    """Weighted by operations, whatever the layers: 4.6 / (0.9 * 0.559) = 9.14."""
    layers = weight_layers("vgg9", (3, 32, 32), 10)
    neurons = {layer.name: 100.0 * layer.neurons for layer in layers}
    seen = SimpleNamespace(
        spikes={name: torch.tensor([0.559 * count]) for name, count in neurons.items()},
        input_events={layer.name: torch.tensor([0.559 * 100 * layer.inputs]) for layer in layers},
        input_mass={layer.name: torch.tensor([0.0]) for layer in layers},
        input_size={layer.name: layer.inputs for layer in layers},
    )
    rows = energy.measure(
        SimpleNamespace(
            observation=seen, data=SimpleNamespace(test=range(100)), report_steps=[1],
            classifier=SimpleNamespace(layers=layers, spiking=True),
        )
    )  # fmt: skip
    whole, spent = (sum(row[column] for row in rows) for column in ("dense_mj", "own_mj"))
    assert whole == pytest.approx(0.896, abs=5e-4)
    assert whole / spent == pytest.approx(9.14, abs=5e-3)


def test_energy_of_a_real_network_is_its_counts(tmp_path):
    of = subject(tmp_path)
    inputs, fired, _ = by_loop(of)
    rows = [row for row in energy.measure(of) if row["time_step"] == STEPS]
    for row in rows[:-1]:
        assert row["count_own"] == pytest.approx(fired[row["layer"]].sum(0).mean().item())
    for row in rows:
        assert row["count_events"] == pytest.approx((inputs[row["layer"]] != 0).double().sum(0).mean().item())
        assert row["count_mass"] == pytest.approx(inputs[row["layer"]].abs().sum(0).mean().item())
    assert rows[1]["count_mass"] < rows[1]["count_events"]  # conv2 sees pooled fractions


# -- early exit -------------------------------------------------------------------------------------------

T = torch.tensor


@pytest.mark.parametrize(
    ("gammas", "step"),
    [
        ([[0.5, 0.5, 0.5, 0.5]], 4),  # never below: no exit
        ([[0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]], 4),
        ([[0.0, 0.0, 0.0, 0.0]], 1),  # always below: the first step is taken all the same
        ([[-0.5, -0.5, -0.5, -0.5]], 1),  # signed
        ([[0.5, 0.0, 0.0, 0.0]], 1),
        ([[0.5, 0.5, 0.0, 0.0]], 2),
        ([[0.0, 0.0, 0.5, 0.0]], 3),  # peaks late
        ([[0.5, 0.0, 0.5, 0.0]], 3),  # below, above, below: the last that is above counts
        ([[0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]], 3),  # the slowest layer decides
        ([[0.0, 0.0, 0.5, 0.0], [0.5, 0.0, 0.0, 0.0]], 3),
        ([[0.1, 0.1, 0.0, 0.0]], 2),  # at the threshold is not below it
        ([[0.0, 0.0, 0.0, 0.5]], 4),
    ],
)
def test_the_exit_rule(gammas, step):
    assert early_exit.exit_step([T(values) for values in gammas], 0.1) == step


MEANS = {  # of gamma over channels; conv2 decides
    "conv1": [0.95, 0.60, 0.30, 0.10, 0.02],
    "conv2": [1.00, 0.95, 0.60, 0.30, 0.10],
    "conv3": [-1.0, -1.0, -1.0, -1.0, -1.0],
    "fc1": [0.97, 0.50, 0.20, 0.02, 0.01],
}


def test_exits_are_read_off_the_anytime_curve_for_every_threshold(tmp_path):
    of = subject(tmp_path, exit_thresholds=[0.9, 0.05, 0.2], exit_threshold=0.5)
    with torch.no_grad():
        for name, layer in of.classifier.network.layers.items():
            layer.norm.gamma.copy_(T(MEANS[name])[:, None])
            layer.norm.gamma[:, 0] += 3  # so that neither the largest nor the mean magnitude is the mean
            layer.norm.gamma[:, 1] -= 3
    right = torch.arange(11) < 2 * torch.arange(1, STEPS + 1)[:, None]  # another accuracy at every step
    of.__dict__["observation"] = dataclasses.replace(of.observation, right=right)
    accuracy = {row["time_step"]: row["accuracy"] for row in anytime.measure(of)}
    assert len(set(accuracy.values())) == STEPS
    rows = early_exit.measure(of)
    assert [row["threshold"] for row in rows] == [0.05, 0.2, 0.5, 0.9]
    assert [row["exit_step"] for row in rows] == [5, 4, 3, 2]
    assert [row["exits"] for row in rows] == [0, 1, 1, 1]
    assert [row["accuracy"] for row in rows] == [accuracy[step] for step in (5, 4, 3, 2)]


@pytest.mark.parametrize("norm", ["none", "tdbn", "bn-pooled", "bntt-shared-gamma"])
def test_a_norm_without_a_scale_for_every_step_has_no_exit_and_no_gamma(tmp_path, norm):
    of = subject(tmp_path, SpikingClassifier(spiking_network(norm), True))
    for measurement in (early_exit, gamma, gamma_quartiles, approximations):
        assert measurement.measure(of) == "no scale that changes with time"


def test_gamma_has_a_row_for_every_layer_step_and_channel(tmp_path):
    of = subject(tmp_path)
    rows = gamma.measure(of)
    for name, layer in of.classifier.network.layers.items():
        values = T([row["gamma"] for row in rows if row["layer"] == name]).reshape(STEPS, -1)
        assert torch.equal(values, layer.norm.gamma)
    assert {row["time_step"] for row in rows} == set(range(1, STEPS + 1))
    assert min(row["channel"] for row in rows) == 0


def test_quartiles_of_gamma_are_those_of_the_channels(tmp_path):
    of = subject(tmp_path)
    rows = {(row["layer"], row["time_step"]): row for row in gamma_quartiles.measure(of)}
    layers = of.classifier.network.hidden()
    assert list(rows) == [(name, t) for name in layers for t in range(1, STEPS + 1)]
    for (name, t), row in rows.items():
        values = layers[name].norm.gamma[t - 1].detach().double().numpy()
        assert row["mean"] == pytest.approx(values.mean())
        assert row["deviation"] == pytest.approx(values.std())
        found = [row[column] for column in ("lowest", "quarter", "half", "three_quarters", "highest")]
        assert found == pytest.approx(np.percentile(values, [0, 25, 50, 75, 100]).tolist())


# -- noise ------------------------------------------------------------------------------------------------


class Watching:
    """Passes everything on to a classifier and keeps the images that it is shown, and the keys of their spikes."""

    def __init__(self, classifier):
        self.inner, self.images, self.keys = classifier, [], []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def scaled(self, data, unit):
        self.images.append(unit.clone())
        return self.inner.scaled(data, unit)

    def running_logits(self, scaled, samples, key, observe=None):
        self.shown = scaled.clone()
        self.keys.append(key)
        return self.inner.running_logits(scaled, samples, key, observe)


def noisy_images(tmp_path, classifier, **evaluation):
    watching = Watching(classifier)
    noise.measure(subject(tmp_path, watching, **evaluation))
    return torch.cat(watching.images)


def test_every_method_with_one_seed_sees_the_same_noisy_images_and_another_seed_others(tmp_path):
    one = noisy_images(tmp_path, SpikingClassifier(spiking_network(), True), noise_sigmas=[0.3])
    other = noisy_images(tmp_path, dense(seed=4), noise_sigmas=[0.3], batch_size=3)
    assert torch.equal(one, other)
    watching = Watching(dense())
    of = subject(tmp_path, watching, noise_space="normalised", noise_sigmas=[1.0])  # unclipped: the noise itself
    noises = []
    for seed in (of.run.seed, 8):
        noise.measure(dataclasses.replace(of, run=dataclasses.replace(of.run, seed=seed)))
        noises.append((watching.shown - of.classifier.inner.scaled(of.data, watching.images[-1])).flatten())
    assert abs(torch.corrcoef(torch.stack(noises))[0, 1]) < 4 / len(noises[0]) ** 0.5  # four standard errors


def test_without_noise_the_result_is_the_clean_one(tmp_path):
    for space in ("pixel", "normalised"):
        for classifier in (SpikingClassifier(spiking_network(), True), dense()):
            of = subject(tmp_path, classifier, noise_space=space)
            clean = {row["time_step"]: row["correct"] for row in anytime.measure(of)}
            found = {row["time_step"]: row["correct"] for row in noise.measure(of) if row["sigma"] == 0}
            assert found == {step: clean[step] for step in of.report_steps}


def test_pixel_noise_is_clipped_to_what_an_image_can_be_and_has_its_sigma(tmp_path):
    data = images(test=11)
    seen = noisy_images(tmp_path, dense(), noise_sigmas=[0.05, 0.8])
    small, large = seen[:11], seen[11:]
    assert large.min() == 0
    assert large.max() == 1
    middle = (data.test.unit(torch.arange(11)) - 0.5).abs() < 0.3  # where clipping cannot reach
    difference = (small - data.test.unit(torch.arange(11)))[middle]
    assert difference.std().item() == pytest.approx(0.05, rel=0.15)
    assert abs(difference.mean().item()) < 0.01
    draws = randomness.normal(randomness.key(0, "input noise"), torch.arange(11), 64).reshape(11, 1, 8, 8)
    assert torch.equal(large, (data.test.unit(torch.arange(11)) + 0.8 * draws).clamp(0, 1))  # one draw, scaled


def test_normalised_noise_is_added_after_scaling_and_not_clipped(tmp_path):
    watching = Watching(dense())
    of = subject(tmp_path, watching, noise_space="normalised", noise_sigmas=[0.8])
    noise.measure(of)
    unit = of.data.test.unit(torch.arange(11))
    assert torch.equal(torch.cat(watching.images), unit)
    draws = randomness.normal(randomness.key(0, "input noise"), torch.arange(11), 64).reshape(11, 1, 8, 8)
    assert torch.allclose(watching.shown, (unit - of.data.mean) / of.data.deviation + 0.8 * draws, atol=1e-6)
    assert {row["space"] for row in noise.measure(of)} == {"normalised"}


def test_noise_is_reported_at_the_reported_steps_whatever_the_chunks(tmp_path):
    of = subject(tmp_path, chunk=2)
    assert [(row["sigma"], row["time_step"]) for row in noise.measure(of)] == [(0.0, 2), (0.0, 5), (0.5, 2), (0.5, 5)]


@pytest.mark.parametrize("seed", [0, 3])
def test_realisations_of_the_noise_are_those_of_their_space_and_draw(tmp_path, seed):
    options = {"noise_draws": 3, "noise_sigmas": [0.0, 0.5]}
    watching = Watching(dense())
    of = subject(tmp_path, watching, **options)
    of = dataclasses.replace(of, run=dataclasses.replace(of.run, seed=seed))
    rows = noise_draws.measure(of)
    expected = [(space, draw) for space in ("pixel", "normalised") for draw in range(3)]
    assert [(row["sigma"], row["space"], row["draw"]) for row in rows] == [(0.5, *pair) for pair in expected]
    samples = torch.arange(11)
    unit = of.data.test.unit(samples)
    for row in rows:
        draw = [row["draw"]] if row["draw"] else []
        draws = randomness.normal(randomness.key(seed, "input noise", *draw), samples, 64).reshape(11, 1, 8, 8)
        if row["space"] == "pixel":
            shown = watching.scaled(of.data, (unit + 0.5 * draws).clamp(0, 1))
        else:
            shown = watching.scaled(of.data, unit) + 0.5 * draws
        ((_, logits),) = watching.running_logits(shown, samples, of.noise_key())
        assert row["accuracy"] == per_cent(logits[-1].argmax(1) == of.data.test.labels)


def test_the_first_realisation_is_that_of_figure_4(tmp_path):
    for space in ("pixel", "normalised"):
        of = subject(tmp_path, noise_draws=1, noise_space=space)
        first = next(row["accuracy"] for row in noise_draws.measure(of) if row["space"] == space)
        assert first == noise.measure(of)[-1]["accuracy"]
    assert noise_draws.measure(subject(tmp_path)) == "noise_draws is 0"


# -- Section 3's approximations ---------------------------------------------------------------------------


def test_threshold_only_against_a_loop_over_single_neurons():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(6, 10, 4, generator=draws)
    scale = torch.rand(6, 4, generator=draws) + 0.2
    scale[2, 1], scale[3, 2] = 0.0, -0.5
    found = approximations.threshold_only(x, scale, 0.9, 1.5)
    for neuron in range(10):
        for channel in range(4):
            u = 0.0
            for t in range(6):
                u = 0.9 * u + x[t, neuron, channel].item()
                fires = scale[t, channel] > 0 and u > 1.5 / scale[t, channel].item()
                assert found[t, neuron, channel].item() == fires
                u -= 1.5 / scale[t, channel].item() if fires else 0.0
    assert found.sum() > 0


def test_where_the_approximations_hold_exactly_no_spike_is_wrong(tmp_path):
    """No mean, and a scale that is a power of two and the same at all steps: Eq. 16 is then exact."""
    of = subject(tmp_path)
    with torch.no_grad():
        for layer in of.classifier.network.layers.values():
            layer.norm.running_mean.zero_()
            layer.norm.running_var.fill_(4.0)
            layer.norm.eps = 0.0
            layer.norm.gamma.fill_(1.0)
    rows = approximations.measure(of)
    assert sum(row["spikes"] for row in rows) > 0
    assert all(row["wrong"] == 0 and row["relative_mean"] == 0 and row["variance"] == 4 for row in rows)
    assert all(row["scale_change"] == 0 for row in rows if row["time_step"] > 1)
    assert all(row["scale_change"] != row["scale_change"] for row in rows if row["time_step"] == 1)


def test_approximations_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(approximations, "IMAGES", 7)
    of = subject(tmp_path)
    _, fired, _ = by_loop(of)
    rows = {(row["layer"], row["time_step"]): row for row in approximations.measure(of)}
    for name, layer in of.classifier.network.layers.items():
        norm = layer.norm
        scale = norm.gamma.double() / (norm.running_var.double() + norm.eps).sqrt()
        relative = (norm.running_mean.double().abs() / (norm.running_var.double() + norm.eps).sqrt()).median(1).values
        for t in range(STEPS):
            row = rows[name, t + 1]
            assert row["relative_mean"] == pytest.approx(relative[t].item())
            assert row["variance"] == pytest.approx(norm.running_var[t].double().mean().item())
            assert row["spikes"] == pytest.approx(fired[name][t, :7].mean().item())  # of the first images only
            if t:
                change = ((scale[t] - scale[t - 1]).abs() / scale[t].abs()).median().item()
                assert row["scale_change"] == pytest.approx(change)
    assert sum(row["wrong"] for row in rows.values()) > 0


def test_eq_16_is_about_soft_reset(tmp_path):
    of = subject(tmp_path, SpikingClassifier(spiking_network(reset="hard"), True))
    assert "soft reset" in approximations.measure(of)


# -- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bntt", "none", "tdbn", "dense"])
def test_every_measurement_has_the_columns_it_declares_or_says_why_not(tmp_path, kind):
    classifier = dense() if kind == "dense" else SpikingClassifier(spiking_network(kind), True)
    tables, reasons = measure_all(subject(tmp_path, classifier))
    modules = declared.plugins("measurements", "COLUMNS")
    assert {file.removesuffix(".csv").replace("_", "-") for file in {**tables, **reasons}} == set(modules)
    assert not set(tables) & set(reasons)
    for file, rows in tables.items():
        columns = declared.literal(modules[file.removesuffix(".csv").replace("_", "-")], "COLUMNS")
        assert rows
        assert all(list(row) == list(columns) for row in rows), file
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert ("spikes.csv" in reasons) == (kind == "dense")
    assert ("gamma.csv" in tables) == (kind == "bntt")


# Another value of each option of evaluation, and the measurements that it changes.
EFFECTS = {
    "report_steps": ([3], {"draws", "energy", "image_spikes", "noise"}),
    "draws": (2, {"draws"}),
    "noise_sigmas": ([0.0, 0.4], {"noise"}),
    "noise_space": ("normalised", {"noise"}),
    "noise_draws": (2, {"noise_draws"}),
    "exit_thresholds": ([0.7], {"early_exit"}),
    "exit_threshold": (0.33, {"early_exit"}),
    "measurements": (
        ["spikes"],
        {"approximations", "draws", "early_exit", "energy", "gamma", "gamma_quartiles", "image_spikes", "noise"},
    ),
}


@pytest.mark.parametrize("option", sorted(EVALUATION.keys() - {"batch_size"}))
def test_every_option_of_evaluation_reaches_its_measurements_and_no_others(tmp_path, option):
    value, changed = EFFECTS[option]
    before, _ = measure_all(subject(tmp_path))
    after, _ = measure_all(subject(tmp_path, **{option: value}))
    files = before.keys() | after.keys()
    assert {file for file in files if repr(before.get(file)) != repr(after.get(file))} == {
        f"{name}.csv" for name in changed
    }


def alike(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for file, rows in one.items():
        for mine, theirs in zip(rows, other[file], strict=True):
            for column, value in theirs.items():
                expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-6, nan_ok=True)
                assert mine[column] == expected, f"{file} {column}"


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_no_measurement_depends_on_the_batch_size(tmp_path, batch_size):
    whole, _ = measure_all(subject(tmp_path))
    cut, _ = measure_all(subject(tmp_path, batch_size=batch_size))
    alike(cut, whole)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_no_measurement_depends_on_the_chunks_of_time(tmp_path, chunk):
    whole, _ = measure_all(subject(tmp_path))
    cut, _ = measure_all(subject(tmp_path, chunk=chunk))
    alike(cut, whole)


def test_reported_steps_are_those_asked_for_that_there_are_and_the_last(tmp_path):
    assert subject(tmp_path).report_steps == [2, STEPS]
    assert subject(tmp_path, dense()).report_steps == [1]
    assert subject(tmp_path, report_steps=[STEPS]).report_steps == [STEPS]
    assert subject(tmp_path, report_steps=[STEPS + 1, STEPS - 1]).report_steps == [STEPS - 1, STEPS]
