"""Check that a method keeps the contract of methods, on tiny made-up data."""

import argparse
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bntt.common.errors import UserError
from bntt.common.files import read_yaml
from bntt.common.text import listed

if TYPE_CHECKING:
    from bntt.runs.contract import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the method, and options for it."""
    parser.add_argument("method", metavar="METHOD", help="a file of bntt/methods/, with hyphens: my-method")
    parser.add_argument(
        "--set",
        action="append",
        metavar="OPTION=VALUE",
        help="an option of the method, if the small value chosen here does not suit it; can be given several times",
    )


def run(parsed: argparse.Namespace) -> int:
    """Print the results, one line for kinds of data with the same; return 1 if a check failed."""
    given = dict(map(_option, parsed.set or ()))
    from bntt.runs.contract import check_all
    from bntt.training.arithmetic import settle

    settle(1)
    words: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        for _, results in groupby(check_all(parsed.method, Path(folder), given), lambda result: result.check):
            for line, result in _lines(results):
                print(line, flush=True)
                words[result.word] += 1
    print(f"{parsed.method}: " + ", ".join(f"{words[word]} {word}" for word in ("passed", "failed", "not applicable")))
    return int(words["failed"] > 0)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write OPTION=VALUE, such as time_steps=5")
    return name, read_yaml(value, f"--set {text}")


def _lines(results: "Iterable[Result]") -> "list[tuple[str, Result]]":
    """A line for each different result of a check: ``passed  resumes (grey images, colour images)``."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.word, result.text), []).append(result)
    lines = []
    for (word, text), alike in found.items():
        kinds = listed([result.kind for result in alike if result.kind])
        line = f"{word:<14}  {alike[0].check}" + (f" ({kinds})" if kinds else "") + (f": {text}" if text else "")
        lines.append((line, alike[0]))
    return lines
