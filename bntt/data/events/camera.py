"""A simulated event camera before a screen on which a picture moves, in whole numbers: all machines record the same.

The screen has 512 x 512 pixels, and a pixel of the sensor sees 4 x 4 of them, as in the recording of DVS-CIFAR10 (Li et
al. 2017). The picture moves once around a closed path of four diagonal legs. A pixel of the sensor (Lichtsteiner et al.
2008) stores the logarithm of the intensity at its last event. It sends an ON or OFF event when the logarithm has since
risen or fallen by the pixel's threshold. Then it is blind for a short time. The events of one millisecond leave the
sensor one after the other.
"""

import math
from functools import cache, reduce
from itertools import pairwise

import numpy as np

from bntt.data.events.aedat import SIDE, Events

ZOOM = 4  # screen pixels to a pixel of the sensor, along a side
SCREEN = ZOOM * SIDE
SIDES = (6, SCREEN * 3 // 4)  # pixels, of the smallest picture and the largest
LEG = 32  # screen pixels along x and along y
LEG_MILLISECONDS = 25
MILLISECONDS = 4 * LEG_MILLISECONDS  # of a recording
BLACK = 32  # intensity of a black pixel of the screen; a white pixel has 255 more
THRESHOLD = 0.5  # change of the natural logarithm that triggers an event
SPREAD = 100  # thousandths by which the threshold of a pixel may be higher or lower
REFRACTORY = 2  # milliseconds for which a pixel is blind after an event
NOISE = 500  # of 10,000 pixels send an event for no reason in one recording, which is 0.5 a second

_UNIT = 4096  # integer units of the logarithm
_CORNERS = ((0, 0), (LEG, LEG), (2 * LEG, 0), (LEG, -LEG), (0, 0))  # x, y


def path() -> list[tuple[int, int]]:
    """The picture's position at each millisecond, x and y in screen pixels; it ends where it began."""
    places = []
    for (x0, y0), (x1, y1) in pairwise(_CORNERS):
        for step in range(LEG_MILLISECONDS):
            part = (2 * LEG * step + LEG_MILLISECONDS) // (2 * LEG_MILLISECONDS)
            places.append((x0 + part * (x1 - x0) // LEG, y0 + part * (y1 - y0) // LEG))
    return [*places, _CORNERS[-1]]


def record(picture: np.ndarray, key: int, sample: int) -> Events:
    """Events of one picture, uint8 ``[H, H]``, enlarged by a whole number to at most three quarters of the screen.

    Random numbers are keyed by ``key`` and the index ``sample``. Raises ValueError for another picture, and for a side
    below 6, whose sums would not fit into 32 bits, or above 384, three quarters of the screen.
    """
    if picture.dtype != np.uint8 or picture.ndim != 2 or len(set(picture.shape)) != 1:
        raise ValueError(f"a picture must be uint8 [H, H], not {picture.dtype} {list(picture.shape)}")
    if not SIDES[0] <= len(picture) <= SIDES[1]:
        raise ValueError(f"a picture must have a side of {SIDES[0]} to {SIDES[1]} pixels, not {len(picture)}")
    import torch

    from bntt.spiking.randomness import words

    seen = _logarithms(picture)
    chance = words(key, torch.tensor([sample]), 5 * SIDE * SIDE)[0].numpy().reshape(5, SIDE * SIDE)
    turn = np.empty(SIDE * SIDE, np.int64)  # the place of a pixel among those that send an event in one millisecond
    turn[np.argsort(chance[0], kind="stable")] = np.arange(SIDE * SIDE)
    of_on, of_off = (
        (round(THRESHOLD * _UNIT) * (1000 - SPREAD + part % (2 * SPREAD + 1)) // 1000).astype(np.int32)
        for part in chance[1:3]
    )
    margin = 2 * LEG  # screen pixels around the part that the sensor sees
    remembered = None
    last = np.full(SIDE * SIDE, -REFRACTORY, np.int32)
    pixels, stamps, signs = [], [], []
    for millisecond, (dx, dy) in enumerate(path()):
        rows, columns = margin - dy, margin - dx  # moving the picture is the same as moving the view the other way
        now = seen[rows : rows + SCREEN : ZOOM, columns : columns + SCREEN : ZOOM].ravel()
        if remembered is None:
            remembered = now.copy()
            continue
        change = now - remembered
        those = np.flatnonzero(((change >= of_on) | (change <= -of_off)) & (last <= millisecond - REFRACTORY))
        those = those[np.argsort(turn[those])]
        remembered[those] = now[those]
        last[those] = millisecond
        pixels.append(those)
        signs.append(change[those] > 0)
        stamps.append(1000 * (millisecond - 1) + np.arange(len(those)) * 1000 // max(1, len(those)))
    noisy = np.flatnonzero(chance[3] % 10_000 < NOISE)
    pixels.append(noisy)
    signs.append(chance[3][noisy] >> 31 == 1)
    stamps.append(chance[4][noisy] % (1000 * MILLISECONDS))
    pixel, sign, stamp = (np.concatenate(parts) for parts in (pixels, signs, stamps))
    order = np.argsort(stamp, kind="stable")
    pixel, stamp = pixel[order], stamp[order]
    return Events(
        stamp.astype(np.int64), (pixel % SIDE).astype(np.uint8), (pixel // SIDE).astype(np.uint8), sign[order]
    )


def _logarithms(picture: np.ndarray) -> np.ndarray:
    """The logarithm of the intensity that a sensor pixel sees, for each position on a screen with margins, int32."""
    side = len(picture)
    enlarged = SIDES[1] // side  # screen pixels to a pixel of the picture
    size = enlarged * side
    weight = 2 * enlarged
    # Bilinear, in whole numbers: the centres of two pixels of the picture are `enlarged` screen pixels apart.
    place = 2 * np.arange(size) + 1 - enlarged
    low = place // weight
    part = place - low * weight
    low, high = low.clip(0, side - 1), (low + 1).clip(0, side - 1)
    values = picture.astype(np.int64)
    values = values[low] * (weight - part)[:, None] + values[high] * part[:, None]
    values = values[:, low] * (weight - part) + values[:, high] * part
    screen = np.zeros((SCREEN + 4 * LEG + ZOOM,) * 2, np.uint32)  # 64 times a sum of 16 stays below 2^32
    begin = 2 * LEG + (SCREEN - size) // 2
    screen[begin : begin + size, begin : begin + size] = values
    size = SCREEN + 4 * LEG
    along = reduce(np.add, [screen[shift : shift + size] for shift in range(ZOOM)])
    sums = reduce(np.add, [along[:, shift : shift + size] for shift in range(ZOOM)])
    one = ZOOM**2 * weight**2  # a grey level of one
    return _table()[64 * sums // np.uint32(one)]


@cache
def _table() -> np.ndarray:
    """Logarithms of all intensities, which are in 64ths of a grey level, rounded to whole units."""
    return np.array([round(_UNIT * math.log(BLACK + level / 64)) for level in range(255 * 64 + 1)], np.int32)
