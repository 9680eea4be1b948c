"""Accuracy over several draws of the input's Poisson noise, to tell its spread from that over seeds."""

from bntt.measurements import Rows, Subject
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
    rows: Rows = []
    for draw in range(subject.run.evaluation["draws"]):
        if draw == 0:
            right = {step: subject.observation.right[step - 1] for step in subject.report_steps}
        else:
            right = right_at_reported_steps(subject, subject.noise_key(draw))
        rows += [
            {"draw": draw, "time_step": step, "accuracy": 100 * of_step.double().mean().item()}
            for step, of_step in right.items()
        ]
    return rows
