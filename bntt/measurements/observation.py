"""One pass over the test images, from which most measurements are taken."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bntt.measurements import Subject
from bntt.spiking.layers import LayerStep


@dataclass
class Observation:
    """What one pass over the test images gives; every count is a sum over them."""

    right: Tensor  # bool [T, N]: the argmax after t steps is the label
    loss: Tensor  # [T], mean cross-entropy of the running logits
    spikes_by_image: Tensor  # [T, N] spikes of all neurons
    spikes: dict[str, Tensor]  # layer -> [T] spikes of its neurons
    input_events: dict[str, Tensor]  # layer -> [T] non-zero inputs
    input_mass: dict[str, Tensor]  # layer -> [T] sum of |inputs|; pooled inputs are fractions
    input_size: dict[str, int]  # layer -> inputs per image


@torch.no_grad()
def observe(subject: Subject) -> Observation:
    """Run the classifier once over all test images."""
    classifier, data = subject.classifier, subject.data
    steps, images = classifier.time_steps, len(data.test)
    zeros = partial(torch.zeros, dtype=torch.float64)
    spikes, events, mass = ({layer.name: zeros(steps) for layer in classifier.layers} for _ in range(3))
    right = torch.zeros(steps, images, dtype=torch.bool)
    seen = Observation(right, zeros(steps), zeros(steps, images), spikes, events, mass, {})

    for batch in torch.arange(images, device=data.mean.device).split(subject.run.evaluation["batch_size"]):
        columns = batch.cpu()

        def watch(start: int, name: str, step: LayerStep, columns: Tensor = columns) -> None:
            window = slice(start, start + len(step.input))
            seen.spikes[name][window] += step.spike_counts.sum(1).cpu()
            given = step.input.flatten(2).float()  # the sums are exact: of quarters, less than 2^22 per image
            seen.input_events[name][window] += given.sign().abs_().sum(2).sum(1, dtype=torch.float64).cpu()
            seen.input_mass[name][window] += given.abs_().sum(2).sum(1, dtype=torch.float64).cpu()
            seen.input_size[name] = step.input[0, 0].numel()
            seen.spikes_by_image[window, columns] += step.spike_counts.cpu()

        labels = data.test.labels[batch]
        scaled = classifier.given(data, data.test, batch)
        for start, logits in classifier.running_logits(scaled, batch, subject.noise_key(), watch):
            window = slice(start, start + len(logits))
            seen.right[window, columns] = (logits.argmax(2) == labels).cpu()
            losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
            seen.loss[window] += losses.reshape(len(logits), -1).sum(1, dtype=torch.float64).cpu() / images
    return seen


@torch.no_grad()
def right_at_reported_steps(
    subject: Subject, draw: int = 0, scaled: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[int, Tensor]:
    """Which test images are correct: reported step -> bool ``[N]``, with one draw of the Poisson noise.

    ``scaled(unit, batch)`` scales a batch of images in [0, 1] to the classifier's input; by default as in training.
    """
    if draw == 0 and scaled is None:  # the shared pass has these
        return {step: subject.observation.right[step - 1] for step in subject.report_steps}
    classifier, data, key = subject.classifier, subject.data, subject.noise_key(draw)
    right = {step: torch.zeros(len(data.test), dtype=torch.bool) for step in subject.report_steps}
    for batch in torch.arange(len(data.test), device=data.mean.device).split(subject.run.evaluation["batch_size"]):
        given = classifier.given(data, data.test, batch) if scaled is None else scaled(data.test.unit(batch), batch)
        for start, logits in classifier.running_logits(given, batch, key):
            for step, of_step in right.items():
                if start < step <= start + len(logits):
                    of_step[batch.cpu()] = (logits[step - start - 1].argmax(1) == data.test.labels[batch]).cpu()
    return right
