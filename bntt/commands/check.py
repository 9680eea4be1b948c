"""Judge every number of the paper and every run by the existing results; trains nothing."""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bntt.common.errors import check_name
from bntt.common.text import counted, number
from bntt.drawing.records import damaged_drawings, is_preliminary
from bntt.paper.reproduction import Judged, judge_all
from bntt.paper.scores import headline
from bntt.paper.verdicts import WORDS, Word
from bntt.results.collect import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder to judge, and the options."""
    parser.add_argument(
        "folder", type=Path, metavar="RESULTS", help="the results of an experiment, such as results/demo"
    )
    parser.add_argument("--experiment", help="its experiment file, if that is not in config/")
    parser.add_argument("--fail-on", metavar="VERDICT", help="also exit with 1 on this verdict, such as WORSE")


def run(parsed: argparse.Namespace) -> int:
    """Print the findings; return 1 if something is missing or damaged, or has the ``--fail-on`` verdict."""
    if parsed.fail_on is not None:
        check_name("verdict", parsed.fail_on, WORDS, "--fail-on")
    found = check(Results.at(parsed.folder, parsed.experiment))
    print(*found.lines, sep="\n")
    return int(found.broken > 0 or found.counts[parsed.fail_on] > 0)


class Check(NamedTuple):
    """The lines to print, in order, and the counts in them."""

    lines: Sequence[str]
    counts: Counter[Word]
    broken: int  # number of runs that have not ended and of drawings that are damaged or preliminary


def check(results: Results) -> Check:
    """Judge every printed number and every planned run; nothing is trained or drawn."""
    judged = judge_all(results)
    counts = Counter(one.verdict.word for one in judged)
    runs = Counter(one.status for one in results.runs)
    broken = [f"[{one.status}] {one.run.name}: {one.reason}" for one in results.runs if not one.status.ended]
    broken += [f"[damaged] {reason}" for reason in damaged_drawings(results.folder)]
    if is_preliminary(results.folder):
        broken.append(f"[preliminary] {results.folder}/overview.html shows the first seeds alone")
    lines = [_line(one) for one in judged if one.verdict.word != "NOT_RUN"] + _not_run(judged) + broken
    lines += [
        *headline(judged),
        "runs: " + ", ".join(f"{count} {status}" for status, count in runs.items()),
    ]
    return Check(lines, counts, len(broken))


def _line(one: Judged) -> str:
    """``[MATCH] Table 1, cifar10/bntt, accuracy: printed 90.5, reproduced 90.48 +- 0.62 (n = 3)``."""
    cell, verdict = one.cell, one.verdict
    text = f"[{verdict}] {cell.place}, {cell.row}, {cell.column}: printed {cell.printed}"
    if verdict.mean is not None:
        digits = 2 if abs(verdict.mean) >= 1 else 4
        width = "" if verdict.half_width is None else f" ± {number(verdict.half_width, digits)}"
        text += f", reproduced {number(verdict.mean, digits)}{width} (n = {len(verdict.values)})"
        if one.difference is not None and verdict.word in ("UNDERSPECIFIED", "INCOMPARABLE"):
            text += f", difference {number(one.difference, digits)}"
    return text + (f"; {verdict.reason}" if verdict.reason else "")


def _not_run(judged: Iterable[Judged]) -> list[str]:
    """A line for each cell that is not run; cells with the same place and reason share one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in judged:
        if one.verdict.word == "NOT_RUN":
            groups.setdefault((one.cell.place, one.verdict.reason), []).append(f"{one.cell.row}, {one.cell.column}")
    return [
        f"[NOT_RUN] {place}, {cells[0] if len(cells) == 1 else counted(len(cells), 'number')}: {reason}"
        for (place, reason), cells in groups.items()
    ]
