"""Labelled images in memory: uint8 arrays on the device, scaled, resized and augmented there."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bntt import randomness

OPTIONS = {
    "image_size": {
        "default": None,
        "type": "int",
        "min": 1,
        "help": "Side in pixels that images are resized to (bilinear); null keeps their own.",
    },
    "crop_padding": {
        "default": 0,
        "min": 0,
        "help": "Random crop after zero padding by so many pixels; training only.",
    },
    "flip": {"default": False, "help": "Random horizontal flip; training only. Never for digits."},
    "train_limit": {
        "default": None,
        "type": "int",
        "min": 2,
        "help": "Use only the first so many training images.",
    },
}


@dataclass(frozen=True)
class Images:
    """One split: ``pixels`` uint8 ``[N, C, H, W]``, ``labels`` int64 ``[N]``."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def unit(self, samples: Tensor) -> Tensor:
        """Images in [0, 1], float32."""
        return self.pixels[samples].float() / 255


@dataclass(frozen=True)
class ImageData:
    """A dataset as one run sees it. ``mean`` and ``deviation`` are per channel, of the training images in [0, 1]."""

    name: str
    classes: int
    train: Images
    validation: Images
    test: Images
    mean: Tensor  # [C, 1, 1]
    deviation: Tensor  # [C, 1, 1]
    digest: str
    state: str

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def scaled(self, unit: Tensor, signed: bool) -> Tensor:
        """Images as Poisson coding wants them: z-scored (signed) or left in [0, 1]."""
        return (unit - self.mean) / self.deviation if signed else unit

    def to(self, device: torch.device, image_size: int | None, train_limit: int | None) -> "ImageData":
        """The same data on a device, resized, with at most ``train_limit`` training images."""

        def moved(images: Images, limit: int | None = None) -> Images:
            pixels = images.pixels[:limit].to(device)
            if image_size is not None and pixels.shape[-1] != image_size:
                size = (image_size, image_size)
                smooth = F.interpolate(pixels.float(), size, mode="bilinear", align_corners=False, antialias=True)
                pixels = smooth.round().clamp(0, 255).to(torch.uint8)
            return Images(pixels, images.labels[:limit].to(device))

        train = moved(self.train, train_limit)
        values = train.pixels.double() / 255
        deviation, mean = torch.std_mean(values, dim=(0, 2, 3), correction=0, keepdim=True)
        return replace(
            self,
            train=train,
            validation=moved(self.validation),
            test=moved(self.test),
            mean=mean[0].float(),
            deviation=deviation[0].float(),
        )


def augment(unit: Tensor, key: int, samples: Tensor, crop_padding: int, flip: bool) -> Tensor:
    """Random crop after zero padding, then random flip; each image's own draw depends on key and sample alone."""
    if not (crop_padding or flip):
        return unit
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
