"""DVS-CIFAR10 (Li et al. 2017): 10,000 photographs of CIFAR-10, recorded by a DVS128; one archive for each class.

Every recording becomes frames of event counts, uint8 ``[T, 2, 42, 42]``: the 128 pixels of a side form squares of 3,
and the last 2 pixels are left out (Wu et al. 2019). There is no official split. Each dataset that uses this module says
which split it has.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bntt.common.errors import UserError
from bntt.common.text import listed
from bntt.data._fetch import Archive, fetch, matches, member, opened_zip
from bntt.data._parts import Parts
from bntt.data._recordings import assembled

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
CLASS_NAMES = [Path(archive.name).stem for archive in ARCHIVES]
PER_CLASS = 1000
SIZE = 42
STEPS = 20  # T of the paper's DVS network, as later papers cite it


def read(
    source: Path | None,
    downloads: Path,
    split: dict[str, list[int]],
    bin_microseconds: int | None,
    transposed: bool = False,
) -> Parts:
    """Recordings in the order of class and number, divided by ``split``; see `to_frames` for the bins.

    ``source`` is the folder of the archives or of the folders that they hold, or one of the archives, beside which the
    others lie. ``transposed`` swaps x and y. Raises UserError if an archive or a recording is missing or damaged.
    """
    if source is not None and source.is_file():
        if source.name not in [archive.name for archive in ARCHIVES]:
            names = listed([archive.name for archive in ARCHIVES])
            raise UserError(f"{source} is none of {names}; give --from the folder that holds these ten archives")
        source = source.parent
    places = fetch(ARCHIVES, downloads) if source is None else _places(source)
    names_of = _names(places)
    verified = source is None or all(
        place.is_file() and matches(place, archive.md5) for archive, place in zip(ARCHIVES, places, strict=True)
    )
    labels = np.repeat(np.arange(len(ARCHIVES)), PER_CLASS)
    return assembled(
        (one for place, names in zip(places, names_of, strict=True) for one in _contents(place, names)),
        labels,
        split,
        downloads,
        steps=STEPS,
        size=SIZE,
        bin_microseconds=bin_microseconds,
        transposed=transposed,
        from_publisher=verified,
        facts={"class_names": CLASS_NAMES},
    )


def _places(source: Path) -> list[Path]:
    """For each class, the archive in the user's folder, or the folder to which it was extracted."""
    places, missing = [], []
    for archive, name in zip(ARCHIVES, CLASS_NAMES, strict=True):
        there = [path for path in (source / archive.name, source / name) if path.exists()]
        places += there[:1]
        missing += [] if there else [archive.name]
    if missing:
        raise UserError(f"{source} lacks {listed(missing)}, and the folders to which these archives are extracted")
    return places


def _names(places: list[Path]) -> list[dict[int, str]]:
    """For each class, the names of its recordings by number; UserError that tells what is wrong with which classes.

    Nothing is decoded before all are known to be there.
    """
    found, wrong = [], []
    for label, place in zip(CLASS_NAMES, places, strict=True):
        numbered: dict[int, str] = {}
        odd = []
        for name in _listing(place):
            number = re.search(r"_(\d+)\.aedat$", name)
            if not number or int(number[1]) >= PER_CLASS or int(number[1]) in numbered:
                odd.append(name)
            else:
                numbered[int(number[1])] = name
        if len(numbered) < PER_CLASS:
            missing = min(set(range(PER_CLASS)) - numbered.keys())
            wrong.append(f"{label} has {len(numbered):,} of {PER_CLASS:,} recordings, the first missing is {missing}")
        if odd:
            wrong.append(f"{label} has {odd[0]}, which is not one of {PER_CLASS:,} numbered recordings")
        found.append(numbered)
    if wrong:
        raise UserError(f"{places[0].parent}: {'; '.join(wrong)}; fetch the archives of these classes again")
    return found


def _listing(place: Path) -> list[str]:
    if place.is_dir():
        return sorted(path.relative_to(place).as_posix() for path in place.rglob("*.aedat"))
    with opened_zip(place) as opened:
        return [name for name in opened.namelist() if name.endswith(".aedat")]


def _contents(place: Path, names: dict[int, str]) -> Iterator[tuple[str, bytes]]:
    """The recordings of a class in the order of their numbers: a name for messages, and the content."""
    ordered = [names[number] for number in sorted(names)]
    if place.is_dir():
        for name in ordered:
            yield f"{place}: {name}", (place / name).read_bytes()
        return
    with opened_zip(place) as opened:
        for name in ordered:
            yield f"{place}: {name}", member(opened, name)
