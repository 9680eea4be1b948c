"""How far weight decay can shrink gamma in the paper's protocol and in the released code's."""

from typing import NamedTuple


class Decay(NamedTuple):
    """A weight decay on gamma, the training steps, and by how many e-folds the decay alone shrinks gamma."""

    source: str
    decay: float
    steps: int
    budget: float  # sum over all steps of learning rate * decay, over 1 - momentum


# CIFAR-10 at batch 256, 195 batches an epoch; learning rate 0.3, / 10 at 50, 70 and 90 % of the epochs; momentum 0.9.
PAPER = Decay("paper's text, CIFAR-10", 5e-4, 120 * 195, 18.3)
RELEASED = Decay("released code, CIFAR-10", 1e-4, 100 * 195, 3.1)
