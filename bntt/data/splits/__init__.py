"""The committed splits: which items of a dataset are for training, validation and test. No split depends on a seed."""

import hashlib
import json
from pathlib import Path

from bntt.common.errors import UserError

SPLITS = ("train", "validation", "test")


def file_of(name: str) -> Path:
    """The path of the committed split of that name, which may not exist."""
    return Path(__file__).parent / f"{name}.json"


def committed_split(name: str) -> dict[str, list[int]]:
    """Indices of each part, checked against the hash that is committed with them; UserError if they do not match."""
    path = file_of(name)
    document = json.loads(path.read_text())
    split = {part: document[part] for part in SPLITS}
    if split_digest(split) != document["sha256"]:
        raise UserError(f"{path}: the split does not match its own sha256; restore the file from the repository")
    return split


def split_digest(split: dict[str, list[int]]) -> str:
    """SHA-256 of the three lists of indices."""
    text = ";".join(f"{part}:{','.join(map(str, split[part]))}" for part in SPLITS)
    return hashlib.sha256(text.encode()).hexdigest()
