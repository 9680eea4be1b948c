"""Results in words: their data, their test images, and why a run has no result."""

from collections.abc import Iterable

from bntt.common.text import listed
from bntt.data import store
from bntt.results.collect import Results, select

STATES = {
    "archive": "the publisher's files",
    "content": "content as expected",
    "partial": "content as expected except for some listed test items",
    "unknown": "content NOT known to be the publisher's",
}


def sources(results: Results, dataset: str | None = None, rows: Iterable[str] | None = None) -> str:
    """The data that a notebook draws, in Markdown: dataset and state, test images, rows, seeds, missing runs.

    It covers all datasets and rows of the experiment, unless ``dataset`` or ``rows`` are given.
    """
    lines = []
    for one in results.experiment.datasets if dataset is None else [dataset]:
        of_dataset = select(results.summary, dataset=one)
        drawn = list(dict.fromkeys(of_dataset["row"] if rows is None else rows))
        own = of_dataset[of_dataset["row"].isin(drawn)]
        states = sorted(own["data_state"].dropna().unique())
        images, seeds = test_images(results, one), sorted(own["seed"].unique())
        steps = own.groupby("row")["time_steps"].first()
        words = [f"`{row}` ({f'T = {steps[row]}' if row in steps else 'not in this experiment'})" for row in drawn]
        lines.append(
            f"**Data drawn.** Experiment `{results.experiment.name}`, dataset {store.facts(one)['title']} "
            f"({listed([STATES.get(state, state) for state in states]) or 'not read yet'}); "
            f"{'test images not read yet' if images is None else f'{images} test images'}; rows {listed(words)}; "
            f"{'seed' if len(seeds) == 1 else f'n = {len(seeds)} seeds'} {listed([str(seed) for seed in seeds])}."
        )
        absent = own[own["status"] != "done"]
        gone = [f"`{run.row}`, seed {run.seed} ({why_absent(run.status, run.reason)})" for run in absent.itertuples()]
        lines.append(f"Without a result: {listed(gone)}." if gone else "No run is missing.")
    return "\n\n".join(lines)


def test_images(results: Results, dataset: str) -> int | None:
    """The number of test images of a dataset, as its runs recorded it; None if none was trained."""
    for one in results.runs:
        if one.run.dataset == dataset and one.training:
            there = int(one.training["data"]["images"]["test"])
            return min(there, one.run.options["test_limit"] or there)
    return None


def why_absent(status: str, reason: str) -> str:
    """Why a run has no result, as text for a reader."""
    return {"missing": "no result yet", "diverged": f"diverged: {reason}"}.get(status, f"{status}: {reason}")
