"""CIFAR-100: 60,000 photographs of 32 x 32 pixels in 100 classes, with the official split (Krizhevsky 2009)."""

from pathlib import Path

from bntt.data._cifar import read as read_cifar
from bntt.data._parts import Parts

DATASET = {
    "title": "CIFAR-100 (32 x 32, 100 classes)",
    "classes": 100,
    "source": "Krizhevsky 2009, by torchvision",
    "shape": [3, 32, 32],
    "images": {"train": 50000, "validation": 0, "test": 10000},
    "content": "966524dea413ba63a3629d1004f73ec386cda89a31ba29e6c371f047d884e006",
}


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, pixels uint8 ``[N, 3, 32, 32]``."""
    return read_cifar("CIFAR100", source, downloads)
