"""scikit-learn's digits, recorded by a simulated event camera: one recording per digit, with the split of the digits.

The camera (`bntt.data.events.camera`) writes AEDAT 2.0 files, which are read like those of DVS-CIFAR10. A recording
lasts 100 ms, in which the digit goes once around its path. Its 20 frames of 5 ms have 16 x 16 squares of 8 x 8 sensor
pixels. The camera never sees a label. Its random numbers are keyed by the digit's number, with seed 0.
"""

from contextlib import closing
from pathlib import Path

from bntt.data import digits, splits
from bntt.data._parts import Parts
from bntt.data._recordings import assembled
from bntt.data.events.recorder import recorded
from bntt.spiking.randomness import key

DATASET = {
    "title": "Digits before a simulated event camera, 20 frames of 5 ms, 16 x 16 (10 classes)",
    "classes": 10,
    "source": "scikit-learn's digits, recorded by bntt.data.events.camera",
    "time_steps": 20,
    "split": "digits",
    "shape": [20, 2, 16, 16],
    "events": True,
    "images": {"train": 1077, "validation": 180, "test": 540},
    "content": "96d39a594fcb45424b148883c5823c3c5726f0b2f12529f0e5115b50b9bc538e",
}
STEPS = 20
SIZE = 16
BIN_MICROSECONDS = 5000
CAMERA = key(0, "digits-dvs")  # of its random numbers


def read(source: Path | None, downloads: Path) -> Parts:
    """Train, validation and test, counts uint8 ``[N, 20, 2, 16, 16]``. UserError for a ``source``."""
    digits.refuse_folder(source)
    pixels, labels = digits.scans()
    split = splits.committed_split("digits")
    with closing(recorded(pixels[:, 0], CAMERA)) as files:
        named = ((f"digit {number}", content) for number, content in enumerate(files))
        return assembled(named, labels, split, downloads, steps=STEPS, size=SIZE, bin_microseconds=BIN_MICROSECONDS)
