"""Every building block with every type of input, at every default type: right numbers, or one clear error.

All numbers are small multiples of powers of 1/2, so that no type rounds what a block computes from them, except where
batch statistics are taken. The cases run in this process, and as a proof each default type has a process of its own, in
which it is set before or after the blocks were made.
"""

import copy
from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
from tiny import in_a_process_of_its_own
from torch import nn

from bntt.spiking.connections import connect
from bntt.spiking.encoding import encode, poisson, rates
from bntt.spiking.kernels import Dynamics, name_for
from bntt.spiking.layers import OverTime, SpikingLayer
from bntt.spiking.networks import DenseNetwork, SpikingNetwork, weight_layers
from bntt.spiking.neurons import IF, LIF
from bntt.spiking.norms import BNTT, NORMS, TAB
from bntt.spiking.randomness import generator

from .helpers import native_or_skip

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TYPES = [torch.int8, torch.uint8, torch.int64, torch.bool, *FLOATS]
STEPS, SHAPE = 3, (3, 4, 3, 4, 4)
CLOSE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5, torch.float64: 1e-12}


def drawn(name, *shape, parts=4, most=8):
    """Multiples of 1 / parts up to most / parts in absolute value, in float64."""
    return torch.randint(-most, most + 1, shape, generator=generator(name), device="cpu").double() / parts


def held_in(module, kind):
    """The module with parameters that every type can hold, in this type; its norms do not round at inference."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.dim() > 1 and not name.endswith(("gamma", "running_var", "running_mean")):
                value.copy_(drawn(name, *value.shape, most=4))
            elif name.endswith("gamma"):
                value.fill_(0.5)
            elif name.endswith("running_mean"):
                value.copy_(drawn(name, *value.shape))
    return module.to(kind)


def network(norm="none", **settings):
    layers = weight_layers("vgg5", (3, 4, 4), 5, 1 / 32)
    return SpikingNetwork(layers, STEPS, norm=norm, neuron=lambda name: LIF(0.5), **settings)


def layer(norm=None):
    return SpikingLayer(nn.Conv2d(3, 4, 3, padding=1, bias=False), norm, LIF(0.5), nn.AvgPool2d(2))


def in_pieces(module, x):
    state = {}
    return torch.cat([module.eval().resume(x[:1], 0, state), module.resume(x[1:], 1, state)])


def onwards(module, x, kind):
    """A layer that goes on from a membrane of another type."""
    rest = drawn("rest", 4 * 16, 4).to(kind)
    return torch.cat([module.advance(x, 0, rest)[0], module.resume(x, 0, rest).output])


# A block is a function that makes a module, and one that applies it to inputs.
def simply(module, x):
    return module(x)


BLOCKS = {
    "LIF": (lambda: LIF(0.5), simply),
    "LIF, averages": (lambda: LIF(0.5, alpha=1), lambda module, x: module(x, halve=True)),
    "IF": (lambda: IF(2, "hard"), simply),
    "IF, onwards": (IF, lambda module, x: module.resume(x, None, 0, drawn("rest", 4 * 16, 3))[0]),
    **{
        f"{name} and LIF, trained": (lambda kind=kind: kind(3, STEPS), lambda module, x: LIF(0.9)(x, module.train()))
        for name, kind in NORMS.items()
        if kind is not None
    },
    "BNTT": (lambda: BNTT(3, STEPS, eps=0), lambda module, x: module.eval()(x)),
    "BNTT and LIF": (lambda: BNTT(3, STEPS, eps=0), lambda module, x: LIF(0.5)(x, module.eval())),
    "TAB, trained": (lambda: TAB(3, STEPS), lambda module, x: module.train()(x)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, stride=2, bias=False), connect),
    "matrix": (lambda: nn.Linear(48, 5, bias=False), lambda module, x: connect(module, x.flatten(2))),
    "convolution with a bias": (lambda: nn.Conv2d(3, 4, 3), connect),
    "OverTime": (lambda: OverTime(nn.Conv2d(3, 4, 3)), simply),
    "layer": (layer, simply),
    "layer with a norm": (lambda: layer(BNTT(4, STEPS, eps=0)).eval(), simply),
    "layer, onwards in float64": (layer, lambda module, x: onwards(module, x, torch.float64)),
    "layer, onwards in float16": (layer, lambda module, x: onwards(module, x, torch.float16)),
    "network": (network, simply),
    "network in chunks": (network, lambda module, x: module(x, 2)),
    "network in pieces": (network, in_pieces),
    "network with norms": (lambda: network("bntt", eps=0, classifier_norm=True).eval(), simply),
    "network with norms, in pieces": (lambda: network("bntt", eps=0, classifier_norm=True), in_pieces),
    "dense network": (lambda: DenseNetwork(network().description), lambda module, x: module(x[0])),
    "rates of recordings": (nn.Identity, lambda module, x: rates(x, True)),
    "rates": (nn.Identity, lambda module, x: rates(x[0], True)),
    "coder": (nn.Identity, lambda module, x: poisson(x[0] / 4, STEPS, 7, torch.arange(4))),
    "coder of recordings": (nn.Identity, lambda module, x: poisson(x, STEPS, 7, torch.arange(3))),
    "frames": (nn.Identity, lambda module, x: encode(x, STEPS, 7, torch.arange(3))),
    **{
        f"coder to {kind}": (nn.Identity, lambda module, x, kind=kind: poisson(x[0], 2, 7, torch.arange(4), dtype=kind))
        for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)
    },
}


def inputs(kind):
    x = drawn("x", *SHAPE, parts=1 if not kind.is_floating_point else 4, most=2 if not kind.is_floating_point else 8)
    return x.clamp(min=0).to(kind) if kind in (torch.uint8, torch.bool) else x.to(kind)


def gradients(module, apply, x):
    """The output, and the gradients of its inner product with fixed numbers for the input and the parameters."""
    if x.is_floating_point():
        x = x.clone().requires_grad_()
    out = apply(module, x)
    found = [out.detach()]
    if out.requires_grad:
        (out * drawn("upstream", *out.shape).to(out)).sum().backward()
        found += [a.grad for a in (x, *module.parameters())]
    return found


def wrong(block, kind, held, made=None):
    """What is wrong with one block on inputs of a type, or None; ``made`` is the block from before."""
    make, apply = BLOCKS[block]
    module = held_in(made or make(), held)
    x, reference = inputs(kind), copy.deepcopy(module).double()
    try:
        found = gradients(module, apply, x)
    except (ValueError, TypeError, RuntimeError) as error:
        clear = any(word in str(error) for word in ("type", "floating-point", "not implemented for"))
        return None if clear else f"raises {type(error).__name__}: {error}"
    expected = gradients(reference, apply, x.double())
    tolerance = max(CLOSE[a.dtype] for a in (*module.parameters(), *found, x) if a is not None and a.dtype in CLOSE)
    for number, (a, b) in enumerate(zip(found, expected, strict=False)):
        if a is None or b is None:
            continue
        if number == 0 and a.dtype not in FLOATS:
            return f"gives {a.dtype}"
        error = (a.double() - b).abs().max().item() / max(1, b.abs().max().item())
        if not (a.shape == b.shape and error <= (0 if "LIF" in block and number == 0 else tolerance)):
            return f"{'output' if number == 0 else f'gradient {number}'} of {a.dtype} is off by {error:.1e}"
    return None


@contextmanager
def default(kind):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("block", BLOCKS)
def test_right_numbers_or_one_clear_error(block):
    """With the default type set after PyTorch and the kernels were loaded, and before the block was made."""
    with default(torch.bfloat16):
        assert [fault for kind in TYPES if (fault := wrong(block, kind, torch.float32))] == []


def faults(standard, when):
    """What is wrong at a default type that is set before or after the blocks were made, by case."""
    torch.set_num_threads(1)
    if when == "before":
        torch.set_default_dtype(standard)
    made = {block: make() for block, (make, _) in BLOCKS.items()}
    if when == "after":
        connect(made["matrix"], torch.ones(1, 1, 48)), LIF()(torch.ones(1, 1, 1))
        torch.set_default_dtype(standard)
    return {
        f"{block} held in {held}, given {kind}": what
        for block in BLOCKS
        for held in (torch.float32, torch.float64)
        for kind in TYPES
        if (what := wrong(block, kind, held, copy.deepcopy(made[block])))
    }


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("standard", FLOATS, ids=str)
def test_every_default_type_in_a_process_of_its_own(standard, when):
    assert in_a_process_of_its_own(faults, standard, when) == {}


def test_the_record_does_not_depend_on_the_default_type():
    expected = name_for(torch.device("cpu"))
    with default(torch.float64):
        assert name_for(torch.device("cpu")) == expected


@pytest.mark.parametrize(
    "module", [LIF(), BNTT(3, STEPS), layer(), network()], ids=lambda module: type(module).__name__
)
def test_what_is_no_array_of_real_numbers(module):
    x = drawn("x", *SHAPE).float()
    for given in (x.to(torch.complex64), x.to(torch.float8_e4m3fn), x.to_sparse()):
        with pytest.raises(
            ValueError, match="dense arrays of float16, bfloat16, float32, float64, integers or booleans"
        ):
            module(given)


def test_numbers_that_are_stored_with_the_other_sign():
    x = drawn("x", *SHAPE[:3]).float()
    negated = torch._neg_view(x)
    assert negated.is_neg() and torch.equal(LIF(0.5)(negated), LIF(0.5)(-x))


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)], ids=str)
def test_a_norm_called_on_halves_does_not_cancel(kind, tolerance):
    x, norm = (drawn("x", *SHAPE) + 30).to(kind), BNTT(3, STEPS)
    expected = copy.deepcopy(norm).double()(x.double())
    assert (norm(x) - expected).abs().max() < tolerance * expected.abs().max()


def test_the_coder_saturates():
    """Frames may hold event counts; 256 of them times 2**24 would be 0 in 32 bits."""
    assert (poisson(torch.full((2, 3, 2, 4, 4), 256.0), STEPS, 5, torch.arange(2)) == 1).all()


def test_settings_that_are_not_floats():
    x = drawn("x", *SHAPE).float()
    for kind in (int, torch.tensor):
        assert torch.equal(LIF(kind(1), kind(1), alpha=kind(1))(x), LIF(1.0, 1.0, alpha=1.0)(x))


def test_under_autocast():
    """As an ordinary network: the currents are of autocast's type, and the gradients of the weights'."""
    x, module = drawn("x", *SHAPE).float(), held_in(network(), torch.float32)
    expected = gradients(copy.deepcopy(module), simply, x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
        assert connect(module.classifier, torch.ones(1, 1, 32)).dtype == torch.bfloat16
    (out.float() * drawn("upstream", *out.shape).float()).sum().backward()
    for parameter, gradient in zip(module.parameters(), expected[2:], strict=True):
        assert parameter.grad.dtype == torch.float32
        torch.testing.assert_close(parameter.grad, gradient, rtol=0.05, atol=0.05)
    assert torch.equal(out.float(), expected[0])


# -- the seams: what is given to C and to Triton -------------------------------------------------------------------


def fitting():
    """Tensors that fit together, 8 rows of 4 channels in 3 steps, by the name of their argument."""
    names = {"x": (3, 8, 4), "dy": (3, 8, 4), "grad_output": (3, 8, 4), "membrane": (8, 4), "grad_membrane": (8, 4)}
    names |= dict.fromkeys(("centre", "scale", "shift", "mean", "dmean", "dvariance"), (3, 4))
    names |= {"rate": (2, 1, 3, 3), "spikes": (3, 2, 4, 4, 4), "weight": (9, 4, 4), "membranes": (32, 4)}
    tensors = {name: drawn(name, *shape).float() for name, shape in names.items()}
    return tensors | {"samples": torch.tensor([3, 1])}


def empty(tensor):
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


DAMAGE = {
    "another type": lambda a: a.double() if a.is_floating_point() else a.float(),
    "too short": lambda a: a[:-1].contiguous(),
    "without values": lambda a: a[:0],
    "too few axes": lambda a: a[0],
    "strided": lambda a: a.repeat_interleave(2, -1)[..., ::2],
    "elsewhere": lambda a: a.to("meta"),
    "negated": torch._neg_view,
    "of no memory": empty,
    "sparse": lambda a: a.to_sparse(),
}
CODER_TAKES = [("rate", "another type"), ("rate", "strided"), ("samples", "strided")]  # it makes what it needs
NEURON = Dynamics(0.5, 1.0, False, 0.3)
PASSES = {
    "moments": (["x"], lambda f, x: f(x)),
    "scan": (["x", "scale", "shift", "membrane"], lambda f, x, a, b, u: f(x, a, b, NEURON, u)),
    "scan, halved": (["x", "scale", "shift", "membrane"], lambda f, x, a, b, u: f(x, a, b, NEURON, u, 4)),
    "reverse_scan": (
        ["x", "centre", "scale", "shift", "membrane", "grad_output", "grad_membrane"],
        lambda f, x, c, a, b, u, g, h: f(x, c, a, b, NEURON, u, g, h),
    ),
    "combine": (["dy", "x", "scale", "mean", "dmean", "dvariance"], lambda f, *tensors: f(*tensors)),
    "poisson": (["rate", "samples"], lambda f, rate, samples: f(rate, 2, 5, samples)),
    "event_layer": (
        ["spikes", "weight", "scale", "shift", "membranes"],
        lambda f, o, w, a, b, u: f(o, w, a, b, NEURON, u, False),
    ),
}


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("backend", ["native", "gpu"])
def test_no_pointer_is_taken_of_a_tensor_that_does_not_fit(backend, name):
    if backend == "native":
        module = native_or_skip()
    else:
        pytest.importorskip("triton")
        module = import_module("bntt.spiking.kernels.gpu")
    function = getattr(module, name.partition(",")[0], None)
    if function is None:
        pytest.skip("a GPU has no event-driven layer")
    arguments, call = PASSES[name]
    if backend == "native":
        call(function, *(fitting()[argument] for argument in arguments))
    passed = []
    for argument in arguments:
        for what, damage in DAMAGE.items():
            if (name, what) == ("moments", "too short") or (argument, what) in CODER_TAKES:
                continue
            tensors = fitting()
            tensors[argument] = damage(tensors[argument])
            try:
                call(function, *(tensors[argument] for argument in arguments))
                passed.append(f"{argument} {what}")
            except (ValueError, RuntimeError):  # of PyTorch for a sparse rate
                pass
    assert passed == []


@pytest.mark.parametrize("backend", ["native", "gpu"])
@pytest.mark.parametrize("halve", [0, 1, 3, 8, -2])
def test_rows_that_are_no_maps(backend, halve):
    pytest.importorskip("triton")
    module = native_or_skip() if backend == "native" else import_module("bntt.spiking.kernels.gpu")
    with pytest.raises(ValueError, match="maps of even height"):
        module.scan(fitting()["x"], None, None, NEURON, None, halve)


def test_averages_of_what_is_no_map_are_refused():
    for shape in ((3, 2, 4), (3, 2, 4, 5, 4), (3, 2, 4, 4, 5), (3, 2, 4, 4)):
        with pytest.raises(ValueError, match="even sides"):
            LIF()(torch.ones(shape), halve=True)


def test_a_membrane_of_other_neurons_is_refused():
    x = torch.ones(3, 2, 4, 4, 4)
    for rest in (torch.ones(32, 3), torch.ones(16, 4), torch.ones(32, 4, device="meta")):
        with pytest.raises(ValueError, match="the membrane of these currents"):
            LIF().advance(x, None, 0, rest)
        with pytest.raises(ValueError, match="the membrane of these currents"):
            LIF().resume(x, None, 0, rest)


def test_the_coder_wants_an_integer_for_each_image():
    images = torch.ones(3, 1, 2, 2)
    for samples in (torch.arange(2), torch.arange(4), torch.ones(3), torch.arange(3, device="meta")):
        with pytest.raises(ValueError, match="samples holds an integer for each of 3 images"):
            poisson(images, 2, 5, samples)
