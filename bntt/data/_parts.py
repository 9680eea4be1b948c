"""What reading a dataset returns: its parts, and facts about their origin."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Part = tuple[np.ndarray, np.ndarray]  # pixels uint8 [N, C, H, W] (of recordings [N, T, 2, H, W]), labels int64 [N]


@dataclass(frozen=True)
class Parts:
    """``validation`` is None if the split has no such part; runs can then hold out training images."""

    train: Part
    validation: Part | None
    test: Part
    from_publisher: bool  # the publisher's checksum matched
    facts: dict[str, Any] = field(default_factory=dict)  # for the manifest

    def __post_init__(self) -> None:
        """Raise TypeError for arrays that could not be prepared, so that the reader that made them is named."""
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if part is None and name == "validation":
                continue
            arrays: Any = part
            if not (isinstance(part, tuple) and [type(one) for one in arrays] == [np.ndarray, np.ndarray]):
                raise TypeError(f"{name} must be two arrays, pixels and labels, not {part!r:.60}")
            pixels, labels = arrays
            if pixels.dtype != np.uint8 or labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
                raise TypeError(
                    f"{name} must be uint8 pixels [N, ...] and whole labels [N], not {pixels.dtype} "
                    f"{list(pixels.shape)} and {labels.dtype} {list(labels.shape)}"
                )

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, pixels and labels of each part; a part that does not exist is empty."""
        pixels, labels = self.train
        for name, part in (
            ("train", self.train),
            ("validation", self.validation or (pixels[:0], labels[:0])),
            ("test", self.test),
        ):
            yield name, *part


def divided(pixels: np.ndarray, labels: np.ndarray, split: dict[str, list[int]], **more: Any) -> Parts:
    """Parts from all ``pixels`` and ``labels`` by lists of indices; ``more`` is passed on to `Parts`."""
    train, validation, test = ((pixels[split[k]], labels[split[k]]) for k in ("train", "validation", "test"))
    return Parts(train, validation if split["validation"] else None, test, **more)
