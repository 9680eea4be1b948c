"""Results in words: their data, their test images, and why a run has no result."""

from collections.abc import Iterable

import pandas as pd

from bntt.common.text import listed
from bntt.data import store
from bntt.experiment import declared
from bntt.results.collect import Results, images_of, select

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
        seeds = sorted(own["seed"].unique())
        words = [f"`{row}` ({_time(own[own['row'] == row])})" for row in drawn]
        lines.append(
            f"**Data drawn.** Experiment `{results.experiment.name}`, dataset {store.facts(one)['title']} "
            f"({listed([STATES.get(state, state) for state in states]) or 'not read yet'}); "
            f"{images_used(results, one)}; rows {listed(words)}; "
            f"{'seed' if len(seeds) == 1 else f'n = {len(seeds)} seeds'} {listed([str(seed) for seed in seeds])}."
        )
        absent = own[own["status"] != "done"]
        gone = [f"`{run.row}`, seed {run.seed} ({why_absent(run.status, run.reason)})" for run in absent.itertuples()]
        lines.append(f"Without a result: {listed(gone)}." if gone else "No run is missing.")
        if dead := [f"`{run.row}`, seed {run.seed} ({run.why_dead})" for run in own.itertuples() if run.why_dead]:
            lines.append(f"**Dead networks:** {listed(dead)}.")
    return "\n\n".join(lines)


def _time(runs: pd.DataFrame) -> str:
    """The time-steps of a row, from its lines of the summary."""
    if runs.empty:
        return "not in this experiment"
    return "single events" if declared.needs_events(runs["method"].iloc[0]) else f"T = {runs['time_steps'].iloc[0]}"


def test_images(results: Results, dataset: str) -> int | None:
    """The number of test images of a dataset, as its runs recorded it; None if none was trained."""
    used = (images_of(one) for one in results.runs if one.run.dataset == dataset)
    return next((images["test"] for images in used if images), None)


def images_used(results: Results, dataset: str) -> str:
    """How many images of a dataset were used, of how many: ``2,000 of 50,000 training images, 10,000 test images``.

    Rows that were trained on different numbers are named.
    """
    ended = results.summary[(results.summary["dataset"] == dataset) & results.summary["train_images"].notna()]
    if ended.empty:
        return "images not read yet"
    whole = store.facts(dataset)["images"]
    rows = {int(count): list(dict.fromkeys(part["row"])) for count, part in ended.groupby("train_images", sort=False)}
    train = [_of(count, whole["train"]) + (f" ({listed(own)})" if len(rows) > 1 else "") for count, own in rows.items()]
    test = _of(int(ended["test_images"].iloc[0]), whole["test"])
    return f"{listed(train)} training images, {test} test images"


def _of(used: int, whole: int) -> str:
    return f"{used:,}" if used == whole else f"{used:,} of {whole:,}"


def is_cut(results: Results, dataset: str) -> bool:
    """Whether some run used fewer training or test images than the dataset has."""
    own, whole = select(results.summary, dataset=dataset), store.facts(dataset)["images"]
    return any((own[f"{part}_images"] < whole[part]).any() for part in ("train", "test"))


def why_absent(status: str, reason: str) -> str:
    """Why a run has no result, as text for a reader."""
    return {"missing": "no result yet", "diverged": f"diverged: {reason}"}.get(status, f"{status}: {reason}")
