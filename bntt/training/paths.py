"""The law of the gradient that reaches an early or a late time-step: how many paths lead from there to the loss.

No gradient flows through the reset, so the gradient of a membrane u[t] reaches u[t - 1] through the leak alone. The
readout adds up its voltage without a leak, so its error is the same at every step. Through m leaky layers, the
gradient of step t is the sum over all ways to divide a delay of j = 0 .. T - t steps among the m membranes, and each
step of delay costs a factor ``leak``:

    P_m(T - t) = sum over j = 0 .. T - t of  C(j + m - 1, m - 1) leak^j

m is 1 for the last hidden layer. docs/wave.md derives it and says where it holds. Without torch.
"""

from itertools import accumulate


def paths(leaky_layers: int, lag: int, leak: float) -> float:
    """P_m(lag): the leak-weighted number of paths through m ``leaky_layers`` that are at most ``lag`` steps long.

    Raises ValueError for less than 1 layer, and for a negative lag.
    """
    return _up_to(leaky_layers, lag, leak)[-1]


def driven(leaky_layers: int, time_steps: int, leak: float) -> list[float]:
    """P_m(T - t) / P_m(T - 1) for t = 1 .. T: the gradient of each step, as a share of that of the first.

    ValueError as for `paths`.
    """
    counts = _up_to(leaky_layers, time_steps - 1, leak)
    return [count / counts[-1] for count in reversed(counts)]


def _up_to(leaky_layers: int, lag: int, leak: float) -> list[float]:
    """P_m(0) .. P_m(lag)."""
    if leaky_layers < 1 or lag < 0:
        raise ValueError(f"paths lead through at least 1 layer, over at least 0 steps, not {leaky_layers} and {lag}")
    counts = [leak**j for j in range(lag + 1)]  # of delays of exactly j steps, through one layer
    for _ in range(leaky_layers - 1):  # one layer more: c[j] = sum over i of counts[i] leak^(j - i)
        counts = list(accumulate(counts, lambda before, here: before * leak + here))
    return list(accumulate(counts))
