"""The reference that ``bntt/spiking`` is held against: the paper's network as a plain loop over time-steps.

It shares no function with ``bntt``: batch norms are PyTorch's own modules, one for each time-step where the norm
says so, the surrogate is an autograd function of its own, and the only thing it takes from a network under test is
numbers from its state dict. `NaiveVGG9.values` and `NaiveVGG9.gradients` name them as that state dict does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "conv7", "fc1")
POOLED = ("conv2", "conv4", "conv7")  # where VGG9 averages 2 x 2


class Spike(torch.autograd.Function):
    """1 where u / theta - 1 > 0, as the released code has it; backwards the triangle of Eq. 8."""

    @staticmethod
    def forward(ctx, u, threshold, alpha):
        ctx.save_for_backward(u)
        ctx.threshold, ctx.alpha = threshold, alpha
        return (u / threshold - 1 > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        distance = torch.abs((u - ctx.threshold) / ctx.threshold)
        return grad * ctx.alpha * torch.maximum(torch.zeros_like(u), 1 - distance), None, None


class Neuron:
    """Eq. 4 with a soft or a hard reset; ``detach=False`` lets a gradient through the reset."""

    def __init__(self, leak=0.95, threshold=1.0, reset="soft", alpha=0.3, detach=True):
        self.leak, self.threshold, self.reset, self.alpha, self.detach = leak, threshold, reset, alpha, detach

    def step(self, u, current):
        """The membrane after reset, the spike, and the membrane that decided it."""
        before = self.leak * u + current
        spike = Spike.apply(before, self.threshold, self.alpha)
        fired = spike.detach() if self.detach else spike
        after = before - self.threshold * fired if self.reset == "soft" else before * (1 - fired)
        return after, spike, before

    def run(self, currents):
        """Spikes and deciding membranes of a whole sequence, from zero state."""
        u, spikes, membranes = torch.zeros_like(currents[0]), [], []
        for current in currents:
            u, spike, before = self.step(u, current)
            spikes.append(spike)
            membranes.append(before)
        return torch.stack(spikes), torch.stack(membranes)


# -- norms: each holds PyTorch's batch norms and says how they see the sequence ------------------------------------


def _batch_norm(numbers, row, scaled=True, shifted=False, settings=(1e-4, 0.1), rank=4):
    """One BatchNorm, its tracked moments (and scale and shift) copied from row ``row`` of the state entries."""

    def of(entry):
        return numbers[entry][min(row, len(numbers[entry]) - 1)].clone()

    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    module = kind(numbers["gamma"].shape[1], *settings, affine=scaled).to(numbers["gamma"].dtype)
    module.running_mean, module.running_var = of("running_mean"), of("running_var")
    if scaled:
        module.weight = nn.Parameter(of("gamma"))
        module.bias = nn.Parameter(of("beta")) if shifted else None
    return module


class NoNorm(nn.Module):
    stepwise = True

    def __init__(self, numbers, steps, **options):
        super().__init__()

    def step(self, t, x):
        return x

    def entries(self):
        return {}


class PerStep(nn.Module):
    """BNTT: T separate batch norms without bias."""

    stepwise, scaled = True, True

    def __init__(self, numbers, steps, **options):
        super().__init__()
        self.norms = nn.ModuleList(_batch_norm(numbers, t, self.scaled, **options) for t in range(steps))

    def step(self, t, x):
        return self.norms[t](x)

    def entries(self):
        return {
            "gamma": [n.weight for n in self.norms],
            "running_mean": [n.running_mean for n in self.norms],
            "running_var": [n.running_var for n in self.norms],
        }


class PerStepSharedGamma(PerStep):
    """T separate batch norms without scale, and one scale."""

    scaled = False

    def __init__(self, numbers, steps, **options):
        super().__init__(numbers, steps, **options)
        self.gamma = nn.Parameter(numbers["gamma"][0].clone())

    def step(self, t, x):
        return self.norms[t](x) * _per_channel(self.gamma, x)

    def entries(self):
        return super().entries() | {"gamma": [self.gamma]}


class Repeated(nn.Module):
    """One batch norm without bias, called once per time-step."""

    stepwise = True

    def __init__(self, numbers, steps, **options):
        super().__init__()
        self.norm = _batch_norm(numbers, 0, **options)

    def step(self, t, x):
        return self.norm(x)

    def entries(self):
        n = self.norm
        return {"gamma": [n.weight], "running_mean": [n.running_mean], "running_var": [n.running_var]}


class Pooled(nn.Module):
    """One batch norm without bias over the T * N samples of all time-steps."""

    stepwise, scaled, shifted = False, True, False

    def __init__(self, numbers, steps, **options):
        super().__init__()
        self.norm = _batch_norm(numbers, 0, self.scaled, self.shifted, **options)

    def whole(self, xs):
        return list(self.norm(torch.cat(xs)).split(len(xs[0])))

    def entries(self):
        n = self.norm
        found = {"gamma": [n.weight], "running_mean": [n.running_mean], "running_var": [n.running_var]}
        return found | ({"beta": [n.bias]} if self.shifted else {})


class PooledStepGamma(Pooled):
    """The same without scale, times a scale for every time-step."""

    scaled = False

    def __init__(self, numbers, steps, **options):
        super().__init__(numbers, steps, **options)
        self.gammas = nn.ParameterList(list(numbers["gamma"].clone()))

    def whole(self, xs):
        return [y * _per_channel(gamma, y) for y, gamma in zip(super().whole(xs), self.gammas, strict=True)]

    def entries(self):
        return super().entries() | {"gamma": list(self.gammas)}


class ThresholdDependent(Pooled):
    """tdBN: scale and shift."""

    shifted = True


class Effective(ThresholdDependent):
    """TEBN: tdBN's, and step t multiplied by p[t]."""

    def __init__(self, numbers, steps, **options):
        super().__init__(numbers, steps, **options)
        self.p = nn.ParameterList(list(numbers["step_weight"].clone()))

    def whole(self, xs):
        return [y * p for y, p in zip(super().whole(xs), self.p, strict=True)]

    def entries(self):
        return super().entries() | {"step_weight": list(self.p)}


class Sliding(nn.Module):
    """TSBN: batch norm t is shown the last steps up to t together, and only its answer for step t is used."""

    stepwise, window = False, 3

    def __init__(self, numbers, steps, **options):
        super().__init__()
        self.norms = nn.ModuleList(_batch_norm(numbers, t, shifted=True, **options) for t in range(steps))

    def whole(self, xs):
        seen = [xs[max(0, t + 1 - self.window) : t + 1] for t in range(len(xs))]
        return [norm(torch.cat(of_step))[-len(xs[0]) :] for norm, of_step in zip(self.norms, seen, strict=True)]

    def entries(self):
        return {
            "gamma": [n.weight for n in self.norms],
            "beta": [n.bias for n in self.norms],
            "running_mean": [n.running_mean for n in self.norms],
            "running_var": [n.running_var for n in self.norms],
        }


class Accumulated(Sliding):
    """TAB: batch norm t is shown all steps up to t, and its answer is multiplied by exp(w[t])."""

    window, entry = 10**9, "log_weight"

    def __init__(self, numbers, steps, **options):
        super().__init__(numbers, steps, **options)
        self.w = nn.ParameterList(list(numbers[self.entry].clone()))

    def multiplier(self, t):
        return torch.exp(self.w[t])

    def whole(self, xs):
        return [y * self.multiplier(t) for t, y in enumerate(super().whole(xs))]

    def entries(self):
        return super().entries() | {self.entry: list(self.w)}


class AccumulatedAsReleased(Accumulated):
    """TAB with w[t]^2, and eps 1e-5."""

    entry = "root_weight"

    def __init__(self, numbers, steps, **options):
        super().__init__(numbers, steps, settings=(1e-5, 0.1), **options)

    def multiplier(self, t):
        return self.w[t] * self.w[t]


NAIVE_NORMS = {
    "none": NoNorm,
    "bntt": PerStep,
    "bntt-shared-gamma": PerStepSharedGamma,
    "bn-pooled": Pooled,
    "bn-pooled-step-gamma": PooledStepGamma,
    "bn-repeated": Repeated,
    "tdbn": ThresholdDependent,
    "tebn": Effective,
    "tab": Accumulated,
    "tab-released": AccumulatedAsReleased,
    "tsbn": Sliding,
}


def _per_channel(values, x):
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


# -- layers and the network ----------------------------------------------------------------------------------------


class NaiveLayer(nn.Module):
    """Connection, norm and neuron of one hidden layer; pooling is the network's."""

    def __init__(self, weight, norm, numbers, steps, neuron):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.norm = NAIVE_NORMS[norm](numbers, steps, rank=weight.dim())
        self.neuron = neuron

    def current(self, o):
        return F.conv2d(o, self.weight, padding=1) if self.weight.dim() == 4 else F.linear(o, self.weight)

    def normalised(self, currents):
        """What a whole sequence of currents is after the norm."""
        if self.norm.stepwise:
            return [self.norm.step(t, current) for t, current in enumerate(currents)]
        return self.norm.whole(currents)

    def forward(self, inputs):
        """Spikes and deciding membranes; ``currents`` keeps their gradients."""
        self.currents = [self.current(o) for o in inputs]
        for current in self.currents:
            current.retain_grad()
        return self.neuron.run(self.normalised(self.currents))


class NaiveVGG9(nn.Module):
    """VGG9 without bias, spikes averaged 2 x 2, a readout that accumulates without leak.

    After a forward pass ``inputs``, ``spikes`` and ``membranes`` hold, for each hidden layer, what it saw, what it
    did and the membranes that decided it, one tensor per time-step.
    """

    def __init__(self, state: dict[str, Tensor], norm: str, steps: int, neuron: Neuron, mean_readout: bool = True):
        super().__init__()
        self.steps, self.mean_readout = steps, mean_readout
        self.hidden = nn.ModuleDict()
        for name in HIDDEN:
            prefix = f"layers.{name}.norm."
            numbers = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            self.hidden[name] = NaiveLayer(state[f"layers.{name}.connection.weight"], norm, numbers, steps, neuron)
        self.classifier = nn.Parameter(state["classifier.weight"].clone())

    def forward(self, x):
        self.inputs = {name: [] for name in HIDDEN}
        self.spikes = {name: [] for name in HIDDEN}
        self.membranes = {name: [] for name in HIDDEN}
        stepwise = all(layer.norm.stepwise for layer in self.hidden.values())
        outputs = self._time_outside(x) if stepwise else self._layers_outside(x)
        voltage = 0
        for o in outputs:
            voltage = voltage + F.linear(o, self.classifier)
        return voltage / self.steps if self.mean_readout else voltage

    def _time_outside(self, x):
        """As a simulator does it: all layers within one time-step, then the next."""
        membranes = dict.fromkeys(HIDDEN, 0.0)
        outputs = []
        for t in range(self.steps):
            o = x[t]
            for name, layer in self.hidden.items():
                o = self._arrive(name, o)
                current = layer.norm.step(t, layer.current(o))
                membranes[name], spike, before = layer.neuron.step(membranes[name], current)
                o = self._leave(name, spike, before)
            outputs.append(o)
        return outputs

    def _layers_outside(self, x):
        """For norms that need all time-steps of a layer at once."""
        outputs = list(x)
        for name, layer in self.hidden.items():
            outputs = [self._arrive(name, o) for o in outputs]
            u, left = 0.0, []
            for current in layer.normalised([layer.current(o) for o in outputs]):
                u, spike, before = layer.neuron.step(u, current)
                left.append(self._leave(name, spike, before))
            outputs = left
        return outputs

    def _arrive(self, name, o):
        o = o.flatten(1) if name == "fc1" else o
        self.inputs[name].append(o.detach())
        return o

    def _leave(self, name, spike, before):
        self.spikes[name].append(spike.detach())
        self.membranes[name].append(before.detach())
        return F.avg_pool2d(spike, 2) if name in POOLED else spike

    # -- numbers under the names of the network under test ----------------------------------------------------

    def _named(self):
        yield "classifier.weight", [self.classifier]
        for name, layer in self.hidden.items():
            yield f"layers.{name}.connection.weight", [layer.weight]
            for entry, tensors in layer.norm.entries().items():
                yield f"layers.{name}.norm.{entry}", tensors

    def values(self):
        """Weights, parameters of the norms and tracked moments."""
        return {name: _joined([t.detach() for t in tensors]) for name, tensors in self._named()}

    def gradients(self):
        return {
            name: _joined([t.grad for t in tensors])
            for name, tensors in self._named()
            if isinstance(tensors[0], nn.Parameter)
        }


def _joined(tensors):
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors)
