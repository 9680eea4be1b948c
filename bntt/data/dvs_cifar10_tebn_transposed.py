"""The dataset `dvs-cifar10-tebn` with x and y swapped: the orientation in which SpikingJelly reads DVS-CIFAR10."""

from pathlib import Path

from bntt.data import splits
from bntt.data._dvs_cifar10 import read as read_recordings
from bntt.data._parts import Parts

DATASET = {
    "title": "DVS-CIFAR10 transposed, 20 frames of 5 ms, 42 x 42 (10 classes, TEBN's split)",
    "classes": 10,
    "source": "Li et al. 2017, figshare, AEDAT 2.0",
    "time_steps": 20,
    "split": "dvs-cifar10-tebn",
    "shape": [20, 2, 42, 42],
    "events": True,
    "images": {"train": 9000, "validation": 0, "test": 1000},
}


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, counts uint8 ``[N, 20, 2, 42, 42]``."""
    return read_recordings(source, downloads, splits.committed_split("dvs-cifar10-tebn"), 5000, transposed=True)
