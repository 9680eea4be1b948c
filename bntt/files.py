"""Files that appear whole or not at all: written beside their place, then renamed."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bntt.errors import UserError


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
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document atomically; not-a-number is refused, since JSON has none."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
