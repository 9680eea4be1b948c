"""Input spikes: Poisson rate coding of images (Section 3.5), and event frames, which are used as spikes directly.

The coding is keyed (`bntt.spiking.randomness`), so a spike does not depend on the batch of its image.
"""

import torch
from torch import Tensor

from bntt.spiking.kernels import FLOATING, FUSED, backend_for, floating, ordinary, plain

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

OPTIONS = {
    "coding": {
        "default": "signed",
        "choices": ["signed", "unsigned"],
        "help": "Poisson spikes of z-scored pixels, with a sign (`signed`, as in the released code), or of pixels in "
        "[0, 1] (`unsigned`, as in the paper's text).",
    },
}


def rates(images: Tensor, signed: bool) -> Tensor:
    """Expected value of the input spikes in one time-step, for scaled images of any shape, in the same shape.

    * ``signed``, as in the released code: images are z-scored, and a pixel x fires ``sign(x)`` with probability
      ``min(1, |x| / 2)``.
    * unsigned, as in the paper's text: pixels lie in [0, 1], and a pixel fires 1 with a probability equal to its value.
    * For recordings ``[N, T, 2, H, W]``, if they are coded too: the mean over the frames, at most 1, ``[N, 2, H, W]``.
      Unless frames hold event counts, this is the share of frames with an event.

    Raises ValueError for images that are not floating-point numbers; frames may be integers or booleans.
    """
    if images.dim() == 5:
        return floating(images, "recordings").mean(1).clamp(max=1)
    if images.dtype not in FLOATING:
        raise ValueError(f"images are floating-point numbers, scaled as `rates` expects, not {images.dtype}")
    return (images / 2).clamp(-1, 1) if signed else images.clamp(0, 1)


def poisson(
    images: Tensor,
    time_steps: int,
    key: int,
    samples: Tensor,
    *,
    signed: bool = True,
    start: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Spike trains ``[time_steps, N, C, H, W]`` in {-1, 0, 1} (signed) or {0, 1}, channels-last in memory.

    Parameters
    ----------
    images
        ``[N, C, H, W]``, scaled as `rates` expects.
    key
        From `randomness.key`, made of the run's seed, the purpose, and the epoch or draw.
    samples
        Index of each image in its dataset, ``[N]``, on which its spikes depend.
    start
        First time-step, for a sequence that is made in pieces.
    dtype
        Type of the spikes, which decides the precision of a network that gets them. None: the type of the images.

    Raises
    ------
    ValueError
        For fewer than 1 time-step, for images that are not floating-point or (on the CPU) contain NaN, for ``samples``
        that are not one integer for each image, and for a ``dtype`` that is not floating-point.
    """
    _check_steps(time_steps, start)
    if samples.dtype not in INTEGERS or samples.shape != images.shape[:1] or samples.device != images.device:
        found = f"{tuple(samples.shape)} of {samples.dtype} on {samples.device}"
        raise ValueError(f"samples holds an integer for each of {len(images)} images on {images.device}, got {found}")
    rate = rates(images, signed).clamp(-1, 1)
    if rate.device.type == "cpu" and ordinary(rate) and rate.isnan().any():
        raise ValueError("images are floating-point numbers without NaN, scaled as `rates` expects")
    dtype = _spike_type(dtype or rate.dtype)
    backend = backend_for(rate) if dtype in FUSED else plain
    return backend.poisson(rate, time_steps, key, samples, start, dtype)


def _check_steps(time_steps: int, start: int) -> None:
    if time_steps < 1:
        raise ValueError(f"time_steps is at least 1, not {time_steps}")
    if start < 0:
        raise ValueError(f"start is at least 0, not {start}")


def _spike_type(dtype: torch.dtype) -> torch.dtype:
    if dtype not in FLOATING:
        raise ValueError(f"spikes are of a floating-point type, not {dtype}")
    return dtype


def encode(
    scaled: Tensor,
    time_steps: int,
    key: int,
    samples: Tensor,
    *,
    signed: bool = True,
    start: int = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Input spikes ``[time_steps, N, C, H, W]`` from step ``start`` on.

    For images ``[N, C, H, W]`` these are the spikes of `poisson`, which has the same arguments; for recordings
    ``[N, T, 2, H, W]``, the frames.

    Raises ValueError if recordings have fewer frames than are asked for, and as `poisson` does.
    """
    if scaled.dim() == 4:
        return poisson(scaled, time_steps, key, samples, signed=signed, start=start, dtype=dtype)
    frames = scaled.shape[1]
    if start + time_steps > frames:
        raise ValueError(f"time_steps is at most {frames}, the frames of a recording, not {start + time_steps}")
    _check_steps(time_steps, start)
    frames_of = floating(scaled[:, start : start + time_steps], "recordings")
    chosen = frames_of.transpose(0, 1).to(_spike_type(dtype or frames_of.dtype))
    return chosen.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, chosen.shape[:2])
