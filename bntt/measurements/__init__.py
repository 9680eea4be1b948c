"""Measurements: what evaluation measures on a classifier. Each is one file in this folder and is found by itself.

A measurement file has the name of its csv file and declares ``COLUMNS`` as a literal dictionary, name -> meaning. It
defines ``measure(subject)``, which returns rows, a list of dictionaries with those columns, or a string that says why
the measurement does not apply to this classifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bntt.common.errors import UserError
from bntt.experiment import declared, plugins
from bntt.experiment.schema import Run
from bntt.measurements.passes import Passes

if TYPE_CHECKING:  # so that importing `operations` does not load torch
    from torch import Tensor

    from bntt.classifiers import Classifier
    from bntt.data.images import ImageData
    from bntt.measurements.observation import Observation

Rows = list[dict[str, float | int | str]]
MOST_IMAGE_STEPS = 100_000  # images x time-steps of a batch, at most, because an evaluation can stop after a batch only


@dataclass(frozen=True)
class Subject:
    """A classifier with its test data. Measurements share the passes over the test images."""

    run: Run
    data: "ImageData"
    classifier: "Classifier"
    passes: Passes = field(default_factory=Passes, init=False)  # of this subject, and not of one made by `replace`

    @cached_property
    def observation(self) -> "Observation":
        from bntt.measurements.observation import observe

        return observe(self)

    @property
    def batches(self) -> "Sequence[Tensor]":
        """The indices of the test images, in batches, on the device of the data."""
        import torch

        indices = torch.arange(len(self.data.test), device=self.data.mean.device)
        return indices.split(images_at_once(self.run, self.classifier.time_steps))

    @property
    def why_not_drawn(self) -> str | None:
        """Why the input spikes are not random; None if they are, so that another draw gives other spikes."""
        if not self.classifier.spiking:
            return self.classifier.not_spiking
        if self.data.recordings and not self.classifier.rates:
            return "the frames of recordings are spikes already; nothing is drawn"
        return None

    @property
    def report_steps(self) -> list[int]:
        """The time-steps at which this run is reported, ascending: its option ``report_steps`` up to T, and T."""
        last = self.classifier.time_steps
        return sorted({step for step in self.run.evaluation["report_steps"] if step <= last} | {last})

    def noise_key(self, draw: int = 0) -> int:
        """The key of the Poisson noise of the test images. All measurements except `draws` use draw 0 only."""
        from bntt.spiking.randomness import key

        return key(self.run.seed, "test noise", draw)


def images_at_once(run: Run, time_steps: int) -> int:
    """Test images of a batch: the option ``batch_size`` of the evaluation, or fewer if there are many time-steps."""
    return min(run.evaluation["batch_size"], max(1, MOST_IMAGE_STEPS // time_steps))


def measure_all(subject: Subject) -> tuple[dict[str, Rows], dict[str, str]]:
    """The rows of every measurement by csv file, and the reasons why others do not apply."""
    asked = subject.run.evaluation["measurements"]
    results: dict[str, Rows | str] = {}
    for name, module in declared.plugins("measurements", "COLUMNS").items():
        taken = not asked or name in ("anytime", *asked)
        results[f"{name.replace('-', '_')}.csv"] = measure(module, subject) if taken else "the experiment leaves it out"
    return (
        {file: result for file, result in results.items() if not isinstance(result, str)},
        {file: result for file, result in results.items() if isinstance(result, str)},
    )


def measure(module: str, subject: Subject) -> Rows | str:
    """The rows of one measurement, or why it does not apply. UserError if its rows lack columns or have others."""
    columns = declared.literal(module, "COLUMNS")
    found: Rows | str = plugins.call(module, "measure", subject, returns=(list, str))
    for row in [] if isinstance(found, str) else found:
        if not isinstance(row, dict) or row.keys() != set(columns):
            raise UserError(
                f"{declared.place(module, 'COLUMNS')}: every row of `measure` must have the columns of COLUMNS, "
                f"{', '.join(columns)}, not {row!r}"
            )
    return found


def per_cent(right: "Tensor") -> float:
    """Accuracy in per cent; ``right`` is bool ``[N]``: which test images are classified correctly."""
    return 100 * right.double().mean().item()


def to_bits(right: "Tensor") -> str:
    """Bool ``[N]``, which test images are correct, as hexadecimal digits; image i is bit i, most significant first."""
    bits = "".join("1" if value else "0" for value in right.tolist())
    padded = bits + "0" * (-len(bits) % 4)
    return f"{int(padded, 2):0{len(padded) // 4}x}"
