"""DVS-CIFAR10 (Li et al. 2017): 10,000 photographs of CIFAR-10, recorded by a DVS128; one archive for each class.

Every recording becomes frames of event counts, uint8 ``[T, 2, 42, 42]``: the 128 pixels of a side form squares of 3,
and the last 2 pixels are left out (Wu et al. 2019). There is no official split. Each dataset that uses this module says
which split it has.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bntt.common.errors import UserError
from bntt.data._fetch import Archive, fetch, matches, member, opened_zip
from bntt.data._parts import Parts, divided
from bntt.data.events.aedat import decode
from bntt.data.events.frames import Tally, to_frames

# Publisher's names, file numbers at the host, md5. The host's address for browsers answers programs with an empty page.
ARCHIVES = [
    Archive(f"{name}.zip", f"https://api.figshare.com/v2/file/download/{number}", md5)
    for name, number, md5 in (
        ("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
        ("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
        ("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
        ("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
        ("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
        ("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
        ("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
        ("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
        ("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
        ("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
    )
]
PER_CLASS = 1000
SIZE = 42
STEPS = 20  # T of the paper's DVS network, as later papers cite it


def read(source: Path | None, downloads: Path, split: dict[str, list[int]], bin_microseconds: int | None) -> Parts:
    """Recordings in the order of class and number, divided by ``split``; see `to_frames` for the bins.

    Raises UserError if an archive or a recording is missing or damaged.
    """
    where = fetch(ARCHIVES, downloads) if source is None else [_place(source, archive) for archive in ARCHIVES]
    verified = source is None or all(
        path.is_file() and matches(path, archive.md5) for archive, path in zip(ARCHIVES, where, strict=True)
    )
    count = PER_CLASS * len(ARCHIVES)
    frames = np.empty((count, STEPS, 2, SIZE, SIZE), np.uint8)
    tally, special, reordered = Tally(), 0, 0
    for label, place in enumerate(tqdm(where, "recordings", disable=None)):
        numbers = set()
        for name, content in _recordings(place):
            found = re.search(r"_(\d+)\.aedat$", name)
            if not found or int(found[1]) >= PER_CLASS or int(found[1]) in numbers:
                raise UserError(f"{place}: {name} is not one of {PER_CLASS} numbered recordings; fetch it again")
            numbers.add(int(found[1]))
            events = decode(content, f"{place}: {name}")
            frames[label * PER_CLASS + int(found[1])], of_this = to_frames(events, STEPS, SIZE, bin_microseconds)
            tally.add(of_this)
            special += events.special
            reordered += events.reordered
        if len(numbers) < PER_CLASS:
            missing = min(set(range(PER_CLASS)) - numbers)
            raise UserError(f"{place}: recording {missing} is missing, there are {len(numbers)}; fetch it again")
    labels = np.repeat(np.arange(len(ARCHIVES)), PER_CLASS)
    facts = {"events": vars(tally) | {"special": special, "reordered": reordered}}
    return divided(frames, labels, split, from_publisher=verified, facts=facts)


def _place(source: Path, archive: Archive) -> Path:
    """The archive in the user's folder, or the folder to which it was extracted."""
    for path in (source / archive.name, source / Path(archive.name).stem):
        if path.exists():
            return path
    raise UserError(f"{source} holds neither {archive.name} nor a folder {Path(archive.name).stem}")


def _recordings(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for path in sorted(place.glob("*.aedat")):
            yield path.name, path.read_bytes()
        return
    with opened_zip(place) as opened:
        for name in opened.namelist():
            if name.endswith(".aedat"):
                yield name, member(opened, name)
