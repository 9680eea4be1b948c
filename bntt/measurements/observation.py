"""One pass over the test images, from which most measurements are taken."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bntt.common.errors import UserError
from bntt.measurements import Subject
from bntt.measurements.passes import Gathered
from bntt.spiking.layers import LayerStep


@dataclass
class Observation:
    """What one pass over the test images gives; every count is a sum over them."""

    right: Tensor  # bool [T, N]: the argmax after t steps is the label
    loss: Tensor  # [T], mean cross-entropy of the running logits
    spikes_by_image: Tensor  # [reported steps, N] spikes of all neurons up to this step
    spikes: dict[str, Tensor]  # layer -> [T] spikes of its neurons
    input_events: dict[str, Tensor]  # layer -> [T] non-zero inputs
    input_mass: dict[str, Tensor]  # layer -> [T] sum of |inputs|; pooled inputs are fractions
    input_size: dict[str, int]  # layer -> inputs per image


@torch.no_grad()
def observe(subject: Subject) -> Observation:
    """Run the classifier once over all test images."""
    classifier, data = subject.classifier, subject.data
    steps, images, reported = classifier.time_steps, len(data.test), subject.report_steps

    def begin() -> Gathered:
        zeros = partial(torch.zeros, dtype=torch.float64)
        spikes, events, mass = ({layer.name: zeros(steps) for layer in classifier.layers} for _ in range(3))
        right = torch.zeros(steps, images, dtype=torch.bool)
        return vars(Observation(right, zeros(steps), zeros(len(reported), images), spikes, events, mass, {}))

    def add(gathered: Gathered, batch: Tensor) -> None:
        seen, columns = Observation(**gathered), batch.cpu()

        def watch(start: int, name: str, step: LayerStep) -> None:
            window = slice(start, start + len(step.input))
            counts = step.spike_counts.cpu()
            seen.spikes[name][window] += counts.sum(1)
            for row, last in enumerate(reported):
                if last > start:
                    seen.spikes_by_image[row, columns] += counts[: last - start].sum(0)
            given = step.input.flatten(2).float()  # the sums are exact: of quarters, less than 2^22 per image
            seen.input_events[name][window] += given.sign().abs_().sum(2).sum(1, dtype=torch.float64).cpu()
            seen.input_mass[name][window] += given.abs_().sum(2).sum(1, dtype=torch.float64).cpu()
            seen.input_size[name] = step.input[0, 0].numel()

        labels = data.test.labels[batch]
        scaled = classifier.given(data, data.test, batch)
        for start, logits in classifier.running_logits(scaled, batch, subject.noise_key(), watch):
            window = slice(start, start + len(logits))
            seen.right[window, columns] = (logits.argmax(2) == labels).cpu()
            losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
            seen.loss[window] += losses.reshape(len(logits), -1).sum(1, dtype=torch.float64).cpu() / images

    return Observation(**subject.passes.gather("observation", subject.batches, begin, add))


@torch.no_grad()
def right_at_reported_steps(
    subject: Subject,
    draw: int = 0,
    scaled: Callable[[Tensor, Tensor], Tensor] | None = None,
    name: str = "",
) -> dict[int, Tensor]:
    """Which test images are correct: reported step -> bool ``[N]``, with one draw of the Poisson noise.

    ``scaled(unit, batch)`` scales a batch of images in [0, 1] to the classifier's input; by default as in training.
    ``name`` says how, because a pass is known by its name; UserError without it.
    """
    if scaled is not None and not name:
        raise UserError("right_at_reported_steps: a pass over images that are scaled in another way needs a `name`")
    if draw == 0 and scaled is None:  # the shared pass has these
        return {step: subject.observation.right[step - 1] for step in subject.report_steps}
    classifier, data, key = subject.classifier, subject.data, subject.noise_key(draw)

    def begin() -> Gathered:
        return {"right": {step: torch.zeros(len(data.test), dtype=torch.bool) for step in subject.report_steps}}

    def add(gathered: Gathered, batch: Tensor) -> None:
        given = classifier.given(data, data.test, batch) if scaled is None else scaled(data.test.unit(batch), batch)
        for start, logits in classifier.running_logits(given, batch, key):
            for step, of_step in gathered["right"].items():
                if start < step <= start + len(logits):
                    of_step[batch.cpu()] = (logits[step - start - 1].argmax(1) == data.test.labels[batch]).cpu()

    found: dict[int, Tensor] = subject.passes.gather(f"draw {draw} {name}", subject.batches, begin, add)["right"]
    return found
