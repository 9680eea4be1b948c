"""The learned scale of every layer, time-step and channel: Figures 3 and 5."""

from bntt.measurements import Rows, Subject

COLUMNS = {
    "layer": "Hidden layer, conv1 first.",
    "time_step": "1..T.",
    "channel": "Channel or feature, from 0.",
    "gamma": "Learned scale, signed.",
}


def measure(subject: Subject) -> Rows | str:
    """One row per layer, step and channel, of norms whose scale changes with time."""
    gammas = subject.classifier.gammas()
    if not gammas:
        return "no scale that changes with time"
    return [
        {"layer": name, "time_step": t, "channel": channel, "gamma": value}
        for name, gamma in gammas.items()
        for t, of_step in enumerate(gamma.tolist(), 1)
        for channel, value in enumerate(of_step)
    ]
