"""The paper's qualitative claims, and some of ours, each judged from the measurements of one dataset over all seeds.

A claim *holds*, *fails* or is *undecided* by the rule that `bntt.paper.claims._decision` states. It is also undecided
if a measurement that it needs is missing, or if a network does not work (`Evidence.working`), because a network that
does not work decides nothing. It is *not decidable* where a network is dead, that is, silent or at chance: such a
network saves steps, spikes and energy because it classifies nothing. Only the claim that a baseline trains worse may
rest on a baseline that does not work, is dead or diverged.

The unit is the seed. With two or more seeds a statistic has one value for each, paired by seed where two rows are
compared, and Student's interval over seeds. With one seed the interval is over test images, or the value is exact; the
outcome then is about this one network, and says so: *holds (one seed)*. For the order of peaks the unit is the layer.
"""

from bntt.data.store import is_of_recordings
from bntt.paper.claims import _behaviour, _section3  # noqa: F401 (both add claims to CLAIMS)
from bntt.paper.claims._behaviour import noise_differences
from bntt.paper.claims._decision import Component, Outcome, decide, ordered, over_seeds, together
from bntt.paper.claims._evidence import BNTT, CLAIMS, Claim, Evidence, Part
from bntt.results.collect import Results

__all__ = [
    "BNTT", "CLAIMS", "Claim", "Component", "Evidence", "Outcome", "Part", "decide", "noise_differences",
    "of_all_seeds", "ordered", "over_seeds", "together", "weigh",
]  # fmt: skip

OF_IMAGES = (_behaviour.better_under_noise, _behaviour.surrogate_beats_dense_under_strong_noise)


def of_all_seeds(results: Results, dataset: str) -> list[Evidence]:
    """The evidence that ``results`` has on a dataset, for each seed that is planned."""
    seeds = dict.fromkeys(run.seed for run in results.experiment.runs if run.dataset == dataset)
    return [Evidence.of(results, dataset, seed) for seed in seeds]


def weigh(results: Results, dataset: str) -> list[Claim]:
    """Every claim, judged on all seeds of a dataset; those of the paper come first.

    For recordings of events the claims about Gaussian noise, which concern images, are left out.
    """
    seeds = of_all_seeds(results, dataset)
    claims = [claim(seeds) for claim in CLAIMS if claim not in OF_IMAGES or not is_of_recordings(dataset)]
    return sorted(claims, key=lambda claim: claim.ours)
