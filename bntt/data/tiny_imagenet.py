"""Tiny-ImageNet-200: photographs of 64 x 64 pixels in 200 classes; the official validation part serves as test part.

The labels of the official test part were never published. Grey images are converted to RGB. Training images are ordered
by their number within the class, so the first N of them are balanced over the classes.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bntt.common.errors import UserError
from bntt.data._fetch import Archive, fetch, matches, member, opened_zip
from bntt.data._parts import Part, Parts

DATASET = {
    "title": "Tiny-ImageNet-200 (64 x 64, 200 classes)",
    "classes": 200,
    "source": "Stanford CS231n, from ImageNet (non-commercial research)",
    "shape": [3, 64, 64],
    "images": {"train": 100000, "validation": 0, "test": 10000},
    "content": "27e78c0dd20ee9b5c5a3a5e421d255baa42ac3046ad9797da3a58582bf44c44a",
    "decoder": "Pillow 13.0.0 with libjpeg-turbo 3.2.0",  # with which the content was hashed; another may differ
}
ARCHIVE = Archive(
    "tiny-imagenet-200.zip",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
)
FOLDER = "tiny-imagenet-200"
SIDE = 64
Read = Callable[[str], bytes]


def read(source: Path | None, downloads: Path) -> Parts:
    """Train and test, pixels uint8 ``[N, 3, 64, 64]``.

    ``source`` is the zip file, the folder that holds it, or the folder to which it was extracted, or the one around it.
    Raises UserError if a file is missing or damaged.
    """
    if source is None:
        (source,) = fetch([ARCHIVE], downloads)
    elif (source / ARCHIVE.name).is_file():
        source = source / ARCHIVE.name
    if source.is_file():
        with opened_zip(source) as opened:
            prefix = f"{FOLDER}/"
            names = [n.removeprefix(prefix) for n in opened.namelist() if n.startswith(prefix) and not n.endswith("/")]
            return _parts(source, names, lambda name: member(opened, prefix + name), matches(source, ARCHIVE.md5))
    if (source / FOLDER).is_dir():
        source = source / FOLDER
    names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
    return _parts(source, names, lambda name: (source / name).read_bytes(), False)


def _parts(where: Path, names: list[str], content: Read, from_publisher: bool) -> Parts:
    for needed in ("wnids.txt", "val/val_annotations.txt"):
        if needed not in names:
            raise UserError(f"{where}: {needed} is missing; is this {FOLDER} in its official layout?")
    classes = sorted(content("wnids.txt").decode().split())
    if len(classes) != DATASET["classes"]:
        raise UserError(f"{where}: wnids.txt names {len(classes)} classes, not {DATASET['classes']}; fetch it again")
    number = {name: label for label, name in enumerate(classes)}

    train: list[tuple[int, int, str]] = []
    for name in names:
        found = re.fullmatch(r"train/(n\d+)/images/\1_(\d+)\.JPEG", name)
        if found and found[1] in number:
            train.append((int(found[2]), number[found[1]], name))
    missing = sorted(set(range(len(classes))) - {label for _, label, _ in train})
    if missing:
        more = f", and neither have {len(missing) - 1} other classes" if len(missing) > 1 else ""
        raise UserError(f"{where}: train/{classes[missing[0]]}/images has no image{more}; fetch the archive again")

    test: list[tuple[int, int, str]] = []
    for line in content("val/val_annotations.txt").decode().splitlines():
        file, _, rest = line.partition("\t")
        found = re.fullmatch(r"val_(\d+)\.JPEG", file)
        wnid = rest.partition("\t")[0]
        if not found or wnid not in number:
            raise UserError(f"{where}: val/val_annotations.txt: {line[:60]!r} is not an image and a class of wnids.txt")
        test.append((int(found[1]), number[wnid], f"val/images/{file}"))
    if not test:
        raise UserError(f"{where}: val/val_annotations.txt names no image; fetch the archive again")
    there = set(names)
    gone = [name for _, _, name in test if name not in there]
    if gone:
        raise UserError(
            f"{where}: {len(gone):,} of the {len(test):,} images that val/val_annotations.txt names are missing, such "
            f"as {gone[0]}; fetch the archive again"
        )
    words = content("words.txt") if "words.txt" in there else b""
    facts: dict[str, Any] = {"class_names": _class_names(classes, words), "decoder": _decoder()}
    return Parts(
        _part(where, sorted(train), content), None, _part(where, sorted(test), content), from_publisher, facts=facts
    )


def _class_names(classes: list[str], words: bytes) -> list[str]:
    """The first of the words for each class; WordNet's number if there is none."""
    lines = (line.partition("\t") for line in words.decode("utf-8", "replace").splitlines())
    word = {wnid: rest.partition(",")[0].strip() for wnid, _, rest in lines}
    return [word.get(wnid) or wnid for wnid in classes]


def _decoder() -> str:
    """What decodes JPEG files here."""
    version = _pillow().__version__
    from PIL import features

    turbo = features.version_feature("libjpeg_turbo")
    return f"Pillow {version} with {f'libjpeg-turbo {turbo}' if turbo else 'another libjpeg'}"


def _part(where: Path, items: list[tuple[int, int, str]], content: Read) -> Part:
    pixels = np.empty((len(items), 3, SIDE, SIDE), np.uint8)
    for place, (_, _, name) in enumerate(items):
        pixels[place] = _decoded(where, name, content)
    return pixels, np.array([label for _, label, _ in items], np.int64)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("Tiny-ImageNet-200 needs Pillow; `pip install pillow`") from None
    return Image


def _decoded(where: Path, name: str, content: Read) -> np.ndarray:
    try:
        with _pillow().open(io.BytesIO(content(name))) as image:
            size, array = image.size, np.asarray(image.convert("RGB"))
    except (OSError, KeyError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise UserError(f"{where}: {name} cannot be read: {error}; fetch the archive again") from None
    if size != (SIDE, SIDE):
        raise UserError(f"{where}: {name} has {size[0]} x {size[1]} pixels, not {SIDE} x {SIDE}; fetch it again")
    return array.transpose(2, 0, 1)
