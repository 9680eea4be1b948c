"""Publishers' archives: downloaded, also after an interruption, verified, and unpacked safely.

A file is downloaded as ``NAME.part``, so that an interrupted download can continue. It gets its final name only if its
md5 is the publisher's. Archive members with a path outside the target folder, and links, are not extracted.
"""

import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from bntt.common.errors import UserError
from bntt.common.files import ensure_space

ATTEMPTS = 5  # connections in a row without new data before a download is given up
TIMEOUT = 60  # seconds of silence after which a connection is given up
PIECE = 2**20


class Archive(NamedTuple):
    """One file of a publisher: its name, address and checksum."""

    name: str
    url: str
    md5: str


def fetch(archives: Iterable[Archive], folder: Path) -> list[Path]:
    """Paths of the archives in ``folder``, each verified; missing ones are downloaded first.

    Raises UserError if a download fails or a checksum is wrong.
    """
    return [_fetched(archive, folder) for archive in archives]


def matches(path: Path, md5: str) -> bool:
    """Whether a file has the publisher's md5."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _fetched(archive: Archive, folder: Path) -> Path:
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.is_file():
        if matches(path, archive.md5):
            return path
        raise UserError(f"{path} is damaged or not the publisher's: its md5 is not {archive.md5}; delete it")
    folder.mkdir(parents=True, exist_ok=True)
    failures, reason = 0, ""
    while failures < ATTEMPTS:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _download(archive, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise UserError(_unreachable(archive, folder, f"HTTP {error.code} {error.reason}")) from None
            reason = " ".join(str(error).split()) or type(error).__name__
            failures = 0 if part.is_file() and part.stat().st_size > before else failures + 1
            if 0 < failures < ATTEMPTS:
                time.sleep(0.1 * 4**failures)
    else:
        raise UserError(_unreachable(archive, folder, reason))
    if not matches(part, archive.md5):
        part.unlink()
        raise UserError(
            f"{archive.url} did not send {archive.name}: the md5 of what arrived is not {archive.md5}; try again "
            f"later, or put the file into {folder} yourself"
        )
    part.rename(path)
    return path


def _unreachable(archive: Archive, folder: Path, reason: str) -> str:
    return (
        f"cannot download {archive.url}: {reason}; what arrived is kept, so run this again, or put {archive.name} into "
        f"{folder} yourself, or give --from a folder that holds the data"
    )


def _download(archive: Archive, part: Path) -> None:
    """Append the missing bytes to ``part``; raises OSError if the connection ends early."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is already complete, or too long
            return
        raise
    with response:
        if response.status not in (200, 206):  # the browser address of DVS-CIFAR10's host answers only 202
            raise OSError(f"the server sent nothing but HTTP {response.status}")
        if have and response.status != 206:
            have = 0  # the server sends the file from its start
        length = response.headers.get("Content-Length") or ""
        total = have + int(length) if length.isdecimal() else None
        if total is not None:
            ensure_space(part.parent, total - have)
        with (
            part.open("ab" if have else "wb") as stream,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=archive.name, disable=None) as progress,
        ):
            while piece := response.read(PIECE):
                stream.write(piece)
                progress.update(len(piece))
                have += len(piece)
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def unpack(archive: Path, target: Path) -> None:
    """Extract a tar archive below ``target``; UserError if a member is not a plain file or folder below ``target``."""
    try:
        with tarfile.open(archive) as opened:
            members = opened.getmembers()
            for member in members:
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive}: {member.name!r} is a link or a device; nothing was extracted")
                check_name(archive, member.name)
            target.mkdir(parents=True, exist_ok=True)
            ensure_space(target, sum(member.size for member in members))
            opened.extractall(target, members, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} cannot be read: {error}; delete it and fetch it again") from None


def opened_zip(path: Path) -> zipfile.ZipFile:
    """An open zip file; UserError if it is damaged or a member has a path outside the target folder."""
    try:
        opened = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete it and fetch it again") from None
    for name in opened.namelist():
        check_name(path, name)
    return opened


def member(opened: zipfile.ZipFile, name: str) -> bytes:
    """The content of one member of a zip file; UserError if it is damaged."""
    try:
        return opened.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:  # what damaged bytes raise
        raise UserError(f"{opened.filename}: {name}: {error}; delete the archive and fetch it again") from None


def check_name(archive: Path, name: str) -> None:
    """Raise UserError if a member's path is outside the folder to which it would be extracted."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or name[1:2] == ":":
        raise UserError(f"{archive}: {name!r} would be written outside its folder; nothing was extracted")
