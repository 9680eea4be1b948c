"""Early exit (Section 3.4): once every layer's mean gamma stays below a threshold, no more steps are computed."""

import torch
from torch import Tensor

from bntt.measurements import Rows, Subject, per_cent

COLUMNS = {
    "threshold": "Threshold on the mean (signed) gamma of each layer.",
    "exit_step": "Steps used: the last at which some layer's mean gamma reaches the threshold, within 1..T.",
    "exits": "1 if the exit is before T; 0 if some layer reaches the threshold at the last step, so there is no exit.",
    "accuracy": "Test accuracy in per cent after exit_step steps, as in anytime.csv.",
}


def exit_step(mean_gammas: list[Tensor], threshold: float) -> int:
    """The number of steps computed: the last step at which some layer's mean gamma reaches the threshold.

    ``mean_gammas`` holds for each layer the mean over channels at every step, ``[T]``. The result is in 1..T.
    """
    reached = (torch.stack(mean_gammas) >= threshold).any(0).nonzero().flatten()
    return int(reached[-1]) + 1 if len(reached) else 1


def measure(subject: Subject) -> Rows | str:
    """One row per threshold of the options; ``exit_threshold``, the paper's 0.1, is among them."""
    gammas = subject.classifier.gammas()
    if not gammas:
        return "no scale that changes with time"
    means = [gamma.double().mean(1) for gamma in gammas.values()]
    evaluation = subject.run.evaluation
    thresholds = sorted({*evaluation["exit_thresholds"], evaluation["exit_threshold"]})
    return [
        {
            "threshold": threshold,
            "exit_step": step,
            "exits": int(step < subject.classifier.time_steps),
            "accuracy": per_cent(subject.observation.right[step - 1]),
        }
        for threshold, step in ((threshold, exit_step(means, threshold)) for threshold in thresholds)
    ]
