"""Run an experiment's workflow, and print a line for each job. It can be killed at any moment and run again.

It does what `snakemake --cores N all --config experiment=demo` does, and two things more: no process that it started
outlives it, however it ends (kill -9 included), and it removes the lock that a killed Snakemake leaves.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
# Reads from a pipe until this process ends and the kernel closes it, and then kills the process group that it leads.
WATCHDOG = ["sh", "-c", "trap '' TERM; cat; kill -9 0"]


def take(lock: TextIO) -> None:
    """Wait for the lock, and clean up after a holder that was killed.

    The file holds the id of the process at work. If there is still an id, its process was killed. Snakemake's lock is
    then left from that process, too, because Snakemake never runs twice at the same time.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for process {lock.read()}, which is at work here", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    lock.seek(0)
    if lock.read() and (ROOT / ".snakemake/locks").exists():
        print("removing the lock that a killed run left", flush=True)
        shutil.rmtree(ROOT / ".snakemake/locks")
    lock.truncate(0)
    print(os.getpid(), end="", file=lock, flush=True)


def run(command: list[str]) -> int:
    """Run Snakemake in the repository's root, one at a time; return its exit status."""
    (ROOT / ".snakemake").mkdir(exist_ok=True)
    with open(ROOT / ".snakemake/demo.lock", "a+") as lock:
        lock.seek(0)
        take(lock)
        # The watchdog holds the lock, too: when the next process gets it, no job is at work any more.
        pipe, shared = subprocess.PIPE, [lock.fileno()]
        with subprocess.Popen(WATCHDOG, stdin=pipe, process_group=0, pass_fds=shared) as watchdog:
            plugins = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
            null, group = subprocess.DEVNULL, watchdog.pid
            snakemake = subprocess.Popen(command, cwd=ROOT, env=plugins, stdin=null, process_group=group)
            try:
                status = snakemake.wait()
            except KeyboardInterrupt:
                print("interrupted, ending the jobs; run it again to continue", flush=True)
                os.killpg(group, signal.SIGTERM)  # a training saves its state, Snakemake removes what is incomplete
                with contextlib.suppress(subprocess.TimeoutExpired):
                    snakemake.wait(timeout=10)
                status = 130
        if snakemake.returncode is not None and snakemake.returncode >= 0:  # it ended by itself, and released its lock
            lock.truncate(0)
    return status


def main() -> int | str:
    """Run the command line; return what sys.exit takes."""
    parser = argparse.ArgumentParser(description="Run an experiment's workflow, and print a line for each job.")
    parser.add_argument("experiment", nargs="?", default="demo", help="one of config/*.yaml (default: demo)")
    parser.add_argument("--cores", default="all", help="cores to use (default: all that this process may use)")
    options = parser.parse_args()
    known = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))
    if options.experiment not in known:
        return f"no experiment {options.experiment!r} in config/; there are: {', '.join(known)}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = [sys.executable, "-m", "snakemake", "--logger", "lines", "--cores", options.cores, "all"]
    try:
        status = run([*command, "--config", f"experiment={options.experiment}"])
    except KeyboardInterrupt:  # while waiting for another process
        return 130
    if status == 0:
        results = f"results/{options.experiment}"
        print(f"\nopen {results}/overview.html first; then")
        print(f"{results}/notebooks/, {results}/figures/ and {results}/tables/")
    return status


if __name__ == "__main__":
    sys.exit(main())
