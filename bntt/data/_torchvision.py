"""The only module that imports torchvision.

The torchvision wheel of the package index is built for a CUDA version of torch. With a CPU-only torch, its compiled
library cannot be loaded, so its operators are not declared. Importing the package then fails with "operator
torchvision::nms does not exist". Declaring two operators is enough for datasets and transforms, which are plain Python.
Detection operators stay unavailable.
"""

import sys
from importlib import import_module
from types import ModuleType

import torch

from bntt.common.errors import UserError

_declarations: list[torch.library.Library] = []  # torch forgets an operator when its library object is gone


def torchvision() -> ModuleType:
    """The torchvision package; the operators are declared only if importing it failed because they were missing."""
    try:
        return import_module("torchvision")
    except ModuleNotFoundError:
        raise UserError(
            "this layout is read through torchvision, which is not installed; `pip install torchvision`"
        ) from None
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declarations.append(library)
    return import_module("torchvision")
