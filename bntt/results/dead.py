"""Dead networks: those that are silent, and those at chance. Tables, figures, claims and the overview name them.

A network is *silent* after some steps if one of its hidden layers has emitted no spike on any test image until then.
Nothing of the image reaches the layers above that one, so every image gets the same answer. A network is *at chance*
if its accuracy is not significantly above 100 / classes, which a constant answer or a guess reaches as well.
"""

import math
from typing import NamedTuple

import pandas as pd

from bntt.common.text import counted, listed, number
from bntt.data import store
from bntt.results.intervals import Z, standard_error

SILENT, AT_CHANCE = "silent", "at chance"
DEAD = (  # both words, for a reader
    "Silent: some hidden layer has no spike on any test image, so every image gets the same answer. At chance: "
    "Wilson's 95 % interval of the accuracy does not lie above chance."
)


class Dead(NamedTuple):
    """Why a network is dead: ``silent`` or ``at chance``, and the measurement that shows it, for a reader."""

    word: str
    reason: str


def chance(dataset: str) -> float:
    """The accuracy in per cent that a guess reaches: 100 / classes."""
    return 100 / int(store.facts(dataset)["classes"])


def chance_level(dataset: str) -> str:
    """The same in words: ``1 % (100 classes)``."""
    return f"{chance(dataset):.3g} % ({counted(store.facts(dataset)['classes'], 'class', 'classes')})"


def is_at_chance(accuracy: float, images: int, dataset: str) -> bool:
    """Whether Wilson's 95 % interval of an accuracy in per cent does not lie above chance (Wilson 1927, JASA 22:209).

    It lies above p exactly if the accuracy exceeds p by more than z standard errors at p itself.
    """
    level = chance(dataset)
    return accuracy <= level + 100 * Z * standard_error(level / 100 * images, images)


def silent_layers(spikes: pd.DataFrame, steps: float = math.inf) -> list[str]:
    """The hidden layers without a spike in the first ``steps`` steps, from the ``spikes.csv`` of one run."""
    counts = spikes["spikes"].where(spikes["time_step"] <= steps, 0.0).groupby(spikes["layer"], sort=False).sum()
    return [str(layer) for layer, count in counts.items() if count == 0]


def diagnosis(spikes: pd.DataFrame, accuracy: float, steps: int, images: int, dataset: str) -> Dead | None:
    """Why a run is dead after ``steps`` steps, when it has this accuracy in per cent; None if it is not."""
    if layers := silent_layers(spikes, steps):
        same = f"so every image gets the same answer; chance is {chance_level(dataset)}"
        return Dead(SILENT, f"{SILENT} after {counted(steps, 'time-step')}: no spike in {listed(layers)}, {same}")
    if is_at_chance(accuracy, images, dataset):
        above = f"{number(accuracy)} % is not significantly above {chance_level(dataset)}"
        return Dead(AT_CHANCE, f"{AT_CHANCE} after {counted(steps, 'time-step')}: {above}")
    return None
