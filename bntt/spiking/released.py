"""Reads a state dict of the released code, for a `SpikingNetwork`."""

import re
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from bntt.common.errors import UserError

# The names that nn.DataParallel and DDP, torch.compile, FSDP and activation checkpoints put around a module.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
LAYER = r"(?:conv\d+|fc\d+|bntt\d+|bntt_fc)"
COUNTER = re.compile(r"bntt(?:\d+|_fc)\.\d+\.num_batches_tracked")
ENTRIES = {"gamma": "weight", "running_mean": "running_mean", "running_var": "running_var"}


def from_released(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert a state dict of the released code (``conv1.weight``, ``bntt1.0.weight``, ...) for a `SpikingNetwork`.

    This works for the released VGG9 and VGG11. Entries of single steps are stacked over time, and counters are dropped.
    The state dict may lie within a checkpoint, as in ``{"state_dict": ..., "epoch": ...}``, and its names may begin
    with those of wrappers, as in ``module._orig_mod.conv1.weight``.

    Raises UserError, with the names, for what a `SpikingNetwork` cannot represent, such as biases, and for entries that
    are missing or do not fit together.
    """
    state = _entries(state)
    left = dict(state)

    def take(key: str, *shape: int | None) -> Tensor:
        """The entry, which must have this shape; None stands for any length."""
        if key not in left:
            raise UserError(f"the released code's state dict has no {key}")
        value = left.pop(key)
        lengths = tuple(value.shape)
        if len(lengths) != len(shape) or any(b not in (None, a) for a, b in zip(lengths, shape, strict=True)):
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise UserError(f"{key} has shape {lengths}, a released network with these layers has ({wanted})")
        return value

    out: dict[str, Tensor] = {}
    numbers = [int(match[1]) for key in state if (match := re.match(r"(?:conv|bntt)(\d+)\.", key))]
    channels: int | None = None
    steps: int | None = None
    names = [f"conv{number}" for number in range(1, max(numbers, default=1) + 1)]
    for name in [*names, "fc1"]:
        if name == "fc1":
            weight = take("fc1.weight", None, None)
            if channels and weight.shape[1] % channels:
                raise UserError(f"fc1.weight takes {weight.shape[1]} features, no multiple of {channels} channels")
            norm = "bntt_fc"
        else:
            weight = take(f"{name}.weight", None, channels, 3, 3)
            norm = f"bntt{name[4:]}"
        channels = len(weight)
        out[f"layers.{name}.connection.weight"] = weight
        own = 1 + max((int(key.split(".")[1]) for key in state if re.match(rf"{norm}\.\d+\.", key)), default=0)
        if steps is not None and own != steps:
            raise UserError(f"{norm} has {own} time-steps, the norms before it have {steps}")
        steps = own
        for mine, entry in ENTRIES.items():
            values = [take(f"{norm}.{t}.{entry}", channels) for t in range(steps)]
            out[f"layers.{name}.norm.{mine}"] = torch.stack(values)
    out["classifier.weight"] = take("fc2.weight", None, channels)
    unknown = [key for key in left if not COUNTER.fullmatch(key)]
    if unknown:
        listed = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        biases = " (it has no biases)" if any(key.endswith(".bias") for key in unknown) else ""
        raise UserError(f"a SpikingNetwork cannot represent {listed} of this state dict{biases}")
    return out


def _entries(given: Any) -> dict[str, Tensor]:
    """The tensors of the one state dict in ``given``, by their names in the released code."""
    found = dict(_state_dicts(given, ""))
    if not found:
        raise UserError(f"no state dict of the released code (conv1.weight, bntt1.0.weight, ...): {_instead(given)}")
    if len(found) > 1:
        raise UserError(f"there are {len(found)} state dicts, {', '.join(found)}: pass one of them")
    (state,) = found.values()
    names = {key: [part for part in str(key).split(".") if part not in WRAPPERS] or [str(key)] for key in state}
    while (
        len({parts[0] for parts in names.values()}) == 1
        and all(len(parts) > 1 for parts in names.values())
        and not re.fullmatch(LAYER, next(iter(names.values()))[0])
    ):
        names = {key: parts[1:] for key, parts in names.items()}  # `net.` before all names, as Lightning has it
    entries: dict[str, Tensor] = {}
    for key, parts in names.items():
        value, name = state[key], ".".join(parts)
        if name in entries:
            raise UserError(f"{name} is there twice, once as {key}")
        if not isinstance(value, Tensor) or not (value.is_floating_point() or COUNTER.fullmatch(name)):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{key} is not a tensor of floating-point numbers but {kind}")
        entries[name] = value
    return entries


def _state_dicts(given: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping within ``given`` that has the released code's names, and where it is."""
    if isinstance(given, Mapping):
        if any(isinstance(key, str) and re.search(rf"(?:^|\.){LAYER}\.", key) for key in given):
            yield place, given
            return
        for key, value in given.items():
            yield from _state_dicts(value, f"{place}[{key!r}]")


def _instead(given: Any) -> str:
    if isinstance(given, str | PathLike):
        return f"{given} is a path, load the file with torch.load"
    if not isinstance(given, Mapping):
        advice = ", pass its state_dict()" if isinstance(given, nn.Module) else ""
        return f"this is a {type(given).__name__}{advice}"
    whole = [key for key, value in given.items() if isinstance(value, nn.Module)]
    if whole:
        return f"{whole[0]!r} is a whole {type(given[whole[0]]).__name__}, pass its state_dict()"
    return f"this has {', '.join(map(repr, list(given)[:4]))}" if given else "this is empty"
