"""DVS-CIFAR10 in frames of 5 ms with the split of TEBN (Duan et al. 2022): test is the first 100 of each class.

The recordings of a class are not in random order, so accuracies are higher than with a random split.
"""

from pathlib import Path

from bntt.data._dvs_cifar10 import ARCHIVES, PER_CLASS
from bntt.data._dvs_cifar10 import read as read_recordings
from bntt.data._parts import Parts

DATASET = {
    "title": "DVS-CIFAR10, 20 frames of 5 ms, 42 x 42 (10 classes, 9,000 and 1,000 recordings, TEBN's split)",
    "classes": 10,
    "source": "Li et al. 2017, figshare, AEDAT 2.0",
    "time_steps": 20,
    "shape": [20, 2, 42, 42],
    "images": {"train": 9000, "validation": 0, "test": 1000},
}
TEST = 100


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, counts uint8 ``[N, 20, 2, 42, 42]``."""
    numbered = range(PER_CLASS * len(ARCHIVES))
    split = {
        "train": [i for i in numbered if i % PER_CLASS >= TEST],
        "validation": [],
        "test": [i for i in numbered if i % PER_CLASS < TEST],
    }
    return read_recordings(source, downloads, split, 5000)
