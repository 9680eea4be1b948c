"""A hierarchy of time surfaces, HOTS (Lagorce et al. 2016).

An event of a layer has a time t, a place and a feature p: its polarity in the first layer, later the number of the
prototype that the layer before it gave the event. Its time surface, for each feature q and each offset of at most R
pixels along x and y, is

    S(q, dx, dy) = exp(-(t - t_last(q, x + dx, y + dy)) / tau)

with t_last the time of the last event of feature q at that pixel, the event itself included, so S(p, 0, 0) = 1. It is 0
where no event of this recording came yet, and outside the sensor. The event is given the number k of the prototype C_k
whose cosine with S is largest, the lowest of equals. Learning moves this prototype, which p_k events moved before:

    C_k <- C_k + alpha (S - beta C_k),  alpha = rate / (1 + p_k / slowing),  beta = cosine of C_k and S

The compiled code holds a map of exp((t_last - origin) / tau). A time surface is a patch of it times a factor, which
changes no cosine; so an event needs one exponential.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bntt.data.events.streams import Streams, columns, joined, microseconds, polarities, rows
from bntt.features import checks
from bntt.features.native import Native

MOST = 16  # prototypes of a layer


@dataclass(frozen=True)
class Layer:
    """One layer: ``prototypes [N, Q, 2 R + 1, 2 R + 1]`` float64, axes q, dy and dx, and tau in microseconds."""

    prototypes: np.ndarray
    tau: float

    def __post_init__(self) -> None:
        """Raise ValueError for prototypes of another shape or without a norm, and for a tau that is not above 0."""
        shape = self.prototypes.shape
        if len(shape) != 4 or shape[2] != shape[3] or shape[2] % 2 == 0 or not 1 <= shape[0] <= MOST or shape[1] < 1:
            raise ValueError(f"prototypes are [N, Q, 2 R + 1, 2 R + 1] with N at most {MOST}, not {shape}")
        if self.prototypes.dtype != np.float64 or not self.prototypes.flags.c_contiguous:
            raise ValueError(f"prototypes must be a contiguous array of float64, not {self.prototypes.dtype}")
        norms = _norms(self.prototypes)
        if not (np.isfinite(norms) & (norms > 0)).all() or not self.tau > 0:
            raise ValueError("every prototype must have a finite norm above 0, and tau must be above 0")

    @property
    def radius(self) -> int:
        return self.prototypes.shape[2] // 2


def first_features(streams: Streams) -> np.ndarray:
    """The features of the first layer's events: their polarities, uint8 ``[E]``."""
    return polarities(streams.words)


def surface(words: np.ndarray, features: np.ndarray, count: int, radius: int, tau: float, side: int) -> np.ndarray:
    """The time surface ``[count, 2 R + 1, 2 R + 1]`` of the last of a recording's first events.

    ``features`` are those of the events, and ``count`` is the number of features that there are.
    """
    time = microseconds(words).astype(np.float64)
    last = np.full((count, side + 2 * radius, side + 2 * radius), -np.inf)
    last[features, rows(words).astype(int) + radius, columns(words).astype(int) + radius] = time  # the last one stays
    y, x = int(rows(words[-1:])[0]), int(columns(words[-1:])[0])
    patch = last[:, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
    return np.exp((patch - time[-1]) / tau)


def numbers(streams: Streams, features: np.ndarray, layer: Layer) -> np.ndarray:
    """The number of the nearest prototype of each event, uint8 ``[E]``; ``features`` uint8 ``[E]`` go in.

    Raises ValueError for events that are not in the order of time, not on the sensor, or of a feature that the layer
    does not know.
    """
    _check(streams, features, layer)
    library = _native.library
    if library is not None:
        return _compiled_numbers(library, streams, features, layer)
    return _reference_numbers(streams, features, layer)


def learned(
    streams: Streams, features: np.ndarray, layer: Layer, rate: float = 0.01, slowing: float = 20000.0
) -> tuple[Layer, np.ndarray]:
    """The layer after all events in turn have moved its prototypes, and how many events moved each, int64 ``[N]``.

    Raises ValueError as `numbers` does, and for a rate outside 0 to 1 or a slowing that is not above 0.
    """
    _check(streams, features, layer)
    if not 0 <= rate <= 1 or not slowing > 0:
        raise ValueError(f"the rate is from 0 to 1 and the slowing above 0, not {rate} and {slowing}")
    library = _native.library
    if library is not None:
        return _compiled_learned(library, streams, features, layer, rate, slowing)
    moved = np.zeros(len(layer.prototypes), np.int64)
    for words, own in _each(streams, features):
        _, layer, moved = reference(words, own, layer, streams.side, (rate, slowing, moved))
    return layer, moved


def reference(
    words: np.ndarray,
    features: np.ndarray,
    layer: Layer,
    side: int,
    learning: tuple[float, float, np.ndarray] | None = None,
) -> tuple[np.ndarray, Layer, np.ndarray]:
    """One recording, event by event: the numbers uint8 ``[E]``, and the layer and counts after learning, if asked for.

    ``learning`` are rate, slowing, and how many events moved each prototype before.
    """
    rate, slowing, moved = learning or (0.0, 1.0, np.zeros(len(layer.prototypes)))
    prototypes, moved, radius = layer.prototypes.copy(), moved.copy(), layer.radius
    last = np.full((prototypes.shape[1], side + 2 * radius, side + 2 * radius), -np.inf)
    found = np.empty(len(words), np.uint8)
    flat = prototypes.reshape(len(prototypes), -1)  # shares its memory
    norms = _norms(prototypes)
    places = zip(microseconds(words).tolist(), rows(words).tolist(), columns(words).tolist(), strict=True)
    for number, ((time, y, x), feature) in enumerate(zip(places, features.tolist(), strict=True)):
        last[feature, y + radius, x + radius] = time
        patch = last[:, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
        s = np.exp((patch - time) / layer.tau).ravel()
        products = flat @ s
        k = found[number] = np.argmax(products / norms)
        if learning is not None:
            beta = products[k] / (norms[k] * np.sqrt(s @ s))
            flat[k] += rate / (1 + moved[k] / slowing) * (s - beta * flat[k])
            norms[k] = np.sqrt(flat[k] @ flat[k])
            moved[k] += 1
    return found, Layer(prototypes, layer.tau), moved


def _reference_numbers(streams: Streams, features: np.ndarray, layer: Layer) -> np.ndarray:
    parts = [reference(words, own, layer, streams.side)[0] for words, own in _each(streams, features)]
    return np.concatenate([np.zeros(0, np.uint8), *parts])


def _each(streams: Streams, features: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The words of each recording, and the features of its events."""
    for words, (begin, end) in zip(streams, pairwise(streams.offsets), strict=True):
        yield words, features[begin:end]


def _norms(prototypes: np.ndarray) -> np.ndarray:
    return np.sqrt((prototypes**2).sum((1, 2, 3)))


def _check(streams: Streams, features: np.ndarray, layer: Layer) -> None:
    checks.streams(streams)
    if features.dtype != np.uint8 or features.shape != streams.words.shape or not features.flags.c_contiguous:
        raise ValueError(
            f"features must be contiguous uint8 {streams.words.shape}, not {features.dtype} {features.shape}"
        )
    known = layer.prototypes.shape[1]
    if len(features) and features.max() >= known:
        raise ValueError(f"there is an event of feature {features.max()}, and the layer knows {known}")


def _interleaved(prototypes: np.ndarray, kind: type) -> np.ndarray:
    """Prototypes as the compiled code reads them: ``[dy, dx, Q, width]``, with zeros up to a width of 4, 8 or 16."""
    count = len(prototypes)
    width = next(width for width in (4, 8, 16) if width >= count)
    padded = np.zeros((*prototypes.shape[2:], prototypes.shape[1], width), kind)
    padded[..., :count] = prototypes.transpose(2, 3, 1, 0)
    return padded


def _compiled_numbers(library: ctypes.CDLL, streams: Streams, features: np.ndarray, layer: Layer) -> np.ndarray:
    unit = layer.prototypes / _norms(layer.prototypes)[:, None, None, None]
    weights = _interleaved(unit, np.float32)
    found = np.empty(len(features), np.uint8)
    library.hots_numbers(
        *checks.pointers(streams), len(streams), streams.side, features.ctypes.data, layer.prototypes.shape[1],
        layer.radius, layer.tau, weights.ctypes.data, len(unit), weights.shape[-1], found.ctypes.data,
    )  # fmt: skip
    return found


def _compiled_learned(
    library: ctypes.CDLL, streams: Streams, features: np.ndarray, layer: Layer, rate: float, slowing: float
) -> tuple[Layer, np.ndarray]:
    count = len(layer.prototypes)
    weights = _interleaved(layer.prototypes, np.float64)
    moved = np.zeros(count, np.int64)
    library.hots_learned(
        *checks.pointers(streams), len(streams), streams.side, features.ctypes.data, layer.prototypes.shape[1],
        layer.radius, layer.tau, weights.ctypes.data, count, weights.shape[-1], rate, slowing, moved.ctypes.data,
    )  # fmt: skip
    return Layer(np.ascontiguousarray(weights[..., :count].transpose(3, 2, 0, 1)), layer.tau), moved


def _fault(library: ctypes.CDLL) -> str | None:
    """Compare the compiled code with the reference on random events and prototypes."""
    for count, known, radius, tau in ((4, 2, 1, 300.0), (7, 4, 2, 20.0), (16, 8, 3, 1e5)):
        streams, features, layer = example(count, known, radius, tau)
        found = _compiled_numbers(library, streams, features, layer)
        wrong = int((found != _reference_numbers(streams, features, layer)).sum())
        if wrong > len(found) // 100:  # two prototypes can be equally near, up to rounding
            return f"{wrong} of {len(found)} events are given another prototype in the self-check"
        one = streams.take([0])
        expected, moved = layer, np.zeros(count, np.int64)
        _, expected, moved = reference(one.words, features[: len(one.words)], layer, one.side, (0.1, 50.0, moved))
        got, counted = _compiled_learned(library, one, features[: len(one.words)], layer, 0.1, 50.0)
        if (counted != moved).any() or not np.allclose(got.prototypes, expected.prototypes, rtol=1e-9, atol=1e-12):
            return "prototypes are moved otherwise in the self-check"
    return None


def example(count: int, known: int, radius: int, tau: float, side: int = 19) -> tuple[Streams, np.ndarray, Layer]:
    """Two random recordings and an empty one, random features, and a layer with random prototypes, for self-checks."""
    recordings = joined([checks.random_words(events, side, seed=events) for events in (150, 0, 90)])
    draws = np.random.default_rng(count)
    features = draws.integers(0, known, len(recordings.words)).astype(np.uint8)
    width = 2 * radius + 1
    return (
        Streams(recordings.words, recordings.offsets, side),
        features,
        Layer(draws.random((count, known, width, width)), tau),
    )


_native = Native(__file__, {"hots_numbers": "ppnnpnndpnnp", "hots_learned": "ppnnpnndpnnddp"}, _fault)
