"""Early exit (Section 3.4): where every layer's mean gamma stays below a threshold, the rest is not computed."""

import torch
from torch import Tensor

from bntt.measurements import Rows, Subject, per_cent

COLUMNS = {
    "threshold": "On the mean (signed) gamma of each layer.",
    "exit_step": "Steps used: the last at which some layer's mean gamma reaches the threshold, within 1..T.",
    "exits": "1 where the rule ends before T; 0 where some layer reaches the threshold at the last step: no exit.",
    "accuracy": "Test accuracy in per cent after exit_step steps, read off the anytime curve.",
}


def exit_step(mean_gammas: list[Tensor], threshold: float) -> int:
    """The steps that are computed: up to the last at which the mean gamma of some layer reaches the threshold.

    ``mean_gammas`` holds for each layer the mean over channels at every step, ``[T]``. At least one step, at most T.
    """
    reached = (torch.stack(mean_gammas) >= threshold).any(0).nonzero().flatten()
    return int(reached[-1]) + 1 if len(reached) else 1


def measure(subject: Subject) -> Rows | str:
    """One row per threshold, the paper's 0.1 among them."""
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
