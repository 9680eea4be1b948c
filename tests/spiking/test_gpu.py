"""The Triton kernels against the plain passes in float64 on the same rounded numbers.

The cases run twice: without a GPU in Triton's interpreter, in a process of their own, since the choice is made when
Triton is imported (``python test_gpu.py NAME ...`` prints what it found, as JSON); and on a CUDA device with
``pytest -m gpu``.
"""

import copy
import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bntt.spiking.kernels import Dynamics, checks, plain

ROOT = Path(__file__).parent.parent.parent
SHAPES = [(1, 1, 1), (5, 7, 10), (33, 7, 16), (5, 64, 64), (1, 64, 16), (5, 64, 100), (6, 1, 100), (2, 700, 3)]
HALVED = [(5, 2, 3, 16), (9, 4, 1, 10), (5, 6, 2, 64), (1, 4, 2, 1), (4, 4, 2, 100)]  # steps, width, maps, channels
LARGE = [(5, 40_000, 64), (9, 3_000, 300), (33, 256, 1024), (2, 300_000, 3)]  # for a device
DYNAMICS = {"soft": Dynamics(0.95, 1.0, False, 0.3), "hard": Dynamics(0.9, 0.7, True, 0.5)}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Triton's interpreter cuts bfloat16 off, devices round it.
TOLERANCE = {"float32": {"cpu": 1e-5, "cuda": 1e-5}, "bfloat16": {"cpu": 2**-7, "cuda": 2**-8}}


# -- the cases, each a function of the device that returns what is wrong -------------------------------------------


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def off(found, expected, tolerance):
    """How far apart two results are, relative to the largest entry; None where that is little enough."""
    if found.shape != expected.shape:
        return f"has shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    error = (found.double().cpu() - expected).abs().max().item() / max(expected.abs().max().item(), 1e-30)
    return None if error <= tolerance else f"off by {error:.1e}"


def away_from_the_threshold(x, affine, dynamics, rest, rounded):
    """Draw anew every neuron's currents that bring its membrane so near the threshold that rounding would decide."""
    for seed in range(100, 200):
        u, near = rest.clone(), torch.zeros_like(rest, dtype=torch.bool)
        for t in range(len(x)):
            y = x[t] if affine is None else affine[0][t] * x[t] + affine[1][t]
            u = dynamics.leak * u + y
            near |= (u - dynamics.threshold).abs() < 1e-4
            fired = u > dynamics.threshold
            u = torch.where(fired, 0.0 if dynamics.hard_reset else u - dynamics.threshold, u)
        if not near.any():
            return
        x[:, near] = rounded(drawn(seed, *x.shape)[:, near])
    raise AssertionError("no currents away from the threshold were found")


def passes(device, shape, dtype, dynamics, normed, carried, width=None):
    """What is wrong with moments, scan, reverse_scan and combine, by name."""
    from bntt.spiking.kernels import gpu

    steps, rows, channels = shape
    kind, dynamics = TYPES[dtype], DYNAMICS[dynamics]
    tolerance = TOLERANCE[dtype][device]

    def rounded(a):
        return a.to(kind).double()

    def moved(a, to=torch.float32):
        return None if a is None else a.to(device, to)

    x, upstream = rounded(drawn(0, *shape)), rounded(drawn(1, steps, rows // 4 if width else rows, channels))
    scale, shift, centre = ((drawn(seed, steps, channels) / 2).float().double() for seed in (2, 3, 4))
    scale = scale.abs() + 0.5
    rest, left = (drawn(seed, rows, channels).float().double() for seed in (5, 6))
    affine = (scale, shift) if normed else None
    away_from_the_threshold(x, affine, dynamics, rest if carried else torch.zeros_like(rest), rounded)
    current = moved(x, kind)
    a, b = affine or (None, None)
    wrong = {}

    mean, variance = plain.moments(x)
    found = gpu.moments(current)
    wrong["mean"] = off(found[0], mean, 2e-6)
    wrong["variance"] = off(found[1], variance, 2e-6)

    u, u32 = (rest.clone(), moved(rest).clone()) if carried else (None, None)
    expected = plain.scan(x, a, b, dynamics, u, width)
    wrong["spikes"] = off(gpu.scan(current, moved(a), moved(b), dynamics, u32, width), expected, 0)
    if carried:
        wrong["membrane"] = off(u32, u, 1e-5)

    start, g, g32 = (rest, left.clone(), moved(left).clone()) if carried else (None, None, None)
    around = centre if normed and carried else None
    expected = plain.reverse_scan(x, around, a, b, dynamics, start, upstream, g, width)
    first = moved(start)
    found = gpu.reverse_scan(
        current, moved(around), moved(a), moved(b), dynamics, first, moved(upstream, kind), g32, width
    )
    wrong["dy"] = off(found[0], expected[0], tolerance)
    if carried:
        wrong["grad_membrane"] = off(g32, g, 1e-5)
        wrong["first membrane"] = off(first, rest, 0)
    if normed:
        wrong["dscale"], wrong["dshift"] = off(found[1], expected[1], 2e-5), off(found[2], expected[2], 2e-5)
        dy, dmean, dvariance = rounded(drawn(7, *shape)), drawn(8, steps, channels), drawn(9, steps, channels)
        dmean, dvariance = dmean.float().double() * rows, dvariance.float().double() * rows  # so that they count
        for name, moments in (("dx", (mean, dmean, dvariance)), ("dx at inference", (None, None, None))):
            expected = plain.combine(dy.clone(), x, scale, *moments)
            found = gpu.combine(moved(dy, kind).clone(), current, moved(scale), *map(moved, moments))
            wrong[name] = off(found, expected, tolerance)
    elif found[1] is not None or found[2] is not None:
        wrong["sums"] = "there are some without a norm"
    wrong["current"] = off(current, x, 0)
    return {name: what for name, what in wrong.items() if what}


def moments_far_from_zero(device):
    """A small spread far from zero, over several blocks of rows of unequal size."""
    from bntt.spiking.kernels import gpu

    x = (drawn(0, 2, 3001, 4) * 0.1 + 1000).float()
    mean, variance = gpu.moments(x.to(device))
    expected = plain.moments(x.double())
    wrong = {"mean": off(mean, expected[0], 5e-7), "variance": off(variance, expected[1], 1e-3)}
    return {name: what for name, what in wrong.items() if what}


def same_spikes(device, dtype, channels):
    """Every bit of the Poisson coder, for keys as numbers and as tensors."""
    from bntt.spiking.kernels import gpu

    rate = drawn(0, 3, channels, 5, 7).clamp(-1, 1).float()
    rate[0, 0, 0, :4] = torch.tensor([0.0, 1.0, -1.0, 2.0**-24])
    samples = torch.tensor([7, 0, 2**33 + 5])
    wrong = {}
    for key, start in ((0, 0), (5, 9), (0x80000000, 0), (0xFEDCBA9876543210, 7), (2**64 - 1, 2**31)):
        expected = plain.poisson(rate, 4, key, samples, start, TYPES[dtype])
        words = torch.tensor([key & 0xFFFFFFFF, key >> 32], device=device)
        for name, given in (("number", key), ("tensor", words)):
            found = gpu.poisson(rate.to(device), 4, given, samples.to(device), start, TYPES[dtype])
            if not torch.equal(found.cpu(), expected) or found.stride() != expected.stride():
                wrong[f"{key:x} as a {name} from step {start}"] = "other spikes"
    return wrong


def twice(device, dtype, shape=(5, 264, 12), width=4):
    """Equal inputs give equal bits, over many tiles."""
    from bntt.spiking.kernels import gpu

    def run():
        x, upstream = drawn(0, *shape), drawn(1, shape[0], shape[1] // 4, shape[2])
        x, upstream = (a.to(device, TYPES[dtype]) for a in (x, upstream))
        mean, variance = gpu.moments(x)
        scale, shift = variance.rsqrt(), -mean * variance.rsqrt()
        u, g = (drawn(seed, *shape[1:]).to(device, torch.float32) for seed in (2, 3))
        first = u.clone()
        spikes = gpu.scan(x, scale, shift, DYNAMICS["soft"], u, width)
        sums = gpu.reverse_scan(x, mean, scale, shift, DYNAMICS["soft"], first, upstream, g, width)
        return [mean, variance, spikes, u, g, *sums, gpu.combine(sums[0].clone(), x, scale, mean, sums[1], sums[2])]

    return {str(i): "differs" for i, pair in enumerate(zip(run(), run(), strict=True)) if not torch.equal(*pair)}


def refusals(device):
    """What the kernels cannot read is refused instead of misread."""
    from bntt.spiking.kernels import gpu

    wrong = {}
    for name, x in (
        ("strides", torch.zeros(3, 16, 4, device=device).transpose(1, 2)),
        ("float64", torch.zeros(3, 4, 4, device=device).double()),
    ):
        try:
            gpu.moments(x)
            wrong[name] = "was taken"
        except ValueError:
            pass
    return wrong


def self_check(device):
    from bntt.spiking.kernels import gpu

    fault = checks.fault(gpu, torch.device(device))
    return {"self-check": fault} if fault else {}


def cases(shapes):
    """All cases by name."""
    found = {}
    # With a norm and without, with a membrane to start from and without, each with both ways to reset.
    for dynamics, settings in (("soft", ((1, 1), (0, 0))), ("hard", ((1, 0), (0, 1)))):
        for dtype in TYPES:
            for normed, carried in settings:
                how = f"{dtype}-{dynamics}-{'norm' if normed else 'none'}-{'carried' if carried else 'rest'}"
                for shape in shapes:
                    found[f"{shape}-{how}"] = partial(
                        passes, shape=shape, dtype=dtype, dynamics=dynamics, normed=normed, carried=carried
                    )
                for steps, width, maps, channels in HALVED:
                    found[f"{(steps, maps, width, channels)}-halved-{how}"] = partial(
                        passes, shape=(steps, maps * 2 * width, channels), dtype=dtype, dynamics=dynamics,
                        normed=normed, carried=carried, width=width,
                    )  # fmt: skip
    for dtype in TYPES:
        found[f"poisson-{dtype}-1"] = partial(same_spikes, dtype=dtype, channels=1)
        found[f"poisson-{dtype}-3"] = partial(same_spikes, dtype=dtype, channels=3)
        found[f"twice-{dtype}"] = partial(twice, dtype=dtype)
    return found | {"far-from-zero": moments_far_from_zero, "refusals": refusals, "self-check": self_check}


INTERPRETED, ON_A_DEVICE = cases(SHAPES), cases(SHAPES + LARGE)


def sample() -> set[str]:
    """Cases for every day: each shape with one of the eight ways to pass it, each way with a shape at least."""
    shapes = len(SHAPES) + len(HALVED)
    passed = [name for name in INTERPRETED if name.startswith("(")]  # way by way
    some = {name for number, name in enumerate(passed) if number % shapes % 8 == number // shapes}
    return some | {"poisson-float32-3", "poisson-bfloat16-1", "twice-float32", "far-from-zero", "refusals"}


ALWAYS = sample()


def broken_interpreter():
    """Why the interpreter cannot run even a loop, as that of Triton 3.6 cannot beside NumPy 2.4; None where it can."""
    import triton
    import triton.language as tl

    @triton.jit
    def count(out_ptr, end):
        for i in range(end):
            tl.store(out_ptr + i, i)

    try:
        count[(1,)](torch.zeros(3, dtype=torch.int32), 3)
    except Exception as error:
        return f"Triton {triton.__version__}'s interpreter fails on a loop: {error}"
    return None


def main():
    """The cases named on the command line, in the interpreter; prints what is wrong with each, as JSON."""
    from bntt.spiking.kernels import gpu

    broken = broken_interpreter()
    if broken:
        print(json.dumps({"broken": broken}))
        return
    torch.set_num_threads(1)
    gpu.PROGRAMS = 4  # the interpreter's time goes by the number of programs
    checks.TOLERANCE[torch.bfloat16] = 3e-2  # bfloat16 cut off twice
    found = {}
    for name in sys.argv[1:]:
        try:
            found[name] = INTERPRETED[name]("cpu")
        except Exception as error:
            found[name] = {type(error).__name__: str(error)}
    print(json.dumps(found))


# -- in the interpreter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["a sample", pytest.param("all others", marks=pytest.mark.slow)])
def test_in_the_interpreter(which):
    """In one process for many cases, since it takes Triton longer to start than to run one."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    names = [name for name in INTERPRETED if (name in ALWAYS) == (which == "a sample")]
    settings = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, *names], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if "broken" in found:
        pytest.skip(found["broken"])
    assert found == {name: {} for name in names}


# -- compiled for a device, which need not be there ------------------------------------------------------------------

WORD, NUMBER, SUMS = "i32", "fp32", "*fp32"
TILE = {"BLOCK_ROWS": 16, "BLOCK_CHANNELS": 64}
SCANNED = {"x_ptr": "x", "scale_ptr": SUMS, "shift_ptr": SUMS, "membrane_ptr": SUMS}
NEURON = {"steps": WORD, "rows": WORD, "channels": WORD, "width": WORD, "leak": NUMBER, "threshold": NUMBER}
COMPILED = {  # kernel: the types of its arguments, "x" being that of the currents
    "moments": {
        "x_ptr": "x", "mean_ptr": SUMS, "spread_ptr": SUMS, "rows": WORD, "channels": WORD, "tiles": WORD, **TILE
    },
    "scan": {**SCANNED, "out_ptr": "x", **NEURON, "HARD": False, "HALVE": True, **TILE},
    "reverse_scan": {
        **SCANNED, "centre_ptr": SUMS, "grad_ptr": "x", "grad_membrane_ptr": SUMS, "stored_ptr": SUMS, "dy_ptr": "x",
        "sums_ptr": SUMS, **NEURON, "alpha": NUMBER, "HARD": False, "HALVE": False, **TILE, "TOGETHER": 8,
    },
    "combine": {
        "dy_ptr": "x", "x_ptr": "x", "scale_ptr": SUMS, "mean_ptr": SUMS, "dmean_ptr": SUMS, "dvariance_ptr": SUMS,
        "rows": WORD, "channels": WORD, "share": NUMBER, **TILE,
    },
}  # fmt: skip


def compiled(name, dtype, capability=90):
    """A kernel for a GPU of such a capability, as Triton does before it starts it: its intermediate code, by stage."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bntt.spiking.kernels import gpu_kernels

    kernel = getattr(gpu_kernels, name)
    signature, constants, attributes = {}, {}, {}
    for position, argument in enumerate(kernel.arg_names):
        given = COMPILED[name][argument]
        if not isinstance(given, str):
            signature[argument], constants[(position,)] = "constexpr", given
            continue
        signature[argument] = {"x": {"float32": "*fp32", "bfloat16": "*bf16"}[dtype]}.get(given, given)
        if argument in ("rows", "channels") or signature[argument].startswith("*"):  # as of arrays of 64 channels
            attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4}).asm


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_for_a_gpu(name, dtype):
    assert "st.global" in compiled(name, dtype)["ptx"]


def test_a_membrane_is_stored_before_another_thread_loads_it():
    """In bfloat16 the reverse scan's threads share out the membranes they store otherwise than those they load.

    No interpreter shows that; on an H100 one element of some millions was wrong.
    """
    forward, _, back = compiled("reverse_scan", "bfloat16")["ttgir"].partition("barrier")
    assert forward.count("scf.for") == 1 and "tt.store" in forward
    assert "scf.for" in back


# -- on a device ---------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_on_a_device(name):
    assert ON_A_DEVICE[name]("cuda") == {}


@pytest.mark.gpu
def test_more_values_than_32_bits_count():
    from bntt.spiking.kernels import gpu

    shape = (33, 2**20, 64)  # 2.2e9 values
    if torch.cuda.get_device_properties(0).total_memory < 40e9:
        pytest.skip("needs 40 GB on the device")
    few = 1000
    end = drawn(0, shape[0], few, shape[2]).to("cuda", torch.bfloat16)
    x = torch.zeros(shape, device="cuda", dtype=torch.bfloat16)
    x[:, -few:] = end
    dynamics = DYNAMICS["soft"]
    spikes = gpu.scan(x, None, None, dynamics)
    assert torch.equal(spikes[:, -few:], gpu.scan(end, None, None, dynamics))
    dy, _, _ = gpu.reverse_scan(x, None, None, None, dynamics, None, x)
    assert torch.equal(dy[:, -few:], gpu.reverse_scan(end, None, None, None, dynamics, None, end)[0])
    mean, _ = gpu.moments(x)
    assert off(mean, end.double().cpu().sum(1) / shape[1], 1e-5) is None
    dx = gpu.combine(x.clone(), x, torch.full((33, 64), 2.0, device="cuda"), None, None, None)
    assert torch.equal(dx[:, -few:], 2 * end)


def compare_layers(device):
    """VGG9's layers, each on the inputs of a run in float64 on the CPU; then a whole training step on the device."""
    from bntt.spiking.networks import place

    from .helpers import input_spikes, vgg9

    network = vgg9("bntt", 5, 0.25, 16)
    twin = copy.deepcopy(network).float()
    place(twin, torch.device(device))
    inputs = {}
    for name, layer in network.layers.items():
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.__setitem__(name, given[0].detach()))
    spikes, labels = input_spikes(0, 5, 4, 3, 16, 16), torch.tensor([3, 1, 4, 1])
    network(spikes)
    for name, layer in network.layers.items():
        outputs, grads = [], []
        for ours, x in ((layer, inputs[name].clone()), (twin.layers[name], inputs[name].to(device, torch.float32))):
            x.requires_grad_()
            out = ours(x)
            upstream = drawn(1, *out.shape).to(out)
            weights = [p for p in ours.parameters() if p.requires_grad]
            grads.append([g.double().cpu() for g in torch.autograd.grad(out, [x, *weights], upstream)])
            outputs.append(out.detach().double().cpu())
        assert (outputs[0] != outputs[1]).double().mean() < 1e-3, name  # spikes flipped by rounding
        for ours, theirs in zip(*grads, strict=True):
            assert (ours - theirs).norm() < 1e-2 * ours.norm(), name

    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, fused=True)
    before = [p.detach().clone() for p in twin.parameters()]
    loss = F.cross_entropy(twin.logits(twin(spikes.to(device, torch.float32))), labels.to(device))
    loss.backward()
    optimiser.step()
    assert loss.isfinite()
    for old, new in zip(before, twin.parameters(), strict=True):
        assert new.isfinite().all() and not torch.equal(old, new)


@pytest.mark.gpu
def test_a_training_step_of_vgg9(monkeypatch):
    from bntt.spiking.kernels import name_for

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # weights would lose 13 bits
    assert name_for(torch.device("cuda")) == "gpu"
    compare_layers("cuda")


if __name__ == "__main__":
    main()
