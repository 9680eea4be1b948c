"""One training in several processes, which torchrun started: they meet, decide together, and the first one writes.

The first process owns the run directory, and its files are those of a training in one process. So a training goes on
from its saved state with any number of processes. `bntt.spiking.processes` adds up what they compute.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bntt.common.errors import Stopped, UserError
from bntt.experiment import declared
from bntt.experiment.schema import Run
from bntt.runs.checkpoints import Checkpoints
from bntt.spiking import processes

Value = TypeVar("Value")
PATIENCE = timedelta(days=30)  # while the first process waits for the owner of the run; torchrun ends all if one fails


@contextmanager
def joined(run: Run) -> Iterator[None]:
    """Meet the other processes, if torchrun started this one; UserError for a method that does not train so.

    Sums on CPUs are gloo's and sums on GPUs NCCL's.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield
        return
    if not declared.literal(declared.plugins("methods", "OPTIONS")[run.method], "DATA_PARALLEL"):
        raise UserError(
            f"row {run.row}: method {run.method} does not train in several processes, as it does not declare "
            "DATA_PARALLEL = True; start it without torchrun"
        )
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def of_first(value: Value) -> Value:
    """The first process's value, in all."""
    if processes.count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def any_of(flag: bool) -> bool:
    """Whether the flag is set in one of the processes."""
    return bool(processes.add(torch.tensor(int(flag))).item())


class Together:
    """The keeper of a training in several processes: all save and stop after the same step, and the first writes."""

    def __init__(self, own: Checkpoints) -> None:
        """``own`` is this process's keeper, whose files are used if it is the first."""
        self.own = own

    @property
    def seconds(self) -> float:
        return self.own.seconds

    def listening(self) -> AbstractContextManager[None]:
        return self.own.listening()

    def load(self) -> Any | None:
        return of_first(self.own.load() if processes.rank() == 0 else None)

    def due(self) -> bool:
        return any_of(self.own.due())

    def save(self, state: Any) -> None:
        stopping = any_of(self.own.stop.reason is not None)
        interrupted = any_of(self.own.stop.interrupted)
        if processes.rank() == 0:
            self.own.write(state)
        self.own.saved()
        if stopping:
            reason = of_first(self.own.stop.reason) or "stopped because another process of this training was"
            raise Stopped(reason, interrupted)
