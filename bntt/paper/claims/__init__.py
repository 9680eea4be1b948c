"""The paper's qualitative claims, each weighed by the measurements of one dataset and one seed.

A claim *holds* or *fails* where the interval of its statistic lies wholly on one side of the border, and is *undecided*
where the interval includes the border or a run that it needs is missing. Intervals are at 95 %, over the test images
unless a claim says otherwise; methods are compared image by image.
"""

from dataclasses import replace

from bntt.common.text import listed
from bntt.data.store import is_of_recordings
from bntt.paper.claims import _behaviour, _section3  # noqa: F401 (each adds to CLAIMS)
from bntt.paper.claims._behaviour import noise_differences
from bntt.paper.claims._evidence import BNTT, CLAIMS, Claim, Evidence, Part, above, below
from bntt.results.collect import Results

__all__ = ["BNTT", "CLAIMS", "Claim", "Evidence", "Part", "above", "below", "noise_differences", "weigh"]


def weigh(results: Results, dataset: str) -> list[Claim]:
    """Every claim, on the first seed; where there are several, the note says how often the others agree.

    The claim about Gaussian noise is about images, and is left out for recordings of events.
    """
    seeds = list(dict.fromkeys(run.seed for run in results.experiment.runs))
    claims = [one for one in CLAIMS if one is not _behaviour.better_under_noise or not is_of_recordings(dataset)]
    by_seed = [[claim(Evidence.of(results, dataset, seed)) for claim in claims] for seed in seeds]
    if len(seeds) == 1:
        return by_seed[0]
    weighed = []
    for first, *others in zip(*by_seed, strict=True):
        outcomes = [one.outcome for one in (first, *others)]
        counts = [f"{outcomes.count(word)} × {word}" for word in dict.fromkeys(outcomes)]
        note = f"Intervals are over images of seed {seeds[0]}; over all {len(seeds)} seeds: {listed(counts)}."
        weighed.append(replace(first, note=f"{first.note} {note}".strip()))
    return weighed
