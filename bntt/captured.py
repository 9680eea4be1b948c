"""A training step as one CUDA graph: captured once, then started with one call instead of thousands of kernel launches.

Replaying runs the very kernels that the step would have run, on the same memory, so the numbers are the same bit for
bit. What a step must keep to is said at `CapturedStep`. Needs a CUDA device; whether to use it is the caller's choice.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

WARM_UP = 3  # runs before the capture, in which kernels are compiled and libraries make their choices


def words(key: int, device: torch.device) -> Tensor:
    """A 64-bit key as an input of a captured step: its lower and its upper 32 bits, int64."""
    return torch.tensor([key & 0xFFFFFFFF, key >> 32], device=device)


class CapturedStep:
    """``step(*inputs)`` as a CUDA graph, called like it.

    The step does all of its work in place, on the device: encoding, forward, loss, ``optimiser.zero_grad()``, backward,
    ``optimiser.step()``, and adding up what it counts. It never waits for the device (no ``item``, no shape that
    depends on a value), takes what changes from call to call as tensors, and draws no number from a generator: keys are
    inputs, see `words`. Python numbers are captured as they are, the learning rate among them, so another rate needs
    another capture. A batch of another size is a call of the step itself, which may come in between.

    Parameters
    ----------
    step
        The function to capture.
    model, optimiser
        What it trains. The optimiser is SGD without dampening, with or without momentum; its state is loaded before.
    inputs
        An example of its arguments, whose shapes all calls share.
    counters
        Other tensors that the step changes.
    """

    def __init__(
        self,
        step: Callable[..., None],
        model: nn.Module,
        optimiser: torch.optim.SGD,
        inputs: Iterable[Tensor],
        counters: Iterable[Tensor] = (),
    ) -> None:
        if any(group["dampening"] for group in optimiser.param_groups):
            raise ValueError("a step with dampening cannot be captured: its first momentum is not that of a zero one")
        self._inputs = [given.clone() for given in inputs]
        touched = [*model.parameters(), *model.buffers(), *counters, *_momenta(optimiser)]
        kept = [(tensor, tensor.detach().clone()) for tensor in touched]

        # A graph cannot be captured on the default stream, and what runs beforehand must not be in flight on it.
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(*self._inputs)
        current.wait_stream(side)

        with torch.no_grad():
            for buffer in _momenta(optimiser):
                buffer.zero_()  # made by the warm-up; from zero, the first step is what it is without a buffer
            for tensor, before in kept:
                tensor.copy_(before)
        optimiser.zero_grad(set_to_none=True)  # so that the gradients too lie in the graph's own memory
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step(*self._inputs)

    def __call__(self, *inputs: Tensor) -> None:
        """Run the step on other inputs of the same shapes; returns before the device is done."""
        for buffer, given in zip(self._inputs, inputs, strict=True):
            if buffer.shape != given.shape:
                raise ValueError(f"captured for shape {tuple(buffer.shape)}, called with {tuple(given.shape)}")
            buffer.copy_(given)
        self._graph.replay()


def _momenta(optimiser: torch.optim.SGD) -> list[Tensor]:
    buffers = [state.get("momentum_buffer") for state in optimiser.state.values()]
    return [buffer for buffer in buffers if buffer is not None]
