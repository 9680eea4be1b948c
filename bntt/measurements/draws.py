"""Accuracy over several draws of the input's Poisson noise, to tell its spread from that over seeds."""

from bntt.measurements import Rows, Subject, per_cent
from bntt.measurements.observation import right_at_reported_steps

COLUMNS = {
    "draw": "Number of the draw; 0 is the one that all other measurements rest on.",
    "time_step": "Steps used, at the reported steps.",
    "accuracy": "Test accuracy in per cent.",
}


def measure(subject: Subject) -> Rows | str:
    """One row per draw and reported step; only where a classifier is given random spikes."""
    if subject.why_not_drawn:
        return subject.why_not_drawn
    return [
        {"draw": draw, "time_step": step, "accuracy": per_cent(right)}
        for draw in range(subject.run.evaluation["draws"])
        for step, right in right_at_reported_steps(subject, draw).items()
    ]
