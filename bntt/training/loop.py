"""The training loop of every method. It gets a model and a function from a batch of images to logits.

It uses no test images, except if the option ``selection`` is ``best-test``, which is what the released code does.

SGD with momentum and coupled weight decay, cross-entropy on the logits, and the learning rate divided at fixed shares
of the epochs (Section 4.1); a method may have another loss. A stopped training continues from its last saved state.
Randomness is keyed by epoch and sample, so the result is bit-identical to that of a training without a stop.
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
from bntt.spiking import processes
from bntt.spiking.randomness import key, permutation
from bntt.training.schedule import gamma_decay, images_per_epoch, learning_rate

EXTENDS = ["bntt.data.images"]
OPTIONS = {
    "epochs": {"default": 120, "min": 1, "help": "Passes over the training images."},
    "batch_size": {"default": 256, "min": 2, "help": "Training images per step."},
    "drop_last": {
        "default": False,
        "help": "Leave out the images that do not fill the last batch of an epoch, as the released code does; they are "
        "others in each epoch.",
    },
    "learning_rate": {"default": 0.3, "above": 0.0, "help": "Base learning rate of SGD."},
    "optimiser": {
        "default": "sgd",
        "choices": ["sgd", "adam"],
        "help": "`sgd`, or `adam`: AMSGrad with coupled weight decay, as in Rathi et al. 2020; it has no `momentum`.",
    },
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
    "decay_factor": {"default": 10.0, "above": 0.0, "help": "Divisor of the learning rate at each milestone."},
    "selection": {
        "default": "last",
        "choices": ["last", "best-test"],
        "help": "Weights kept: those of the last epoch, or those with the best accuracy on the test images after every "
        "tenth epoch. The released code does the latter, but a fair protocol must not.",
    },
}
SELECTION_EPOCHS = 10

Forward = Callable[[Tensor, Tensor, int], Tensor]  # (images in [0, 1], their indices, key) -> output
Loss = Callable[[Tensor, Tensor], Tensor]  # (output, labels) -> the mean over images, a scalar


class Keeper(Protocol):
    """Keeps one training's or evaluation's state, and says when to save it. Runs use `bntt.runs.checkpoints`."""

    @property
    def seconds(self) -> float:
        """Seconds spent on it so far, including those before a stop."""

    def listening(self) -> AbstractContextManager[None]:
        """A context in which a signal to end the process asks for a stop after the current step."""

    def load(self) -> Any | None:
        """The newest state, or None."""

    def due(self) -> bool:
        """Whether to save now; asked after every step."""

    def save(self, state: Any) -> None:
        """Save a state; raises Stopped if a stop was asked for."""


@dataclass
class Outcome:
    """The result of a training: one line of history per epoch, the number of steps, and why it diverged, if it did."""

    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    gradients: list[dict[str, Any]] = field(default_factory=list)  # as `bntt.training.gradients` says
    diverged: str | None = None
    selected_epoch: int | None = None  # of the weights, if the option ``selection`` chose them

    @property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What a run directory keeps of it as csv files, by name."""
        return {"history.csv": self.history, "gradients.csv": self.gradients}


def fit(
    model: nn.Module,
    forward: Forward,
    data: ImageData,
    options: dict[str, Any],
    seed: int,
    keeper: Keeper,
    label: str = "",
    loss: Loss = F.cross_entropy,
    logits: Callable[[Tensor], Tensor] = lambda output: output,
    gradients: Callable[[int], list[dict[str, Any]]] = lambda epochs: [],
) -> Outcome:
    """Train ``model`` in place; returns its `Outcome`.

    ``forward(unit_images, samples, key) -> output`` scales, encodes and classifies a batch; ``key`` seeds its noise.
    The output is the logits ``[N, classes]``, or anything else of which ``loss`` and ``logits`` are functions.
    ``gradients(epochs)`` is asked before the first epoch and after each for rows to keep in the outcome. A loss,
    weights or logits of validation images that are not finite after an epoch end the training, and ``diverged`` says
    so. Where several processes train together, each takes a share of every batch. Raises Stopped if ``keeper`` does,
    and UserError if ``batch_size`` leaves a single image for the last batch, fewer than there are processes, or no
    batch at all, and if ``epochs`` end before ``selection`` looks at the test images.
    """
    size, images = options["batch_size"], len(data.train)
    used = images_per_epoch(options, images)
    if used % size == 1:
        raise UserError(
            f"batch_size {size} leaves a last batch of one image out of {images}, and batch statistics need at least "
            "two; choose another batch_size, or drop_last"
        )
    if not used:
        raise UserError(f"batch_size {size} is more than the {images} training images, so drop_last leaves no batch")
    if (last := used % size or size) < processes.count():
        raise UserError(
            f"batch_size {size} leaves a last batch of {last} images out of {images}, and there are "
            f"{processes.count()} processes; choose another batch_size, drop_last, or fewer processes"
        )
    if options["selection"] == "best-test" and options["epochs"] < SELECTION_EPOCHS:
        raise UserError(
            f"selection best-test looks at the test images after every {SELECTION_EPOCHS} epochs, and there are "
            f"{options['epochs']}: use {SELECTION_EPOCHS} epochs or more, or selection last"
        )
    training = _Training(model, forward, data, options, seed, keeper, loss, logits)
    progress = training.progress
    first = len(progress.history)
    if not progress.steps:
        progress.gradients = gradients(0)
    quiet = processes.rank() > 0 or None  # None: unless a terminal shows it
    epochs = tqdm(range(first, options["epochs"]), label, options["epochs"], initial=first, disable=quiet)
    with keeper.listening():
        for epoch in epochs:
            training.take_steps(epoch)
            if (diverged := training.end_epoch(epoch)) is not None:
                return Outcome(progress.history, progress.steps, progress.gradients, diverged)
            progress.gradients += gradients(epoch + 1)
            last = progress.history[-1]
            shown = {"loss": f"{last['train_loss']:.3f}"}
            if len(data.validation):
                shown["validation"] = f"{last['validation_accuracy']:.1f} %"
            epochs.set_postfix(shown)
    outcome = Outcome(progress.history, progress.steps, progress.gradients)
    if progress.best is not None:
        model.load_state_dict(progress.best["weights"])
        outcome.selected_epoch = progress.best["epoch"]
    return outcome


def _optimiser(model: nn.Module, options: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimiser, whose weight decay is ``gamma_decay`` for the parameters of temporal norms, if it is given."""
    of_norms = {id(p) for m in model.modules() if hasattr(m, "temporal_scale") for p in m.parameters()}
    others = [p for p in model.parameters() if id(p) not in of_norms]
    gammas = [p for p in model.parameters() if id(p) in of_norms]
    groups = [
        {"params": others, "weight_decay": options["weight_decay"]},
        {"params": gammas, "weight_decay": gamma_decay(options)},
    ]
    if options["optimiser"] == "adam":
        return torch.optim.Adam(groups, lr=options["learning_rate"], amsgrad=True, fused=True)
    return torch.optim.SGD(groups, lr=options["learning_rate"], momentum=options["momentum"], fused=True)


@dataclass
class _Progress:
    """The progress of a training: what it needs to continue, besides the states of its model and its optimiser."""

    epoch_began: float  # in seconds of this training
    total_loss: Tensor  # sum over images of the current epoch, (); on the device, so that no step waits
    correct: Tensor  # number of these images that are right, ()
    batches_done: int = 0  # of the current epoch
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # of the epochs that are done
    gradients: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # if weights are selected: epoch, accuracy and weights


@dataclass
class _Training:
    """One training: the arguments of `fit`, the optimiser, and the progress."""

    model: nn.Module
    forward: Forward
    data: ImageData
    options: dict[str, Any]
    seed: int
    keeper: Keeper
    loss: Loss
    logits: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        """Begin, or continue from the keeper's state, if it has one."""
        self.optimiser = _optimiser(self.model, self.options)
        self.progress = _Progress(self.keeper.seconds, torch.zeros(()), torch.zeros((), dtype=torch.long))
        state = self.keeper.load()
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.progress = _Progress(**state["progress"])
        self.progress.total_loss = self.progress.total_loss.to(self.data.mean.device)
        self.progress.correct = self.progress.correct.to(self.data.mean.device)

    def state(self) -> dict[str, Any]:
        """What another training needs to go on from here."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": dict(vars(self.progress)),
        }

    def take_steps(self, epoch: int) -> None:
        """Train on the batches of an epoch that are not done yet; save the state when the keeper asks for it."""
        options, train, progress = self.options, self.data.train, self.progress
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(options, epoch)
        self.model.train()
        noise, shifts = key(self.seed, "training noise", epoch), key(self.seed, "augmentation", epoch)
        order = permutation(key(self.seed, "order", epoch), len(train), self.data.mean.device)
        order = order[: images_per_epoch(options, len(train))]
        for whole in order.split(options["batch_size"])[progress.batches_done :]:
            batch = processes.share_of(whole)
            images = augment(train.unit(batch), shifts, batch, options["crop_padding"], options["flip"])
            labels = train.labels[batch]
            output = self.forward(images, batch, noise)
            loss = self.loss(output, labels) * (len(batch) / len(whole))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            processes.add_gradients(self.model.parameters())
            self.optimiser.step()
            progress.total_loss += processes.add(loss.detach()) * len(whole)
            progress.correct += processes.add((self.logits(output).detach().argmax(1) == labels).sum())
            progress.batches_done += 1
            progress.steps += 1
            if self.keeper.due():
                self.keeper.save(self.state())

    def end_epoch(self, epoch: int) -> str | None:
        """Validate and add the epoch to the history; returns what was not finite, if anything, to end the training."""
        progress, images = self.progress, images_per_epoch(self.options, len(self.data.train))
        train_loss = progress.total_loss.item() / images
        if not math.isfinite(train_loss):
            return f"the loss was not finite in epoch {epoch + 1}"
        # NaN never exceeds a threshold, so a network with NaN weights emits no spikes and its loss is finite.
        if not all(torch.isfinite(parameter).all() for parameter in self.model.parameters()):
            return f"weights were not finite in epoch {epoch + 1}"
        accuracy = validate(self.model, self._answers, self.data, self.seed, self.options["batch_size"])
        if math.isnan(accuracy) and len(self.data.validation):
            return f"the network's outputs were not finite after epoch {epoch + 1}"
        progress.history.append(
            {
                "epoch": epoch + 1,
                "learning_rate": learning_rate(self.options, epoch),
                "train_loss": train_loss,
                "train_accuracy": 100 * progress.correct.item() / images,
                "validation_accuracy": accuracy,
                "seconds": self.keeper.seconds - progress.epoch_began,
            }
        )
        if self.options["selection"] == "best-test" and (epoch + 1) % SELECTION_EPOCHS == 0:
            self._select(epoch, self.data.test)
        progress.epoch_began, progress.batches_done = self.keeper.seconds, 0
        progress.total_loss.zero_()
        progress.correct.zero_()
        return None

    def _answers(self, unit: Tensor, samples: Tensor, noise: int) -> Tensor:
        return self.logits(self.forward(unit, samples, noise))

    def _select(self, epoch: int, images: Images) -> None:
        """Keep the weights if they do better on these images than the weights that were kept before.

        Any accuracy is better than NaN, that of outputs that are not finite.
        """
        noise = key(self.seed, "selection noise")
        accuracy = _accuracy(self.model, self._answers, images, noise, self.options["batch_size"])
        best = self.progress.best
        if best is None or accuracy > best["accuracy"] or math.isnan(best["accuracy"]):
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.progress.best = {"epoch": epoch + 1, "accuracy": accuracy, "weights": weights}


def validate(model: nn.Module, forward: Forward, data: ImageData, seed: int, size: int) -> float:
    """Accuracy in per cent on the validation images, which are held out of training; the noise is always the same.

    NaN if an output is not finite, or if there are no such images.
    """
    return _accuracy(model, forward, data.validation, key(seed, "validation noise"), size)


@torch.no_grad()
def _accuracy(model: nn.Module, forward: Forward, images: Images, noise: int, size: int) -> float:
    model.eval()
    if not len(images):
        return math.nan
    device = images.labels.device
    correct, finite = torch.zeros((), device=device), torch.zeros((), device=device)
    for batch in torch.arange(len(images), device=device).split(size)[processes.rank() :: processes.count()]:
        logits = forward(images.unit(batch), batch, noise)
        correct += (logits.argmax(1) == images.labels[batch]).sum()
        finite += torch.isfinite(logits).all() * len(batch)
    if processes.add(finite).item() < len(images):
        return math.nan
    return 100 * processes.add(correct).item() / len(images)
