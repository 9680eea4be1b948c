"""HFirst on single events (Orchard et al. 2015), by its own vote or by a random forest on its C1 spikes.

`bntt.features.hfirst` has the layers, their equations and units, and what the authors' program fixes.

* ``decision: votes`` is HFirst. Training is one pass: the template of a class is the histogram of the C1 spikes of its
  training recordings. The score of a class is its share of the C2 spikes ``[N, classes]``, and the class with most
  spikes wins. The program counts a recording without any C2 spike as wrong. Here all its scores are 0; that is a tie,
  and ties go to the lowest class, as everywhere in this benchmark. How many there are is recorded for validation.
* ``decision: forest`` is not HFirst. The paper's Table 1 says "Random Forest" in HFirst's row, and HFirst has none. A
  random forest (`bntt.features.forest`) gets the histogram of C1 spikes ``[N, y, x, 12]``. No source says how; the
  forest is scikit-learn's default, with ``trees`` trees.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntt.classifiers import EventClassifier
from bntt.common.errors import UserError
from bntt.data.events.streams import Streams
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.features import forest, hfirst
from bntt.methods import Task, Trained

TITLE = "HFirst, {decision}"
NEEDS_EVENTS = True
SEEDED = {"decision": "forest"}
EXTENDS = ["bntt.data.images", "bntt.features.hfirst"]
OPTIONS = {
    "decision": {
        "default": "votes",
        "choices": ["votes", "forest"],
        "help": "HFirst's own vote, or a random forest on its C1 spikes, which is not HFirst.",
    },
    "s2_threshold": {"default": 150.0, "above": 0.0, "max": 1e6, "help": "Threshold of layer S2, millivolts."},
    "s2_decay": {"default": 1.0, "min": 0.0, "max": 1e6, "help": "Leak of layer S2, millivolts per ms."},
    "trees": {"default": 100, "min": 1, "help": "Number of trees, for the decision by a forest."},
}


def train(task: Task) -> Trained:
    """The templates of S2, or the forest."""
    options, data = task.options, task.data
    counts, facts = hfirst.c1_histograms(data.train, options, data.name)
    labels = data.train.labels.cpu().numpy()
    if options["decision"] == "forest":
        weights = forest.fit(hfirst.flat(counts), labels, data.classes, options["trees"], task.run.seed)
        return Trained(weights, facts={"parameters": len(weights["feature"])} | facts)
    templates = hfirst.templates_of(counts, labels, data.classes)
    if len(data.validation):
        votes = hfirst.votes(data.validation.streams(), templates, s2_neuron(options), options).sum(1)
        facts |= {"c2_spikes": float(votes.mean()), "without_c2_spike": int((votes == 0).sum())}
    return Trained({"templates": torch.from_numpy(templates)}, facts={"parameters": templates.size} | facts)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> EventClassifier:
    """The shares of C2 spikes, or the forest's shares of classes."""
    options = run.options
    needed = forest.NAMES if options["decision"] == "forest" else ["templates"]
    if missing := sorted(set(needed) - weights.keys()):
        raise UserError(
            f"row {run.row} cannot load it: the weights of decision {options['decision']} have {missing[0]}"
        )
    if options["decision"] == "forest":
        trees = {name: weights[name] for name in forest.NAMES}
        return EventClassifier(
            lambda streams: forest.shares(trees, hfirst.flat(hfirst.histograms(streams, options)[0]))
        )
    templates = weights["templates"].cpu().numpy()

    def shares(streams: Streams) -> np.ndarray:
        found = hfirst.votes(streams, templates, s2_neuron(options), options)
        return found / found.sum(1, keepdims=True).clip(min=1)

    return EventClassifier(shares)


def s2_neuron(options: Mapping[str, Any]) -> hfirst.Neuron:
    """The neurons of S2."""
    return hfirst.Neuron(options["s2_threshold"], options["s2_decay"], options["refractory"])
