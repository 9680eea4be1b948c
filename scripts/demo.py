"""Run an experiment's workflow and show how it goes.

What `snakemake --cores N all --config experiment=demo` does, with a line for each job, the log of a job that
fails, and where the time went. It can be killed at any moment and run again: see Guard and clear_the_way.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from guard import Guard

ROOT = Path(__file__).resolve().parent.parent
# Every process of a run inherits this variable: it tells what a killed run left from anything else.
TAG = "BNTT_DEMO"


def clear_the_way(root: Path) -> None:
    """End what a killed run left at work, and remove the lock that a killed Snakemake left.

    Whoever calls this holds the guard, so no other demo is at work. A Snakemake that was started by hand may
    be, and then the lock is its own.
    """
    left, at_work = [], False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # ended meanwhile, or somebody else's
            if process.environ().get(TAG) == str(root):
                left.append(process)
            elif process.cwd() == str(root):
                at_work |= any(Path(word).name == "snakemake" for word in process.cmdline())
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        print(f"ending what a killed run left at work: process {pids}", flush=True)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)
    locks = root / ".snakemake" / "locks"
    if not at_work and locks.is_dir() and any(locks.iterdir()):
        print("removing Snakemake's lock, which a killed run left behind", flush=True)
        shutil.rmtree(locks)


def follow(log: Path, process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the lines of a growing log until the process that writes it has ended."""
    with open(log, errors="replace") as file:
        rest, ended = "", False
        while not ended:
            ended = process.poll() is not None  # asked before reading, so that nothing is missed
            *lines, rest = (rest + file.read()).split("\n")
            yield from lines
            if not ended:
                time.sleep(0.2)


class Progress:
    """Say in one line what each job does, from Snakemake's log; lines it does not know are passed over."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.done, self.total = 0, 0
        self.jobs: dict[str, dict[str, str]] = {}  # by job id: rule, wildcards, log
        self.began: dict[str, float] = {}
        self.failed: list[str] = []
        self.block: dict[str, str] = {}  # what is known so far of the job that the log speaks of

    def read(self, line: str) -> None:
        """Take in one line of the log."""
        if match := re.match(r"(?:local)?(?:rule|checkpoint) (\w+):$", line):
            self.block = {"rule": match[1]}
        elif match := re.match(r"Error in rule (\w+):$", line):
            self.block = {"rule": match[1], "failed": "yes"}
        elif self.block and (match := re.match(r"    (jobid|log|wildcards|resources): (.*)", line)):
            self.block[match[1]] = match[2]
            if match[1] == "jobid" and "failed" in self.block:
                self.failed.append(match[2])
                self.say("FAILED", match[2])
            elif match[1] == "resources" and "jobid" in self.block:  # the last line about a job that starts
                jobid = self.block["jobid"]
                self.jobs[jobid], self.began[jobid] = self.block, time.monotonic()
                self.say("start", jobid)
        elif match := re.match(r"Finished jobid: (\d+)", line):
            self.done += 1
            self.say("done", match[1])
        elif match := re.match(r"(\d+) of (\d+) steps", line):
            self.done, self.total = int(match[1]), int(match[2])
        elif match := re.match(r"total +(\d+)$", line):
            self.total = int(match[1])

    def say(self, what: str, jobid: str) -> None:
        """Print one line about a job."""
        now = time.monotonic()
        job = self.jobs.get(jobid, self.block)
        words = [clock(now - self.start).rjust(7), f"{self.done:>{len(str(self.total))}}/{self.total}"]
        words += [what.ljust(6), job.get("rule", ""), job.get("wildcards", "")]
        if what != "start" and jobid in self.began:
            words.append(f"({clock(now - self.began[jobid])})")
        print(" ".join(filter(None, words)), flush=True)

    def logs_of_failed(self) -> list[str]:
        """List the log files of the jobs that failed."""
        logs = (self.jobs.get(jobid, {}).get("log") for jobid in dict.fromkeys(self.failed))
        return [path for log in logs if log for path in log.split(", ")]


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def show_end(path: Path, lines: int = 20) -> None:
    """Print the last lines of a log, and where it is."""
    with contextlib.suppress(OSError):
        end = path.read_text(errors="replace").splitlines()[-lines:]
        print("\n  ".join([f"\nThe end of {path}:", *end]))


def show_time(root: Path, benchmarks: Path, since: float) -> None:
    """Print where the time since then went, by the installation's stamp and Snakemake's benchmark files."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in benchmarks.glob("*/**/*.tsv"):
        end = path.stat().st_mtime  # Snakemake writes the file when the job has ended
        if end >= since:
            with open(path) as file:
                seconds = sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
            spans[path.relative_to(benchmarks).parts[0]].append((end - seconds, end))

    table = [("where the time went", "jobs", "job time", "elapsed")]
    stamp = root / ".venv" / "installed.json"
    if stamp.exists() and stamp.stat().st_mtime >= since:
        table.append(("installation", "", "", clock(json.loads(stamp.read_text())["seconds"])))
    for rule, jobs in sorted(spans.items(), key=lambda item: min(item[1])):
        job_time = sum(end - start for start, end in jobs)
        table.append((rule, str(len(jobs)), clock(job_time), clock(covered(jobs))))
    table.append(("in all", str(sum(map(len, spans.values()))), "", clock(time.time() - since)))
    print()
    for name, *columns in table:
        print(name.ljust(28), *(column.rjust(9) for column in columns))
    if not spans:
        print("(everything was there already)")


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Measure the time in which at least one of the spans was under way."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def run(root: Path, experiment: str, cores: int, since: float) -> int:
    """Run the workflow in root; return the exit code."""
    results = f"results/{experiment}"
    log = root / results / "logs" / "snakemake.log"
    (root / ".snakemake").mkdir(exist_ok=True)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--rerun-incomplete", "all"]
    progress = Progress()
    with Guard(root / ".snakemake" / "bntt-demo.lock") as guard:
        clear_the_way(root)
        print(f"running {experiment} on {cores} cores (details: {results}/logs/snakemake.log)", flush=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as file:
            snakemake = guard.start(
                [*command, "--config", f"experiment={experiment}"],
                cwd=root,
                env=os.environ | {TAG: str(root), "PATH": path},  # rules call `python`: this one
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            for line in follow(log, snakemake):
                progress.read(line)
        except KeyboardInterrupt:
            print("interrupted, ending the jobs; run it again to go on", flush=True)
            guard.terminate()  # lets Snakemake remove what is incomplete, and its lock
            with contextlib.suppress(subprocess.TimeoutExpired):
                snakemake.wait(timeout=10)
            return 130
    if snakemake.returncode != 0:
        for failed in progress.logs_of_failed() or [f"{results}/logs/snakemake.log"]:
            show_end(root / failed)
        print(f"\n{experiment} is not finished; Snakemake's own words are in {results}/logs/snakemake.log")
        return 1
    show_time(root, root / results / "benchmarks", since)
    print(f"\nopen {results}/overview.html first; then")
    print(f"{results}/notebooks/, {results}/figures/ and {results}/tables/")
    return 0


def main() -> int | str:
    """Run the command line; return what sys.exit takes."""
    parser = argparse.ArgumentParser(description="Run an experiment's workflow and show how it goes.")
    parser.add_argument("experiment", nargs="?", default="demo", help="one of config/*.yaml (default: demo)")
    parser.add_argument("--cores", type=int, help="cores to use (default: all that this process may use)")
    parser.add_argument("--since", type=float, default=time.time(), help="when it all began, in Unix time")
    options = parser.parse_args()
    known = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))
    if options.experiment not in known:
        return f"no experiment {options.experiment!r} in config/; there are: {', '.join(known)}"
    # A container or a batch system may allow fewer cores than the machine has; only Linux can tell.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return run(ROOT, options.experiment, options.cores or cores, options.since)
    except OSError as error:
        return f"cannot run {options.experiment}: {error}"
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
