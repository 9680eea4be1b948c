"""scikit-learn's digits: 1,797 scans of hand-written digits, 8 x 8 pixels, 17 grey levels, shipped with the library.

They are the test set of Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits". The images do not say
who wrote them. So the splits share writers, and the accuracies are for writers that were seen in training. The split is
committed and stratified; it never changes with a seed.
"""

from pathlib import Path

import numpy as np

from bntt.common.errors import UserError
from bntt.data import splits
from bntt.data._parts import Parts, divided

DATASET = {
    "title": "scikit-learn digits (8 x 8, 10 classes)",
    "classes": 10,
    "source": "bundled with scikit-learn (sklearn.datasets.load_digits)",
    "shape": [1, 8, 8],
    "images": {"train": 1077, "validation": 180, "test": 540},
    "content": "a1e3cd2396bce10ae174c4bbcd2e5a23cd1fc91310f185ca6e80b92792adad1b",
}


def read(source: Path | None, downloads: Path) -> Parts:
    """Train, validation and test, pixels uint8 ``[N, 1, 8, 8]``; nothing is downloaded. UserError for a ``source``."""
    refuse_folder(source)
    return divided(*scans(), splits.committed_split("digits"), from_publisher=False)


def refuse_folder(source: Path | None) -> None:
    """Raise UserError if a source folder is given, because the digits come with scikit-learn."""
    if source is not None:
        raise UserError(f"--from {source}: the digits come with scikit-learn; prepare them without --from")


def scans() -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 ``[1797, 1, 8, 8]`` with the 17 grey levels spread over 0..255; labels int64 ``[1797]``."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return pixels[:, None], bunch.target.astype(np.int64)
