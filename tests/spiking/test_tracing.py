"""Programs in which tensors have no memory to read: traced, exported, transformed, compiled. Also copies of modules.

Each case runs the plain path and gives the eager result, or raises one clear error. Slow tests run some as
the first call of a process.
"""

import copy
import io
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny import in_a_process_of_its_own
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from bntt.spiking.encoding import poisson
from bntt.spiking.layers import OverTime
from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers
from bntt.spiking.neurons import IF, LIF
from bntt.spiking.norms import BNTT, TAB

ROOT = Path(__file__).parent.parent.parent
STEPS = 3


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def currents():
    return 1.5 * drawn(0, STEPS, 2, 3, 4, 4)


def own(training=True):
    """A network of the user's own, whose parts are called one after the other."""
    network = nn.Sequential(
        OverTime(nn.Conv2d(3, 4, 3, padding=1, bias=False)),
        BNTT(4, STEPS),
        LIF(0.9),
        OverTime(nn.Sequential(nn.AvgPool2d(2), nn.Flatten())),
        OverTime(nn.Linear(16, 6, bias=False)),
        TAB(6, STEPS),
        IF(reset="hard"),
        OverTime(nn.Linear(6, 2, bias=False)),
    )
    initialise(network, 0, 2.0)
    return network.train(training)


def ours(training=False):
    network = SpikingNetwork(weight_layers("vgg5", (3, 4, 4), 2, 1 / 16), STEPS)
    initialise(network, 0, 3.0)
    return network.train(training)


MODULES = {
    "LIF": LIF,
    "own": lambda: own(False),
    "own in training": own,
    "ours": ours,
    "ours in training": lambda: ours(True),
}


def gradients(module, call, x):
    x = x.clone().requires_grad_()
    out = call(x)
    (out * drawn(9, *out.shape)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


def same(found, expected):
    """Equal up to rounding: another order of sums, and no spike moved."""
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def trace(module, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and that sizes are taken as constants
        return torch.jit.trace(module, x, check_trace=False)


def traced(name):
    """Also the gradients of a traced program are those of Eq. 8; it is given other inputs than it was traced with."""
    module, eager = MODULES[name](), MODULES[name]()
    before = copy.deepcopy(module.state_dict())
    program = trace(module, currents() + 0.1)
    module.load_state_dict(before)
    same(gradients(module, program, currents()), gradients(eager, eager, currents()))


def exported(name):
    module, eager = MODULES[name](), MODULES[name]()
    program = torch.export.export(module, (currents() + 0.1,)).module()
    same([program(currents())], [eager(currents())])


def compiled(name, backend="aot_eager"):
    module, eager = MODULES[name](), MODULES[name]()
    program = torch.compile(module, backend=backend)
    same(gradients(module, program, currents()), gradients(eager, eager, currents()))


def proxied(name):
    module = MODULES[name]()
    program = make_fx(MODULES[name]())(currents() + 0.1)
    same([program(currents())], [module(currents())])


def batched(name):
    module, x = MODULES[name](), torch.stack([currents(), -currents()])
    same([torch.func.vmap(module)(x)], [torch.stack([module(a) for a in x])])


def differentiated(name):
    """By the parameters, which `functional_call` replaces; buffers are given too, so that they can be updated."""
    module, eager, x = MODULES[name](), MODULES[name](), currents()
    weights = {key: a.detach() for key, a in module.named_parameters()}

    def loss(weights, x):
        buffers = {key: a.clone() for key, a in module.named_buffers()}
        out = functional_call(module, weights | buffers, (x,))
        return (out * drawn(9, *out.shape)).sum()

    of_weights, of_x = torch.func.grad(loss, (0, 1))(weights, x)
    expected = gradients(eager, eager, x)[1 : 2 + len(weights)]
    same([of_x, *of_weights.values()], expected)


def forwards(name):
    """A forward-mode derivative, against the backward one."""
    module, tangent = MODULES[name](), drawn(3, *currents().shape)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(module(forward_ad.make_dual(currents(), tangent)))
    _, expected, *_ = gradients(MODULES[name](), MODULES[name](), currents())
    same([(out.tangent * drawn(9, *out.primal.shape)).sum()], [(expected * tangent).sum()])


def counted(name):
    with FlopCounterMode(display=False):
        out = MODULES[name]()(currents())
    same([out], [MODULES[name]()(currents())])


def elsewhere(name):
    assert MODULES[name]().to("meta")(currents().to("meta")).device.type == "meta"


def again(name):
    """Under activation checkpoints; the running averages, which are updated twice, are left out as in batch norm."""
    for reentrant in (True, False):
        module, eager = MODULES[name](), MODULES[name]()
        count = len(list(module.parameters())) + 2
        found = gradients(module, lambda x, m=module, r=reentrant: checkpoint(m, x, use_reentrant=r), currents())
        same(found[:count], gradients(eager, eager, currents())[:count])


def copied(name):
    """Deep copies and pickles, made after a call, go on as the original does."""
    module, eager = MODULES[name](), MODULES[name]()
    module(currents()), eager(currents())
    expected = gradients(eager, eager, currents())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        same(gradients(twin, twin, currents()), expected)


def replica(module, of=None):
    """As `nn.DataParallel` makes them: the parameters are tensors computed from the original's, and attributes."""
    twin = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else replica(child)
    for name, value in module._parameters.items():
        setattr(twin, name, None if value is None else value * 1.0)
    twin._buffers = dict(module._buffers)
    return twin


def replicated(name):
    module, eager = MODULES[name](), MODULES[name]()
    same(gradients(module, replica(module), currents()), gradients(eager, eager, currents()))


COMPILERS = (exported, compiled, proxied)
FIRST = (traced, batched, differentiated, forwards, *COMPILERS)  # in which the self-check of the kernels must not run
WAYS = (traced, batched, differentiated, forwards, counted, elsewhere, again, copied, replicated, *COMPILERS)
CASES = {
    (way.__name__, name): (way, name)
    for way in WAYS
    for name in MODULES
    if not (way in (batched, exported, proxied) and "training" in name)  # they cannot update running averages
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(key, marks=pytest.mark.slow if way in COMPILERS else []) for key, (way, _) in CASES.items()],
    ids="-".join,
)
def test_the_plain_path_runs(case):
    run(*case)


def run(way, name):
    CASES[way, name][0](name)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*((way.__name__, "LIF") for way in FIRST), ("compiled", "ours")], ids="-".join)
def test_as_the_first_call_of_a_process(case):
    in_a_process_of_its_own(run, *case)


def test_legacy_onnx_export():
    pytest.importorskip("onnx", reason="exporting needs the package onnx")
    torch.onnx.export(LIF(), (currents(),), io.BytesIO(), dynamo=False)


def test_the_coder_in_programs():
    images, samples = drawn(0, 2, 3, 4, 4), torch.arange(2)

    def code(images):
        return poisson(images, STEPS, 5, samples)

    expected = code(images)
    assert torch.equal(trace(code, images)(images), expected)
    assert torch.equal(make_fx(code)(images)(images), expected)
    assert torch.equal(torch.func.vmap(code)(images[None])[0], expected)


def test_averages_and_membranes_in_programs():
    x, rest = currents(), drawn(5, 32, 3)
    for neuron in (LIF(0.9), LIF(0.9, 0.7, "hard", 0.5)):

        def run(x, rest, neuron=neuron):
            spikes, after = neuron.advance(x, None, 0, rest, halve=True)
            return (spikes * drawn(6, *spikes.shape)).sum() + (after * drawn(7, *after.shape)).sum()

        leaves = x.clone().requires_grad_(), rest.clone().requires_grad_()
        run(*leaves).backward()
        same(torch.func.grad(run, (0, 1))(x, rest), [leaf.grad for leaf in leaves])


@pytest.mark.parametrize("transform", [torch.func.vmap, lambda f: torch.func.grad(lambda x: f(x[0]).sum())])
def test_running_averages_in_a_transform(transform):
    network = ours(True)
    with pytest.raises(ValueError, match="pass the buffers to"):
        transform(network)(currents()[None])


def test_several_upstream_gradients_at_once():
    with pytest.raises(RuntimeError, match="one upstream gradient at a time"):
        torch.autograd.functional.jacobian(LIF(), currents()[:, :1, :1, :1, :1], vectorize=True)


def test_time_chunks_in_a_program():
    network = ours()
    with pytest.raises(ValueError, match="leave out chunk"):
        torch.func.vmap(lambda x: network(x, 2))(currents()[None])


def test_tensors_of_a_subclass():
    class Mine(torch.Tensor):
        pass

    same([ours()(currents().as_subclass(Mine)).as_subclass(torch.Tensor)], [ours()(currents())])
    frozen = ours()
    for module in frozen.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().as_subclass(Mine))
    same([frozen.resume(currents(), 0, {}).as_subclass(torch.Tensor)], [ours().resume(currents(), 0, {})])


def test_a_copy_sees_its_own_weights():
    """The weights rearranged for event-driven inference are not taken along."""
    module = ours()
    module.resume(currents(), 0, {})
    twin = copy.deepcopy(module)
    assert twin.layers["conv1"]._rearranged is None and module.layers["conv1"]._rearranged is not None
    with torch.no_grad():
        for weight in twin.parameters():
            for _ in range(module.layers["conv1"].connection.weight._version):
                weight.mul_(1.5)
    fresh = ours()
    fresh.load_state_dict(twin.state_dict())
    assert torch.equal(twin.resume(currents(), 0, {}), fresh.resume(currents(), 0, {}))


@pytest.mark.slow
def test_the_compiler_is_not_loaded_for_nothing():
    code = "import sys, torch; from bntt import LIF; LIF()(torch.ones(1, 1, 1)); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.slow
def test_compiling_does_not_walk_through_the_kernels(monkeypatch):
    """Only the user's own modules are compiled; ours run as ever."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    assert torch.equal(torch.compile(ours(), backend=backend)(currents()), ours()(currents()))
    assert graphs == []
    torch.compile(own(False), backend=backend)(currents())
    assert 0 < sum(len(graph.graph.nodes) for graph in graphs) < 40
    torch.compiler.reset()
