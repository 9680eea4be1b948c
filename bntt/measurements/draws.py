"""Accuracy for several draws of the input's Poisson noise, to separate its spread from the spread over seeds."""

from bntt.measurements import Rows, Subject, per_cent
from bntt.measurements.observation import right_at_reported_steps

COLUMNS = {
    "draw": "Number of the draw; all other measurements use draw 0.",
    "time_step": "Steps used, at the reported steps.",
    "accuracy": "Test accuracy in per cent.",
}


def measure(subject: Subject) -> Rows | str:
    """One row per draw and reported step; only for classifiers whose input spikes are random."""
    if subject.why_not_drawn:
        return subject.why_not_drawn
    return [
        {"draw": draw, "time_step": step, "accuracy": per_cent(right)}
        for draw in range(subject.run.evaluation["draws"])
        for step, right in right_at_reported_steps(subject, draw).items()
    ]
