"""Poisson rate coding of images into spike trains (Section 3.5), keyed so that a spike never depends on a batch."""

from torch import Tensor

from bntt import randomness

OPTIONS = {
    "coding": {
        "default": "signed",
        "choices": ["signed", "unsigned"],
        "help": "Poisson spikes: signed, of z-scored pixels (as released), or of pixels in [0, 1] (as the text says).",
    },
}


def rates(images: Tensor, signed: bool) -> Tensor:
    """Expected value of one step's input spike, for scaled images of any shape.

    signed
        As released: images are z-scored, a pixel x fires ``sign(x)`` with probability ``min(1, |x| / 2)``.
    unsigned
        As the text says: images lie in [0, 1] and fire 1 with a probability equal to the pixel.
    """
    return (images / 2).clamp(-1, 1) if signed else images.clamp(0, 1)


def poisson(
    images: Tensor, time_steps: int, key: int, samples: Tensor, *, signed: bool = True, start: int = 0
) -> Tensor:
    """Spike trains ``[time_steps, N, C, H, W]`` in {-1, 0, 1} (signed) or {0, 1}.

    Parameters
    ----------
    images
        ``[N, C, H, W]``, scaled as `rates` expects.
    key
        From ``randomness.key``: the run's seed, the purpose, and the epoch or draw.
    samples
        Index of each image in its dataset, ``[N]``.
    start
        First time-step, for a sequence that is produced in pieces.
    """
    if time_steps < 1:
        raise ValueError(f"time_steps is at least 1, not {time_steps}")
    if not images.is_floating_point() or images.isnan().any():
        raise ValueError("images are floating-point numbers without NaN, scaled as `rates` expects")
    rate = rates(images, signed)
    pixels = rate[0].numel()
    draws = randomness.words(key, samples, time_steps * pixels, start * pixels) >> 8
    probability = (rate.abs().double() * 2**24).long().reshape(len(images), 1, pixels)
    spikes = (draws.reshape(len(images), time_steps, pixels) < probability).to(rate.dtype)
    if signed:
        spikes = spikes * rate.sign().reshape(len(images), 1, pixels)
    return spikes.transpose(0, 1).reshape(time_steps, *images.shape)
