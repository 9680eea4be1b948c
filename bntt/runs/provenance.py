"""Where a result comes from: code, versions, machine, time, memory."""

import hashlib
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bntt.experiment import declared

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "safetensors")


def source() -> dict[str, Any]:
    """The commit, and whether the tree differs from it; without git, a hash of the package's files."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")) != ROOT.resolve():
            raise OSError("an unpacked archive within another repository")
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        digest = hashlib.sha256()
        found = (path for kind in ("*.py", "*.cpp") for path in (ROOT / "bntt").rglob(kind))
        for path in sorted(path for path in found if path.is_file() and declared.is_source(path, ROOT)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
        return {"source_sha256": digest.hexdigest()}


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def now() -> str:
    """The present time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def interpreter() -> str:
    """The Python that runs, such as ``CPython 3.11.9, .venv/bin/python``; names no folder outside the repository."""
    path = Path(sys.executable)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"{platform.python_implementation()} {platform.python_version()}, {shown}"


def environment(device: str, threads: int) -> dict[str, Any]:
    """Versions and machine, without names of users or hosts."""
    return {
        **source(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": device,
        "threads": threads,
    }


def machine(device: str) -> str:
    """The device and the processor, as text."""
    return f"{device} ({_processor()})"


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kibibytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
