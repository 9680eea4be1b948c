"""scikit-learn's digits, recorded by a simulated event camera: one recording per digit, with the split of the digits.

The camera (`bntt.data.events.camera`) writes AEDAT 2.0 files, which are read like those of DVS-CIFAR10. A recording
lasts 100 ms, in which the digit goes once around its path. Its 20 frames of 5 ms have 16 x 16 squares of 8 x 8 sensor
pixels. The camera never sees a label. Its random numbers are keyed by the digit's number, with seed 0.
"""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from bntt.data import digits, splits
from bntt.data._parts import Parts, divided
from bntt.data.events.aedat import read as read_recording
from bntt.data.events.aedat import write
from bntt.data.events.camera import record
from bntt.data.events.frames import Tally, to_frames
from bntt.spiking.randomness import key

DATASET = {
    "title": "Digits before a simulated event camera, 20 frames of 5 ms, 16 x 16 (10 classes)",
    "classes": 10,
    "source": "scikit-learn's digits, recorded by bntt.data.events.camera",
    "time_steps": 20,
    "split": "digits",
    "shape": [20, 2, 16, 16],
    "images": {"train": 1077, "validation": 180, "test": 540},
    "content": "96d39a594fcb45424b148883c5823c3c5726f0b2f12529f0e5115b50b9bc538e",
}
STEPS = 20
SIZE = 16
BIN_MICROSECONDS = 5000


def read(source: Path | None, downloads: Path) -> Parts:
    """Train, validation and test, counts uint8 ``[N, 20, 2, 16, 16]``. UserError for a ``source``."""
    digits.refuse_folder(source)
    pixels, labels = digits.scans()
    frames = np.empty((len(pixels), STEPS, 2, SIZE, SIZE), np.uint8)
    tally = Tally()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "digit.aedat"
        for number, picture in enumerate(pixels[:, 0]):
            write(path, record(picture, camera(), number))
            frames[number], of_this = to_frames(read_recording(path), STEPS, SIZE, BIN_MICROSECONDS)
            tally.add(of_this)
    split = splits.committed_split("digits")
    return divided(frames, labels, split, from_publisher=False, facts={"events": vars(tally)})


@cache
def camera() -> int:
    """The key of the camera's random numbers."""
    return key(0, "digits-dvs")
