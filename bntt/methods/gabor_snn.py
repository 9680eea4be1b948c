"""Gabor-SNN, the baseline of Sironi et al. (2018): Gabor-filter neurons, a histogram of their spikes, a linear SVM.

Sironi et al. describe it in a sentence: a spiking network of two layers after HFirst, whose spikes are counted for a
linear classifier. No program was published. Here the two layers are HFirst's S1 and C1, with its constants
(`bntt.features.hfirst` has the equations). The features are the C1 spikes by place and orientation ``[N, y, x, 12]``. A
linear SVM (`bntt.features.svm`) gives the scores ``[N, classes]``; its C is chosen on validation recordings, or by
cross-validation where there are none.
"""

from collections.abc import Mapping

from torch import Tensor

from bntt.classifiers import EventClassifier
from bntt.data.images import ImageData
from bntt.experiment.schema import Run
from bntt.features import hfirst, svm
from bntt.methods import Task, Trained

TITLE = "Gabor-SNN + linear SVM"
NEEDS_EVENTS = True
SEEDED = False
EXTENDS = ["bntt.data.images", "bntt.features.hfirst"]
OPTIONS: dict[str, dict[str, object]] = {}


def train(task: Task) -> Trained:
    """A hyperplane for each class."""
    options, data = task.options, task.data
    counts, facts = hfirst.c1_histograms(data.train, options, data.name)
    others, _ = hfirst.histograms(data.validation.streams(), options)
    known, judged = (
        (hfirst.flat(found), part.labels.cpu().numpy())
        for found, part in ((counts, data.train), (others, data.validation))
    )
    weights, chosen = svm.fit(known, judged, data.classes)
    return Trained(weights, facts={"parameters": sum(w.numel() for w in weights.values())} | facts | chosen)


def classifier(run: Run, data: ImageData, weights: Mapping[str, Tensor]) -> EventClassifier:
    """The distances to the hyperplanes."""
    planes = {name: weights[name] for name in ("weight", "bias")}
    return EventClassifier(lambda streams: svm.scores(planes, hfirst.flat(hfirst.histograms(streams, run.options)[0])))
