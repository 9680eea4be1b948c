"""Passes over the test images: each is made once, and a stopped evaluation continues within the one it stopped in."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from bntt.training.loop import Keeper

Gathered = dict[str, Any]  # tensors on the CPU, numbers, and dictionaries of these, as a saved state can hold them


class Passes:
    """What the passes of one evaluation have gathered so far, by the name of the pass.

    Nothing is saved, and nothing stops a pass, unless there is a keeper (`keep`).
    """

    def __init__(self) -> None:
        self._keeper: Keeper | None = None
        # For each pass, the number of batches that it has seen, and what it gathered from them.
        self._known: dict[str, tuple[int, Gathered]] = {}

    def keep(self, keeper: "Keeper") -> None:
        """Continue from the state that ``keeper`` has, and save there."""
        self._keeper, self._known = keeper, keeper.load() or {}

    def gather(
        self,
        name: str,
        batches: "Sequence[Tensor]",
        begin: Callable[[], Gathered],
        add: "Callable[[Gathered, Tensor], None]",
    ) -> Gathered:
        """What ``add(gathered, batch)`` makes of ``begin()`` with all batches, one after the other.

        ``name`` says all that distinguishes this pass from others of the evaluation, and its batches are always the
        same. Raises Stopped after a batch if the keeper was asked to stop.
        """
        seen, gathered = self._known.get(name) or (0, begin())
        for number in range(seen, len(batches)):
            add(gathered, batches[number])
            self._known[name] = number + 1, gathered
            if self._keeper is not None and self._keeper.due():
                self._keeper.save(self._known)
        return gathered
