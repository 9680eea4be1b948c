"""Draw a preliminary overview, of the first seed of every row, while the other seeds are missing."""

import argparse

from bntt.commands._options import add_experiment
from bntt.common.errors import UserError
from bntt.common.files import write_atomically
from bntt.common.text import MOST_NAMED, listed
from bntt.drawing.preliminary import OVERVIEW, draw
from bntt.drawing.records import write_record
from bntt.experiment.schema import load
from bntt.results.collect import Results
from bntt.runs import status

OVER = "no preliminary overview: every run has ended, so the overview can be drawn from all of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the experiment."""
    add_experiment(parser)


def run(parsed: argparse.Namespace) -> None:
    """Write the page in the place of the overview, and its record; nothing, once all runs have ended."""
    experiment = load(parsed.experiment)

    def is_over() -> bool:
        return all(one.status.ended for one in status.found(experiment, parsed.results))

    if is_over():
        print(OVER)
        return
    results = Results(experiment.first_seeds(), parsed.results)
    if absent := [f"{one.run.name} ({one.status})" for one in results.runs if not one.status.ended]:
        raise UserError(f"first seeds are not measured yet: {listed(absent, MOST_NAMED)}")
    html = draw(results, planned=len(experiment.runs))
    page = results.folder / "overview.html"
    if is_over():  # by now; a job of a cluster may also have waited so long that the final overview is there
        print(OVER)
        return
    write_atomically(page, lambda beside: beside.write_text(html, encoding="utf-8"))
    record = results.folder / "notebooks" / f"{OVERVIEW.stem}.json"
    write_record(record, OVERVIEW, parsed.experiment, results, [page], preliminary=True)
    print(page)
