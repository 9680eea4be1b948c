"""Atomic file writes (under a temporary name, then renamed), hashes of files, and the reading of YAML."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bntt.common.errors import UserError

Result = TypeVar("Result")
SPARE = 2**26  # bytes to leave free on a disk
PAUSES = (1, 2, 4, 8, 15, 30, 60)  # seconds
TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)


def patiently(act: Callable[[], Result], what: object) -> Result:
    """What ``act`` returns. While a disk does not answer, it is called again after each of `PAUSES`, in seconds."""
    for pause in PAUSES:
        try:
            return act()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            print(f"bntt: {what}: {error.strerror}; trying again in {pause:g} s", file=sys.stderr, flush=True)
            time.sleep(pause)
    return act()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a path beside ``path``, flush, rename. A failure leaves no file. UserError for an OSError.

    The file gets the permissions that the process's umask leaves, as any new file does. A disk that does not answer, as
    a shared one may, is asked again for two minutes, so ``write`` may be called several times.
    """

    def attempt() -> None:
        beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.touch(exist_ok=False)  # not by tempfile, which gives permissions to the owner alone
            permissions = beside.stat().st_mode
            write(beside)
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())
            beside.chmod(permissions)  # some writers put a file of their own there
            beside.rename(path)
        finally:
            with suppress(OSError):  # the error that led here says more
                beside.unlink(missing_ok=True)

    try:
        patiently(attempt, path)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise UserError(f"cannot write to {path.parent}: {reason}; choose a folder that can be written") from None
        advice = "run this again when the disk answers" if error.errno in TRANSIENT else "make room, and run this again"
        raise UserError(f"cannot write {path}: {reason}; {advice}") from None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document atomically; raises ValueError for NaN and infinity, which JSON does not have."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document that carries the hash of its own content, so that damage is detected."""
    write_json(path, {**document, "sha256": _content_digest(document)})


def read_sealed(path: Path) -> dict[str, Any]:
    """A document that `write_sealed` wrote, without its hash; raises ValueError if it was changed since."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.pop("sha256", None) != _content_digest(document):
        raise ValueError(f"{path} does not match its own sha256")
    return document


def _content_digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""

    def digest() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return patiently(digest, path)


def ensure_space(folder: Path, needed: int) -> None:
    """Raise a UserError if the disk does not have ``needed`` bytes free, and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free, and {(needed + SPARE) / 1e9:.1f} GB are needed; make room, or set "
            "BNTT_DATA to a folder on another disk"
        )


def read_yaml(text: str | bytes, where: str, numbers: bool = True) -> Any:
    """The document of a YAML text; raises UserError, which begins with ``where``, if it is invalid or repeats a key.

    Without ``numbers`` every scalar is returned as text: 92.0 is "92.0".
    """
    try:
        return yaml.load(text, _Typed if numbers else _Texts)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no text, an impossible date
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid YAML: lists or mappings are nested too deeply") from None


class _EachKeyOnce(yaml.composer.Composer, yaml.constructor.BaseConstructor):
    """Refuses a repeated key; PyYAML would silently keep the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As written: a merge key (``<<: *other``) adds keys later, and those that are written here win."""
        node = super().compose_mapping_node(anchor)
        keys: list[Any] = []
        for key, _ in node.value:
            name = "<<" if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key, deep=True)
            if name in keys:
                more = "; merge several mappings as a list, <<: [*a, *b]" if name == "<<" else ""
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {name!r} is given twice{more}")
            keys.append(name)
        return node


class _Texts(_EachKeyOnce, yaml.BaseLoader):
    pass


class _Typed(_EachKeyOnce, yaml.SafeLoader):
    pass


# 5e-4 is a number in YAML 1.2, which editors use, but text in YAML 1.1, which PyYAML implements.
_Typed.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
