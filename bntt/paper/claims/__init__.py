"""The paper's qualitative claims, each judged from the measurements of one dataset and one seed.

A claim *holds* or *fails* if the interval of its statistic lies entirely on one side of the claim's border. It is
*undecided* if the interval includes the border, or if a run that it needs is missing. It is *not decidable* where a
network is dead, that is, silent or at chance: such a network saves steps, spikes and energy because it classifies
nothing. Only the claim that a baseline trains worse may rest on a dead baseline. Intervals are 95 % intervals over test
images, unless a claim says otherwise; methods are compared image by image.
"""

from dataclasses import replace

from bntt.common.text import listed
from bntt.data.store import is_of_recordings
from bntt.paper.claims import _behaviour, _section3  # noqa: F401 (both add claims to CLAIMS)
from bntt.paper.claims._behaviour import noise_differences
from bntt.paper.claims._evidence import BNTT, CLAIMS, Claim, Evidence, Outcome, Part, above, below
from bntt.results.collect import Results

__all__ = ["BNTT", "CLAIMS", "Claim", "Evidence", "Outcome", "Part", "above", "below", "noise_differences", "weigh"]


def weigh(results: Results, dataset: str) -> list[Claim]:
    """Every claim, judged on the first seed; with several seeds, a note counts the outcomes of all of them.

    For recordings of events the claim about Gaussian noise, which concerns images, is left out.
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
