"""Archives of experiments: one file, ``.tar.zst``, from which the folder of results comes back as it was.

The archive is a bag (BagIt 1.0, RFC 8493): four files that say what is in it, then what is in it, in ``data/``. This
is the experiment's folder of results without ``scratch/`` and hidden files, the experiment file, and a description of
both (`bntt.runs.crate`). The same files make the same bytes: names are sorted, and owners, modes and times are fixed.

Restoring reads the archive once, from its beginning to its end. Nothing appears among the results until all of it has
been read and every hash is right.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from bntt import __version__
from bntt.common.errors import UserError
from bntt.common.files import sha256, write_atomically
from bntt.common.text import MOST_NAMED, listed
from bntt.experiment.schema import NAME, Experiment
from bntt.runs.crate import METADATA, Content, Recorded, described, last_time
from bntt.runs.status import Found

SUFFIX = ".tar.zst"
BAGIT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
TAGS = ("bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt")  # the order in the archive
LARGEST_TAG = 2**26  # bytes; they are read into memory
CHUNK = 2**20
COMPRESSED_CHUNK = 2**10  # 4 bytes can stand for a block of 128 kB: so no chunk needs more than 32 MB


class Packed(NamedTuple):
    """What an archive holds: the number of files in ``data/``, and their size in bytes."""

    files: int
    size: int


class Restored(NamedTuple):
    """A folder of results that was restored, its experiment file, and the number of files."""

    folder: Path
    plan: Path
    files: int


def check_target(out: Path, folder: Path, overwrite: bool) -> None:
    """Raise UserError if ``folder`` cannot be packed to ``out``."""
    _zstandard()
    if not out.name.endswith(SUFFIX):
        raise UserError(f"{out}: the name of an archive ends in {SUFFIX}")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out} is inside of {folder}, which it is to hold; give a place outside of it")
    if out.is_dir() or (os.path.lexists(out) and not overwrite):
        raise UserError(f"{out} is already there; give another name" + ("" if out.is_dir() else ", or --overwrite"))


def pack(
    experiment: Experiment, plan: bytes, runs: Sequence[Found], folder: Path, out: Path, faults: Sequence[str] = ()
) -> Packed:
    """Write the archive of an experiment's folder; ``plan`` is the text of its file.

    ``faults`` say what is not finished; the archive's description repeats them.
    """
    recorded = [Recorded.of(one) for one in runs]
    date = last_time(recorded)
    if date is None:
        raise UserError(f"{folder} has no result to archive; train and evaluate its runs first")
    plan_name = f"{experiment.name}.yaml"
    sources: dict[str, Path | bytes] = dict(_files(folder))
    sources.pop(METADATA, None)  # of the archive from which this folder was restored
    sources[plan_name] = plan
    contents = {name: _content(sources[name]) for name in sorted(sources)}
    document = described(experiment, plan_name, recorded, contents, date, faults)
    sources[METADATA] = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    contents[METADATA] = _content(sources[METADATA])
    contents = dict(sorted(contents.items()))
    size = sum(content.size for content in contents.values())
    tags = _tags(experiment.title, contents, size)

    def write(beside: Path) -> None:
        zstd = _zstandard().ZstdCompressor(write_checksum=True)
        with (
            beside.open("wb") as raw,
            zstd.stream_writer(raw, closefd=False) as compressed,
            tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar,
        ):
            for name, tag in tags.items():
                tar.addfile(_member(f"{experiment.name}/{name}", len(tag), date), io.BytesIO(tag))
            for name, content in contents.items():
                member, source = _member(f"{experiment.name}/data/{name}", content.size, date), sources[name]
                if isinstance(source, bytes):
                    tar.addfile(member, io.BytesIO(source))
                else:
                    with _Hashed(source) as file:
                        tar.addfile(member, file)
                        file.check(content.sha256)

    write_atomically(out, write)
    return Packed(len(contents), size)


def _files(folder: Path, inside: str = "") -> Iterator[tuple[str, Path]]:
    """The files of a folder of results that belong in an archive, by their names in it."""
    for path in folder.iterdir():
        name = inside + path.name
        if path.name.startswith(".") or name == "scratch":
            continue
        if not _is_safe(name):
            raise UserError(f"{str(path)!r}: a name that cannot be printed cannot be archived; rename it")
        if path.is_dir() and not path.is_symlink():
            yield from _files(path, f"{name}/")
        elif path.is_file() and not path.is_symlink():
            yield name, path
        else:
            raise UserError(f"{path} is a link or a device, and archives hold files alone; put a file in its place")


def _is_safe(name: str) -> bool:
    """Whether the name of a file stays in its folder, is not hidden, and is a name that archives have."""
    first, *_ = parts = name.split("/")
    return first != "scratch" and all(part and not part.startswith(".") for part in parts) and name.isprintable()


def _content(source: Path | bytes) -> Content:
    if isinstance(source, bytes):
        return Content(len(source), hashlib.sha256(source).hexdigest())
    return Content(source.stat().st_size, sha256(source))


def _tags(title: str, contents: Mapping[str, Content], size: int) -> dict[str, bytes]:
    """The files of a bag that say what is in it."""
    info = {
        "Bag-Software-Agent": f"bntt {__version__}",
        "External-Description": " ".join(title.split()),
        "Payload-Oxum": f"{size}.{len(contents)}",
    }
    tags = {
        "bagit.txt": BAGIT,
        "bag-info.txt": "".join(f"{key}: {value}\n" for key, value in info.items()).encode(),
        "manifest-sha256.txt": _manifest({f"data/{name}": content.sha256 for name, content in contents.items()}),
    }
    return tags | {"tagmanifest-sha256.txt": _manifest({name: _content(tag).sha256 for name, tag in tags.items()})}


def _manifest(hashes: Mapping[str, str]) -> bytes:
    """A line for each file, as sha256sum writes and reads it; BagIt writes a percent sign as %25."""
    return "".join(f"{hashes[name]}  {name.replace('%', '%25')}\n" for name in sorted(hashes)).encode()


def _member(name: str, size: int, date: datetime) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, int(date.timestamp()), 0o644  # no user and no group
    return member


class _Hashed:
    """A file that is hashed while it is packed, because it could have changed since the manifest was made.

    Its errors are said of it, and not of the archive, which is being written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, hashlib.sha256()

    def __enter__(self) -> "_Hashed":
        with self._said():
            self.stream = self.path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def read(self, size: int = -1) -> bytes:
        with self._said():
            data = self.stream.read(size)
        self.digest.update(data)
        if len(data) < size:
            self.check("")
        return data

    def check(self, sha256: str) -> None:
        if self.digest.hexdigest() != sha256:
            raise UserError(f"{self.path} was changed while it was packed; wait until nothing writes there")

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; nothing was packed") from None


def restore(archive: Path, results: Path) -> Restored:
    """Unpack an archive to ``results/<experiment>``; if anything is wrong, UserError, and nothing is there."""
    with archive.open("rb") as raw:
        stream: Any = _Decompressed(archive, raw)  # of a file's methods it has the one that is used
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
                name, hashes = _opened(archive, tar)
                return _unpacked(archive, tar, stream, name, hashes, results)
        except tarfile.TarError as error:
            raise UserError(f"{archive} is damaged, or no archive of an experiment: {error}") from None


def _opened(archive: Path, tar: tarfile.TarFile) -> tuple[str, dict[str, str]]:
    """The name of the experiment and the hash of every file, from the first files of an archive."""
    other = UserError(f"{archive} is no archive that `python -m bntt archive` wrote, or one of another version")
    name, tags = "", {}
    for tag in TAGS:
        member = tar.next()
        if member is None or not _is_file(member) or member.size > LARGEST_TAG:
            raise other
        name = name or member.name.partition("/")[0]
        if member.name != f"{name}/{tag}" or not re.fullmatch(NAME, name):
            raise other
        content = tar.extractfile(member)
        assert content is not None  # it is a file
        tags[tag] = content.read()
        if tags["bagit.txt"] != BAGIT:
            raise other
    stated = _read_manifest(archive, tags.pop("tagmanifest-sha256.txt"))
    for tag, text in tags.items():
        if stated.pop(tag, None) != _content(text).sha256:
            raise UserError(f"{archive} is damaged: {tag} does not have its sha256; get it again")
    hashes = {}
    for path, digest in _read_manifest(archive, tags["manifest-sha256.txt"]).items():
        top, _, inner = path.partition("/")
        if top != "data" or not _is_safe(inner):
            raise UserError(f"{archive}: {path!r} is no name of a file of results; do not trust this archive")
        hashes[inner] = digest
    if stated or not {METADATA, f"{name}.yaml"} <= set(hashes):
        raise other
    return name, hashes


def _read_manifest(archive: Path, text: bytes) -> dict[str, str]:
    try:
        lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in text.decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError:
        lines = [None]
    named = {line[2].replace("%25", "%"): line[1] for line in lines if line is not None}
    if len(named) != len(lines):
        raise UserError(f"{archive} is damaged: its list of files cannot be read; get it again")
    return named


def _is_file(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _unpacked(
    archive: Path, tar: tarfile.TarFile, stream: "_Decompressed", name: str, hashes: Mapping[str, str], results: Path
) -> Restored:
    """Unpack the files to a hidden folder, verify them, and rename the folder."""
    target, hidden = results / name, results / f".{name}-{secrets.token_hex(4)}"
    if os.path.lexists(target):
        raise UserError(f"{target} is already there; name another folder by --results, or move it away")
    wrong: dict[str, list[str]] = {"damaged": [], "missing": [], "not in its list of files": []}
    seen = set()
    try:
        hidden.mkdir(parents=True)
        for member in iter(tar.next, None):
            inner = member.name.removeprefix(f"{name}/data/")
            if not _is_file(member) or inner == member.name or not _is_safe(inner):
                raise UserError(f"{archive}: {member.name!r} is no file of results; do not trust this archive")
            if inner not in hashes or inner in seen:
                wrong["not in its list of files"].append(inner)
                continue
            seen.add(inner)
            if _extracted(tar, member, hidden / inner) != hashes[inner]:
                wrong["damaged"].append(inner)
        stream.finish()
        wrong["missing"] = sorted(hashes.keys() - seen)
        if any(wrong.values()):
            said = "; ".join(f"{fault}: {listed(names, MOST_NAMED)}" for fault, names in wrong.items() if names)
            raise UserError(f"{archive} is damaged, and nothing was restored; {said}; get it again")
        hidden.rename(target)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot restore {target}: {reason}; make room, or name another --results") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Restored(target, target / f"{name}.yaml", len(seen))


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    """Write a member of an archive to a new file, and return its hash."""
    content, digest = tar.extractfile(member), hashlib.sha256()
    assert content is not None  # it is a file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while data := content.read(CHUNK):
            file.write(data)
            digest.update(data)
    return digest.hexdigest()


class _Decompressed:
    """The content of a zstd file, read in small chunks, so that memory stays small whatever they expand to.

    Not zstandard's own reader, which takes the end of a truncated file for the end of the content.
    """

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        self.path, self.raw, self.ready = path, raw, bytearray()
        zstandard = _zstandard()
        self.error, self.zstd = zstandard.ZstdError, zstandard.ZstdDecompressor().decompressobj()

    def read(self, size: int) -> bytes:
        while len(self.ready) < size and not self.zstd.eof:
            if not (data := self.raw.read(COMPRESSED_CHUNK)):
                raise UserError(f"{self.path} is truncated; get it again")
            try:
                self.ready += self.zstd.decompress(data)
            except self.error as error:
                raise UserError(f"{self.path} is damaged, or no archive: {error}") from None
        data = bytes(self.ready[:size])
        del self.ready[:size]
        return data

    def finish(self) -> None:
        """Read on to the end, which verifies the checksum; UserError if something comes behind it."""
        while self.read(CHUNK):
            pass
        if self.zstd.unused_data or self.raw.read(1):
            raise UserError(f"{self.path} is damaged: something comes behind its end; get it again")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise UserError(
            "archives need the package zstandard, which is not installed; `pip install zstandard`"
        ) from None
    return zstandard
