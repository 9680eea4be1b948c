"""What can be said of results in words: the data they are of, their test images, and why a run has none."""

from bntt.common.text import listed
from bntt.data import store
from bntt.results.collect import Results


def sources(results: Results) -> str:
    """The data a notebook drew, in Markdown: dataset and state, rows, seeds, test images, and what is missing."""
    lines = []
    runs = results.summary
    name = results.experiment.name
    for dataset in results.experiment.datasets:
        own = runs[runs["dataset"] == dataset]
        states = sorted(own["data_state"].dropna().unique())
        known = {
            "archive": "the publisher's files",
            "content": "content as expected",
            "partial": "content as expected but for some listed test items",
            "unknown": "content NOT known to be the publisher's",
        }
        state = listed([known.get(one, one) for one in states]) or "not read yet"
        seeds = sorted(own["seed"].unique())
        images = test_images(results, dataset)
        lines.append(
            f"**Data drawn.** Experiment `{name}`, dataset {store.facts(dataset)['title']} ({state}); "
            f"{'test images not read yet' if images is None else f'{images} test images'}; "
            f"rows {listed([f'`{row}`' for row in dict.fromkeys(own['row'])])}; "
            f"{'seed' if len(seeds) == 1 else f'n = {len(seeds)} seeds'} {listed([str(seed) for seed in seeds])}."
        )
        absent = own[own["status"] != "done"]
        names = [f"`{one.row}`, seed {one.seed} ({why_absent(one.status, one.reason)})" for one in absent.itertuples()]
        lines.append(f"Without a result: {listed(names)}." if names else "No run is missing.")
    return "\n\n".join(lines)


def test_images(results: Results, dataset: str) -> int | None:
    """The number of test images of a dataset, as its runs recorded it; None where none has been trained."""
    for one in results.runs:
        if one.run.dataset == dataset and one.training:
            there = int(one.training["data"]["images"]["test"])
            return min(there, one.run.options["test_limit"] or there)
    return None


def why_absent(status: str, reason: str) -> str:
    """Why a run has no result, for a reader."""
    return {"missing": "no result yet", "diverged": f"diverged: {reason}"}.get(status, f"{status}: {reason}")
