"""HFirst: four layers of spiking neurons on single events, S1, C1, S2 and C2 (Orchard et al. 2015).

The order of spikes carries the information: the neuron whose stimulus fits best fires first, and resets its rivals.

* **Noise filter.** An event is kept if one of the 8 pixels around it had an event, of either polarity, less than 10 ms
  before. A repetition of the event before it, at its pixel and with its polarity, is dropped.
* **S1.** At each pixel, for ON and for OFF apart, 12 neurons with Gabor kernels g of 7 x 7 pixels:
  ``g(x, y) = exp(-(u^2 + gamma^2 v^2) / (2 sigma^2)) cos(2 pi u / lambda + psi)``, where (u, v) is (x, y) turned by
  ``k pi / 12``. A kernel has mean zero and the norm 100 mV. An event adds the kernels to the potentials around it. A
  potential leaks towards 0, from above and from below, by 25 mV per ms. Above 150 mV the neuron fires. All neurons of
  its pixel and polarity are then set to 0 and take nothing in for 5 ms.
* **C1.** One unit for 4 x 4 pixels, and for both polarities. It passes on the first spike, with its orientation, and
  then none, of any orientation, for 5 ms.
* **S2.** One neuron for each class, over the whole map of C1. Its synapses are the template of the class: the histogram
  of the C1 spikes of its training recordings, over place and orientation, scaled to the norm 100 mV. A synapse below
  1 mV, thus also one without a spike, is -1 mV. The leak is 1 mV per ms, the threshold 150 mV. A spike sets all classes
  to 0, and all take nothing in for 5 ms.
* **C2.** As C1, over 8 x 8 positions of S2. The votes for a class are its C2 spikes.

Source: the paper and its authors' program (github.com/gorchard/HFIRST), which fixes all constants above. It rounds
times to milliseconds and weights to millivolts. Here times are the microseconds of the recording and voltages whole
microvolts, so that results are the same on all machines. A pixel that had no event yet is no neighbour with an event
(the program takes the time 0 for it). The program's sensor ends at the largest coordinate of a recording; here it is
the sensor. Where neurons fire at the very same event, spikes are in the order of orientation or class, x and y, as in
the program; so the first of them wins a pool. The template covers the whole map, as in the program's example, so there
is one position of S2, and C2 has nothing to pool but classes that fire at one event.

A spike is a row ``(time in microseconds, x, y, channel)`` of int32; the channel is an orientation or a class.
"""

import ctypes
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from bntt.data.events.streams import Streams, columns, microseconds, polarities, rows
from bntt.data.images import Images
from bntt.features import checks
from bntt.features.native import Native

OPTIONS = {
    "noise_filter": {
        "default": 10.0,
        "min": 0.0,
        "max": 1e6,
        "help": "HFirst: milliseconds within which a pixel around an event must have had one. 0: no filter.",
    },
    "s1_threshold": {
        "default": 150.0, "above": 0.0, "max": 1000.0, "help": "HFirst: threshold of layer S1, millivolts."
    },
    "s1_decay": {"default": 25.0, "min": 0.0, "max": 1e6, "help": "HFirst: leak of layer S1, millivolts per ms."},
    "refractory": {
        "default": 5.0, "min": 0.0, "max": 1e6, "help": "HFirst: refractory period of all layers, milliseconds."
    },
}  # fmt: skip
ORIENTATIONS = 12
SIZE = 7  # pixels of a kernel's side
SIGMA, LAMBDA, PSI, GAMMA = 2.8, 5.0, 0.0, 0.3  # pixels, pixels, radians, ratio
NORM = 100_000  # microvolts, of a kernel and of a template
WEAKEST, INHIBITION = 1000, -1000  # microvolts: a weaker synapse of a template becomes inhibitory
C1_EXTENT, C2_EXTENT = 4, 8
_NEVER = -(2**30)  # microseconds: longer ago than any period, the longest of which is 10^9
_FLOOR = -(2**30)  # microvolts; no potential is below


@dataclass(frozen=True)
class Neuron:
    """A leaky integrate-and-fire neuron: threshold in mV, leak in mV per ms, refractory period in ms."""

    threshold: float
    decay: float
    refractory: float

    @property
    def whole(self) -> tuple[int, int, int]:
        """Threshold in microvolts, leak in nanovolts per microsecond, refractory period in microseconds."""
        return round(1000 * self.threshold), round(1000 * self.decay), round(1000 * self.refractory)

    def leaked(self, elapsed: int) -> int:
        """The microvolts that leak in some microseconds, rounded down."""
        return min(self.whole[1] * elapsed // 1000, 2**30)


@cache
def kernels() -> np.ndarray:
    """The Gabor kernels, int32 microvolts ``[12, 7, 7]``: orientation, y, x."""
    reach = np.arange(SIZE) - SIZE // 2
    y, x = np.meshgrid(reach, reach, indexing="ij")
    angle = np.pi * np.arange(ORIENTATIONS)[:, None, None] / ORIENTATIONS
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    found = np.exp(-(u**2 + GAMMA**2 * v**2) / (2 * SIGMA**2)) * np.cos(2 * np.pi * u / LAMBDA + PSI)
    found -= found.mean((1, 2), keepdims=True)
    found *= NORM / np.sqrt((found**2).sum((1, 2), keepdims=True))
    return found.round().astype(np.int32)


def denoise(words: np.ndarray, side: int, milliseconds: float) -> np.ndarray:
    """The events that the noise filter keeps."""
    window, library = round(1000 * milliseconds), _native.library
    if not window:
        return words
    return denoise_reference(words, side, window) if library is None else _denoise(library, words, side, window)


def s1(words: np.ndarray, side: int, neuron: Neuron) -> np.ndarray:
    """The spikes of S1 ``[K, 4]`` on a sensor of ``side`` pixels."""
    library = _native.library
    return s1_reference(words, side, neuron) if library is None else _s1(library, words, side, neuron)


def pool(spikes: np.ndarray, side: int, extent: int, refractory: float) -> np.ndarray:
    """The first spikes ``[K, 4]`` of squares of ``extent`` positions in a map of ``side``; ``refractory`` is in ms."""
    blind, library = round(1000 * refractory), _native.library
    if library is None:
        return pool_reference(spikes, side, extent, blind)
    return _pool(library, spikes, side, extent, blind)


def s2(spikes: np.ndarray, templates: np.ndarray, neuron: Neuron) -> np.ndarray:
    """The spikes of S2 ``[K, 4]``, at place (0, 0).

    ``templates`` are int32 microvolts ``[classes, y, x, orientation]``, one for the whole square map.
    """
    library = _native.library
    return s2_reference(spikes, templates, neuron) if library is None else _s2(library, spikes, templates, neuron)


def c1(words: np.ndarray, side: int, options: Mapping[str, Any]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The spikes of C1, and the numbers of events kept, of S1 spikes and of C1 spikes."""
    kept = denoise(words, side, options["noise_filter"])
    neuron = Neuron(options["s1_threshold"], options["s1_decay"], options["refractory"])
    simple = s1(kept, side, neuron)
    complex_ = pool(simple, side, C1_EXTENT, options["refractory"])
    return complex_, (len(kept), len(simple), len(complex_))


def histograms(streams: Streams, options: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """C1 spikes by place and orientation, float32 ``[N, y, x, 12]``, and the numbers that `c1` gives, ``[N, 3]``.

    Raises ValueError for events that are not in the order of time, or not on the sensor.
    """
    checks.streams(streams)
    side = -(-streams.side // C1_EXTENT)
    found = np.zeros((len(streams), side, side, ORIENTATIONS), np.float32)
    numbers = np.zeros((len(streams), 3), np.int64)
    for counts, number, words in zip(found, numbers, streams, strict=True):
        spikes, number[:] = c1(words, streams.side, options)
        np.add.at(counts, (spikes[:, 2], spikes[:, 1], spikes[:, 3]), 1)
    return found, numbers


def templates_of(counts: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The synapses of S2, int32 microvolts ``[classes, y, x, 12]``, from `histograms` and labels of training."""
    sums = np.stack([counts[labels == label].sum(0, dtype=np.float64) for label in range(classes)])
    norms = np.sqrt((sums**2).sum((1, 2, 3), keepdims=True))
    scaled = (NORM * sums / np.where(norms > 0, norms, 1)).round().astype(np.int32)
    return np.where(scaled < WEAKEST, INHIBITION, scaled).astype(np.int32)


def c1_histograms(part: Images, options: Mapping[str, Any], name: str) -> tuple[np.ndarray, dict[str, float]]:
    """The histograms of C1 spikes, and the mean numbers of events and spikes of a recording.

    UserError if there are no events. If C1 is silent, a line on stderr says so.
    """
    counts, numbers = histograms(part.streams(), options)
    kept, s1, c1 = numbers.mean(0).tolist() if len(numbers) else (0.0, 0.0, 0.0)
    if c1 == 0:
        hint = "lower s1_threshold or s1_decay"
        print(f"HFirst's layer C1 fires for no training recording of {name}: {hint}", file=sys.stderr, flush=True)
    return counts, {"events_kept": kept, "s1_spikes": s1, "c1_spikes": c1}


def flat(counts: np.ndarray) -> np.ndarray:
    """Histograms as vectors, ``[N, F]``."""
    return counts.reshape(len(counts), -1)


def votes(streams: Streams, templates: np.ndarray, neuron: Neuron, options: Mapping[str, Any]) -> np.ndarray:
    """The number of C2 spikes of each class, float64 ``[N, classes]``; ValueError as in `histograms`."""
    checks.streams(streams)
    found = np.zeros((len(streams), len(templates)))
    for counts, words in zip(found, streams, strict=True):
        simple = s2(c1(words, streams.side, options)[0], templates, neuron)
        np.add.at(counts, pool(simple, 1, C2_EXTENT, options["refractory"])[:, 3], 1)
    return found


# -- the reference, event by event ------------------------------------------------------------------------


def denoise_reference(words: np.ndarray, side: int, window: int) -> np.ndarray:
    """`denoise`, with the window in microseconds."""
    last = np.full((side + 2, side + 2), _NEVER)  # with a margin, whose pixels never see an event
    kept = np.zeros(len(words), bool)
    before = None
    addresses = zip(*(part(words).tolist() for part in (microseconds, columns, rows, polarities)), strict=True)
    for number, (time, x, y, on) in enumerate(addresses):
        if (x, y, on) == before:
            continue
        before = x, y, on
        last[y + 1, x + 1] = _NEVER  # the pixel itself is not one around it
        kept[number] = time - last[y : y + 3, x : x + 3].max() < window
        last[y + 1, x + 1] = time
    return words[kept]


def s1_reference(words: np.ndarray, side: int, neuron: Neuron) -> np.ndarray:
    """`s1`."""
    threshold, _, refractory = neuron.whole
    half = SIZE // 2
    width = side + 2 * half  # with a margin, whose neurons never fire
    potential = np.zeros((2, ORIENTATIONS, width, width), np.int64)
    updated = np.zeros((2, width, width), np.int64)
    fired = np.full((2, width, width), 2**40)
    fired[:, half : half + side, half : half + side] = _NEVER
    weights = kernels()[:, ::-1, ::-1].astype(np.int64)  # of an event to the neurons around it
    leak = np.vectorize(neuron.leaked, otypes=[np.int64])
    spikes = []
    addresses = zip(*(part(words).tolist() for part in (microseconds, columns, rows, polarities)), strict=True)
    for time, x, y, on in addresses:
        around = np.s_[on, y : y + SIZE, x : x + SIZE]
        listening = time - fired[around] > refractory
        those = np.s_[on, :, y : y + SIZE, x : x + SIZE]
        before = potential[those]
        after = np.sign(before) * np.maximum(abs(before) - leak(time - updated[around]), 0) + weights
        after = np.where(listening, np.maximum(after, _FLOOR), before)
        updated[around] = np.where(listening, time, updated[around])
        over = listening & (after > threshold)
        for k, dx, dy in np.argwhere(over.transpose(0, 2, 1)):
            spikes.append((time, x + dx - half, y + dy - half, k))
        fires = over.any(0)
        fired[around] = np.where(fires, time, fired[around])
        potential[those] = np.where(fires, 0, after)
    return np.array(spikes, np.int32).reshape(-1, 4)


def pool_reference(spikes: np.ndarray, side: int, extent: int, refractory: int) -> np.ndarray:
    """`pool`, with the refractory period in microseconds."""
    fired: dict[tuple[int, int], int] = {}
    first = []
    for time, x, y, channel in spikes.tolist():
        place = x // extent, y // extent
        if time - fired.get(place, _NEVER) > refractory:
            fired[place] = time
            first.append((time, *place, channel))
    return np.array(first, np.int32).reshape(-1, 4)


def s2_reference(spikes: np.ndarray, templates: np.ndarray, neuron: Neuron) -> np.ndarray:
    """`s2`."""
    threshold, _, refractory = neuron.whole
    potential = np.zeros(len(templates), np.int64)
    updated, fired = 0, _NEVER
    found = []
    for time, x, y, channel in spikes.tolist():
        if time - fired <= refractory:
            continue
        potential = np.sign(potential) * np.maximum(abs(potential) - neuron.leaked(time - updated), 0)
        potential = np.maximum(potential + templates[:, y, x, channel], _FLOOR)
        updated = time
        if (potential > threshold).any():
            found += [(time, 0, 0, label) for label in np.flatnonzero(potential > threshold)]
            fired = time
            potential[:] = 0
    return np.array(found, np.int32).reshape(-1, 4)


# -- the compiled code --------------------------------------------------------------------------------------


def _denoise(library: ctypes.CDLL, words: np.ndarray, side: int, window: int) -> np.ndarray:
    kept, number = np.empty(len(words), np.uint32), ctypes.c_int64()
    words = np.ascontiguousarray(words, np.uint32)
    library.hfirst_denoise(words.ctypes.data, len(words), side, window, kept.ctypes.data, ctypes.addressof(number))
    return kept[: number.value]


def _s1(library: ctypes.CDLL, words: np.ndarray, side: int, neuron: Neuron) -> np.ndarray:
    words, weights = np.ascontiguousarray(words, np.uint32), kernels()

    def run(*room: int) -> None:
        library.hfirst_s1(
            words.ctypes.data, len(words), side, weights.ctypes.data, SIZE, ORIENTATIONS, *neuron.whole, *room
        )

    return _written(run, len(words))


def _pool(library: ctypes.CDLL, spikes: np.ndarray, side: int, extent: int, refractory: int) -> np.ndarray:
    spikes = np.ascontiguousarray(spikes, np.int32)
    first, number = np.empty_like(spikes), ctypes.c_int64()
    library.hfirst_pool(
        spikes.ctypes.data, len(spikes), side, extent, refractory, first.ctypes.data, ctypes.addressof(number)
    )
    return first[: number.value]


def _s2(library: ctypes.CDLL, spikes: np.ndarray, templates: np.ndarray, neuron: Neuron) -> np.ndarray:
    spikes, templates = np.ascontiguousarray(spikes, np.int32), np.ascontiguousarray(templates, np.int32)
    classes, side, _, channels = templates.shape

    def run(*room: int) -> None:
        library.hfirst_s2(
            spikes.ctypes.data, len(spikes), side, templates.ctypes.data, classes, channels, *neuron.whole, *room
        )

    return _written(run, len(spikes))


def _written(run: Callable[..., None], room: int) -> np.ndarray:
    """The spikes that ``run(address, capacity, address of their number)`` writes; it runs again if there are more."""
    number = ctypes.c_int64()
    while True:
        spikes = np.empty((room, 4), np.int32)
        run(spikes.ctypes.data, room, ctypes.addressof(number))
        if number.value <= room:
            return spikes[: number.value].copy()
        room = number.value


def _fault(library: ctypes.CDLL) -> str | None:
    """Compare each compiled stage with the reference, on random events that make every layer fire."""
    side, loose = 20, Neuron(60.0, 0.7, 0.3)
    words = checks.random_words(1500, side, seed=0, span=60_000)
    kept = denoise_reference(words, side, 2000)
    simple = s1_reference(kept, side, loose)
    first = pool_reference(simple, side, C1_EXTENT, 1000)
    templates = np.random.default_rng(0).integers(-9000, 20_000, (3, 5, 5, ORIENTATIONS)).astype(np.int32)
    for name, found, expected in (
        ("noise filter", _denoise(library, words, side, 2000), kept),
        ("S1", _s1(library, kept, side, loose), simple),
        ("pooling", _pool(library, simple, side, C1_EXTENT, 1000), first),
        ("S2", _s2(library, first, templates, loose), s2_reference(first, templates, loose)),
    ):
        if not len(expected) or not np.array_equal(found, expected):
            return f"the {name} gives other spikes in the self-check"
    return None


_native = Native(
    __file__,
    {"hfirst_denoise": "pnnnpp", "hfirst_s1": "pnnpnnnnnpnp", "hfirst_pool": "pnnnnpp", "hfirst_s2": "pnnpnnnnnpnp"},
    _fault,
)
