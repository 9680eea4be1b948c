"""Histograms of averaged time surfaces, HATS (Sironi et al. 2018).

The sensor is divided into cells of K x K pixels. The time surface of event i, for offsets z = (dx, dy) of at most rho
pixels, sums over the events j that came before it in its cell, with its polarity, at its pixel plus z:

    T_i(z) = sum of exp(-(t_i - t_j) / tau) over t_i - window <= t_j < t_i

The feature of a cell and polarity is the mean of T_i over the events i of this cell and polarity. It is 0 where there
is none. An event at the very time of event i is not before it, and event i itself does not count either.
"""

import ctypes
from dataclasses import dataclass

import numpy as np

from bntt.data.events.streams import Streams, columns, joined, microseconds, polarities, rows
from bntt.features import checks
from bntt.features.native import Native


@dataclass(frozen=True)
class Surface:
    """The constants: cell side K and radius rho in pixels, window and decay tau in microseconds."""

    cell: int = 10
    radius: int = 3
    window: float = 1e5
    tau: float = 1e9

    def __post_init__(self) -> None:
        """Raise ValueError for constants with which no surface is defined."""
        if self.cell < 1 or self.radius < 0 or not self.window > 0 or not self.tau > 0:
            raise ValueError(f"cell and radius are 1 and 0 at least, window and tau are above 0; got {self}")

    def shape(self, side: int) -> tuple[int, int, int, int, int]:
        """Shape of a recording's features on a sensor of ``side`` pixels: cells in y and x, polarity, dy, dx."""
        cells, width = -(-side // self.cell), 2 * self.radius + 1
        return cells, cells, 2, width, width


def surfaces(streams: Streams, constants: Surface) -> np.ndarray:
    """The averaged surfaces of recordings, float32 ``[N, cells, cells, 2, 2 rho + 1, 2 rho + 1]``.

    Axes: recording, cell row, cell column, polarity (OFF, ON), dy, dx. Raises ValueError for events that are not in the
    order of time, or not on the sensor.
    """
    checks.streams(streams)
    shape = constants.shape(streams.side)
    library = _native.library
    if library is not None:
        return _compiled(library, streams, constants)
    return np.array([reference(words, streams.side, constants) for words in streams], np.float32).reshape(-1, *shape)


def reference(words: np.ndarray, side: int, constants: Surface) -> np.ndarray:
    """The averaged surfaces of one recording, float64; its time is quadratic in the number of events of a cell."""
    found = np.zeros(constants.shape(side))
    x, y, time = (part(words).astype(np.int64) for part in (columns, rows, microseconds))
    place = np.stack([y // constants.cell, x // constants.cell, polarities(words)])
    rho = constants.radius
    for group in np.unique(place, axis=1).T:
        those = np.flatnonzero((place == group[:, None]).all(0))
        ago, dy, dx = (values[those] - values[those][:, None] for values in (-time, y, x))  # [event i, event j]
        counts = (ago > 0) & (ago <= constants.window) & (abs(dy) <= rho) & (abs(dx) <= rho)
        surface = found[tuple(group)]
        np.add.at(surface, (dy[counts] + rho, dx[counts] + rho), np.exp(-ago[counts] / constants.tau))
        surface /= len(those)
    return found


def _compiled(library: ctypes.CDLL, streams: Streams, constants: Surface) -> np.ndarray:
    found = np.empty((len(streams), *constants.shape(streams.side)), np.float32)
    library.hats(
        *checks.pointers(streams), len(streams), streams.side, constants.cell, constants.radius, constants.window,
        constants.tau, found.ctypes.data,
    )  # fmt: skip
    return found


def _fault(library: ctypes.CDLL) -> str | None:
    """Compare the compiled code with the reference on random events, with constants that reach every branch."""
    streams = joined([checks.random_words(count, side=23, seed=count) for count in (400, 0, 1)])
    streams = Streams(streams.words, streams.offsets, side=23)
    for constants in (Surface(), Surface(cell=7, radius=2, window=900.0, tau=3.0)):
        found = _compiled(library, streams, constants)
        expected = np.array([reference(words, streams.side, constants) for words in streams])
        if not np.allclose(found, expected, rtol=1e-5, atol=1e-7):
            return f"surfaces are off by {abs(found - expected).max():.1e} in the self-check"
    return None


_native = Native(__file__, {"hats": "ppnnnnddp"}, _fault)
