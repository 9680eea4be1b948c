"""Datasets: one file each, prepared once as uint8 arrays with a manifest, and shared by all experiments.

A dataset is a file in this folder that declares ``DATASET`` and defines ``read(source, downloads) -> Parts``.
``source`` is an archive or a folder that the user names, or None; with None, the dataset is downloaded into the folder
``downloads``. Prepared arrays are in ``data/<name>/``, or in ``$BNTT_DATA/<name>/``, and can be mapped into memory.
Downloaded files stay in ``data/downloads/``. A dataset of recordings that declares ``"events": True`` also keeps their
single events in the time of the frames, in the words of `bntt.data.events.streams`.

The *state* of data says how well it is known that they are the publisher's:

* ``archive``: the publisher's checksum matched.
* ``content``: pixels and labels have the hash that is committed here.
* ``partial``: they have it except for the listed test items.
* ``unknown``: none of these.

Pixels of JPEG files depend on the decoder, by a grey level at most. So a dataset that is decoded here declares with
which decoder its content was hashed. With another decoder an extracted copy of the publisher's files may stay
``unknown``, and `remarks` says so.

Data with other counts than ``DATASET`` declares can be prepared, listed, verified and shown, but no run uses them. A
run on a part of a dataset says so by ``train_limit`` and ``test_limit``; another dataset is another file.
"""

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bntt.common import environment
from bntt.common.errors import UserError
from bntt.common.files import ensure_space, read_sealed, sha256, write_sealed
from bntt.common.text import listed
from bntt.data.splits import SPLITS, committed_split, file_of, split_digest
from bntt.experiment import declared, plugins
from bntt.experiment.code_hash import reading_code

if TYPE_CHECKING:
    from bntt.data._parts import Parts
    from bntt.data.events.streams import Streams
    from bntt.data.images import ImageData

MANY = 1e-3  # share of events outside of the time bins that is said
MADE_UP = 20_000  # single events of a recording that is made up
FRAMES, EVENTS = ("pixels", "labels"), ("events", "offsets")  # kinds of arrays


def names() -> list[str]:
    """Names of all datasets."""
    return list(declared.plugins("data", "DATASET"))


def facts(name: str) -> dict[str, Any]:
    """What a dataset declares about itself, its literal ``DATASET``."""
    return declared.facts(declared.plugins("data", "DATASET")[name])


def is_of_recordings(name: str) -> bool:
    """Whether a dataset holds recordings of an event camera; it then declares their number of frames."""
    return "time_steps" in facts(name)


def has_events(name: str) -> bool:
    """Whether a dataset keeps the single events of its recordings."""
    return bool(facts(name).get("events"))


def folder(name: str) -> Path:
    """The folder of a dataset's prepared arrays."""
    return environment.data_folder() / name


def manifest_path(name: str) -> Path:
    """The path of a prepared dataset's manifest, which the workflow declares as an output."""
    return folder(name) / "manifest.json"


def split_file(name: str) -> Path | None:
    """The path of a dataset's committed split; None if the split is the publisher's."""
    path = file_of(facts(name).get("split", name))
    return path if path.is_file() else None


def content_digest(parts: "Parts", without: list[int] | None = None) -> str:
    """SHA-256 of all pixels and labels, which identifies a dataset independently of the files it was read from.

    The pixels of the test items in ``without`` count as zero. Single events do not count.
    """
    digest = hashlib.sha256()
    for part, pixels, labels in parts:
        if part == "test" and without:
            pixels = pixels.copy()
            pixels[without] = 0
        digest.update(f"{part} {pixels.dtype} {pixels.shape} {labels.shape};".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def prepare(name: str, source: Path | None = None) -> Path:
    """Make ``data/<name>/`` if it is missing, incomplete or outdated; returns the path of the manifest.

    If several processes ask at the same time, one prepares and the others wait. What a killed process left is removed.
    Raises UserError if the data cannot be read or written.
    """
    if not is_current(name):
        if folder(name).is_symlink():  # otherwise a folder on this disk would replace the link
            raise UserError(f"{folder(name)} is a link; set BNTT_DATA to a folder on the disk that you mean")
        with _alone(name):
            if not is_current(name):
                _prepare(name, source)
                for remark in remarks(manifest(name)):
                    print(f"{name}: {remark}", file=sys.stderr)
    return manifest_path(name)


def _prepare(name: str, source: Path | None) -> None:
    target = folder(name)
    work, outdated = (target.with_name(f".{name}-{what}") for what in ("work", "outdated"))
    for left in (work, outdated):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    work.mkdir()
    try:
        _write(work, *_read(name, source))
        if target.is_dir():  # damaged, or of another split or reader: move it away
            target.rename(outdated)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(outdated, ignore_errors=True)


def _read(name: str, source: Path | None) -> "tuple[Parts, dict[str, Any]]":
    """The parts of a dataset and their manifest."""
    downloads = folder(name).with_name("downloads") / name
    from bntt.data._parts import Parts

    known = facts(name)
    module = declared.plugins("data", "DATASET")[name]
    parts = plugins.call(module, "read", source, downloads, returns=Parts, mathematics=False)
    if (parts.events is not None) != has_events(name):
        returned = "none" if parts.events is None else "some"
        raise UserError(
            f"{_declaration(name)}: DATASET says events: {has_events(name)}, but `read` returned {returned}; mend one"
        )
    content = content_digest(parts)
    manifest = {
        "dataset": name,
        "source": known["source"] if source is None else f"{known['source']}; files named by the user",
        "classes": known["classes"],
        "images": {part: len(labels) for part, _, labels in parts},
        "content_sha256": content,
        "state": _state(parts, content, known),
        "split_sha256": _split_identity(name),
        "reader": reading_code(name),
        **parts.facts,
    }
    if manifest["state"] == "partial":
        manifest["differing_test_items"] = known["partial"]["items"]
    return parts, manifest


def _write(work: Path, parts: "Parts", manifest: dict[str, Any]) -> None:
    """Write the arrays into a folder, and last the manifest, which names them."""
    manifest["files"] = files = {}
    events = parts.events or {}
    of_events = sum(words.nbytes + 8 for recordings in events.values() for words in recordings)
    ensure_space(work, of_events + sum(pixels.nbytes + labels.nbytes for _, pixels, labels in parts))
    try:
        for part, pixels, labels in parts:
            arrays: dict[str, Any] = {"pixels": pixels, "labels": labels}
            if part in events:
                offsets = np.cumsum([0, *map(len, events[part])], dtype=np.int64)
                arrays |= {"offsets": offsets, "events": events[part]}
            for kind, array in arrays.items():
                path = work / f"{part}-{kind}.npy"
                (_save_joined if kind == "events" else np.save)(path, array)
                files[path.name] = sha256(path)
        write_sealed(work / "manifest.json", manifest)
    except OSError as error:  # numpy's says how many bytes it could not write, not where
        raise UserError(f"cannot write prepared data to {work.parent}: {error}; make room, or set BNTT_DATA") from None


def _save_joined(path: Path, recordings: list[np.ndarray]) -> None:
    """Write the words of one recording after the other as one array, without having them all in memory."""
    with path.open("wb") as stream:
        shape = (sum(map(len, recordings)),)
        np.lib.format.write_array_header_1_0(stream, {"descr": "<u4", "fortran_order": False, "shape": shape})
        for words in recordings:
            stream.write(np.ascontiguousarray(words, "<u4").data)


def make_up(name: str, images: dict[str, int]) -> None:
    """Write random arrays in the shape of a dataset, to measure how long a training takes.

    ``images`` gives the number of images of each part, which are of one class after the other. A recording gets MADE_UP
    single events.
    """
    from bntt.data._parts import Parts

    known, draws = facts(name), np.random.default_rng(0)
    train, validation, test = (
        (draws.integers(0, 256, (count, *known["shape"]), dtype=np.uint8), np.arange(count) % known["classes"])
        for count in (images[part] for part in SPLITS)
    )
    events = None
    if has_events(name):  # at random moments of 100 ms, at random pixels
        events = {
            part: [np.sort(draws.integers(0, 100_000 << 15, MADE_UP, dtype=np.uint32)) for _ in range(count)]
            for part, count in images.items()
        }
    made = Parts(train, validation, test, from_publisher=False, events=events)
    manifest = {
        "dataset": name,
        "source": "made up, to measure time",
        "classes": known["classes"],
        "images": images,
        "content_sha256": content_digest(made),
        "state": "unknown",
        "split_sha256": _split_identity(name),
        "reader": reading_code(name),
        "made_up": True,
    }
    folder(name).mkdir(parents=True)
    _write(folder(name), made, manifest)


def counts(found: dict[str, Any]) -> str:
    """The number of images of each part of prepared data, and how many the dataset declares if they are others."""
    whole = found["images"] | _declared(found["dataset"])
    return ", ".join(
        f"{count:,}{'' if count == whole[part] else f' of {whole[part]:,}'} {part}"
        for part, count in found["images"].items()
        if count or whole[part]
    )


def remarks(found: dict[str, Any]) -> list[str]:
    """What a user must know of prepared data, from their manifest: one line each, none if there is nothing."""
    known = facts(found["dataset"])
    lines = []
    whole = _is_whole(found)
    if not whole:
        lines.append(f"INCOMPLETE: {counts(found)}; no run uses these data")
    events = found.get("events", {"events": 0, "outside_window": 0})
    left_out, of, damaged = events["outside_window"], events["events"], events.get("damaged", 0)
    if left_out > MANY * of:
        lines.append(
            f"EVENTS LEFT OUT: {left_out:,} of {of:,} ({left_out / of:.1%}) lie outside of the time bins; "
            f"{damaged:,} of them have a damaged time-stamp"
        )
    if empty := events.get("empty_recordings", 0):
        lines.append(f"EMPTY RECORDINGS: {empty:,} have no event in the time bins")
    if whole and "content" in known and found["content_sha256"] != known["content"]:
        if found["state"] == "archive":
            lines.append("OTHER PIXELS: the files are the publisher's, but the arrays do not have the committed hash")
        if found.get("decoder") != known.get("decoder"):
            lines.append(
                f"OTHER DECODER: the images were decoded by {found.get('decoder')}, and for the committed hash by "
                f"{known['decoder']}, from which pixels may differ by a grey level; so it is known only of the "
                "publisher's archive, by its md5, whose images these are"
            )
    return lines


def _state(parts: "Parts", content: str, known: dict[str, Any]) -> str:
    if parts.from_publisher:
        return "archive"
    if content == known.get("content"):
        return "content"
    partial = known.get("partial")
    if partial and content_digest(parts, partial["items"]) == partial["content"]:
        return "partial"
    return "unknown"


def _split_identity(name: str) -> str:
    """Hash of the committed split; ``official`` if the publisher divides the data."""
    return "official" if split_file(name) is None else split_digest(committed_split(facts(name).get("split", name)))


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the lock of a dataset, which is on an empty file that stays; wait until no other process holds it.

    It is a lock of the kernel (flock), so it ends with its process. It is on a file and not on the folder, because on a
    network disk each machine has its own locks of a folder.
    """
    from filelock import FileLock

    lock = folder(name).with_name(f".{name}-lock")
    try:
        held = FileLock(lock, preserve_lock_file=True).acquire()  # makes the folder too
    except OSError as error:
        raise UserError(
            f"cannot write prepared data to {lock.parent}: {error.strerror}; set BNTT_DATA to a folder that can be "
            "written"
        ) from None
    with held:
        yield


def manifest(name: str) -> dict[str, Any]:
    """The manifest of a prepared dataset; if it is missing or damaged, a UserError says how to prepare it."""
    path = manifest_path(name)
    try:
        document = read_sealed(path)
        whole = set(document["files"]) in (_files(FRAMES), _files(FRAMES + EVENTS))
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole or not document.keys() >= _KEYS:
        raise UserError(f"{path} is missing or damaged; run `python -m bntt data prepare {name}`")
    return document


def _files(kinds: tuple[str, ...]) -> set[str]:
    return {f"{part}-{kind}.npy" for part in SPLITS for kind in kinds}


_KEYS = {"dataset", "source", "classes", "images", "content_sha256", "state", "split_sha256", "reader", "files"}


def identity(name: str) -> dict[str, Any]:
    """What a run records about the prepared data that it uses."""
    found = manifest(name)
    return {key: found[key] for key in ("dataset", "state", "content_sha256", "split_sha256", "images")}


def is_current(name: str) -> bool:
    """Whether the prepared arrays exist and belong to the present reader, split and committed content."""
    try:
        found = manifest(name)
    except UserError:
        return False
    known = facts(name).get("content")
    return (
        set(found["files"]) == _files(FRAMES + EVENTS if has_events(name) else FRAMES)
        and all((folder(name) / file).is_file() for file in found["files"])
        and found["reader"] == reading_code(name)
        and found["split_sha256"] == _split_identity(name)
        and (found["state"] == "content") <= (found["content_sha256"] == known)
        and (found["content_sha256"] == known) <= (found["state"] in ("archive", "content"))
    )


def verify(name: str) -> dict[str, Any]:
    """Check every prepared file against the manifest; return the manifest, or raise UserError."""
    found = manifest(name)
    _check_files(found, found["files"])
    return found


def _check_files(found: dict[str, Any], files: Iterable[str]) -> None:
    """Raise UserError if one of these files is not that of the manifest."""
    name = found["dataset"]
    for file in files:
        path = folder(name) / file
        if not path.is_file() or sha256(path) != found["files"][file]:
            raise UserError(
                f"{path} is missing or damaged; delete {folder(name)} and run `python -m bntt data prepare {name}`"
            )


def load(name: str, incomplete: bool = False, events: bool = False) -> "ImageData":
    """The prepared dataset as tensors on the CPU, at its own image size; every file that is read is checked first.

    With ``events``, the parts have the single events of their recordings, which are mapped into memory. Without, these
    are not read. Raises UserError if the arrays are not what ``DATASET`` declares; ``incomplete`` accepts other counts,
    for a look at them.
    """
    import torch

    from bntt.data.images import ImageData, Images

    found = manifest(name)
    wanted = _files(FRAMES + EVENTS if events else FRAMES)
    if missing := wanted - found["files"].keys():
        raise UserError(
            f"{folder(name)} has no {min(missing)}; datasets with single events are {listed(declared.with_events())}"
        )
    _check_files(found, sorted(wanted))
    parts = {}
    for part in SPLITS:
        pixels, labels = (
            np.load(folder(name) / f"{part}-{kind}.npy", allow_pickle=False) for kind in ("pixels", "labels")
        )
        _check_arrays(found, part, pixels, labels)
        streams = _streams(found, part) if events else None
        parts[part] = Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), streams)
    if not incomplete:
        _check_counts(found)
    blank = torch.zeros(parts["train"].pixels.shape[-3], 1, 1)
    return ImageData(
        name=name,
        classes=found["classes"],
        **parts,
        mean=blank,
        deviation=blank + 1,
        digest=found["content_sha256"],
        state=found["state"],
    )


def _check_counts(found: dict[str, Any]) -> None:
    """Raise UserError if there are not as many images as the dataset declares, unless they were made up."""
    name = found["dataset"]
    if not (_is_whole(found) or found.get("made_up")):
        raise UserError(
            f"{folder(name)} has other counts of images than {_declaration(name)} declares: {counts(found)}; delete it "
            f"and prepare {name} from complete data (`train_limit` and `test_limit` use a part of them)"
        )


def _check_arrays(found: dict[str, Any], part: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Raise UserError unless the arrays of a part are as the manifest and ``DATASET`` say."""
    name, count = found["dataset"], found["images"][part]
    shape, classes = facts(name)["shape"], facts(name)["classes"]
    wrong = ""
    if pixels.dtype != np.uint8 or list(pixels.shape[1:]) != shape:
        wrong = f"pixels are {pixels.dtype} {list(pixels.shape)}, not uint8 {['N', *shape]}".replace("'", "")
    elif labels.dtype.kind not in "iu" or labels.ndim != 1:
        wrong = f"labels are {labels.dtype} {list(labels.shape)}, not whole numbers [N]"
    elif not len(pixels) == len(labels) == count:
        wrong = (
            f"there are {len(pixels):,} pictures and {len(labels):,} labels, not {count:,} of each as in the manifest"
        )
    elif count and not 0 <= labels.min() <= labels.max() < classes:
        wrong = f"labels are {labels.min()} to {labels.max()}, not within 0 to {classes - 1}"
    if wrong:
        raise UserError(
            f"{folder(name)}: {part} {wrong}; mend its reader or its DATASET ({_declaration(name)}), delete the folder "
            "and prepare it again"
        )


def _streams(found: dict[str, Any], part: str) -> "Streams":
    """The single events of a part; UserError if the arrays are not those of its recordings."""
    from bntt.data.events.streams import Streams

    name, count = found["dataset"], found["images"][part]
    words = np.load(folder(name) / f"{part}-events.npy", mmap_mode="r", allow_pickle=False)
    offsets = np.load(folder(name) / f"{part}-offsets.npy", allow_pickle=False)
    try:
        if words.dtype != np.uint32 or words.ndim != 1 or offsets.dtype != np.int64 or offsets.shape != (count + 1,):
            raise ValueError(
                f"words are {words.dtype} {list(words.shape)} and offsets {offsets.dtype} {list(offsets.shape)}, not "
                f"uint32 [E] and int64 [{count + 1}]"
            )
        return Streams(words, offsets)
    except ValueError as error:
        raise UserError(f"{folder(name)}: {part} events: {error}; delete the folder and prepare it again") from None


def _declaration(name: str) -> str:
    """Where a dataset declares what it is: file and line."""
    return declared.place(declared.plugins("data", "DATASET")[name], "DATASET")


def _declared(name: str) -> dict[str, int]:
    """How many images of each part a dataset declares; it may leave parts out."""
    declared_images: dict[str, int] = facts(name).get("images", {})
    return declared_images


def _is_whole(found: dict[str, Any]) -> bool:
    """Whether prepared data have as many images as the dataset declares."""
    return all(found["images"].get(part) == count for part, count in _declared(found["dataset"]).items())
