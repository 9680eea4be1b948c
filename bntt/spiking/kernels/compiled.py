"""Compile C++ on the machine that runs it, and load it.

A library is built once for each name, source (with the headers beside it), compiler and processor. The build is safe:
the folder must belong to the user and be closed to others, the library is written under a temporary name and renamed,
and one process builds while others wait. If the user's cache folder cannot be written, the temporary folder is used.
"""

import ctypes
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bntt.spiking.kernels import Unavailable

FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-fopenmp", "-Wno-psabi"]
# Kinds of arguments: pointer, size, float, double, int, key of 64 bits. ctypes converts them, or raises.
_KINDS = {
    "p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double, "i": ctypes.c_int,
    "k": ctypes.c_uint64,
}  # fmt: skip


def load(name: str, sources: Sequence[Path], signatures: Mapping[str, str], flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The library of some sources, which is built if it is missing.

    ``signatures`` gives the arguments of each function that returns nothing, one letter each: p(ointer), n (int64),
    f(loat), d(ouble), i(nt), k (uint64). ``flags`` are more options of the compiler, also when it links. If the library
    cannot be built or loaded, `Unavailable` is raised with a one-line reason.
    """
    try:
        library = ctypes.CDLL(str(build(name, sources, flags)))
    except OSError as error:
        raise Unavailable(f"the library cannot be loaded: {error}") from None
    for function, kinds in signatures.items():
        called = getattr(library, function)
        called.argtypes, called.restype = [_KINDS[kind] for kind in kinds], None
    return library


def cache_folders() -> list[Path]:
    """The folders where a library may be, in the order in which they are tried."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [Path(cache).expanduser() / "bntt", Path(tempfile.gettempdir()) / f"bntt-{os.getuid()}"]


def build(name: str, sources: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """The path of the library ``name``, which is built if it is missing; `Unavailable` if it cannot be."""
    compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("g++", "clang++", "c++")), "")]
    if not shutil.which(compiler[0]):
        raise Unavailable("no C++ compiler was found (g++, clang++, or $CXX)")
    version = _run([*compiler, "--version"])
    headers = sorted({header for source in sources for header in source.parent.glob("*.h")})
    texts = [file.read_text() for file in (*sources, *headers)]
    identity = [version, *compiler, *FLAGS, *flags, _processor(), *texts]
    file = f"{name}-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:20]}.so"
    reasons = []
    for folder in cache_folders():
        try:
            _own(folder)
            library = folder / file
            if not library.is_file():
                with (folder / f"{file}.lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if not library.is_file():
                        _compile(compiler, sources, flags, library)
            return library
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
    raise Unavailable("; ".join(reasons))


def _own(folder: Path) -> None:
    """Make the folder; refuse it if another user could put a library there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not folder.is_dir() or folder.is_symlink():
        raise OSError("is not a folder of this user's with mode 0700")
    if not os.access(folder, os.W_OK):
        raise OSError("cannot be written")


def _compile(compiler: list[str], sources: Sequence[Path], flags: Sequence[str], library: Path) -> None:
    """Compile and link in a temporary folder beside the library's place, then rename.

    OpenMP is left out when linking. The library then uses the OpenMP runtime that torch has loaded, so that both share
    one pool of threads.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as beside:
        objects = [f"{beside}/{source.stem}.o" for source in sources]
        commands = [[*compiler, *FLAGS, *flags, "-c", str(s), "-o", o] for s, o in zip(sources, objects, strict=True)]
        with ThreadPoolExecutor() as together:
            list(together.map(_run, commands))
        _run([*compiler, "-shared", *objects, *flags, "-o", f"{beside}/library"])
        os.replace(f"{beside}/library", library)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise Unavailable(f"{command[0]} failed: {first}")
    return done.stdout


def _processor() -> str:
    """A text that identifies this processor's instructions, because other machines may share the home folder."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        return next(line for line in text.splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
