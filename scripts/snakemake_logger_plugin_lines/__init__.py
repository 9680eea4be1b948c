"""Print a line when Snakemake starts or ends a job: `snakemake --logger lines`, with `scripts/` in PYTHONPATH.

Snakemake finds a logger plugin by its package's name. Its usual messages go to its log, under .snakemake/log.
"""

import time
from collections import defaultdict
from logging import WARNING, LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


class LogHandler(LogHandlerBase):
    """Print jobs, messages of finished ones, the end of a failed one's log, warnings, and where the time went."""

    writes_to_stream = True
    writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.done = self.total = 0
        self.jobs: dict[int, tuple[str, str, float]] = {}  # by id: rule, wildcards, when it started
        self.messages: dict[int, str | None] = {}  # by id: what its rule says, of few rules
        self.spent: dict[str, list[float]] = defaultdict(list)  # by rule: seconds of each job

    def emit(self, record: LogRecord) -> None:
        """Handle one record; Snakemake calls this in a separate thread."""
        known = record.__dict__
        event = known.get("event")
        if event == LogEvent.RUN_INFO:
            self.total = known["stats"]["total"]
        elif event == LogEvent.JOB_INFO:
            wildcards = " ".join(f"{key}={value}" for key, value in known["wildcards"].items())
            self.jobs[known["jobid"]] = known["rule_name"], wildcards, time.monotonic()
            self.messages[known["jobid"]] = known["rule_msg"]
            self.say("start", known["jobid"])
        elif event == LogEvent.JOB_FINISHED:
            self.done += 1
            self.say("done", known["job_id"])
            if message := self.messages[known["job_id"]]:
                print(message, flush=True)
        elif event == LogEvent.JOB_ERROR:
            self.say("FAILED", known["jobid"])
            for log in map(Path, known["log"]):
                lines = log.read_text(errors="replace").splitlines() if log.exists() else []
                print("\n  ".join([f"the end of {log}:", *lines[-20:]]), flush=True)
        elif event in (None, LogEvent.ERROR):
            text = self.format(record)
            of_job = "CalledProcessError" in text  # a failed command; the log of its job says more
            if (record.levelno >= WARNING and not of_job) or text.startswith("Complete log"):
                print(text, flush=True)

    def say(self, what: str, job: int) -> None:
        """Print one line about a job, and note how long it took."""
        now = time.monotonic()
        rule, wildcards, began = self.jobs[job]
        took = ""
        if what != "start":
            self.spent[rule].append(now - began)
            took = f"({clock(now - began)})"
        words = [clock(now - self.start).rjust(7), f"{self.done:>{len(str(self.total))}}/{self.total}", what.ljust(6)]
        print(" ".join(filter(None, [*words, rule, wildcards, took])), flush=True)

    def close(self) -> None:
        """Print, once, where the time went."""
        super().close()
        if self.spent:
            rules = [f"{len(of_rule)} {rule} {clock(sum(of_rule))}" for rule, of_rule in self.spent.items()]
            print(f"{clock(time.monotonic() - self.start)} in all; {', '.join(rules)}", flush=True)
            self.spent.clear()


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
