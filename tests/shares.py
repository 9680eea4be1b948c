"""Trains small networks with every temporal norm, in as many processes as torchrun starts, for test_together.py.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/shares.py FOLDER float64
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from bntt.experiment.schema import Run
from bntt.methods import Task, fit_spiking, surrogate
from bntt.runs.checkpoints import Checkpoints
from bntt.runs.contract import made_up, small
from bntt.spiking.networks import initialise
from bntt.spiking.norms import NORMS

SEED, EPOCHS = 3, 7  # of three steps each, of 5, 5 and 2 images, which two processes cannot share evenly


def trained(norm: str, dtype: torch.dtype, chunk: int | None = None, hooked: bool = False) -> dict[str, torch.Tensor]:
    """Weights and running moments after 21 steps; ``hooked`` norms are called as modules, outside the fused passes."""
    data = made_up("colour images")
    options = small("surrogate", {"norm": norm, "epochs": EPOCHS, "learning_rate": 0.05, "gain": 3.0, "leak": 0.9})
    run = Run("shares", "made up", norm, SEED, "surrogate", None, 1, options, {})
    network = surrogate.build(options, data)
    initialise(network, SEED, options["gain"])
    network.to(dtype)
    for module in network.norms().values() if hooked else ():
        module.register_forward_hook(lambda *given: None)
    with tempfile.TemporaryDirectory() as folder:
        task = Task(run, data, Checkpoints(Path(folder)))
        made = fit_spiking(task, network, contributions=lambda spikes: network(spikes, chunk), dtype=dtype)
    history = {f"history {i}": torch.tensor(list(row.values())[1:-1]) for i, row in enumerate(made.outcome.history)}
    return {**made.weights, **history}


def all_trained(dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor]]:
    """Every norm, one in time chunks, and one whose norms are called as modules."""
    found = {norm: trained(norm, dtype) for norm in NORMS}
    return found | {"chunked": trained("bntt", dtype, chunk=2), "called": trained("tebn", dtype, hooked=True)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = all_trained(getattr(torch, sys.argv[2]))
    torch.save(found, Path(sys.argv[1]) / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()
