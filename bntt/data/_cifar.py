"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the two layouts that their author publishes.

The python layout holds pickles. They are opened, by torchvision's dataset classes, only if their md5 is the
publisher's. The binary layout holds plain bytes. If no folder is given, the archive is downloaded.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bntt.common.errors import UserError
from bntt.data._fetch import Archive, fetch, matches, unpack
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


BINARY_ARCHIVES = {
    "CIFAR10": Archive(
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "CIFAR100": Archive(
        "cifar-100-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
}
CLASS_NAMES = {  # in the order of the labels
    "CIFAR10": "airplane automobile bird cat deer dog frog horse ship truck",
    "CIFAR100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """,
}


def read(name: str, source: Path | None, downloads: Path) -> Parts:
    """Train and test of the torchvision class ``name``, pixels uint8 ``[N, 3, 32, 32]``.

    ``source`` is an archive of either layout, the folder that holds it, or a folder to which one was extracted. Raises
    UserError if a file is missing or damaged.
    """
    layout, binary = BINARY[name][0], BINARY_ARCHIVES[name]
    if source is not None:
        for folder in (source / layout, source):
            if folder.is_dir() and (folder.name == layout or (folder / BINARY[name][3][0][0]).is_file()):
                return _binary(name, folder)
    official = getattr(torchvision().datasets, name)
    python = Archive(official.filename, official.url, official.tgz_md5)
    if source is None:
        (path,) = fetch([python], downloads)
    elif source.is_file():
        path = source
    else:
        if (source / official.base_folder).is_dir():
            return _python(name, source)
        if source.name == official.base_folder:
            return _python(name, source.parent)
        there = [source / one.name for one in (python, binary) if (source / one.name).is_file()]
        if not there:
            raise UserError(
                f"{source} holds none of {official.base_folder}, {layout}, {python.name} and {binary.name}; give "
                "--from one of them, or the folder that holds it"
            )
        path = there[0]
    known = next((one for one in (python, binary) if matches(path, one.md5)), None)
    if known is None:
        raise UserError(
            f"{path} is damaged or not the publisher's: its md5 is neither that of {python.name}, {python.md5}, nor "
            f"that of {binary.name}, {binary.md5}; fetch it again"
        )
    place = downloads / "unpacked"
    shutil.rmtree(place, ignore_errors=True)  # what a killed process left
    try:
        unpack(path, place)
        return _python(name, place) if known is python else _binary(name, place / layout, from_publisher=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _python(name: str, folder: Path) -> Parts:
    official = getattr(torchvision().datasets, name)

    def part(train: bool) -> tuple[np.ndarray, np.ndarray]:
        try:
            data = official(folder, train=train, download=False)
        except RuntimeError:
            raise UserError(
                f"{folder / official.base_folder}: a file is missing or its md5 is not the publisher's, so its pickles "
                "are not opened; fetch the archive again, or use the binary layout"
            ) from None
        return np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.asarray(data.targets, np.int64)

    return Parts(part(True), None, part(False), from_publisher=True, facts=_facts(name))


def _binary(name: str, folder: Path, from_publisher: bool = False) -> Parts:
    _, label_bytes, classes, train, test = BINARY[name]
    record = label_bytes + PIXELS
    wrong = []
    for files, images in (train, test):
        for path in (folder / file for file in files):
            if not path.is_file():
                wrong.append(f"{path} is missing")
            elif path.stat().st_size != images * record:
                wrong.append(f"{path} has {path.stat().st_size} bytes, not {images * record}")
    if wrong:
        raise UserError(f"{'; '.join(wrong)}; fetch the archive again")

    def part(files: list[str], images: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.empty((images * len(files), 3, 32, 32), np.uint8)
        labels = np.empty(images * len(files), np.int64)
        for number, file in enumerate(files):
            path = folder / file
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

    return Parts(part(*train), None, part(*test), from_publisher, facts=_facts(name))


def _facts(name: str) -> dict[str, Any]:
    return {"class_names": CLASS_NAMES[name].split()}
