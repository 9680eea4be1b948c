"""The four passes of the temporal-norm operator, behind one interface.

A backend is a module with these four functions. Currents are rows ``x [T, M, C]``: M samples and positions,
channels innermost, contiguous (a convolution's channels-last output is such an array without a copy).

``moments(x) -> mean, variance``
    Per time-step and channel, ``[T, C]``, variance biased, in two passes.
``scan(x, scale, shift, dynamics, membrane) -> spikes``
    Runs the neuron over T on the current ``scale[t] * x[t] + shift[t]``; updates ``membrane [M, C]`` in place.
``reverse_scan(x, centre, scale, shift, dynamics, grad_spikes) -> dy, dscale, dshift``
    Recomputes the membrane (nothing but x is kept) and runs the scan backwards. ``dy [T, M, C]`` is the
    gradient for the normalised current; the sums ``dscale``, ``dshift`` ``[T, C]`` are taken around ``centre``,
    that is over ``dy * (x - centre)`` and ``dy``, so that they do not cancel.
``combine(dy, x, scale, mean, dmean, dvariance) -> dx``
    ``scale * dy + dmean / M + 2 (x - mean) dvariance / M``.

Only ``plain`` exists so far; ``backend_for`` is where a fused one will be chosen.
"""

from types import ModuleType
from typing import NamedTuple

from torch import Tensor


class Dynamics(NamedTuple):
    """What a linear-leak neuron does with its current (Eq. 4) and with a gradient (Eq. 8)."""

    leak: float
    threshold: float
    hard_reset: bool
    alpha: float


def backend_for(x: Tensor) -> ModuleType:
    """The fastest backend that serves this tensor's device and precision."""
    from bntt.spiking.kernels import plain

    return plain
