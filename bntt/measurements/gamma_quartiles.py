"""The learned scale of every layer and time-step over its channels: `gamma` in a twentieth of the space."""

import torch

from bntt.measurements import Rows, Subject

COLUMNS = {
    "layer": "Hidden layer, conv1 first.",
    "time_step": "1..T.",
    "mean": "Mean over channels of the learned scale, signed.",
    "deviation": "Its standard deviation over channels, with the number of channels as divisor.",
    "lowest": "Its lowest value.",
    "quarter": "Its lower quartile, interpolated between channels.",
    "half": "Its median.",
    "three_quarters": "Its upper quartile.",
    "highest": "Its highest value.",
}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def measure(subject: Subject) -> Rows | str:
    """One row per layer and step, of norms whose scale changes with time."""
    gammas = subject.classifier.gammas()
    if not gammas:
        return "no scale that changes with time"
    rows: Rows = []
    for name, gamma in gammas.items():
        values = gamma.double()
        quartiles = values.quantile(torch.tensor(SHARES, dtype=values.dtype, device=values.device), dim=1).T
        spread, mean = torch.std_mean(values, 1, correction=0)
        for t, of_step in enumerate(torch.column_stack([mean, spread, quartiles]).tolist(), 1):
            rows.append({"layer": name, "time_step": t, **dict(zip(list(COLUMNS)[2:], of_step, strict=True))})
    return rows
