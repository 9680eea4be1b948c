"""DVS-CIFAR10 in frames of 5 ms from the first event on (Wu et al. 2019), with this project's split.

Twenty frames cover 100 ms of recordings that last about 1.3 s. The split has 900 training and 100 test recordings of
each class. It was drawn once, with seed 0, and is committed.
"""

from pathlib import Path

from bntt.data import splits
from bntt.data._dvs_cifar10 import read as read_recordings
from bntt.data._parts import Parts

DATASET = {
    "title": "DVS-CIFAR10, 20 frames of 5 ms, 42 x 42 (10 classes, our split)",
    "classes": 10,
    "source": "Li et al. 2017, figshare, AEDAT 2.0",
    "time_steps": 20,
    "shape": [20, 2, 42, 42],
    "events": True,
    "images": {"train": 9000, "validation": 0, "test": 1000},
}


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, counts uint8 ``[N, 20, 2, 42, 42]``."""
    return read_recordings(source, downloads, splits.committed_split("dvs-cifar10"), 5000)
