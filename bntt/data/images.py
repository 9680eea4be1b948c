"""Labelled images and event recordings in memory: uint8 arrays on the device, scaled, resized and augmented there.

A recording is a sequence of frames of event counts, ``[T, 2, H, W]``. A spiking network gets the frames as spikes,
which are 1 where a count is not zero, or with ``event_counts`` as counts. A dense network gets their mean over
time, at most 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bntt.common.errors import UserError
from bntt.data.events.streams import Streams
from bntt.spiking import randomness

OPTIONS = {
    "image_size": {
        "default": None,
        "type": "int",
        "min": 1,
        "help": "Side in pixels to which images are resized (bilinear); null: not resized.",
    },
    "crop_padding": {
        "default": 0,
        "min": 0,
        "help": "Random crop after zero padding by this number of pixels; training only.",
    },
    "flip": {"default": False, "help": "Random horizontal flip; training only. Never for digits."},
    "train_limit": {
        "default": None,
        "type": "int",
        "min": 2,
        "help": "Use only this number of training images, from the first on; null: all.",
    },
    "held_out": {
        "default": 0,
        "min": 0,
        "help": "Number of training images, the last ones, used for validation if the dataset has no such part.",
    },
    "test_limit": {
        "default": None,
        "type": "int",
        "min": 1,
        "help": "Use only this number of test images, from the first on; null: all. The released code drops its last, "
        "smaller batch.",
    },
    "event_counts": {
        "default": False,
        "help": "For recordings: use the number of events of a square in a frame, not only whether it had one.",
    },
    "statistics": {
        "default": "dataset",
        "choices": ["dataset", "cifar10-released"],
        "help": "Mean and deviation for z-scoring images: those of the training images that are used, or the released "
        "code's constants, which it uses for CIFAR-100 too.",
    },
}
RELEASED = {"mean": (0.4914, 0.4822, 0.4465), "deviation": (0.2023, 0.1994, 0.2010)}


@dataclass(frozen=True)
class Images:
    """One part: ``pixels`` uint8 ``[N, C, H, W]``, or ``[N, T, 2, H, W]`` for recordings; ``labels`` int64 ``[N]``.

    ``events`` are the single events of the recordings, if the method asked for them.
    """

    pixels: Tensor
    labels: Tensor
    events: Streams | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def unit(self, samples: Tensor) -> Tensor:
        """The images with the indices ``samples``, float32: images in [0, 1], recordings unchanged."""
        chosen = self.pixels[samples].float()
        return chosen if chosen.dim() == 5 else chosen / 255

    def streams(self, samples: Tensor | None = None) -> Streams:
        """The events of the recordings with these indices, or of all; UserError if there are none."""
        if self.events is None:
            raise UserError("these data have no single events; choose a dataset of recordings that keeps them")
        return self.events if samples is None else self.events.take(samples.tolist())

    def some(self, those: slice) -> "Images":
        """The images of a slice."""
        return Images(self.pixels[those], self.labels[those], None if self.events is None else self.events.some(those))


@dataclass(frozen=True)
class ImageData:
    """A dataset as one run uses it. ``mean`` and ``deviation`` are per channel, of the training images in [0, 1]."""

    name: str
    classes: int
    train: Images
    validation: Images
    test: Images
    mean: Tensor  # [C, 1, 1]
    deviation: Tensor  # [C, 1, 1]
    digest: str  # hash of the content
    state: str  # how well it is known that these are the publisher's data, see `bntt.data.store`

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.pixels.shape[-3:]
        return channels, height, width

    @property
    def recordings(self) -> bool:
        """Whether these are recordings of an event camera."""
        return self.train.pixels.dim() == 5

    def scaled(self, unit: Tensor, signed: bool) -> Tensor:
        """Images as Poisson coding needs them: z-scored (signed) or left in [0, 1]; recordings stay unchanged."""
        return (unit - self.mean) / self.deviation if signed and not self.recordings else unit

    def as_asked(self, device: torch.device, options: Mapping[str, Any]) -> "ImageData":
        """The data on a device, prepared according to a run's options, as far as its method declares them."""
        names = ("image_size", "train_limit", "held_out", "test_limit", "event_counts", "statistics")
        return self.to(device, **{name: options[name] for name in names if name in options})

    def to(
        self,
        device: torch.device,
        image_size: int | None = None,
        train_limit: int | None = None,
        held_out: int = 0,
        test_limit: int | None = None,
        event_counts: bool = False,
        statistics: str = "dataset",
    ) -> "ImageData":
        """The same data on a device, resized, and limited to some of the images; the arguments are those in OPTIONS.

        Raises UserError if an argument does not fit the dataset.
        """
        train, validation = self.train, self.validation
        if held_out:
            if len(validation):
                raise UserError(f"dataset {self.name} has validation images of its own: leave held_out at 0")
            if held_out + 2 > len(train):
                raise UserError(f"held_out {held_out} leaves too few of {len(train)} training images")
            train, validation = train.some(slice(-held_out)), train.some(slice(-held_out, None))
        if self.recordings and image_size not in (None, self.shape[-1]):
            raise UserError(
                f"the frames of {self.name} have a side of {self.shape[-1]} and are not resized: leave image_size out"
            )

        def moved(images: Images, limit: int | None = None) -> Images:
            images = images if limit is None else images.some(slice(limit))
            pixels = images.pixels.to(device)
            if self.recordings and not event_counts:
                pixels = pixels.sign()
            if image_size is not None and pixels.shape[-1] != image_size and len(pixels):
                size = (image_size, image_size)
                smooth = F.interpolate(pixels.float(), size, mode="bilinear", align_corners=False, antialias=True)
                pixels = smooth.round().clamp(0, 255).to(torch.uint8)
            return Images(pixels, images.labels.to(device), images.events)

        train = moved(train, train_limit)
        mean, deviation = self.mean.to(device), self.deviation.to(device)
        if not self.recordings:
            if statistics == "dataset":
                mean, deviation = channel_statistics(train.pixels)
            elif self.shape[0] == 3:
                mean, deviation = (
                    torch.tensor(RELEASED[k], device=device)[:, None, None] for k in ("mean", "deviation")
                )
            else:
                raise UserError(f"statistics {statistics} need three channels, but {self.name} has {self.shape[0]}")
        return replace(
            self,
            train=train,
            validation=moved(validation),
            test=moved(self.test, test_limit),
            mean=mean,
            deviation=deviation,
        )


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the pixels in [0, 1], per channel, float32 ``[C, 1, 1]``, from exact sums."""
    total = torch.zeros(pixels.shape[1], dtype=torch.long, device=pixels.device)
    squares = torch.zeros_like(total)
    for piece in pixels.split(4096):
        values = piece.transpose(0, 1).flatten(1).int()
        total += values.sum(1)
        squares += (values * values).sum(1)
    count = pixels.numel() // pixels.shape[1]
    mean = total.double() / count
    variance = (squares.double() - total.double() * mean) / count
    return (mean / 255).float()[:, None, None], (variance.clamp_min(0).sqrt() / 255).float()[:, None, None]


def augment(unit: Tensor, key: int, samples: Tensor, crop_padding: int, flip: bool) -> Tensor:
    """Random crop after zero padding, then random flip; an image's random numbers depend only on key and sample.

    ``unit [N, C, H, W]`` or ``[N, T, 2, H, W]``; the result has the same shape. All frames of a recording are shifted
    and flipped in the same way.
    """
    if not (crop_padding or flip):
        return unit
    if unit.dim() == 5:
        return augment(unit.flatten(1, 2), key, samples, crop_padding, flip).reshape(unit.shape)
    draws = randomness.words(key, samples, 3)
    count, _, height, width = unit.shape
    if crop_padding:
        padded = F.pad(unit, (crop_padding,) * 4)
        offsets = draws[:, :2] % (2 * crop_padding + 1)
        rows = offsets[:, 0, None] + torch.arange(height, device=unit.device)
        columns = offsets[:, 1, None] + torch.arange(width, device=unit.device)
        image = torch.arange(count, device=unit.device)[:, None, None]
        unit = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        unit = torch.where((draws[:, 2] % 2 == 1)[:, None, None, None], unit.flip(-1), unit)
    return unit
