"""Make .venv, with the locked packages and this project in it, unless it is there already.

.venv is whole exactly when its stamp is there and fits. The stamp is written last; anything else, such as
what a killed installation left, is removed and made anew.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this line is for those who have an older one)
    found = f"{sys.executable} is {sys.version.split()[0]}"
    sys.exit(f"Python 3.11 or newer is needed; {found}. Name another: make PYTHON=python3.11 ...")

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import venv
from pathlib import Path

from guard import Guard

ROOT = Path(__file__).resolve().parent.parent
STAMP = "installed.json"
# The steps run in the root, and name everything relative to it, so that its path may hold any character.
PYTHON = ".venv/bin/python"
PIP = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
STEPS = [
    [PYTHON, "-m", "ensurepip", "--default-pip"],
    # Not compiled at once, which takes as long as all the rest, but where a module is first imported.
    [*PIP, "--no-compile", "--constraint", "constraints.txt", "--editable", ".[vision,workflow,test]"],
]


def key(root: Path) -> str:
    """Name what .venv depends on: the requirements, the lock, the interpreter, and where it lies."""
    files = [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([*files, sys.version.encode(), os.fsencode(root)])).hexdigest()


def is_whole(root: Path) -> bool:
    """Tell whether .venv is finished and is what is wanted now."""
    try:
        return json.loads((root / ".venv" / STAMP).read_text())["key"] == key(root)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return False


def install(root: Path, steps: list[list[str]]) -> None:
    """Make .venv by the given steps, or do nothing if it is whole."""
    if is_whole(root):
        return
    with Guard(root / ".venv.lock") as guard:
        if is_whole(root):  # made by somebody else while this one waited
            return
        start, wanted, target = time.monotonic(), key(root), root / ".venv"
        if target.exists():
            print("removing .venv, which is unfinished or out of date", flush=True)
            (target / STAMP).unlink(missing_ok=True)  # first, lest it look whole when killed half-way
            shutil.rmtree(target)
        print(f"making .venv with Python {sys.version.split()[0]}", flush=True)
        venv.create(target, symlinks=True)
        print("installing the locked packages (details: .venv/install.log)", flush=True)
        with open(target / "install.log", "w") as log:
            for step in steps:
                process = guard.start(step, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                assert process.stdout
                error = last = ""
                for line in process.stdout:
                    log.write(line)
                    last = line.strip() or last
                    if last.startswith("ERROR"):
                        error = error or last  # pip's first error is the cause
                    if re.match(r" *Downloading .*\d\d\.\d MB", line):  # what may take long is worth a line
                        print(f"  {last}", flush=True)
                if process.wait() != 0:
                    sys.exit(f"installation failed: {error or last} (details: .venv/install.log)")
        stamp = {"key": wanted, "seconds": round(time.monotonic() - start, 1)}
        (target / "stamp.partial").write_text(json.dumps(stamp))
        os.replace(target / "stamp.partial", target / STAMP)
        print(f"installed in {stamp['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        install(ROOT, STEPS)
    except OSError as error:
        sys.exit(f"installation failed: {error}")
    except KeyboardInterrupt:
        sys.exit("installation interrupted")
