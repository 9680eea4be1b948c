"""A captured training step against the same step run as it is."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.nn import functional as F

from bntt.captured import CapturedStep, words
from bntt.randomness import key
from bntt.spiking.encoding import poisson
from bntt.spiking.networks import SpikingNetwork, initialise, place, weight_layers


class Training:
    """A tiny network, and a step that takes samples and the noise's key."""

    def __init__(self, device, dtype, momentum=0.9, chunk=None):
        draws = torch.Generator().manual_seed(0)
        self.images = torch.randn(16, 3, 8, 8, generator=draws).to(device)
        self.labels = torch.randint(5, (16,), generator=draws).to(device)
        self.network = SpikingNetwork(weight_layers("vgg5", (3, 8, 8), 5, 0.1), 5, norm="bntt")
        initialise(self.network, 0, 2.0)
        place(self.network, torch.device(device))
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=0.1, momentum=momentum, weight_decay=1e-3, fused=True
        )
        self.total = torch.zeros((), device=device)
        self.dtype, self.chunk = dtype, chunk

    def step(self, samples, noise):
        if noise.device.type == "cpu":  # only a GPU takes the key as a tensor
            noise = int(noise[0]) | int(noise[1]) << 32
        spikes = poisson(self.images[samples], 5, noise, samples, dtype=self.dtype)
        self.optimiser.zero_grad(set_to_none=True)
        logits = self.network.logits(self.network(spikes, self.chunk))
        loss = F.cross_entropy(logits, self.labels[samples])
        loss.backward()
        self.optimiser.step()
        self.total += loss.detach() * len(samples)

    def captured(self, samples, noise):
        return CapturedStep(self.step, self.network, self.optimiser, (samples, noise), counters=[self.total])

    def numbers(self):
        momenta = [state["momentum_buffer"] for state in self.optimiser.state.values() if "momentum_buffer" in state]
        return [self.total, *self.network.state_dict().values(), *momenta]


def compare(device, dtype, momentum, chunk):
    """Two epochs of batches of 6, 6 and 4, captured but for the last and at first as it is."""
    plain, other = (Training(device, dtype, momentum, chunk) for _ in range(2))
    captured = None
    for epoch in range(2):
        noise = words(key(0, "noise", epoch), device)
        for number, batch in enumerate(torch.randperm(16, generator=torch.Generator().manual_seed(epoch)).split(6)):
            batch = batch.to(device)
            plain.step(batch, noise)
            if len(batch) < 6:
                other.step(batch, noise)
            else:
                if captured is None or (epoch == 1 and number == 0):  # from a fresh and from a used optimiser
                    captured = other.captured(batch, noise)
                captured(batch, noise)
    for ours, theirs in zip(other.numbers(), plain.numbers(), strict=True):
        assert torch.equal(ours, theirs)
    assert plain.total > 0


@pytest.mark.gpu
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_captured_and_uncaptured_training_give_identical_weights(dtype, momentum, chunk, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    compare("cuda", dtype, momentum, chunk)


@pytest.fixture
def imitation(monkeypatch):
    """In CUDA's place: a capture undoes what the step did meanwhile, a replay runs it."""

    class Graph:
        def replay(self):
            self.run()

    class Stream:
        def wait_stream(self, other): ...

    @contextmanager
    def capturing(graph):
        training = graph.training
        before = [a.detach().clone() for a in training.numbers()]
        graph.run = lambda: training.step(*training.inputs)
        yield
        for tensor, old in zip(training.numbers(), before, strict=True):
            with torch.no_grad():
                tensor.copy_(old)

    def captured(self, samples, noise):
        Graph.training = self
        step = CapturedStep(self.step, self.network, self.optimiser, (samples, noise), counters=[self.total])
        self.inputs = step._inputs
        return step

    monkeypatch.setattr(Training, "captured", captured)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_the_warm_up_leaves_no_trace(imitation, momentum):
    compare("cpu", torch.float32, momentum, None)


def test_other_shapes_and_dampening_are_refused(imitation):
    training = Training("cpu", torch.float32)
    samples, noise = torch.arange(6), words(5, torch.device("cpu"))
    captured = training.captured(samples, noise)
    with pytest.raises(ValueError, match="captured for shape"):
        captured(samples[:1], noise)
    training.optimiser.param_groups[0]["dampening"] = 0.5
    with pytest.raises(ValueError, match="dampening"):
        training.captured(samples, noise)
