"""What reading a dataset returns: its parts, and facts about their origin."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bntt.data.splits import SPLITS

Part = tuple[np.ndarray, np.ndarray]  # pixels uint8 [N, C, H, W] (of recordings [N, T, 2, H, W]), labels int64 [N]


@dataclass(frozen=True)
class Parts:
    """``validation`` is None if the split has no such part; runs can then hold out training images.

    ``events`` are the single events of the recordings of each part, by its name: their words, uint32, see
    `bntt.data.events.streams`.
    """

    train: Part
    validation: Part | None
    test: Part
    from_publisher: bool  # the publisher's checksum matched
    facts: dict[str, Any] = field(default_factory=dict)  # for the manifest
    events: dict[str, list[np.ndarray]] | None = None

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
        if self.events is not None:
            for name, _, labels in self:
                recordings = self.events[name]
                if len(recordings) != len(labels) or any(one.dtype != np.uint32 or one.ndim != 1 for one in recordings):
                    raise TypeError(f"events of {name} must be words uint32 [E] of each of {len(labels)} recordings")

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, pixels and labels of each part; a part that does not exist is empty."""
        pixels, labels = self.train
        for name, part in (
            ("train", self.train),
            ("validation", self.validation or (pixels[:0], labels[:0])),
            ("test", self.test),
        ):
            yield name, *part


def divided(
    pixels: np.ndarray,
    labels: np.ndarray,
    split: dict[str, list[int]],
    events: Sequence[np.ndarray] | None = None,
    **more: Any,
) -> Parts:
    """Parts from all ``pixels``, ``labels`` and recordings' ``events`` by lists of indices.

    ``more`` is passed on to `Parts`.
    """
    train, validation, test = ((pixels[split[k]], labels[split[k]]) for k in SPLITS)
    those = None if events is None else {k: [events[number] for number in split[k]] for k in SPLITS}
    return Parts(train, validation if split["validation"] else None, test, events=those, **more)
