"""The training loop: its steps, when it diverges, and what its numbers depend on."""

import dataclasses
import math
import time

import pytest
import torch
from tiny import EXPERIMENT, SCHEDULE, assert_one_line, images, one_row, result, same
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm as loop_tqdm

from bntt.common.errors import Stopped, UserError
from bntt.data.images import augment
from bntt.runs import pipeline
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.directory import RunDirectory
from bntt.spiking import randomness
from bntt.spiking.randomness import key
from bntt.training import loop
from bntt.training.loop import fit

torch.set_num_threads(1)

OPTIONS = SCHEDULE | {"selection": "last", "crop_padding": 1, "flip": True}


# -- steps ------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A linear classifier with a scale that counts as a norm's parameter."""

    class Scale(nn.Module):
        temporal_scale = None

        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(64))

    def __init__(self):
        super().__init__()
        self.norm = self.Scale()
        self.linear = nn.Linear(64, 3, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.linspace(-1, 1, 192).reshape(3, 64))

    def forward(self, x):
        return self.linear(x.flatten(1) * self.norm.gamma)


def noisy(model):
    """Classify with noise keyed as the methods key theirs."""
    return lambda unit, samples, noise: model(
        unit + 0.1 * randomness.normal(noise, samples, unit[0].numel()).reshape(unit.shape)
    )


@pytest.mark.parametrize(
    ("gamma_decay", "used", "drop_last"), [(None, 0.01, False), (0.0, 0.0, False), (0.5, 0.5, False), (0.5, 0.5, True)]
)
def test_the_steps_are_those_of_sgd_written_by_hand(tmp_path, gamma_decay, used, drop_last):
    data, options, seed = images(), OPTIONS | {"gamma_decay": gamma_decay, "drop_last": drop_last}, 3
    starts = (0, 5) if drop_last else (0, 5, 10)  # 12 images: the last batch has two
    images_used = 10 if drop_last else 12
    model, twin = Small().double(), Small().double()
    outcome = fit(model, noisy(model), data, options, seed, Checkpoints(tmp_path))

    weight, gamma = twin.linear.weight.data, twin.norm.gamma.data
    velocity = [torch.zeros_like(weight), torch.zeros_like(gamma)]
    losses, accuracies = [], []
    for epoch in range(3):
        order = randomness.permutation(randomness.key(seed, "order", epoch), 12)
        total, correct = 0.0, 0
        for start in starts:
            samples = order[start : start + 5]
            unit = augment(
                data.train.pixels[samples].float() / 255, randomness.key(seed, "augmentation", epoch), samples, 1, True
            )
            noise = randomness.normal(randomness.key(seed, "training noise", epoch), samples, 64).reshape(unit.shape)
            x = (unit + 0.1 * noise).flatten(1).double()
            logits = (x * gamma) @ weight.t()
            error = logits.softmax(1) - F.one_hot(data.train.labels[samples], 3)
            total -= logits.log_softmax(1)[range(len(samples)), data.train.labels[samples]].sum().item()
            correct += (logits.argmax(1) == data.train.labels[samples]).sum().item()
            error /= len(samples)
            gradients = [error.t() @ (x * gamma), ((error @ weight) * x).sum(0)]
            rate = 0.1 if epoch < 2 else 0.01  # epoch 2 is past half of three epochs, not past seven tenths
            for parameter, v, gradient, decay in zip((weight, gamma), velocity, gradients, (0.01, used), strict=True):
                v.mul_(0.9).add_(gradient + decay * parameter)
                parameter.sub_(rate * v)
        losses.append(total / images_used)
        accuracies.append(100 * correct / images_used)
    assert torch.allclose(model.linear.weight, weight, rtol=1e-5, atol=1e-7)
    assert torch.allclose(model.norm.gamma, gamma, rtol=1e-5, atol=1e-7)
    assert [row["train_loss"] for row in outcome.history] == pytest.approx(losses, rel=1e-5)
    assert [row["train_accuracy"] for row in outcome.history] == accuracies
    assert [row["learning_rate"] for row in outcome.history] == pytest.approx([0.1, 0.1, 0.01])
    assert outcome.steps == 3 * len(starts)
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3]


def seen_batches(tmp_path, seed, epochs=2):
    model, data = Small(), images()
    batches = {"train": [], "validation": []}

    def forward(unit, samples, noise):
        batches["train" if model.training else "validation"].append((samples.tolist(), noise))
        return model(unit)

    fit(model, forward, data, OPTIONS | {"epochs": epochs}, seed, Checkpoints(tmp_path / str(seed)))
    return batches


def test_every_training_image_is_used_once_an_epoch_in_an_order_of_seed_and_epoch(tmp_path):
    seen = {seed: seen_batches(tmp_path, seed) for seed in (0, 1)}
    orders = []
    for batches in seen.values():
        for epoch in (batches["train"][:3], batches["train"][3:]):
            order = [sample for samples, _ in epoch for sample in samples]
            assert sorted(order) == list(range(12))
            orders.append(tuple(order))
    assert len(set(orders)) == 4
    keys = {noise for batches in seen.values() for _, noise in batches["train"]}
    assert len(keys) == 4  # one per seed and epoch


@pytest.mark.parametrize(("drop_last", "size"), [(False, 11), (True, 13)])
def test_a_batch_size_that_leaves_one_image_or_no_batch_is_refused(tmp_path, drop_last, size):
    options = OPTIONS | {"batch_size": size, "drop_last": drop_last}
    with pytest.raises(UserError, match=f"batch_size {size} .*12.*drop_last") as caught:
        fit(Small(), noisy(Small()), images(), options, 0, Checkpoints(tmp_path))
    assert_one_line(str(caught.value))
    if not drop_last:  # twelve images in batches of eleven: one is left out, another one in each epoch
        used = fit(Small(), noisy(Small()), images(), options | {"drop_last": True}, 0, Checkpoints(tmp_path))
        assert used.steps == 3


def test_validation_sees_every_image_in_order_with_the_same_noise_each_time(tmp_path):
    batches = seen_batches(tmp_path, 0)["validation"]
    assert [samples for samples, _ in batches] == [[0, 1, 2, 3]] * 2
    assert len({noise for _, noise in batches}) == 1
    assert not {noise for _, noise in batches} & {noise for _, noise in seen_batches(tmp_path, 5)["train"]}


def test_validation_accuracy_is_a_percentage_of_the_validation_images():
    data = images(validation=7)
    model = Small()
    guess = lambda unit, samples, noise: F.one_hot(torch.tensor([0, 1, 2, 0, 0, 0, 0])[samples], 3).float()  # noqa: E731
    labels = [0, 1, 2, 0, 1, 2, 0]
    assert data.validation.labels.tolist() == labels
    assert loop.validate(model, guess, data, 0, 3) == pytest.approx(100 * 5 / 7)


def test_test_images_are_never_looked_at(tmp_path):
    model, data = Small(), dataclasses.replace(images(), test=None)
    fit(model, noisy(model), data, OPTIONS, 0, Checkpoints(tmp_path))


def test_without_validation_images_there_is_no_validation_accuracy_and_training_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "tqdm", lambda *given, **how: loop_tqdm(*given, **how | {"disable": False}))
    model = Small()
    outcome = fit(model, noisy(model), images(validation=0), OPTIONS, 0, Checkpoints(tmp_path))
    assert outcome.diverged is None
    assert [math.isnan(row["validation_accuracy"]) for row in outcome.history] == [True] * 3
    progress = capsys.readouterr().err
    assert "loss=" in progress and "nan" not in progress


@pytest.mark.parametrize(("draw", "rate"), [(2, 10.0), (1, 1.0)])  # the second is best, all are alike
@pytest.mark.parametrize("stopped", [0, 6, 7, 16])
def test_the_released_codes_selection_keeps_the_best_of_every_tenth_epoch_on_test_images(
    tmp_path, monkeypatch, stopped, draw, rate
):
    """Every second epoch of three steps here; whether or not the training is stopped in between."""
    monkeypatch.setattr(loop, "SELECTION_EPOCHS", 2)
    options = OPTIONS | {"epochs": 7, "selection": "best-test", "learning_rate": rate}
    data = images(test=30, seed=draw)
    noise_of_selection = key(0, "selection noise")
    right, weights = [], []

    def watched(model):
        def forward(unit, samples, noise):
            logits = noisy(model)(unit, samples, noise)
            if not model.training and noise == noise_of_selection:
                if samples[0] == 0:
                    right.append(0)
                    weights.append({name: value.clone() for name, value in model.state_dict().items()})
                right[-1] += int((logits.argmax(1) == data.test.labels[samples]).sum())
            return logits

        return forward

    def run(minutes=None):
        model = Small()
        return model, fit(model, watched(model), data, options, 0, Checkpoints(tmp_path, minutes=minutes))

    for _ in range(stopped):
        with pytest.raises(Stopped):
            run(minutes=0)  # one step
    model, outcome = run()
    assert len(right) == 3
    best = right.index(max(right))
    assert best < 2  # else the last weights are the best, whichever are kept
    assert outcome.selected_epoch == 2 * (best + 1)
    assert all(torch.equal(value, weights[best][name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("epochs", "wrong", "selected"), [(6, [2], 4), (6, [6], 2), (4, [2, 4], 4)])
def test_weights_whose_outputs_are_not_finite_are_selected_only_if_there_are_no_others(
    tmp_path, monkeypatch, epochs, wrong, selected
):
    """Of epochs whose accuracy is NaN after those in ``wrong``, and the same otherwise."""
    monkeypatch.setattr(loop, "SELECTION_EPOCHS", 2)
    model, data, epoch = Small(), images(), [0]

    def forward(unit, samples, noise):
        if not model.training and noise == key(0, "selection noise"):
            epoch[0] += 2
            return F.one_hot(data.test.labels[samples], 3).float() * (math.nan if epoch[0] in wrong else 1)
        return model(unit)

    options = OPTIONS | {"epochs": epochs, "selection": "best-test", "batch_size": 6}  # all test images at once
    assert fit(model, forward, data, options, 0, Checkpoints(tmp_path)).selected_epoch == selected


def test_a_selection_that_would_never_look_is_refused(tmp_path):
    options = OPTIONS | {"epochs": 9, "selection": "best-test"}
    with pytest.raises(UserError) as caught:
        fit(Small(), noisy(Small()), images(), options, 0, Checkpoints(tmp_path))
    assert_one_line(caught.value, "selection best-test", "every 10 epochs", "there are 9", "selection last")
    assert (
        fit(Small(), noisy(Small()), images(), options | {"epochs": 10}, 0, Checkpoints(tmp_path)).selected_epoch == 10
    )


def test_an_epoch_took_the_seconds_of_its_steps_in_all_pieces(tmp_path, monkeypatch):
    """Each step takes a second here, and the time between pieces does not count."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def run():
        model = Small()

        def forward(unit, samples, noise):
            now[0] += model.training
            return model(unit)

        return fit(model, forward, images(), OPTIONS, 0, Checkpoints(tmp_path, minutes=0))

    for _ in range(9):
        now[0] += 1000
        with pytest.raises(Stopped):
            run()
    outcome = run()
    assert [row["seconds"] for row in outcome.history] == [3.0, 3.0, 3.0]


def test_validation_leaves_moving_moments_and_weights_alone(tmp_path):
    """The moments of a batch norm after training are those of the training batches alone."""
    data = images()

    def moments(validation):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
        used = dataclasses.replace(data, validation=validation)
        path = Checkpoints(tmp_path / str(len(validation)))
        fit(model, lambda unit, samples, noise: model(unit), used, OPTIONS, 0, path)
        return model.state_dict()

    one, other = moments(data.validation), moments(images(validation=50, seed=9).validation)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("count", "size", "refused"), [(13, 4, True), (12, 4, False), (14, 4, False), (12, 11, True)])
def test_a_last_batch_of_one_image_is_refused_before_any_step(tmp_path, count, size, refused):
    model = Small()
    before = model.linear.weight.clone()
    options = OPTIONS | {"batch_size": size, "epochs": 1}
    if not refused:
        fit(model, noisy(model), images(train=count), options, 0, Checkpoints(tmp_path))
        return
    with pytest.raises(UserError) as raised:
        fit(model, noisy(model), images(train=count), options, 0, Checkpoints(tmp_path))
    assert_one_line(raised.value, f"batch_size {size}", str(count), "choose another batch_size")
    assert torch.equal(model.linear.weight, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_as_diverged(tmp_path, bad):
    model = Small()
    calls = []

    def forward(unit, samples, noise):
        calls.append(model.training)
        return model(unit) * (bad if len(calls) == 6 else 1.0)

    outcome = fit(model, forward, images(), OPTIONS | {"epochs": 9}, 0, Checkpoints(tmp_path))
    assert outcome.diverged == "the loss was not finite in epoch 2"
    assert [row["epoch"] for row in outcome.history] == [1]


def test_one_weight_that_is_not_finite_is_diverged_where_loss_and_outputs_are_finite(tmp_path):
    model = Small()

    def forward(unit, samples, noise):
        with torch.no_grad():
            model.norm.gamma[7] = math.nan
        return model.linear(unit.flatten(1))

    outcome = fit(model, forward, images(), OPTIONS, 0, Checkpoints(tmp_path))
    assert (outcome.diverged, outcome.history, outcome.steps) == ("weights were not finite in epoch 1", [], 3)


def test_outputs_that_are_not_finite_on_validation_images_are_diverged_too(tmp_path):
    model = Small()
    forward = lambda unit, samples, noise: model(unit) * (1.0 if model.training else math.nan)  # noqa: E731
    outcome = fit(model, forward, images(), OPTIONS, 0, Checkpoints(tmp_path))
    assert (outcome.diverged, outcome.history) == ("the network's outputs were not finite after epoch 1", [])


def test_a_run_that_diverges_says_so_in_its_manifest_and_has_no_weights(tmp_path):
    used, run = one_row(tmp_path, method="ann", learning_rate=1e12, epochs=3)
    said = pipeline.train(used, run, tmp_path, "cpu")
    assert "diverged" in said
    directory = RunDirectory.of(run, tmp_path)
    record = directory.training()
    assert (record["status"], list(record["files"])) == ("diverged", [])
    assert "not finite" in record["reason"]
    assert "already trained" in pipeline.train(used, run, tmp_path, "cpu")
    pipeline.evaluate(used, run, tmp_path, "cpu")
    assert directory.evaluation()["status"] == "diverged"


def test_weights_that_are_not_finite_after_the_last_step_are_diverged_too(tmp_path):
    """A single step from finite loss to useless weights: there is no later loss to notice it by."""
    protocol = {"train_limit": 32, "batch_size": 32}
    used, run = one_row(tmp_path, protocol=protocol, method="ann", learning_rate=3e38, epochs=1)
    pipeline.train(used, run, tmp_path, "cpu")
    assert RunDirectory.of(run, tmp_path).training()["status"] == "diverged"


def test_adam_takes_the_steps_of_amsgrad_written_by_hand(tmp_path):
    """Rathi et al. 2020; with coupled weight decay, and the decay of norms apart."""
    data, options = images(train=10), OPTIONS | {"optimiser": "adam", "epochs": 1, "gamma_decay": 0.3, "flip": False}
    options |= {"crop_padding": 0, "learning_rate": 0.01}
    model = torch.nn.Linear(64, 3).double()
    weights = [model.weight.detach().clone(), model.bias.detach().clone()]

    def forward(unit, samples, noise):
        return model(unit.flatten(1).double())

    fit(model, forward, data, options, 0, Checkpoints(tmp_path))
    order = randomness.permutation(key(0, "order", 0), 10)
    first, second, largest = ([torch.zeros_like(w) for w in weights] for _ in range(3))
    for step, batch in enumerate(order.split(5), 1):
        leaves = [w.clone().requires_grad_() for w in weights]
        x = (data.train.pixels[batch].float() / 255).flatten(1).double()
        F.cross_entropy(x @ leaves[0].T + leaves[1], data.train.labels[batch]).backward()
        for i, leaf in enumerate(leaves):
            g = leaf.grad + options["weight_decay"] * weights[i]
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            largest[i] = torch.maximum(largest[i], second[i])
            size = (largest[i] / (1 - 0.999**step)).sqrt() + 1e-8
            weights[i] = weights[i] - 0.01 * first[i] / (1 - 0.9**step) / size
    torch.testing.assert_close([model.weight.detach(), model.bias.detach()], weights)


def test_a_loss_of_ones_own_gets_the_output_and_logits_decide_the_accuracy(tmp_path):
    data, seen = images(train=10), []
    model = torch.nn.Linear(64, 6)

    def loss(output, labels):
        seen.append((output.shape, labels.shape))
        return output.square().mean()

    def forward(unit, samples, noise):
        return model(unit.flatten(1)).unflatten(1, (2, 3)).movedim(1, 0)  # [2, N, classes]

    def logits(output):
        labels = data.train.labels if output.shape[1] == 5 else data.validation.labels
        return F.one_hot(labels[:1].expand(output.shape[1]), 3).float()  # of class 0, always

    made = fit(model, forward, data, OPTIONS | {"epochs": 1}, 0, Checkpoints(tmp_path), "", loss, logits)
    assert seen == [((2, 5, 3), (5,))] * 2
    of_class_0 = [100 * (part.labels == 0).double().mean().item() for part in (data.train, data.validation)]
    assert [made.history[0][f"{part}_accuracy"] for part in ("train", "validation")] == pytest.approx(of_class_0)


# -- numbers depend on nothing else -----------------------------------------------------------------------


def test_the_same_run_again_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    used, run = one_row(tmp_path, method="ann", dropout=0.4, epochs=4)
    for place in ("a", "b"):
        pipeline.train(used, run, tmp_path / place, "cpu")
        torch.manual_seed(5)
    assert same(result(run, tmp_path / "a"), result(run, tmp_path / "b"))
    other = dataclasses.replace(run, seed=1)
    pipeline.train(used, other, tmp_path / "a", "cpu")
    assert not same(result(run, tmp_path / "a"), result(other, tmp_path / "a"))


def test_threads_are_those_of_the_experiment(tmp_path):
    used, run = one_row(tmp_path, method="ann", batch_norm=True, epochs=4)
    torch.set_num_threads(2)
    try:
        pipeline.train(used, run, tmp_path, "cpu")
        assert torch.get_num_threads() == 1
        assert RunDirectory.of(run, tmp_path).training()["provenance"]["threads"] == EXPERIMENT["threads"]
    finally:
        torch.set_num_threads(1)


def test_what_the_mathematics_refuses_names_the_row(tmp_path):
    used, run = one_row(tmp_path, protocol={"image_size": 9}, method="ann")
    with pytest.raises(UserError) as raised:
        pipeline.train(used, run, tmp_path, "cpu")
    assert_one_line(raised.value, "experiment one, row row", "side of 9", "another image size")
