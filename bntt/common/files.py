"""Files that appear whole or not at all: written beside their place, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError

SPARE = 2**26  # bytes to leave free on a disk


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a path beside ``path``, flush it to disk and rename. A failure leaves nothing behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror}; choose a folder that can be written"
        ) from None
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.chmod(0o644)
        beside.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room, and run this again") from None
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document atomically; not-a-number is refused, since JSON has none."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document that carries the hash of its own content, so that no damage to it goes unseen."""
    write_json(path, {**document, "sha256": _content_digest(document)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The document that was written, without its hash; a ValueError where it is not that document any more."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.pop("sha256", None) != _content_digest(document):
        raise ValueError(f"{path} does not match its own sha256")
    return document


def _content_digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def ensure_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free, and {(needed + SPARE) / 1e9:.1f} GB are needed; make room, or set "
            "BNTT_DATA to a folder on another disk"
        )
