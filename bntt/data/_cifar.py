"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the two layouts that their author publishes.

The python layout holds pickles. They are opened, by torchvision's dataset classes, only if their md5 is the
publisher's. The binary layout holds plain bytes. If no folder is given, the archive is downloaded.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bntt.common.errors import UserError
from bntt.data._fetch import Archive, fetch, unpack
from bntt.data._parts import Parts
from bntt.data._torchvision import torchvision

PIXELS = 3 * 32 * 32
BINARY = {  # folder, bytes of a label (only the last is used), classes; for train and test: files, images in each
    "CIFAR10": (
        "cifar-10-batches-bin",
        1,
        10,
        ([f"data_batch_{n}.bin" for n in range(1, 6)], 10_000),
        (["test_batch.bin"], 10_000),
    ),
    "CIFAR100": ("cifar-100-binary", 2, 100, (["train.bin"], 50_000), (["test.bin"], 10_000)),
}


def read(name: str, source: Path | None, downloads: Path) -> Parts:
    """Train and test of the torchvision class ``name``, pixels uint8 ``[N, 3, 32, 32]``.

    Raises UserError if a file is missing or damaged.
    """
    binary = BINARY[name][0]
    for folder in (source / binary, source) if source else ():
        if folder.is_dir() and (folder.name == binary or (folder / BINARY[name][3][0][0]).is_file()):
            return _binary(name, folder)
    official = getattr(torchvision().datasets, name)
    if source is None:
        (archive,) = fetch([Archive(official.filename, official.url, official.tgz_md5)], downloads)
    else:
        if (source / official.base_folder).is_dir():
            return _python(official, source)
        if source.name == official.base_folder:
            return _python(official, source.parent)
        archive = source / official.filename
        if not archive.is_file():
            raise UserError(
                f"{source} holds neither {official.base_folder}, nor {binary}, nor {official.filename}; give --from "
                "the folder that holds one of them"
            )
        (archive,) = fetch([Archive(official.filename, official.url, official.tgz_md5)], source)
    place = downloads / "unpacked"
    shutil.rmtree(place, ignore_errors=True)  # what a killed process left
    try:
        unpack(archive, place)
        return _python(official, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _python(official: Any, folder: Path) -> Parts:
    def part(train: bool) -> tuple[np.ndarray, np.ndarray]:
        try:
            data = official(folder, train=train, download=False)
        except RuntimeError:
            raise UserError(
                f"{folder / official.base_folder}: a file is missing or its md5 is not the publisher's, so its pickles "
                "are not opened; fetch the archive again, or use the binary layout"
            ) from None
        return np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.asarray(data.targets, np.int64)

    return Parts(part(True), None, part(False), from_publisher=True)


def _binary(name: str, folder: Path) -> Parts:
    _, label_bytes, classes, train, test = BINARY[name]

    def part(files: list[str], images: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.empty((images * len(files), 3, 32, 32), np.uint8)
        labels = np.empty(images * len(files), np.int64)
        for number, file in enumerate(files):
            path = folder / file
            record = label_bytes + PIXELS
            if not path.is_file():
                raise UserError(f"{path} is missing; fetch the archive again")
            if path.stat().st_size != images * record:
                raise UserError(f"{path} has {path.stat().st_size} bytes, not {images * record}; fetch it again")
            records = np.fromfile(path, np.uint8).reshape(images, record)
            here = slice(number * images, (number + 1) * images)
            labels[here] = records[:, label_bytes - 1]
            pixels[here] = records[:, label_bytes:].reshape(-1, 3, 32, 32)
            if labels[here].max() >= classes:
                bad = int(np.argmax(labels[here] >= classes))
                raise UserError(
                    f"{path}: image {bad} has label {labels[here][bad]} of {classes} classes; fetch it again"
                )
        return pixels, labels

    return Parts(part(*train), None, part(*test), from_publisher=False)
