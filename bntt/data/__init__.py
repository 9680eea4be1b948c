"""Datasets: found by folder, prepared once into uint8 arrays with a manifest, shared by all experiments.

A dataset is a file in this folder that declares ``DATASET`` and defines ``read() -> (pixels, labels)``; its split is
committed in ``splits/<name>.json``. Prepared arrays lie in ``data/<name>/``, or under ``$BNTT_DATA``.
"""

import hashlib
import json
import os
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bntt import declared
from bntt.errors import UserError

if TYPE_CHECKING:
    from bntt.data.images import ImageData

SPLITS = ("train", "validation", "test")


def names() -> list[str]:
    """Names of all datasets."""
    return list(declared.plugins("data", "DATASET"))


def facts(name: str) -> dict[str, Any]:
    """What a dataset declares of itself."""
    return declared.literal(declared.plugins("data", "DATASET")[name], "DATASET")


def folder(name: str) -> Path:
    """Where the prepared arrays of a dataset lie."""
    return Path(os.environ.get("BNTT_DATA", "data")) / name


def manifest_path(name: str) -> Path:
    """Where the manifest of a prepared dataset lies; the workflow declares it as an output."""
    return folder(name) / "manifest.json"


def committed_split(name: str) -> dict[str, list[int]]:
    """Indices of each split, checked against the hash committed with them."""
    path = Path(__file__).parent / "splits" / f"{name}.json"
    document = json.loads(path.read_text())
    split = {part: document[part] for part in SPLITS}
    if split_digest(split) != document["sha256"]:
        raise UserError(f"{path}: the split does not match its own sha256; restore the file from the repository")
    return split


def split_digest(split: dict[str, list[int]]) -> str:
    """Hash of the three lists of indices."""
    text = ";".join(f"{part}:{','.join(map(str, split[part]))}" for part in SPLITS)
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(pixels: np.ndarray, labels: np.ndarray) -> str:
    """Hash of arrays and labels, by which a dataset is known whatever it was read from."""
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape} {labels.shape};".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def prepare(name: str) -> Path:
    """Make ``data/<name>/`` if it is not there whole; safe when several processes ask at once. Returns the manifest."""
    if _is_current(name):
        return manifest_path(name)
    module = import_module(declared.plugins("data", "DATASET")[name])
    pixels, labels = module.read()
    split = committed_split(name)
    content = content_digest(pixels, labels)
    target = folder(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cannot write prepared data to {target.parent}: {error.strerror}; set BNTT_DATA to a folder "
            "that can be written"
        ) from None
    try:
        files = {}
        for part in SPLITS:
            for kind, array in (("pixels", pixels), ("labels", labels)):
                file = f"{part}-{kind}.npy"
                np.save(work / file, array[split[part]])
                files[file] = hashlib.sha256((work / file).read_bytes()).hexdigest()
        manifest = {
            "dataset": name,
            "source": facts(name)["source"],
            "classes": facts(name)["classes"],
            "images": {part: len(split[part]) for part in SPLITS},
            "content_sha256": content,
            "state": "content" if content == facts(name)["content"] else "unknown",
            "split_sha256": split_digest(split),
            "files": files,
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        work.chmod(0o755)
        if target.is_dir() and not _is_current(name):  # damaged, or of another split or reader: make way
            target.rename(work.with_name(f"{work.name}-old"))
        try:
            work.rename(target)
        except OSError:  # another process was first
            if not _is_current(name):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(work.with_name(f"{work.name}-old"), ignore_errors=True)
    return manifest_path(name)


def manifest(name: str) -> dict[str, Any]:
    """The manifest of a prepared dataset; an error says how to prepare it."""
    path = manifest_path(name)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        whole = set(document["files"]) == {f"{part}-{kind}.npy" for part in SPLITS for kind in ("pixels", "labels")}
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole or not document.keys() >= _KEYS:
        raise UserError(f"{path} is missing or damaged; run `python -m bntt data prepare {name}`")
    return document


_KEYS = {"dataset", "source", "classes", "images", "content_sha256", "state", "split_sha256", "files"}


def _is_current(name: str) -> bool:
    """Whether the prepared arrays are whole, and of the split and content that are committed now."""
    try:
        found = manifest(name)
    except UserError:
        return False
    expected = split_digest(committed_split(name))
    return found["split_sha256"] == expected and (found["state"] == "content") == (
        found["content_sha256"] == facts(name)["content"]
    )


def verify(name: str) -> dict[str, Any]:
    """Check every prepared file against the manifest; return the manifest."""
    found = manifest(name)
    for file, expected in found["files"].items():
        path = folder(name) / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise UserError(
                f"{path} is missing or damaged; delete {folder(name)} and run `python -m bntt data prepare {name}`"
            )
    return found


def load(name: str) -> "ImageData":
    """The prepared dataset as tensors on the CPU, at its own size; every file is checked against the manifest."""
    import torch

    from bntt.data.images import ImageData, Images

    found = verify(name)
    arrays = {file: torch.from_numpy(np.load(folder(name) / file, allow_pickle=False)) for file in found["files"]}
    parts = {part: Images(arrays[f"{part}-pixels.npy"], arrays[f"{part}-labels.npy"]) for part in SPLITS}
    blank = torch.zeros(parts["train"].pixels.shape[1], 1, 1)
    return ImageData(
        name=name,
        classes=found["classes"],
        **parts,
        mean=blank,
        deviation=blank + 1,
        digest=found["content_sha256"],
        state=found["state"],
    )
