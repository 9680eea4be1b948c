"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in 10 classes, with the official split (Krizhevsky 2009)."""

from pathlib import Path

from bntt.data._cifar import read as read_cifar
from bntt.data._parts import Parts

# fmt: off
DATASET = {
    "title": "CIFAR-10 (32 x 32, 10 classes)",
    "classes": 10,
    "source": "Krizhevsky 2009, by torchvision",
    "shape": [3, 32, 32],
    "images": {"train": 50000, "validation": 0, "test": 10000},
    "partial": {  # without the publisher's files: all test items except these are known to be pixel-exact
        "items": [
            1259, 1369, 1422, 2245, 2737, 2935, 3695, 3718, 4085, 4496,
            5791, 5896, 6286, 7580, 7707, 7724, 7832, 8117, 8551, 9254,
        ],
        "content": "9080f0d32023de61d7f50f9dc417c2b565731b268d2699ac280079c17528bb6b",
    },
}
# fmt: on


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, pixels uint8 ``[N, 3, 32, 32]``."""
    return read_cifar("CIFAR10", source, downloads)
