"""One training in several processes, each with a share of every batch: what they must add up to be as one.

The moments of a batch are ``[T, C]``, so their exact sum over processes costs little, and every temporal norm has the
statistics of the whole batch. The processes are those of PyTorch's default process group; without one there is one.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


class _Summed(torch.autograd.Function):
    """The sum over processes. What each makes of it goes into one loss, so their gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return add(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return add(gradient.clone(memory_format=torch.contiguous_format))


def add(x: Tensor) -> Tensor:
    """``x`` itself, which has become the sum over processes; not differentiable."""
    if count() > 1:
        dist.all_reduce(x)
    return x


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every parameter's gradient the sum over processes, in which all of them have the same ones."""
    if count() > 1:
        for work in [dist.all_reduce(p.grad, async_op=True) for p in parameters if p.grad is not None]:
            work.wait()


def pooled(mean: Tensor, variance: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Moments over the rows of all processes, from those over the ``rows`` of this one, and the number of all rows.

    ``mean`` and biased ``variance`` are ``[T, C]``, and the number is ``()``. Differentiable: the gradient of what all
    processes make of the result reaches the moments of each.
    """
    size = torch.full((), float(rows), dtype=mean.dtype, device=mean.device)  # made there, so nothing is copied
    if count() == 1:
        return mean, variance, size
    total = add(size.clone())
    share = size / total
    of_all = _Summed.apply(share * mean)
    return of_all, _Summed.apply(share * (variance + (mean - of_all).square())), total


def share_of(batch: Tensor) -> Tensor:
    """This process's part of a batch ``[N, ...]``."""
    return batch.tensor_split(count())[rank()]
