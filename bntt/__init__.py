"""The BNTT reproducibility benchmark: retrain, measure and compare low-latency spiking networks.

Importing the package does not load torch. The first use of one of the building blocks below loads it.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_BLOCKS = {
    "BNTT": "bntt.spiking.norms",
    "LIF": "bntt.spiking.neurons",
    "IF": "bntt.spiking.neurons",
    "OverTime": "bntt.spiking.layers",
    "SpikingLayer": "bntt.spiking.layers",
    "SpikingNetwork": "bntt.spiking.networks",
    "poisson": "bntt.spiking.encoding",
}
__all__ = [*_BLOCKS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _BLOCKS:
        return getattr(import_module(_BLOCKS[name]), name)
    raise AttributeError(f"module 'bntt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_BLOCKS])
