"""The arithmetic of a training's schedule: steps, learning rates, and what weight decay alone does. Without torch."""

from typing import Any


def learning_rate(options: dict[str, Any], epoch: int) -> float:
    """The learning rate of an epoch, counted from 0. Milestones are compared in whole millionths, not as floats."""
    total = options["epochs"]
    passed = sum(epoch * 1_000_000 >= round(share * 1_000_000) * total for share in options["milestones"])
    return float(options["learning_rate"] / options["decay_factor"] ** passed)


def gamma_decay(options: dict[str, Any]) -> float:
    """Weight decay of the temporal norms' parameters."""
    return float(options["weight_decay"] if options["gamma_decay"] is None else options["gamma_decay"])


def images_per_epoch(options: dict[str, Any], images: int) -> int:
    """How many of the training images one epoch uses."""
    return images - images % options["batch_size"] if options["drop_last"] else images


def steps_per_epoch(options: dict[str, Any], images: int) -> int:
    """How many batches one epoch has; an incomplete last batch is a step, too."""
    return int(-(-images_per_epoch(options, images) // options["batch_size"]))


def training_steps(options: dict[str, Any], images: int) -> int:
    """How many steps a complete training on so many images takes: ``steps`` in `train.json`."""
    return int(options["epochs"] * steps_per_epoch(options, images))


def decay_budget(options: dict[str, Any], images: int) -> float:
    """By how many e-folds weight decay alone shrinks gamma in training: sum(lr * decay) over steps / (1 - momentum)."""
    rates = sum(learning_rate(options, epoch) for epoch in range(options["epochs"]))
    return float(rates * steps_per_epoch(options, images) * gamma_decay(options) / (1 - options["momentum"]))


def undriven(options: dict[str, Any], images: int, epochs: int | None = None) -> float:
    """The value at the end of a training of a gamma that no gradient ever reaches.

    SGD with momentum and coupled weight decay, step by step as in torch.optim.SGD: v = momentum * v + decay * p, then
    p -= lr * v, from v = 0. Gamma starts at the option ``gamma_init``, where there is one, else at 1. ``epochs`` asks
    for the value after so many epochs; by default, all.
    """
    decay, momentum = gamma_decay(options), options["momentum"]
    value, velocity = float(options.get("gamma_init", 1.0)), 0.0
    for epoch in range(options["epochs"] if epochs is None else epochs):
        rate = learning_rate(options, epoch)
        for _ in range(steps_per_epoch(options, images)):
            velocity = momentum * velocity + decay * value
            value -= rate * velocity
    return value
