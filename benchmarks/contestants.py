"""The contestants of `train_step.py`: the same network, written with this project and with other code.

Every contestant is built from the same list of `WeightLayer`, starts from the same weights, and offers

* ``logits(images)``: draws Poisson spikes of the images and runs the network on them; this is timed;
* ``logits_of(spikes)``: the same on given spikes ``[T, N, C, H, W]``; ``--check`` compares this;
* ``weights()``, ``gammas()``: parameters by layer, in one order for all, so that ``--check`` can set and compare them.

`Limit` is the lower bound: the convolutions, poolings and matrix products alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bntt.spiking.encoding import poisson
from bntt.spiking.networks import SpikingNetwork, WeightLayer, initialise, place
from bntt.spiking.randomness import key

LEAK, THRESHOLD, ALPHA, EPS = 0.95, 1.0, 0.3, 1e-4
GAIN = 2.0  # of the initial weights, as released
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}  # fp64 only for --check


class Contestant:
    """What all have in common: the layers, T, the precision, and the memory layout."""

    layouts = tuple(LAYOUTS)
    needs: tuple[str, ...] = ()  # modules that are imported before memory is measured
    network: nn.Module

    def __init__(self, layers: list[WeightLayer], time_steps: int, precision: str, layout: str, device: str) -> None:
        self.layers, self.time_steps, self.precision, self.device = layers, time_steps, precision, device
        self.format = LAYOUTS[layout]
        self.readout = torch.float64 if precision == "fp64" else torch.float32  # type of the accumulated voltage

    def start(self) -> None:
        """Draw the initial weights, and move the network to its device and layout."""
        initialise(self.network, 0, GAIN)
        self.network.to(self.device, memory_format=self.format)  # type: ignore[call-overload]
        self.network.train()

    def autocast(self) -> contextlib.AbstractContextManager:
        """PyTorch's own mixed precision, which the peers use for bfloat16."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def logits(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def logits_of(self, spikes: Tensor) -> Tensor:
        raise NotImplementedError

    def weights(self) -> list[nn.Parameter]:
        """Weights of the connections, by depth."""
        kinds = (nn.Conv2d, nn.Linear)
        return [module.weight for module in self.network.modules() if isinstance(module, kinds)]

    def gammas(self) -> list[list[Tensor]]:
        """Gammas by depth and time-step, each ``[C]``."""
        raise NotImplementedError

    def gamma_gradients(self) -> list[Tensor]:
        """Gradients of the gammas by depth, each ``[T, C]``."""
        return [torch.stack([gamma.grad for gamma in layer]) for layer in self.gammas()]


def signed_poisson(images: Tensor) -> Tensor:
    """One step of the released coding: a z-scored pixel x fires ``sign(x)`` with probability ``|x| / 2``."""
    return images.sign() * (2 * torch.rand_like(images) <= images.abs())


# -- this project ------------------------------------------------------------------------------------------------


class This(Contestant):
    """This project: the type of the spikes decides the precision, and the layout is always channels-last."""

    layouts = ("channels-last",)

    def __init__(self, *settings, chunk: int | None = None) -> None:
        super().__init__(*settings)
        self.chunk = chunk
        self.network = SpikingNetwork(self.layers, self.time_steps, norm="bntt", eps=EPS)
        self.draws = 0

    def start(self) -> None:
        initialise(self.network, 0, GAIN)
        place(self.network, torch.device(self.device))
        self.network.train()

    def logits(self, images: Tensor) -> Tensor:
        self.draws += 1
        samples = torch.arange(len(images), device=images.device)
        noise = key(0, "benchmark", self.draws)
        return self.logits_of(poisson(images, self.time_steps, noise, samples, dtype=PRECISIONS[self.precision]))

    def logits_of(self, spikes: Tensor) -> Tensor:
        return self.network.logits(self.network(spikes, self.chunk))

    def gammas(self) -> list[list[Tensor]]:
        return [list(norm.gamma.detach()) for norm in self.network.norms().values()]

    def gamma_gradients(self) -> list[Tensor]:
        return [norm.gamma.grad for norm in self.network.norms().values()]


# -- loops over time ---------------------------------------------------------------------------------------------


class Triangle(torch.autograd.Function):
    """A spike where the membrane is above the threshold, with the triangular surrogate gradient."""

    @staticmethod
    def forward(ctx, over: Tensor) -> Tensor:
        ctx.save_for_backward(over)
        return (over > 0).to(over.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (over,) = ctx.saved_tensors
        return grad * (ALPHA * (1 - over.abs()).clamp_min(0))


class LoopNetwork(nn.Module):
    """A Python loop over time that computes all layers in each step; subclasses define norms and neurons."""

    def __init__(self, layers: list[WeightLayer], time_steps: int, readout: torch.dtype) -> None:
        super().__init__()
        self.description, self.time_steps, self.readout = layers, time_steps, readout
        self.connections = nn.ModuleDict({layer.name: layer.connection() for layer in layers})
        self.norms = nn.ModuleDict({layer.name: self.norm(layer) for layer in layers[:-1]})
        self.neurons = nn.ModuleDict({layer.name: self.neuron() for layer in layers[:-1]})

    def norm(self, layer: WeightLayer) -> nn.ModuleList:
        raise NotImplementedError

    def neuron(self) -> nn.Module:
        """A module that maps a current and the membrane (None at rest) to spikes and the next membrane."""
        raise NotImplementedError

    def forward(self, source: Callable[[int], Tensor]) -> Tensor:
        """Logits of the input spikes ``source(t)``."""
        *hidden, classifier = self.description
        membranes: dict[str, Tensor | None] = {layer.name: None for layer in hidden}
        voltage: Tensor | None = None
        for t in range(self.time_steps):
            x = source(t)
            for layer in hidden:
                if not layer.is_convolution:
                    x = x.flatten(1)
                current = self.norms[layer.name][t](self.connections[layer.name](x))
                x, membranes[layer.name] = self.neurons[layer.name](current, membranes[layer.name])
                x = x if layer.pool is None else F.avg_pool2d(x, 2)
            out = self.connections[classifier.name](x)
            voltage = out.to(self.readout) if voltage is None else voltage + out
        return voltage / self.time_steps


class ReleasedNeuron(nn.Module):
    """The arithmetic of the released code; the reset is built by index assignment, so no gradient flows through it."""

    def forward(self, current: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        # Membranes have the current's type, which is fastest: float32 membranes would be slower under autocast.
        membrane = torch.zeros_like(current) if membrane is None else membrane
        membrane = LEAK * membrane + current
        over = membrane / THRESHOLD - 1.0
        spikes = Triangle.apply(over)
        reset = torch.zeros_like(membrane)
        reset[over > 0] = THRESHOLD
        return spikes, membrane - reset


class ReleasedNetwork(LoopNetwork):
    """The network in the style of the released code."""

    def norm(self, layer: WeightLayer) -> nn.ModuleList:
        kind = nn.BatchNorm2d if layer.is_convolution else nn.BatchNorm1d
        norms = nn.ModuleList(kind(layer.outputs, eps=EPS, momentum=0.1) for _ in range(self.time_steps))
        for norm in norms:
            norm.bias = None
        return norms

    def neuron(self) -> nn.Module:
        return ReleasedNeuron()


class SnnTorchNetwork(LoopNetwork):
    """snnTorch's norm functions and neuron, in the loop that its tutorials write."""

    def norm(self, layer: WeightLayer) -> nn.ModuleList:
        from snntorch import BatchNormTT1d, BatchNormTT2d

        make = BatchNormTT2d if layer.is_convolution else BatchNormTT1d
        return make(layer.outputs, self.time_steps, eps=EPS, momentum=0.1)

    def neuron(self) -> nn.Module:
        import snntorch

        class Leaky(snntorch.Leaky):
            """The reset leaks with the membrane, as in the paper; snnTorch subtracts it after the leak."""

            def forward(self, input_: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
                return super().forward(input_, self.reset_mem() if mem is None else mem)

            def _base_sub(self, input_: Tensor) -> Tensor:  # as many operations as the one it overrides
                return self.beta.clamp(0, 1) * (self.mem - self.reset * self.threshold) + input_

        return Leaky(beta=LEAK, threshold=THRESHOLD, spike_grad=Triangle.apply, reset_mechanism="subtract")


class Loop(Contestant):
    """A contestant that loops over time in Python, and draws its input step by step."""

    kind: type[LoopNetwork]

    def __init__(self, *settings) -> None:
        super().__init__(*settings)
        self.network = self.kind(self.layers, self.time_steps, self.readout)

    def logits(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self.format)
        with self.autocast():
            return self.network(lambda t: signed_poisson(images))

    def logits_of(self, spikes: Tensor) -> Tensor:
        with self.autocast():
            return self.network(lambda t: spikes[t].contiguous(memory_format=self.format))

    def gammas(self) -> list[list[Tensor]]:
        return [[norm.weight for norm in norms] for norms in self.network.norms.values()]


class Released(Loop):
    kind = ReleasedNetwork


class SnnTorch(Loop):
    kind = SnnTorchNetwork
    needs = ("snntorch",)


# -- SpikingJelly ------------------------------------------------------------------------------------------------


class Damping(torch.autograd.Function):
    """Multiplies the gradient by alpha, and passes the spikes on.

    SpikingJelly's fused neuron accepts only its own surrogates, and its triangle has no damping. The reset is detached,
    so damping the gradient that arrives at the spikes has the same effect.
    """

    @staticmethod
    def forward(ctx, spikes: Tensor) -> Tensor:
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * ALPHA


class Damped(nn.Module):
    def forward(self, spikes: Tensor) -> Tensor:
        return Damping.apply(spikes)


class SpikingJelly(Contestant):
    """Multi-step mode: connections and poolings on all steps as one batch, the neuron as one registered operator."""

    needs = tuple(f"spikingjelly.activation_based.{part}" for part in ("functional", "layer", "neuron", "surrogate"))

    def __init__(self, *settings) -> None:
        super().__init__(*settings)
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        self.reset = functional.reset_net
        parts: list[nn.Module] = []
        *hidden, classifier = self.layers
        for own in hidden:
            if own.is_convolution:
                parts.append(layer.Conv2d(own.inputs, own.outputs, 3, padding=1, bias=False))
                parts.append(layer.BatchNormThroughTime2d(self.time_steps, own.outputs, eps=EPS))
            else:
                parts.append(layer.Linear(own.inputs, own.outputs, bias=False))
                parts.append(layer.BatchNormThroughTime1d(self.time_steps, own.outputs, eps=EPS))
            parts.append(
                neuron.LIFNode(
                    tau=1 / (1 - LEAK),
                    decay_input=False,
                    v_threshold=THRESHOLD,
                    v_reset=None,
                    surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
                    detach_reset=True,
                )
            )
            parts.append(Damped())
            if own.pool is not None:
                parts.append(layer.AvgPool2d(2))
            if own.is_convolution and own is [one for one in hidden if one.is_convolution][-1]:
                parts.append(layer.Flatten())
        parts.append(layer.Linear(classifier.inputs, classifier.outputs, bias=False))
        self.network = nn.Sequential(*parts)
        functional.set_step_mode(self.network, "m")

    def logits(self, images: Tensor) -> Tensor:
        steps = images.expand(self.time_steps, *images.shape)
        return self.logits_of(signed_poisson(steps))

    def logits_of(self, spikes: Tensor) -> Tensor:
        self.reset(self.network)
        as_batch = spikes.flatten(0, 1).contiguous(memory_format=self.format)
        with self.autocast():
            return self.network(as_batch.unflatten(0, spikes.shape[:2])).mean(0, dtype=self.readout)

    def gammas(self) -> list[list[Tensor]]:
        return [[norm.weight for norm in part.bn_list] for part in self.network if hasattr(part, "bn_list")]


CONTESTANTS: dict[str, type[Contestant]] = {
    "this": This,
    "released": Released,
    "snntorch": SnnTorch,
    "spikingjelly": SpikingJelly,
}


# -- the limit ---------------------------------------------------------------------------------------------------

DENSITY = {True: 0.4, False: 0.15}  # of spikes, in the input and in hidden layers: about as with the initial weights
PIECES = {"cpu": (50, 100, 200, 400), "cuda": (400, 800, 1600, 3200)}  # images at once, tried on as many as the last
MOST_IMAGES = {"cpu": 1600, "cuda": 6400}  # measured at most; time for more is extrapolated in proportion


class LayerWork:
    """The forward and backward arithmetic of one layer on ``images`` images, without norm and neuron."""

    def __init__(self, layer: WeightLayer, first: bool, images: int, dtype: torch.dtype, layout: str, device: str):
        self.layer, self.first = layer, first
        space = (layer.side, layer.side) if layer.is_convolution else ()
        draw = {"device": device}
        some = min(images, 50)  # repeated: drawing all would take longer than the work

        def fill(pattern: Tensor) -> Tensor:
            whole = pattern.to(dtype).repeat(-(-images // some), *(1 for _ in pattern.shape[1:]))[:images]
            return whole.contiguous(memory_format=LAYOUTS[layout]) if space else whole

        self.inputs = fill(torch.rand(some, layer.inputs, *space, **draw) < DENSITY[first])
        self.upstream = fill(torch.randn(some, layer.outputs, *space, **draw))
        self.weight = torch.randn(layer.outputs, layer.inputs, *((3, 3) if space else ()), **draw).to(dtype)
        self.pooled = self.upstream[..., ::2, ::2].contiguous(memory_format=LAYOUTS[layout]) if layer.pool else None
        if space:
            self.weight = self.weight.contiguous(memory_format=LAYOUTS[layout])

    def run(self, piece: int, images: int | None = None) -> None:
        """Compute all images, or the first ``images``, ``piece`` at a time."""
        of_weight = torch.zeros_like(self.weight)
        for start in range(0, images or len(self.inputs), piece):
            window = slice(start, start + piece)
            of_weight += self._convolve(window) if self.layer.is_convolution else self._multiply(window)

    def _convolve(self, window: slice) -> Tensor:
        x, grad = self.inputs[window], self.upstream[window]
        out = torch.conv2d(x, self.weight, None, padding=1)
        if self.pooled is not None:
            F.avg_pool2d(out, 2)
            torch.ops.aten.avg_pool2d_backward(self.pooled[window], out, [2, 2], [2, 2], [0, 0], False, True, None)
        wanted = [not self.first, True, False]
        return torch.ops.aten.convolution_backward(
            grad, x, self.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )[1]

    def _multiply(self, window: slice) -> Tensor:
        x, grad = self.inputs[window], self.upstream[window]
        F.linear(x, self.weight)
        grad @ self.weight
        return grad.T @ x

    def seconds(self, piece: int) -> float:
        self.run(piece, piece)  # the library prepares its kernels for a shape when it first sees it
        device = self.inputs.device.type
        return min(timed(lambda: self.run(piece), device) for _ in range(3 if device == "cuda" else 1))


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that the work takes on its device."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Limit:
    """The least time that these layers can take with PyTorch's kernels: no norm, no neuron, no coding, no optimiser."""

    def __init__(self, layers: list[WeightLayer], images: int, precision: str, device: str) -> None:
        self.layers, self.images, self.device = layers, images, device
        self.dtype = PRECISIONS[precision]

    def _works(self, images: int, layout: str) -> Iterator[LayerWork]:
        for number, layer in enumerate(self.layers):
            yield LayerWork(layer, number == 0, images, self.dtype, layout, self.device)

    def search(self) -> dict:
        """The layout, and for each layer the number of images at once, that are fastest on a few images."""
        pieces = PIECES[self.device]
        images = min(self.images, pieces[-1])
        found = {}
        for layout in LAYOUTS:
            tried = [
                {p: work.seconds(p) for p in pieces if p <= images or p == pieces[0]}
                for work in self._works(images, layout)
            ]
            found[layout] = (sum(min(t.values()) for t in tried), [min(t, key=t.__getitem__) for t in tried])
        best = min(found, key=lambda layout: found[layout][0])
        return {"layout": best, "pieces": found[best][1]}

    def seconds(self, config: dict) -> float:
        """Seconds for all images; each layer in the pieces found or in one piece, whichever is faster."""
        images = min(self.images, MOST_IMAGES[self.device])
        works = self._works(images, config["layout"])
        best = [min(work.seconds(p), work.seconds(images)) for p, work in zip(config["pieces"], works, strict=True)]
        return sum(best) * self.images / images

    def flops(self) -> float:
        """Operations, two per multiply-accumulate: forward, weight gradient, input gradient (not in layer one)."""
        return 2.0 * self.images * (3 * sum(layer.macs for layer in self.layers) - self.layers[0].macs)

    def square_gflops(self, side: int = 2048, repeats: int = 5) -> float:
        """GFLOP/s of a square matrix product, the best of a few, also tried as a 1 x 1 convolution.

        On a CPU, different libraries compute the two. On some CPUs, the library for float32 matrices is slower.
        """
        a, b = (torch.randn(side, side, device=self.device).to(self.dtype) for _ in range(2))
        images = a.T.reshape(1, side, side // 64, 64).contiguous(memory_format=torch.channels_last)
        ways = (lambda: a @ b, lambda: torch.conv2d(images, b[..., None, None]))
        for way in ways:
            way()
        return 2 * side**3 / min(timed(way, self.device) for way in ways for _ in range(repeats)) / 1e9
