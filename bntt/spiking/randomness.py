"""Keyed randomness: every random number is a pure function of its purpose.

A number depends only on a *key* (seed, purpose, epoch, ...), on the index of the sample, and on the position within the
sample. It does not depend on the batch size, on the device or on earlier draws. Therefore a resumed training is
bit-identical without saved generator states, and a test accuracy with Poisson coding does not depend on how the test
set was divided into batches.
"""

import hashlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def key(*parts: int | str) -> int:
    """A 64-bit key for a purpose, for instance ``key(seed, "order", epoch)``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for draws that happen once per run, such as initial weights."""
    return torch.Generator().manual_seed(key(*parts) >> 1)


def seed_torch(key: int, device: torch.device) -> None:
    """Seed PyTorch's own generator, from which modules such as dropout draw, for the next batch on a device."""
    # On the CPU, torch.manual_seed takes a millisecond: it notes the stack for every kind of absent device.
    (torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed)(key >> 1)


def _mix(h: Tensor) -> Tensor:
    """The 32-bit finaliser of MurmurHash3 (Appleby 2011), a bijection, on int64 tensors holding 32-bit words.

    The products wrap around at 64 bits. This leaves their low 32 bits exact on every device.
    """
    h = h ^ (h >> 16)
    h = (h * 0x85EBCA6B) & _MASK
    h = h ^ (h >> 13)
    h = (h * 0xC2B2AE35) & _MASK
    return h ^ (h >> 16)


def words(key: int, samples: Tensor, length: int, start: int = 0) -> Tensor:
    """Uniform 32-bit words, int64 ``[len(samples), length]``, for positions ``start .. start + length - 1``.

    ``samples`` holds the index of each sample in its dataset, ``[N]``. A position is hashed with both halves of the
    key, a sample with both halves in the other order, and a last round mixes the two hashes. So the streams of two
    samples are not shifted copies of one another.
    """
    low, high = key & _MASK, key >> 32
    positions = torch.arange(start, start + length, device=samples.device)
    of_position = _mix(_mix((positions ^ high) & _MASK) ^ low)
    of_sample = _mix(_mix((samples.long() ^ low) & _MASK) ^ high)
    return _mix(of_position[None, :] ^ of_sample[:, None])


def uniform(key: int, samples: Tensor, length: int, start: int = 0) -> Tensor:
    """Uniform float32 numbers in [0, 1) with 24 random bits, ``[len(samples), length]``."""
    return (words(key, samples, length, start) >> 8).float() * 2.0**-24


def normal(key: int, samples: Tensor, length: int) -> Tensor:
    """Standard normal float32 numbers, ``[len(samples), length]`` (Box and Muller 1958)."""
    u = uniform(key, samples, 2 * length).reshape(len(samples), length, 2)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[..., 0]))
    return radius * torch.cos(2.0 * torch.pi * u[..., 1])


def permutation(key: int, length: int, device: torch.device | str = "cpu") -> Tensor:
    """A random order of ``0 .. length - 1``, int64 ``[length]``."""
    order = words(key, torch.zeros(1, dtype=torch.long, device=device), length)[0]
    return torch.argsort(order, stable=True)
