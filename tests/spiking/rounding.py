"""How far float32 may lie from float64, given the numbers at hand: magnitudes, lengths of sums, cancellation.

A bound that one processor's results suggest is wrong on the next, which adds up in another order. `Rounding` runs a
computation in float64 and disturbs each of its results as float32 would round it; what comes out differs from the
undisturbed as far as roundings carry. `of_products` is the same for convolutions and matrix products, written out.

The rule for a sum of n terms: each of its running values is rounded. They grow in proportion to the sum where it has a
drift, and beside it as a random walk, so that independent roundings add up to about ``sqrt(n) |sum| + sum |terms|``
units, whatever the order (Higham and Mary, 2019, have the first part for terms of one sign).
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNIT = 2.0**-24  # the unit roundoff of float32
MARGIN = 16  # of random roundings: for the largest of many entries, and for sums whose terms are not independent
DRAWS = 2

ROUNDED = {"add", "addcmul", "div", "exp", "mul", "pow", "reciprocal", "rsub", "sqrt", "square", "sub"}
SUMS = {"mean", "sum"}
PRODUCTS = {"convolution", "mm"}


class Rounding(TorchDispatchMode):
    """Within it every result of float64 arithmetic, convolutions included, is off by a random rounding of float32."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draws = np.random.default_rng(seed)  # draws four times as fast as torch

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__.rstrip("_")
        if name not in ROUNDED | SUMS | PRODUCTS or out.dtype != torch.float64:
            return out
        size = out.abs()
        if name in SUMS:
            size = _of_sum(out, func(args[0].abs(), *args[1:], **kwargs), args[0].numel() / out.numel())
        if name in PRODUCTS:
            terms = args[1][0].numel() if name == "convolution" else len(args[1])
            size = _of_sum(out, func(args[0].abs(), args[1].abs(), *args[2:], **kwargs), terms)
        noise = torch.from_numpy(self.draws.random(tuple(out.shape))).sub_(0.5)
        return out.addcmul_(size, noise, value=2 * UNIT)


def bounds(compute) -> list[float]:
    """How far float32 may be anywhere from each of the tensors that ``compute()`` gives in float64.

    What is disturbed is compared with itself undisturbed: a fault in it does not widen the bound.
    """
    exact = compute()
    furthest = [0.0] * len(exact)
    for seed in range(DRAWS):
        with Rounding(seed):
            disturbed = compute()
        pairs = zip(furthest, disturbed, exact, strict=True)
        furthest = [max(f, (d - e).abs().max().item()) for f, d, e in pairs]
    return [MARGIN * f for f in furthest]


def of_products(sums: Tensor, magnitudes: Tensor, terms: int) -> Tensor:
    """The same for sums of ``terms`` products each, entry by entry; ``magnitudes`` are those of absolute products."""
    return MARGIN * UNIT * _of_sum(sums, magnitudes, terms)


def _of_sum(total: Tensor, magnitudes: Tensor, terms: float) -> Tensor:
    return math.sqrt(terms) * total.abs() + magnitudes
