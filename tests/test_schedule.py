"""The schedule of a training: its steps, its learning rates, and what weight decay alone does to gamma."""

import math
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from tiny import PROJECT, SCHEDULE

from bntt.experiment.schema import load
from bntt.training.schedule import (
    decay_budget,
    images_per_epoch,
    learning_rate,
    steps_per_epoch,
    training_steps,
    undriven,
)

OPTIONS = SCHEDULE


def rates(epochs, milestones=(0.5, 0.7, 0.9)):
    options = OPTIONS | {"epochs": epochs, "milestones": list(milestones), "learning_rate": 1.0}
    return [learning_rate(options, epoch) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("epochs", "drops"), [(90, [45, 63, 81]), (10, [5, 7, 9]), (40, [20, 28, 36]), (120, [60, 84, 108])]
)
def test_the_rate_drops_at_half_seven_and_nine_tenths_of_the_epochs(epochs, drops):
    """0.7 * 90 is 62.99... in floating point, and the paper's milestone is 63."""
    found = rates(epochs)
    assert [epoch for epoch in range(1, epochs) if found[epoch] != found[epoch - 1]] == drops
    assert sorted(set(found)) == pytest.approx([0.001, 0.01, 0.1, 1.0])


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 15, 30, 70, 90, 110, 125, 300])
def test_the_rate_agrees_with_exact_arithmetic(epochs):
    shares = ["0.1", "0.29", "0.57", "0.7", "0.9"]
    for epoch, rate in enumerate(rates(epochs, map(float, shares))):
        passed = sum(epoch >= Fraction(share) * epochs for share in shares)
        assert rate == pytest.approx(10.0**-passed)


def test_no_milestones_no_drops():
    assert set(rates(20, ())) == {1.0}


def test_the_decay_budget_by_hand():
    """10 epochs of 7 steps: 5 at 0.3, 2 at 0.03, 2 at 0.003, 1 at 0.0003."""
    options = OPTIONS | {"epochs": 10, "learning_rate": 0.3, "weight_decay": 5e-3}
    by_hand = 7 * (5 * 0.3 + 2 * 0.03 + 2 * 0.003 + 0.0003) * 5e-3 / (1 - 0.9)
    assert decay_budget(options, 7 * 5) == pytest.approx(by_hand, rel=1e-12)
    assert decay_budget(options, 6 * 5 + 1) == pytest.approx(by_hand, rel=1e-12)  # the last batch is a step, too
    assert decay_budget(options | {"drop_last": True}, 7 * 5 + 4) == pytest.approx(by_hand, rel=1e-12)
    assert decay_budget(options | {"gamma_decay": 0.0}, 7 * 5) == 0
    assert decay_budget(options | {"gamma_decay": 1e-2}, 7 * 5) == pytest.approx(2 * by_hand, rel=1e-12)


def test_the_paper_has_about_eighteen_e_folds():
    """CIFAR-10, 50,000 images in batches of 256, the paper's protocol."""
    options = OPTIONS | {"batch_size": 256, "epochs": 120, "learning_rate": 0.3, "weight_decay": 5e-4}
    assert decay_budget(options, 50_000) == pytest.approx(18, abs=1)


# -- steps and what decay alone does ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "drop_last", "used", "steps"),
    [(10, False, 10, 2), (11, False, 11, 3), (11, True, 10, 2), (4, False, 4, 1), (4, True, 0, 0)],
)
def test_the_steps_of_an_epoch_are_its_batches(images, drop_last, used, steps):
    options = OPTIONS | {"drop_last": drop_last}
    assert images_per_epoch(options, images) == used
    assert steps_per_epoch(options, images) == steps
    assert training_steps(options, images) == 3 * steps


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [None, 0.0, 0.5])
@pytest.mark.parametrize("epochs", [None, 0, 4])
def test_what_no_gradient_reaches_decays_as_in_torch(momentum, decay, epochs):
    options = OPTIONS | {"epochs": 10, "momentum": momentum, "gamma_decay": decay, "learning_rate": 0.3}
    used = 0.01 if decay is None else decay
    gamma = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimiser = torch.optim.SGD([gamma], lr=1.0, momentum=momentum, weight_decay=used)
    for epoch in range(10 if epochs is None else epochs):
        optimiser.param_groups[0]["lr"] = [0.3, 0.03, 0.003, 0.0003][(epoch >= 5) + (epoch >= 7) + (epoch >= 9)]
        for _ in range(3):  # of five, five and two images
            gamma.grad = torch.zeros_like(gamma)
            optimiser.step()
    assert undriven(options | {"gamma_init": 2.0}, 12, epochs) == pytest.approx(gamma.item(), rel=1e-12)


def test_gamma_without_a_gradient_under_the_protocols_of_the_paper_and_its_code():
    """A rate of 0.3, 50,000 images in whole batches of 256; a decay of 5e-4 for 120 epochs, or 1e-4 for 100."""
    paper = next(run.options for run in load("paper").runs if (run.dataset, run.row) == ("cifar10", "bntt"))
    assert training_steps(paper, 50_000) == 120 * 195
    assert undriven(paper, 50_000) == pytest.approx(8.6e-9, rel=0.01)
    code = paper | {"epochs": 100, "gamma_decay": 1e-4}
    assert training_steps(code, 50_000) == 100 * 195
    assert undriven(code, 50_000) == pytest.approx(0.0469, rel=0.01)


def test_the_budget_is_how_far_gamma_falls_without_a_gradient():
    """Up to the decay that momentum still holds back at the end."""
    options = OPTIONS | {"epochs": 40, "learning_rate": 0.3, "weight_decay": 5e-4, "milestones": []}
    assert -math.log(undriven(options, 17 * 5)) == pytest.approx(decay_budget(options, 17 * 5), rel=0.05)


def test_the_schedule_is_read_without_torch():
    code = "import sys, bntt.training.schedule; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
