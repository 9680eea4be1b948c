"""Keyed random numbers: the stream itself, pinned, and that it behaves as random numbers should."""

import hashlib
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bntt.spiking.randomness import generator, key, normal, permutation, uniform, words

# -- the stream, written again in plain integers -------------------------------------------------------------------


def mix_by_hand(h):
    """MurmurHash3's 32-bit finaliser."""
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def word_by_hand(key, sample, position):
    low, high = key % 2**32, key // 2**32
    of_position = mix_by_hand(mix_by_hand((position ^ high) % 2**32) ^ low)
    of_sample = mix_by_hand(mix_by_hand((sample ^ low) % 2**32) ^ high)
    return mix_by_hand(of_position ^ of_sample)


def test_the_finaliser_is_murmurhash3s():
    """Published test values: 0 stays 0, 1 becomes 0x514E28B7."""
    assert (mix_by_hand(0), mix_by_hand(1)) == (0, 0x514E28B7)


keys = st.integers(0, 2**64 - 1)


@given(keys, st.lists(st.integers(0, 2**40), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 2**33))
def test_words_by_hand(k, samples, length, start):
    found = words(k, torch.tensor(samples), length, start)
    assert found.tolist() == [[word_by_hand(k, s, start + p) for p in range(length)] for s in samples]


# (key, sample, position, word). A change of the stream changes every result of the benchmark: change these with it.
GOLDEN = [
    (0, 0, 0, 0x00000000),
    (0, 0, 1, 0x5716F995),
    (0, 1, 0, 0x5716F995),
    (1, 0, 0, 0x6263DB71),
    (0x100000000, 0, 0, 0x6263DB71),
    (0x123456789ABCDEF, 41, 3071, 0xFE5F0EE5),
    (0xFFFFFFFFFFFFFFFF, 59999, 76799, 0xB1F257EF),
    (0xDEADBEEFCAFEF00D, 4294967301, 4294967303, 0xBD2BDB2B),
]


@pytest.mark.parametrize(("k", "sample", "position", "word"), GOLDEN)
def test_the_stream_is_pinned(k, sample, position, word):
    assert word_by_hand(k, sample, position) == word
    assert words(k, torch.tensor([sample]), 1, position).item() == word


GOLDEN_KEYS = [
    ((0, "order", 1), 0x63798589EA5CC992),
    ((7, "training noise", 12), 0x024D2C4C36D1EDD7),
    (("0",), 0x904E92AC8D13A9C8),
]


@pytest.mark.parametrize(("parts", "value"), GOLDEN_KEYS)
def test_keys_are_pinned(parts, value):
    """blake2b of the parts with their types, separated by a character that no name contains."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    assert key(*parts) == value == int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def test_keys_differ():
    parts = [(0,), (1,), ("0",), (0, 0), ("a", "b"), ("ab",), ("b", "a"), (0, "a"), ("0a",), (1, 11), (11, 1), (-1,)]
    found = [key(*p) for p in parts]
    assert len(set(found)) == len(found) and all(0 <= k < 2**64 for k in found)


# -- pure functions of what they are for ---------------------------------------------------------------------------


def test_words_do_not_depend_on_company_order_or_cut():
    k, samples = key(0, "test"), torch.tensor([5, 0, 123456, 7])
    whole = words(k, samples, 50)
    assert torch.equal(words(k, samples.flip(0), 50), whole.flip(0))
    assert torch.equal(words(k, samples[2:3], 50), whole[2:3])
    assert torch.equal(torch.cat([words(k, samples, 20), words(k, samples, 30, 20)], 1), whole)
    assert torch.equal(words(k, samples.int(), 50), whole)


def test_generator_is_seeded_by_its_parts():
    draws = [torch.rand(4, generator=generator(*parts)).tolist() for parts in [(0, "a"), (0, "a"), (1, "a"), (0, "b")]]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] and draws[0] != draws[3]


# -- and random ----------------------------------------------------------------------------------------------------


def chi_square_z(counts):
    """How many standard deviations chi-square lies from its expectation, for cells of equal probability."""
    expected = counts.sum() / len(counts)
    chi = ((counts - expected) ** 2 / expected).sum().item()
    freedom = len(counts) - 1
    return (chi - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("shift", [24, 16, 8, 0])
def test_every_byte_is_uniform(shift):
    w = words(key(1, "uniformity"), torch.arange(500), 2000)
    assert w.min() >= 0 and w.max() < 2**32
    counts = torch.bincount((w >> shift & 255).flatten(), minlength=256).double()
    assert abs(chi_square_z(counts)) < 5


def test_neighbouring_words_are_independent():
    """Pairs of high four bits: along positions, along samples, and from key to key."""
    samples = torch.arange(500)
    here = words(key(2, "pairs"), samples, 1001) >> 28
    there = words(key(3, "pairs"), samples, 1001) >> 28
    for a, b in ((here[:, :-1], here[:, 1:]), (here[:-1], here[1:]), (here, there)):
        assert abs(chi_square_z(torch.bincount((16 * a + b).flatten(), minlength=256).double())) < 5


def test_streams_are_not_shifted_copies():
    """Of one another: sample s + 1 from position p is not sample s from position p + 1; nor of another key's."""
    streams = {(k, s): words(key(k), torch.tensor([s]), 400)[0] for k in range(2) for s in range(6)}
    for (_, a), (_, b) in itertools.combinations(streams.items(), 2):
        assert len(set(a.tolist()) & set(b.tolist())) < 3


def correlation(a, b):
    a, b = a.flatten().double(), b.flatten().double()
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


def test_uniform():
    u = uniform(key(4), torch.arange(300), 1000)
    n = u.numel()
    assert u.dtype == torch.float32 and u.min() >= 0 and u.max() < 1
    assert torch.equal(u * 2**24, (u * 2**24).round())  # 24 bits
    assert abs(u.double().mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(u.double().var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)


def test_normal():
    z = normal(key(5), torch.arange(300), 1000).double()
    n = z.numel()
    assert z.shape == (300, 1000) and z.isfinite().all()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    for bound in (0.5, 1.0, 2.0, 3.0):
        share = math.erfc(bound / math.sqrt(2))
        assert abs((z.abs() > bound).double().mean() - share) < 5 * math.sqrt(share * (1 - share) / n)
    assert abs(correlation(z[:, :-1], z[:, 1:])) < 5 / math.sqrt(n)
    assert abs(correlation(z[:-1], z[1:])) < 5 / math.sqrt(n)


def test_normal_does_not_depend_on_company():
    """To the last bit of the logarithm and the cosine, whose vector and scalar forms may differ in it."""
    k, samples = key(6), torch.tensor([9, 2, 4])
    torch.testing.assert_close(normal(k, samples[1:2], 7), normal(k, samples, 7)[1:2], rtol=1e-5, atol=1e-6)


@given(keys, st.integers(1, 200))
def test_permutation_is_one(k, length):
    assert sorted(permutation(k, length).tolist()) == list(range(length))


def test_permutations_are_fair_and_keyed():
    """Each of the 24 orders of four comes up about as often as the others."""
    orders = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    counts = torch.zeros(24, dtype=torch.float64)
    for seed in range(2400):
        counts[orders[tuple(permutation(key(seed, "order"), 4).tolist())]] += 1
    assert abs(chi_square_z(counts)) < 5
    assert torch.equal(permutation(7, 50), permutation(7, 50))
