"""CIFAR-10 before a simulated event camera: the size, format and motion of DVS-CIFAR10, from photographs at hand.

This is not DVS-CIFAR10 (Li et al. 2017), whose photographs are unnamed and whose camera was a real one. A number on it
says nothing about a printed one. The photographs are the first 1,000 training images of each class of CIFAR-10
(Krizhevsky 2009), in the order of its files. Recording k of a class is of the k-th of them.

The intensity of a pixel is the luma of ITU-R BT.601, rounded: (299 R + 587 G + 114 B + 500) // 1000. A photograph of 32
pixels covers 96 of the sensor's 128 pixels. The camera (`bntt.data.events.camera`) moves it once around its path in
100 ms and writes an AEDAT 2.0 file of 128 x 128 pixels. From there on everything is as for `dvs-cifar10`: bins, squares
and which numbers are for the test. Only the order differs: recordings are ordered by their number within the class, so
that the first ones of a part are of all classes, as `train_limit` needs it. The camera never sees a label. Its random
numbers are keyed by the recording's number, with seed 0.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from bntt.common.errors import UserError
from bntt.common.files import read_sealed, sha256
from bntt.data import splits
from bntt.data._cifar import CLASS_NAMES
from bntt.data._cifar import read as read_cifar
from bntt.data._dvs_cifar10 import SIZE, STEPS
from bntt.data._parts import Parts
from bntt.data._recordings import assembled
from bntt.data.events.recorder import recorded
from bntt.spiking.randomness import key

DATASET = {
    "title": "CIFAR-10 before a simulated event camera, 20 frames of 5 ms, 42 x 42 (10 classes; not DVS-CIFAR10)",
    "classes": 10,
    "source": "Krizhevsky 2009, recorded by bntt.data.events.camera",
    "time_steps": 20,
    "shape": [20, 2, 42, 42],
    "events": True,
    "images": {"train": 9000, "validation": 0, "test": 1000},
    "content": "cef421dfbfb1e9e95b07555551486e25b8368de7124e4a499fa1ef19572882aa",
}
PER_CLASS = 1000
BIN_MICROSECONDS = 5000
CAMERA = key(0, "dvs-cifar10-sim")  # of its random numbers


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, counts uint8 ``[N, 20, 2, 42, 42]``, from CIFAR-10.

    ``source`` is as for `cifar10`. If it is None, CIFAR-10 is taken as it was prepared here, or else downloaded.
    """
    prepared = downloads.parents[1] / "cifar10"
    if source is None and (prepared / "manifest.json").is_file():
        photographs, labels = _prepared(prepared)
    else:
        photographs, labels = read_cifar("CIFAR10", source, downloads).train
    chosen = first_of_each_class(labels)
    with closing(recorded(intensity(photographs[chosen]), CAMERA)) as files:
        named = ((f"recording of training image {number}", one) for number, one in zip(chosen, files, strict=True))
        return assembled(
            named,
            labels[chosen],
            splits.committed_split("dvs-cifar10-sim"),
            downloads,
            steps=STEPS,
            size=SIZE,
            bin_microseconds=BIN_MICROSECONDS,
            facts={"class_names": CLASS_NAMES["CIFAR10"].split()},
        )


def first_of_each_class(labels: np.ndarray) -> np.ndarray:
    """The numbers of the first 1,000 images of each class, class by class, int64 ``[10_000]``.

    Raises UserError if there are fewer of a class.
    """
    chosen = [np.flatnonzero(labels == label)[:PER_CLASS] for label in range(10)]
    for label, those in enumerate(chosen):
        if len(those) < PER_CLASS:
            raise UserError(
                f"CIFAR-10 has {len(those)} training images of class {label} here, not {PER_CLASS:,} or more"
            )
    return np.concatenate(chosen)


def intensity(photographs: np.ndarray) -> np.ndarray:
    """Luma uint8 ``[N, H, W]`` of photographs uint8 ``[N, 3, H, W]``."""
    red, green, blue = photographs.astype(np.int32).transpose(1, 0, 2, 3)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def _prepared(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training images and labels of CIFAR-10 as it was prepared; UserError if they are damaged."""
    arrays = []
    try:
        files = read_sealed(folder / "manifest.json")["files"]
        for name in ("train-pixels.npy", "train-labels.npy"):
            if sha256(folder / name) != files[name]:
                raise ValueError(name)
            arrays.append(np.load(folder / name, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} is damaged; delete it, or give CIFAR-10 with --from as for `python -m bntt data prepare cifar10`"
        ) from None
    return arrays[0], arrays[1]
