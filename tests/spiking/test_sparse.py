"""Spikes as bytes, and the passes that visit spikes alone: dense arithmetic in float64 says what is right."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bntt.spiking import connections
from bntt.spiking.connections import connect
from bntt.spiking.kernels import backend_for, plain

from .helpers import native_or_skip, random, relative, vgg9

native = native_or_skip()

TYPES = [torch.float32, torch.bfloat16]
STORED = {torch.float32: 0.0, torch.bfloat16: 2**-8}  # the relative error of storing a result, beside computing it
LAST = torch.channels_last
BACKENDS = [native, plain]


def spikes(seed, density, *shape):
    """Multiples of 1/4 in [-1, 1], of which a share is not zero, channels-last."""
    draws = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 5, shape, generator=draws) * (2 * torch.randint(0, 2, shape, generator=draws) - 1) / 4
    return (values * (torch.rand(shape, generator=draws) < density)).contiguous(memory_format=LAST)


def gradient_of_weight(x, weight, upstream):
    return torch.nn.grad.conv2d_weight(x.double(), weight.shape, upstream.double(), padding=1)


maps = st.fixed_dictionaries(
    {
        "images": st.integers(1, 9),
        "inputs": st.sampled_from([1, 3, 15, 16, 17, 40]),
        "outputs": st.sampled_from([1, 5, 15, 16, 17, 32, 33, 70]),
        "height": st.integers(1, 7),
        "width": st.integers(1, 7),
        "density": st.sampled_from([0.0, 0.03, 0.3, 1.0]),
        "seed": st.integers(0, 1000),
    }
)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@given(maps)
def test_currents_and_gradients_are_those_of_the_dense_convolution(dtype, given):
    shape = given["images"], given["inputs"], given["height"], given["width"]
    x = spikes(given["seed"], given["density"], *shape)
    weight = random(1, given["outputs"], given["inputs"], 3, 3).float().contiguous(memory_format=LAST)
    upstream = random(2, given["images"], given["outputs"], *shape[2:]).to(dtype).contiguous(memory_format=LAST)
    kept, _ = native.quarters(x.to(dtype), given["images"])
    found = native.sparse_currents(kept, weight, dtype)
    rounded = weight.to(dtype).double()
    expected = F.conv2d(x.double(), rounded, padding=1)
    terms = F.conv2d(x.double().abs(), rounded.abs(), padding=1)
    assert found.dtype == dtype and found.is_contiguous(memory_format=LAST)
    assert ((found.double() - expected).abs() <= STORED[dtype] * expected.abs() + 1e-6 * terms).all()
    of_weight = native.sparse_weight_gradient(kept, upstream)
    terms = gradient_of_weight(x.abs(), weight, upstream.abs())
    assert of_weight.dtype == torch.float32 and of_weight.is_contiguous(memory_format=LAST)
    assert ((of_weight.double() - gradient_of_weight(x, weight, upstream)).abs() <= 2e-6 * terms).all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("images", "inputs", "outputs", "side"), [(64, 64, 70, 8), (3, 16, 200, 32), (700, 20, 16, 4)])
def test_no_bit_depends_on_the_number_of_threads(images, inputs, outputs, side, dtype):
    kept, _ = native.quarters(spikes(0, 0.1, images, inputs, side, side), 1)
    weight = random(1, outputs, inputs, 3, 3).float()
    upstream = random(2, images, outputs, side, side).to(dtype).contiguous(memory_format=LAST)
    results = []
    for threads in (1, 2, 3, 16):
        torch.set_num_threads(threads)
        try:
            results.append((native.sparse_currents(kept, weight, dtype), native.sparse_weight_gradient(kept, upstream)))
        finally:
            torch.set_num_threads(1)
    for current, of_weight in results[1:]:
        assert torch.equal(current, results[0][0]) and torch.equal(of_weight, results[0][1])


# -- bytes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize("shape", [(12, 5, 6, 7), (12, 16, 64, 64), (12, 3), (12, 1000)], ids=str)
def test_bytes_hold_quarters_exactly_and_each_step_is_counted(shape, backend, dtype):
    x = torch.arange(-128, 128).repeat(1 + math.prod(shape) // 256)[: math.prod(shape)].reshape(shape) / 4
    x = x * (random(0, *shape) > 0.5)
    x[:4] = 0
    x = x.to(dtype)
    for one in (x, x.contiguous(memory_format=LAST)) if x.dim() == 4 else (x,):
        kept, counts = backend.quarters(one, 3)
        assert kept.dtype == torch.int8 and kept.stride() == one.stride()
        assert torch.equal(kept.to(dtype) / 4, one)
        assert counts.tolist() == [part.count_nonzero().item() for part in one.split(4)] and counts[0] == 0


@pytest.mark.parametrize("value", [1 / 3, 0.125, 32.0, -32.25, 1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("where", [0, 40, -1])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_whatever_is_no_quarter_is_kept_as_it_is(backend, dtype, where, value):
    x = torch.ones(4, 3, 3, 5, dtype=dtype).contiguous(memory_format=LAST)
    assert backend.quarters(x, 2) is not None
    x.permute(0, 2, 3, 1).reshape(-1)[where] = value  # a view, as channels lie innermost
    assert backend.quarters(x, 2) is None


# -- what a connection makes of it ----------------------------------------------------------------------------------


def connected(x, weight, upstream):
    """Current and gradients of a convolution."""
    connection = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, bias=False)
    connection.weight = nn.Parameter(weight.clone())
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    current = connect(connection, x)
    current.backward(upstream)
    return current.detach(), connection.weight.grad, x.grad


def steps(density, silent, *, channels=20, dtype=torch.float32):
    """Spikes [6, 2, C, 5, 4], some steps of which are silent."""
    x = spikes(3, density, 12, channels, 5, 4).to(dtype).unflatten(0, (6, 2))
    x[list(silent)] = 0
    return x


def chosen(monkeypatch, below):
    """Set both densities, and return the names of the sparse passes that are called from here on."""
    called = []
    assert backend_for(torch.ones(1)) is native  # the self-check, which calls both, is over
    monkeypatch.setattr(native, "SPARSE_BELOW", {dtype: {math.inf: (below, below)} for dtype in TYPES})
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for name in ("sparse_currents", "sparse_weight_gradient"):
        whole = getattr(native, name)
        monkeypatch.setattr(native, name, lambda *a, name=name, whole=whole: called.append(name) or whole(*a))
    return called


@pytest.mark.parametrize("silent", [(), (0, 5), (0, 1, 2, 4, 5), (2, 3), range(6)], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_both_ways_give_the_same_with_silent_steps_anywhere(silent, dtype, monkeypatch):
    x, weight = steps(0.3, silent, dtype=dtype), random(1, 17, 20, 3, 3).float()
    upstream = random(2, 6, 2, 17, 5, 4).to(dtype)
    expected = F.conv2d(x.double().flatten(0, 1), weight.to(dtype).double(), padding=1).unflatten(0, (6, 2))
    of_weight = gradient_of_weight(x.flatten(0, 1), weight, upstream.flatten(0, 1))
    inputs = []
    for below in (0.0, 2.0):
        called = chosen(monkeypatch, below)
        current, found, of_input = connected(x, weight, upstream)
        assert called == (["sparse_currents", "sparse_weight_gradient"] if below else [])
        assert current.dtype == of_input.dtype == dtype and found.dtype == torch.float32
        assert (current[list(silent)] == 0).all()
        scale = expected.abs().max() or 1
        assert (current.double() - expected).abs().max() <= (STORED[dtype] + 1e-6) * scale
        scale = of_weight.abs().max() or 1
        # Without instructions for bfloat16, PyTorch sums the dense gradient in bfloat16; the sparse one stays exact.
        assert (found.double() - of_weight).abs().max() <= ((0 if below else 8 * STORED[dtype]) + 1e-6) * scale
        inputs.append(of_input)
    assert torch.equal(*inputs)


def test_the_dense_way_convolves_nothing_before_the_first_spike_and_after_the_last(monkeypatch):
    sizes = []
    for name in ("_current", "_gradient_of_weight"):
        whole = getattr(connections, name)
        monkeypatch.setattr(connections, name, lambda x, *rest, whole=whole: sizes.append(len(x)) or whole(x, *rest))
    chosen(monkeypatch, 0.0)
    for silent, images in (((), 12), ((0, 3, 5), 8), ((0, 1, 2, 3, 5), 2), (range(6), 2)):
        connected(steps(0.5, silent), torch.ones(3, 20, 3, 3), torch.ones(6, 2, 3, 5, 4))
        assert sizes == [images, images]
        sizes.clear()


def test_the_density_decides_which_way_is_taken(monkeypatch):
    """The density is that of the stretch from the first step with a spike to the last."""
    x = steps(0.0, ())
    x[2, :, :, 0, 0] = x[3, 0, :10, 1, 1] = 1  # 50 of the 1,600 values of two steps
    for below, sparse in ((50 / 1600, False), (50 / 1600 + 1e-9, True)):
        called = chosen(monkeypatch, below)
        connected(x, torch.ones(40, 20, 3, 3), torch.ones(6, 2, 40, 5, 4))
        assert bool(called) == sparse


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_densities_are_those_of_the_shape_and_of_the_instructions(dtype, amx, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    table = native.SPARSE_BELOW_WITH_AMX if amx and dtype == torch.bfloat16 else native.SPARSE_BELOW[dtype]
    settings = ((1, 1), (1, 1), (1, 1), 1)
    for outputs, most in ((1, 16), (16, 16), (17, 32), (32, 32), (33, math.inf), (500, math.inf)):
        for inputs in (1, 15, 16, 40):
            x, weight = spikes(0, 0.5, 2, inputs, 3, 3).to(dtype), torch.ones(outputs, inputs, 3, 3)
            current, gradient = table[most]
            expected = (0.0 if inputs < native.FEW else current, gradient)
            assert native.sparse_below(x, weight, settings) == expected


@pytest.mark.parametrize(
    "connection",
    [
        nn.Conv2d(20, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(20, 6, 3, bias=False),
        nn.Conv2d(20, 6, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(20, 6, 5, padding=2, bias=False),
        nn.Conv2d(20, 6, 3, padding=1, bias=False).double(),
    ],
    ids=str,
)
def test_other_convolutions_are_dense(connection, monkeypatch):
    called = chosen(monkeypatch, 2.0)
    x = steps(0.1, ()).to(connection.weight.dtype)
    expected = connection(x.flatten(0, 1))
    current = connect(connection, x)
    current.sum().backward()
    assert not called and relative(current.flatten(0, 1).double(), expected.double()) < 1e-5


@pytest.mark.parametrize("norm", ["bntt", "tebn", None])
def test_a_whole_step_is_that_of_the_dense_one(norm, monkeypatch):
    """Weights with few bits, so that no rounding moves a membrane over the threshold: the same spikes either way."""
    network = vgg9(norm, 5, 0.25, 16, dtype=torch.float32)
    x = spikes(3, 0.1, 20, 3, 16, 16).unflatten(0, (5, 4))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_((p * 64).round() / 64)
    gradients = []
    for below in (0.0, 2.0):
        called = chosen(monkeypatch, below)
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    assert len(called) == 2 * 7 - 1  # the currents of the first layer, of three channels, stay dense
    for name, dense in gradients[0].items():
        assert dense.abs().max() > 0 and relative(gradients[1][name], dense) < 1e-5, name


# -- what is refused ------------------------------------------------------------------------------------------------


def test_arguments_that_do_not_belong_together_are_refused():
    kept, _ = native.quarters(spikes(0, 0.5, 4, 20, 5, 6), 2)
    weight, upstream = torch.ones(7, 20, 3, 3), torch.ones(4, 7, 5, 6).contiguous(memory_format=LAST)
    for wrong in (weight[:, :19], weight[..., :2], weight[0]):
        with pytest.raises(ValueError, match="weight"):
            native.sparse_currents(kept, wrong, torch.float32)
    with pytest.raises(ValueError, match="weight"):
        native.sparse_currents(kept, weight, torch.float64)
    for wrong in (kept.float(), kept.contiguous(), kept[:0]):
        with pytest.raises(ValueError, match="spikes"):
            native.sparse_currents(wrong, weight, torch.float32)
    for wrong in (upstream[:3], upstream.double(), upstream[..., :5].contiguous(memory_format=LAST)):
        with pytest.raises(ValueError, match="gradient"):
            native.sparse_weight_gradient(kept, wrong)
    with pytest.raises(ValueError, match="gradient"):
        native.sparse_weight_gradient(kept, upstream.contiguous())
