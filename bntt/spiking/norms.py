"""Temporal norms: functions from per-step moments to a per-step affine map.

Every norm here gets the mean and the biased variance of the input current over a mini-batch, for each time-step and
channel. It returns a scale and a shift. It defines three things:

* ``effective``: which moments normalise step t: those of step t, of all steps, of steps 1..t, or of the last few;
* ``track``: what is averaged during training for use at inference, for the given steps;
* ``affine``: scale and shift from the effective moments, by ordinary differentiable arithmetic on tensors ``[T, C]``.

These tensors are small, so the arithmetic uses float64, which keeps the accuracy of sums around the mean.

BNTT: Kim and Panda (2021), Algorithm 1 and Eq. 9. tdBN: Zheng et al. (2021). TEBN: Duan et al. (2022).
TAB: Jiang et al. (2024). TSBN: Wang et al. (2024).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bntt.spiking import processes
from bntt.spiking.kernels import accumulator, eagerly, floating, plain


class Moments(NamedTuple):
    """Mean and biased variance ``[S, C]`` (S = T, or 1 where all steps share them), and the number of values."""

    mean: Tensor
    variance: Tensor
    size: Tensor  # [S, 1]


def pool_all(step: Moments) -> Moments:
    """Moments over all steps together, ``[1, C]``: the variance of the means adds to the mean of the variances."""
    mean = step.mean.mean(0, keepdim=True)
    variance = step.variance.mean(0, keepdim=True) + (step.mean - mean).square().mean(0, keepdim=True)
    return Moments(mean, variance, step.size.sum(0, keepdim=True))


def pool_past(step: Moments, window: int | None = None) -> Moments:
    """For each t, the moments over steps 1..t together, or over the last ``window`` of them, ``[T, C]``."""
    past = []
    for end in range(1, len(step.mean) + 1):
        first = 0 if window is None else max(0, end - window)
        past.append(pool_all(Moments(*(a[first:end] for a in step))))
    return Moments(*(torch.cat(parts) for parts in zip(*past, strict=True)))


class TemporalNorm(nn.Module):
    """Base of all temporal norms: a subclass chooses the batch statistics, a scale ``gamma`` and an optional ``beta``.

    Parameters
    ----------
    channels, time_steps
        Number of channels C and of time-steps T of the currents.
    eps, momentum
        Added to the variance, and the update factor of the running averages (Algorithm 1); the released code has 1e-4
        and 0.1.
    tracking
        ``variance``: running averages of the mean and the unbiased variance, as in the released code. ``deviation``: of
        the mean and the biased standard deviation, as in the printed Algorithm 1.
    threshold
        The neuron's firing threshold; the initial scale of tdBN is proportional to it.
    """

    gamma_per_step = False  # True: one scale for each step and channel; False: one for each channel
    has_bias = False
    shared_moments = False  # whether inference uses one pair of moments for all steps
    tracks = True  # switched off while the backward pass runs a chunk of time again
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        time_steps: int,
        *,
        eps: float = 1e-4,
        momentum: float = 0.1,
        tracking: str = "variance",
        threshold: float = 1.0,
    ) -> None:
        super().__init__()
        if time_steps < 1 or channels < 1:
            raise ValueError(
                f"a temporal norm needs channels and time_steps of at least 1, got {channels}, {time_steps}"
            )
        if tracking not in ("variance", "deviation"):
            raise ValueError(f"tracking is 'variance' or 'deviation', not {tracking!r}")
        self.channels, self.time_steps = channels, time_steps
        self.eps, self.momentum, self.tracking, self.threshold = eps, momentum, tracking, threshold
        steps = time_steps if self.gamma_per_step else 1
        self.gamma = nn.Parameter(torch.ones(steps, channels))
        self.beta = nn.Parameter(torch.zeros(steps, channels)) if self.has_bias else None
        tracked = 1 if self.shared_moments else time_steps
        self.register_buffer("running_mean", torch.zeros(tracked, channels))
        self.register_buffer("running_var", torch.ones(tracked, channels))

    # -- the three definitions -------------------------------------------------------------------------------

    def effective(self, step: Moments) -> Moments:
        """The moments that normalise each step, from the moments of each step. Here: the same ones."""
        return step

    @torch.no_grad()
    def track(self, step: Moments, effective: Moments, steps: slice) -> None:
        """Update the running averages with this mini-batch's effective moments (Algorithm 1, lines 5 to 7)."""
        a, (mean, variance, size) = self.momentum, effective
        window = slice(None) if self.shared_moments else steps
        running_mean, running_var = self.running_mean[window], self.running_var[window]
        running_mean.lerp_(mean.to(running_mean), a)
        if self.tracking == "variance":
            unbiased = variance * size / (size - 1)
            running_var.lerp_(unbiased.to(running_var), a)
        else:
            deviation = running_var.double().sqrt().lerp(variance.double().sqrt(), a)
            running_var.copy_(deviation.square())

    def affine(self, mean: Tensor, variance: Tensor, steps: slice) -> tuple[Tensor, Tensor]:
        """Scale and shift, each ``[T, C]`` or ``[1, C]``: gamma (x - mean) / sqrt(variance + eps) + beta."""
        scale = self._at(self.gamma, steps) / (variance + self.eps).sqrt()
        shift = -mean * scale
        if self.beta is not None:
            shift = shift + self._at(self.beta, steps)
        return scale, shift

    def temporal_scale(self) -> Tensor | None:
        """The learned scale of each step and channel, ``[T, C]``; None where it does not change with time."""
        return self.gamma.detach() if self.gamma_per_step else None

    # -- what the operator calls -----------------------------------------------------------------------------

    @property
    def pools(self) -> bool:
        """Whether the moments that normalise a step depend on other steps, so that the norm needs all steps at once."""
        return type(self).effective is not TemporalNorm.effective

    def batch_affine(
        self, mean: Tensor, variance: Tensor, rows: int, start: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Differentiable scale and shift ``[T, C]`` from this mini-batch's moments over ``rows`` values in each step.

        With ``start``, the moments are those of the steps ``start ..`` of a longer sequence. Where several processes
        train together, the result is that of the moments over the values of all. Raises ValueError for a wrong number
        of steps, for fewer than 2 values in a step, and for ``start`` with a norm that pools over time-steps.
        """
        if start is None:
            if len(mean) != self.time_steps:
                raise ValueError(f"this norm trains on T = {self.time_steps}, got {len(mean)}")
            start = 0
        elif self.pools:
            raise ValueError(f"{type(self).__name__} pools over time-steps: it cannot be trained in time chunks")
        else:
            self._check_steps(start, len(mean))
        if rows < 2 and processes.count() == 1:
            raise ValueError("batch statistics need more than one value per channel: use a batch of at least 2 samples")
        window = slice(start, start + len(mean))
        mean, variance, size = processes.pooled(mean, variance, rows)
        step = Moments(mean, variance, size.expand(len(mean), 1))
        effective = self.effective(step)
        if self.tracks:
            self._track(Moments(*(a.detach() for a in step)), Moments(*(a.detach() for a in effective)), window)
        return self._expand(self.affine(effective.mean, effective.variance, window), len(mean))

    def inference_affine(self, start: int, steps: int) -> tuple[Tensor, Tensor]:
        """Constant scale and shift ``[steps, C]`` for steps ``start ..``, from the tracked moments.

        Raises ValueError for steps beyond T.
        """
        self._check_steps(start, steps)
        window = slice(start, start + steps)
        mean, variance = self._at(self.running_mean, window), self._at(self.running_var, window)
        return self._expand(self.affine(mean, variance, window), steps)

    @eagerly
    def forward(self, x: Tensor, start: int | None = None) -> Tensor:
        """Normalise currents ``[T, N, C, ...]``, for use as an ordinary module in networks of your own.

        With ``start``, the currents are steps ``start ..`` of a longer sequence. Raises ValueError as `batch_affine`,
        and for currents with another number of channels.
        """
        self.check_channels(x)
        x = floating(x, "currents")
        if self.training:
            rows = x.movedim(2, -1).flatten(1, -2)
            mean, variance = plain.moments(rows)  # differentiable, as the fused backends' are not
            scale, shift = self.batch_affine(mean.double(), variance.double(), rows.shape[1], start)
        else:
            scale, shift = self.inference_affine(start or 0, len(x))
        shape, kind = (len(x), 1, -1) + (1,) * (x.dim() - 3), accumulator(x.dtype)
        scale, shift = (a.to(kind).reshape(shape) for a in (scale, shift))
        return (x * scale + shift).to(x.dtype)  # half precision would cancel

    # -- helpers ---------------------------------------------------------------------------------------------

    def check_channels(self, x: Tensor) -> None:
        """Raise ValueError if ``x [T, N, C, ...]`` has another number of channels than this norm."""
        if x.dim() < 3 or x.shape[2] != self.channels:
            wanted = f"currents [T, N, {self.channels}, ...]"
            raise ValueError(f"this norm has C = {self.channels}: it takes {wanted}, got shape {tuple(x.shape)}")

    def _track(self, step: Moments, effective: Moments, steps: slice) -> None:
        try:
            self.track(step, effective, steps)
        except RuntimeError as error:
            if not torch._C._are_functorch_transforms_active():
                raise
            advice = "pass the buffers to torch.func.functional_call within it, or use eval()"
            raise ValueError(f"no running averages are updated in a torch.func transform: {advice}") from error

    def _check_steps(self, start: int, steps: int) -> None:
        if not 0 <= start <= self.time_steps - steps:
            asked = start + steps if start >= 0 else start
            raise ValueError(f"this norm has T = {self.time_steps}, step {asked} was asked for")

    @staticmethod
    def _at(values: Tensor, steps: slice) -> Tensor:
        return (values if len(values) == 1 else values[steps]).double()

    def _expand(self, pair: tuple[Tensor, Tensor], steps: int) -> tuple[Tensor, Tensor]:
        scale, shift = (a.expand(steps, self.channels) for a in pair)
        return scale, shift

    def extra_repr(self) -> str:
        return f"{self.channels}, time_steps={self.time_steps}, eps={self.eps}, momentum={self.momentum}"


class BNTT(TemporalNorm):
    """Batch Normalization Through Time (Eq. 9): every time-step has its own moments and its own scale; no shift."""

    gamma_per_step = True


class SharedGammaBNTT(TemporalNorm):
    """Control: every step has its own moments, as in BNTT, but all steps share one scale."""


class PooledBN(TemporalNorm):
    """Control: one batch norm with statistics pooled over T and one scale; like BNTT it has no shift."""

    shared_moments = True

    def effective(self, step: Moments) -> Moments:
        return pool_all(step)


class StepGammaPooledBN(PooledBN):
    """Control: statistics pooled over T, a scale for every time-step. With the three above it is a 2 x 2 design."""

    gamma_per_step = True


class RepeatedBN(TemporalNorm):
    """Control: one batch norm called once per time-step, as a naive loop would.

    Each step is normalised by its own mini-batch moments. Each mini-batch updates one pair of running averages T times,
    in the order of the steps. At inference all steps use this pair.
    """

    shared_moments = True

    @torch.no_grad()
    def track(self, step: Moments, effective: Moments, steps: slice) -> None:
        for t in range(len(step.mean)):
            own = Moments(*(a[t : t + 1] for a in step))
            super().track(own, own, steps)


class TDBN(PooledBN):
    """Threshold-dependent BN: statistics pooled over T, a shift, and a scale that starts at the firing threshold."""

    has_bias = True

    def __init__(self, channels: int, time_steps: int, **settings: Any) -> None:
        super().__init__(channels, time_steps, **settings)
        nn.init.constant_(self.gamma, self.threshold)


class WeightedSteps(TemporalNorm):
    """Base of norms that multiply the result of step t, shift included, by a learned weight p[t]."""

    has_bias = True

    def weights(self) -> Tensor:
        """The weight of each step, ``[T, 1]``, in float64."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its weights are")

    def affine(self, mean: Tensor, variance: Tensor, steps: slice) -> tuple[Tensor, Tensor]:
        scale, shift = super().affine(mean, variance, steps)
        weight = self._at(self.weights(), steps)
        return weight * scale, weight * shift

    def temporal_scale(self) -> Tensor:
        return (self.gamma * self.weights()).to(self.gamma).detach()


class TEBN(WeightedSteps, PooledBN):
    """Temporal Effective BN: statistics pooled over T, one scale and shift, and a learned weight p[t] on the result."""

    def __init__(self, channels: int, time_steps: int, **settings: Any) -> None:
        super().__init__(channels, time_steps, **settings)
        self.step_weight = nn.Parameter(torch.ones(time_steps, 1))

    def weights(self) -> Tensor:
        return self.step_weight.double()


class AccumulatedBN(WeightedSteps):
    """Base of the two forms of TAB: step t is normalised by the statistics pooled over steps 1..t.

    Each step has its own scale and shift, and a learned weight p[t] that is not negative multiplies the result.
    """

    gamma_per_step = True

    def effective(self, step: Moments) -> Moments:
        return pool_past(step)


class TAB(AccumulatedBN):
    """Temporal Accumulated BN with the positive weight p[t] = exp(w[t]), which decay draws to 1."""

    def __init__(self, channels: int, time_steps: int, **settings: Any) -> None:
        super().__init__(channels, time_steps, **settings)
        self.log_weight = nn.Parameter(torch.zeros(time_steps, 1))

    def weights(self) -> Tensor:
        return self.log_weight.double().exp()


class ReleasedTAB(AccumulatedBN):
    """Temporal Accumulated BN as its authors released it: eps 1e-5, and p[t] = w[t]^2, which decay draws to 0."""

    def __init__(self, channels: int, time_steps: int, *, eps: float = 1e-5, **settings: Any) -> None:
        super().__init__(channels, time_steps, eps=eps, **settings)
        self.root_weight = nn.Parameter(torch.ones(time_steps, 1))

    def weights(self) -> Tensor:
        return self.root_weight.double().square()


class TSBN(TemporalNorm):
    """Temporal Sliding BN: step t is normalised by the statistics pooled over the last ``window`` steps up to t.

    The idea is that of Wang et al. (2024, RTFormer, arXiv 2406.14180), who released no code that we found. Chosen here:
    the window ends with step t, and the first steps pool those that there are; it is 3 steps long; scale, shift and
    tracked moments are those of each step, as in BNTT and TAB. So a window of 1 has BNTT's statistics, and one of T
    has TAB's. The source folds the norm into the neuron's threshold at inference; here, as for all norms, it is a scale
    and a shift of the current. Raises ValueError for a window of less than 1 step.
    """

    gamma_per_step = True
    has_bias = True

    def __init__(self, channels: int, time_steps: int, *, window: int = 3, **settings: Any) -> None:
        super().__init__(channels, time_steps, **settings)
        if window < 1:
            raise ValueError(f"a window has at least 1 time-step, not {window}")
        self.window = window

    @property
    def pools(self) -> bool:
        return self.window > 1

    def effective(self, step: Moments) -> Moments:
        return pool_past(step, self.window)


NORMS: dict[str, type[TemporalNorm] | None] = {
    "none": None,
    "bntt": BNTT,
    "bntt-shared-gamma": SharedGammaBNTT,
    "bn-pooled": PooledBN,
    "bn-pooled-step-gamma": StepGammaPooledBN,
    "bn-repeated": RepeatedBN,
    "tdbn": TDBN,
    "tebn": TEBN,
    "tab": TAB,
    "tab-released": ReleasedTAB,
    "tsbn": TSBN,
}
