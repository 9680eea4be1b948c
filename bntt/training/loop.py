"""The training loop. It knows no method: it is handed a model and a function from a batch of images to logits.

Test images play no part in it, but where the option ``selection`` asks for what the released code does.

SGD with momentum and coupled weight decay, cross-entropy on the logits, and the learning rate divided at fixed shares
of the epochs (Section 4.1). A training that was stopped goes on from its last saved state; as randomness is keyed by
epoch and sample, what follows is bit for bit what would have followed.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from bntt.common.errors import UserError
from bntt.data.images import ImageData, Images, augment
from bntt.spiking.randomness import key, permutation

EXTENDS = ["bntt.data.images"]
OPTIONS = {
    "epochs": {"default": 120, "min": 1, "help": "Passes over the training images."},
    "batch_size": {"default": 256, "min": 2, "help": "Training images per step."},
    "learning_rate": {"default": 0.3, "above": 0.0, "help": "Base learning rate of SGD."},
    "momentum": {"default": 0.9, "min": 0.0, "below": 1.0, "help": "Momentum of SGD."},
    "weight_decay": {"default": 5e-4, "min": 0.0, "help": "Weight decay, coupled to the learning rate."},
    "gamma_decay": {
        "default": None,
        "type": "float",
        "min": 0.0,
        "help": "Weight decay of the temporal norms' parameters; null: the same as `weight_decay`.",
    },
    "milestones": {
        "default": [0.5, 0.7, 0.9],
        "min": 0.0,
        "max": 1.0,
        "help": "Shares of the epochs at which the learning rate is divided.",
    },
    "decay_factor": {
        "default": 10.0,
        "above": 0.0,
        "help": "What the learning rate is divided by at each milestone.",
    },
    "selection": {
        "default": "last",
        "choices": ["last", "best-test"],
        "help": "Weights kept: of the last epoch, or, as the released code does and no fair protocol may, of the best "
        "accuracy on the test images after every tenth epoch.",
    },
}
SELECTION_EPOCHS = 10


class Keeper(Protocol):
    """Keeps the state of one training, and says when to save it; `bntt.runs.checkpoints` has the one that runs use."""

    @property
    def seconds(self) -> float:
        """Time spent on this training up to now, in all its pieces."""

    def listening(self) -> AbstractContextManager[None]:
        """Within it, the signals that ask to end ask for a stop at the next step."""

    def load(self) -> Any | None:
        """The newest state, or None."""

    def due(self) -> bool:
        """Whether to save now; asked after every step."""

    def save(self, state: Any) -> None:
        """Save a state; raises Stopped where training is to stop."""


@dataclass
class Outcome:
    """What a training left behind: a row per epoch, the steps taken, and why it stopped early, if it did."""

    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    diverged: str | None = None
    selected_epoch: int | None = None  # where the weights are not those of the last epoch


def learning_rate(options: dict[str, Any], epoch: int) -> float:
    """The rate of an epoch counted from 0. Epoch and milestone are compared in millionths, not as floats."""
    total = options["epochs"]
    passed = sum(epoch * 1_000_000 >= round(share * 1_000_000) * total for share in options["milestones"])
    return options["learning_rate"] / options["decay_factor"] ** passed


def decay_budget(options: dict[str, Any], steps_per_epoch: int) -> float:
    """By how many e-folds weight decay alone shrinks gamma over the training: sum(lr * decay) / (1 - momentum)."""
    decay = options["weight_decay"] if options["gamma_decay"] is None else options["gamma_decay"]
    rates = sum(learning_rate(options, epoch) for epoch in range(options["epochs"]))
    return rates * steps_per_epoch * decay / (1 - options["momentum"])


def fit(
    model: nn.Module,
    forward: Callable[[Tensor, Tensor, int], Tensor],
    data: ImageData,
    options: dict[str, Any],
    seed: int,
    keeper: Keeper,
    label: str = "",
) -> Outcome:
    """Train in place; returns the history.

    ``forward(unit_images, samples, key) -> logits`` scales, encodes and classifies a batch; ``key`` seeds its noise.
    A loss that is not finite ends the training with ``diverged`` set; ``keeper`` may end it with Stopped.
    """
    size = options["batch_size"]
    if len(data.train) % size == 1:
        raise UserError(
            f"batch_size {size} leaves a last batch of one image out of {len(data.train)}, and batch "
            "statistics need at least two; choose another batch_size"
        )
    of_norms = {id(p) for m in model.modules() if hasattr(m, "temporal_scale") for p in m.parameters()}
    decay = options["weight_decay"]
    gamma_decay = decay if options["gamma_decay"] is None else options["gamma_decay"]
    optimiser = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if id(p) not in of_norms], "weight_decay": decay},
            {"params": [p for p in model.parameters() if id(p) in of_norms], "weight_decay": gamma_decay},
        ],
        lr=options["learning_rate"],
        momentum=options["momentum"],
        fused=True,
    )
    outcome = Outcome()
    best: dict[str, Any] | None = None  # where weights are selected: epoch, accuracy and weights
    batches_done = 0  # of the epoch that was under way
    total_loss = torch.zeros((), device=data.mean.device)
    correct = torch.zeros((), dtype=torch.long, device=data.mean.device)
    spent = keeper.seconds  # when the epoch began
    state = keeper.load()
    if state is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        outcome.history, outcome.steps, best = state["history"], state["steps"], state["best"]
        batches_done, spent = state["batches_done"], state["spent"]
        total_loss.copy_(state["total_loss"])
        correct.copy_(state["correct"])
    first_epoch = len(outcome.history)

    epochs = tqdm(range(first_epoch, options["epochs"]), label, options["epochs"], initial=first_epoch, disable=None)
    with keeper.listening():
        for epoch in epochs:
            rate = learning_rate(options, epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            model.train()
            noise, shifts = key(seed, "training noise", epoch), key(seed, "augmentation", epoch)
            batches = permutation(key(seed, "order", epoch), len(data.train), data.mean.device).split(size)
            for done, batch in enumerate(batches[batches_done:], batches_done + 1):
                images = augment(data.train.unit(batch), shifts, batch, options["crop_padding"], options["flip"])
                labels = data.train.labels[batch]
                logits = forward(images, batch, noise)
                loss = F.cross_entropy(logits, labels)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                total_loss += loss.detach() * len(batch)
                correct += (logits.detach().argmax(1) == labels).sum()
                outcome.steps += 1
                if keeper.due():
                    keeper.save(
                        {
                            "model": model.state_dict(),
                            "optimiser": optimiser.state_dict(),
                            "history": outcome.history,
                            "steps": outcome.steps,
                            "best": best,
                            "batches_done": done,
                            "spent": spent,
                            "total_loss": total_loss,
                            "correct": correct,
                        }
                    )
            train_loss = total_loss.item() / len(data.train)
            if not math.isfinite(train_loss):
                outcome.diverged = f"the loss was not finite in epoch {epoch + 1}"
                break
            # NaN never exceeds a threshold, so a network with NaN weights is silent and its loss is finite.
            if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
                outcome.diverged = f"weights were not finite in epoch {epoch + 1}"
                break
            accuracy = validate(model, forward, data, seed, size)
            if math.isnan(accuracy) and len(data.validation):
                outcome.diverged = f"the network's outputs were not finite after epoch {epoch + 1}"
                break
            outcome.history.append(
                {
                    "epoch": epoch + 1,
                    "learning_rate": rate,
                    "train_loss": train_loss,
                    "train_accuracy": 100 * correct.item() / len(data.train),
                    "validation_accuracy": accuracy,
                    "seconds": keeper.seconds - spent,
                }
            )
            epochs.set_postfix(loss=f"{train_loss:.3f}", validation=f"{accuracy:.1f} %")
            if options["selection"] == "best-test" and (epoch + 1) % SELECTION_EPOCHS == 0:
                on_test = _accuracy(model, forward, data.test, key(seed, "selection noise"), size)
                if best is None or on_test > best["accuracy"]:
                    weights = {name: value.clone() for name, value in model.state_dict().items()}
                    best = {"epoch": epoch + 1, "accuracy": on_test, "weights": weights}
            batches_done, spent = 0, keeper.seconds
            total_loss.zero_()
            correct.zero_()
    if best is not None and outcome.diverged is None:
        model.load_state_dict(best["weights"])
        outcome.selected_epoch = best["epoch"]
    return outcome


def validate(model: nn.Module, forward: Callable, data: ImageData, seed: int, size: int) -> float:
    """Accuracy in per cent on the validation images, which are held out of training; the noise is always the same.

    NaN where an output is not finite, and where there are no such images.
    """
    return _accuracy(model, forward, data.validation, key(seed, "validation noise"), size)


@torch.no_grad()
def _accuracy(model: nn.Module, forward: Callable, images: Images, noise: int, size: int) -> float:
    model.eval()
    if not len(images):
        return math.nan
    correct = 0
    for batch in torch.arange(len(images), device=images.labels.device).split(size):
        logits = forward(images.unit(batch), batch, noise)
        if not torch.isfinite(logits).all():
            return math.nan
        correct += (logits.argmax(1) == images.labels[batch]).sum().item()
    return 100 * correct / len(images)
