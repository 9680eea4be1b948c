"""The networks: their sizes as the paper's, spiking and dense forms, streaming, complaints."""

from itertools import product

import pytest
import torch
from torch import nn

from bntt.spiking.networks import ARCHITECTURES, DenseNetwork, SpikingNetwork, initialise, weight_layers
from bntt.spiking.neurons import IF, LIF
from bntt.spiking.norms import NORMS, TDBN

from .helpers import disturb, input_spikes, random, record_spikes, relative, vgg9

VGG9 = weight_layers("vgg9", (3, 32, 32), 10)


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "side", "classes", "steps", "parameters", "millijoules"),
    [
        ("vgg9", 32, 10, 25, 5_993_280, 0.896),
        ("vgg11", 32, 100, 50, 12_066_880, 0.714),
        ("vgg11", 64, 200, 30, 12_339_520, 2.82),
    ],
)
def test_parameters_and_dense_energy(architecture, side, classes, steps, parameters, millijoules):
    """4.6 pJ for each multiply-accumulate of the dense network."""
    layers = weight_layers(architecture, (3, side, side), classes)
    network = SpikingNetwork(layers, steps)
    assert sum(p.numel() for p in network.parameters()) == parameters
    energy = sum(layer.macs for layer in layers) * 4.6e-12 * 1e3
    assert energy == pytest.approx(millijoules, abs=0.005 if millijoules > 1 else 0.0005)


def test_vgg9_layer_by_layer():
    assert {layer.name: layer.macs for layer in VGG9} == {
        "conv1": 1_769_472,
        "conv2": 37_748_736,
        "conv3": 18_874_368,
        "conv4": 37_748_736,
        "conv5": 18_874_368,
        "conv6": 37_748_736,
        "conv7": 37_748_736,
        "fc1": 4_194_304,
        "fc2": 10_240,
    }
    assert [layer.neurons for layer in VGG9] == [65536, 65536, 32768, 32768, 16384, 16384, 16384, 1024, 10]
    assert sum(layer.neurons for layer in VGG9[:-1]) == 246_784
    assert sum(layer.macs for layer in VGG9) == 194_717_696


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("vgg5", 32),
        ("vgg9", 32),
        ("vgg11", 32),
        ("vgg11", 64),
        ("vgg16", 32),
    ],
)
def test_the_description_is_what_runs(architecture, side):
    """Neurons and MACs as counted on the network itself, by hooks."""
    layers = weight_layers(architecture, (3, side, side), 7, width=1 / 16)
    network = SpikingNetwork(layers, 1, norm="none").eval()
    macs = {}

    def count(name):
        def hook(module, inputs, output):
            per_output = module.weight[0].numel()
            macs[name] = output[0].numel() * per_output

        return hook

    for name, layer in network.layers.items():
        layer.connection.register_forward_hook(count(name))
    network.classifier.register_forward_hook(count(layers[-1].name))
    spikes = record_spikes(network)
    assert network(torch.zeros(1, 1, 3, side, side)).shape == (1, 1, 7)
    assert {layer.name: layer.macs for layer in layers} == macs
    assert {layer.name: layer.neurons for layer in layers[:-1]} == {k: s[0, 0].numel() for k, s in spikes.items()}


@pytest.mark.parametrize(("architecture", "weighted"), [("vgg5", 5), ("vgg9", 9), ("vgg11", 10), ("vgg16", 16)])
def test_depths(architecture, weighted):
    """VGG11 has ten weight layers, as released."""
    layers = weight_layers(architecture, (3, 32, 32), 10)
    assert len(layers) == weighted
    assert [layer.name for layer in layers if layer.is_convolution] == [
        f"conv{i + 1}" for i in range(sum(layer.is_convolution for layer in layers))
    ]
    assert layers[-1].outputs == 10 and layers[0].inputs == 3
    convolutions, hidden = ARCHITECTURES[architecture]
    assert len([w for w in convolutions if isinstance(w, int)]) + len(hidden) + 1 == weighted


def test_width():
    half = weight_layers("vgg9", (1, 16, 16), 10, width=0.5)
    assert [layer.outputs for layer in half] == [32, 32, 64, 64, 128, 128, 128, 512, 10]
    assert [layer.side for layer in half] == [16, 16, 8, 8, 4, 4, 4, None, None]
    assert half[7].inputs == 128 * 2 * 2 and half[0].inputs == 1
    tenth = weight_layers("vgg16", (3, 16, 16), 10, width=0.1)  # of 64, 128, 256, 512 and 4096, rounded
    assert [layer.outputs for layer in tenth] == [6] * 2 + [13] * 2 + [26] * 3 + [51] * 6 + [410] * 2 + [10]


def test_nothing_has_a_bias_and_initial_weights_are_xavier_uniform():
    network = SpikingNetwork(weight_layers("vgg9", (3, 8, 8), 10, 0.5), 2)
    initialise(network, 0, gain=2.0)
    weights = {name: p for name, p in network.named_parameters() if not name.endswith("gamma")}
    assert all(name.endswith("weight") for name in weights) and len(weights) == 9
    for weight in weights.values():
        field = weight[0, 0].numel()
        bound = 2 * (6 / (field * (weight.shape[0] + weight.shape[1]))) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound
    again = SpikingNetwork(weight_layers("vgg9", (3, 8, 8), 10, 0.5), 2)
    initialise(again, 0, gain=2.0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    initialise(again, 1, gain=2.0)
    assert not torch.equal(network.classifier.weight, again.classifier.weight)
    assert all((norm.gamma == 1).all() for norm in network.norms().values())


# -- the spiking network -------------------------------------------------------------------------------------------


def test_norms_and_neurons_are_where_they_belong():
    network = SpikingNetwork(
        VGG9,
        3,
        norm="tdbn",
        neuron=lambda name: IF(threshold=2.0 if name == "conv3" else 1.0),
        tracking="deviation",
        eps=1e-3,
        momentum=0.2,
    )
    assert list(network.norms()) == [layer.name for layer in VGG9[:-1]]
    assert network.layers["conv3"].neuron.threshold == 2.0 and (network.layers["conv3"].norm.gamma == 2.0).all()
    for norm in network.norms().values():
        assert isinstance(norm, TDBN) and norm.time_steps == 3
        assert (norm.tracking, norm.eps, norm.momentum) == ("deviation", 1e-3, 0.2)
    assert network.classifier_norm is None
    assert SpikingNetwork(VGG9, 3, classifier_norm=True).classifier_norm.channels == 10
    for none in ("none", None):
        with pytest.raises(ValueError, match=r"^classifier_norm .*: choose a norm$"):
            SpikingNetwork(VGG9, 3, norm=none, classifier_norm=True)
    assert SpikingNetwork(VGG9, 3, norm="none").norms() == SpikingNetwork(VGG9, 3, norm=None).norms() == {}


def test_a_norm_class_of_ones_own():
    class Own(NORMS["bntt"]):
        pass

    network = SpikingNetwork(VGG9, 3, norm=Own)
    assert all(type(norm) is Own for norm in network.norms().values())


@pytest.mark.parametrize(("readout", "divisor"), [("mean", 6), ("sum", 1)])
def test_logits_are_the_accumulated_contributions(readout, divisor):
    network = SpikingNetwork(VGG9, 6, readout=readout)
    contributions = random(0, 6, 2, 10)
    torch.testing.assert_close(network.logits(contributions), sum(contributions[t] for t in range(6)) / divisor)


@pytest.mark.parametrize(
    ("norm", "classifier_norm"),
    [("none", False), *product(["bntt", "tebn", "bn-pooled"], [False, True])],
)
def test_streaming_in_any_pieces(norm, classifier_norm):
    steps = 7
    network = vgg9(norm, steps, 1 / 8, 8, classifier_norm=classifier_norm).eval()
    x = input_spikes(0, steps, 3, 3, 8, 8)
    spikes = record_spikes(network)
    with torch.no_grad():
        whole = network(x)
    for pieces in ([7], [1] * 7, [3, 4], [1, 5, 1]):
        state, seen, outputs, start = {}, {}, [], 0
        for length in pieces:
            outputs.append(
                network.resume(
                    x[start : start + length],
                    start,
                    state,
                    lambda name, step, seen=seen: seen.setdefault(name, []).append(step),
                )
            )
            start += length
        assert relative(torch.cat(outputs), whole) < 1e-12
        for name, s in spikes.items():
            assert torch.equal(torch.cat([step.spikes for step in seen[name]]), s)
        assert list(seen) == [layer.name for layer in network.description]
        last = seen["fc2"]
        voltage = torch.cat([step.input for step in last]) @ network.classifier.weight.T
        assert relative(torch.cat([step.output for step in last]), voltage.detach()) < 1e-12


def test_samples_do_not_meet_at_inference():
    network = vgg9("bntt", 5, 1 / 8, 8).eval()
    x = input_spikes(0, 5, 4, 3, 8, 8)
    with torch.no_grad():
        alone = torch.cat([network(x[:, n : n + 1]) for n in range(4)], 1)
        assert relative(alone, network(x)) < 1e-12


def test_permuted_samples_in_training():
    x, order = input_spikes(0, 5, 6, 3, 8, 8), torch.tensor([5, 0, 3, 1, 4, 2])
    for norm in NORMS:
        network = vgg9(norm, 5, 1 / 8, 8)
        assert relative(network(x[:, order]).detach(), network(x).detach()[:, order]) < 1e-11, norm


def test_channels_last_network():
    network, x = vgg9("bntt", 5, 1 / 8, 8), input_spikes(0, 5, 6, 3, 8, 8)
    expected = network(x).detach()
    network.to(memory_format=torch.channels_last)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (5, 6))
    assert relative(network(last).detach(), expected) < 1e-11


# Sides at which vgg11 averages 4 x 4 spikes, and dvs7 halves an odd side.
SIDES = {"vgg5": 8, "vgg9": 8, "vgg11": 64, "vgg16": 16, "dvs7": 42, "cao5": 8}


def on_counts(architecture, norm):
    """A small network, and an input that is neither spikes nor quarters of them: thirds of up to 269 events."""
    side = SIDES[architecture]
    network = SpikingNetwork(weight_layers(architecture, (2, side, side), 3, 1 / 16), 2, norm=norm)
    initialise(network, 0, 8.0)
    counts = torch.randint(0, 270, (2, 3, 2, side, side), generator=torch.Generator().manual_seed(0))
    return network.double(), counts.double() / 3


def pooled_by_hand(spikes, layer):
    """Spikes ``[T, N, C, H, W]`` as the next layer gets them."""
    if layer.pool == "G":
        return spikes.mean((3, 4))[..., None, None]
    if layer.pool is None:
        return spikes
    even = spikes[..., : spikes.shape[3] // 2 * 2, : spikes.shape[4] // 2 * 2]
    return sum(even[..., row::2, column::2] for row in (0, 1) for column in (0, 1)) / 4


def test_every_architecture_has_a_side():
    assert SIDES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_gives_the_next_its_pooled_spikes(architecture):
    """In training and at inference. An odd side loses its last row and column."""
    network, x = on_counts(architecture, "none")
    outputs, steps = {}, {}
    for name, layer in network.layers.items():
        layer.register_forward_hook(lambda _, __, out, name=name: outputs.__setitem__(name, out.detach()))
    network(x)
    network.resume(x, 0, {}, steps.__setitem__)
    for layer in network.description[:-1]:
        step = steps[layer.name]
        expected = pooled_by_hand(step.spikes, layer)
        assert 0 < expected.mean() < 1
        for found in (step.output, outputs[layer.name]):
            assert torch.equal(found.reshape(expected.shape), expected), layer.name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_of_weights_are_torchs_own_whatever_is_kept_as_bytes(architecture):
    """Bytes hold neither event counts above 31, nor thirds, nor averages of 4 x 4 spikes."""
    network, x = on_counts(architecture, "bntt")
    gradients = []
    for _ in range(2):
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
        for layer in network.layers.values():
            layer.connection.register_forward_hook(lambda *given: None)  # from now on torch's own autograd runs
    for name, expected in gradients[1].items():
        assert expected.abs().max() > 0
        assert relative(gradients[0][name], expected) < 1e-12, name


def test_a_network_of_another_depth_learns_in_every_layer():
    for architecture in ARCHITECTURES:
        network = SpikingNetwork(weight_layers(architecture, (1, 16, 16), 4, 1 / 16), 4, neuron=lambda name: LIF())
        initialise(network, 0, 2.0)
        disturb(network, 0)
        network.logits(network(input_spikes(0, 4, 8, 1, 16, 16, dtype=torch.float32))).square().sum().backward()
        for name, p in network.named_parameters():
            assert p.grad.abs().max() > 0, f"{architecture} {name}"


# -- the dense network ---------------------------------------------------------------------------------------------


def dense_by_hand(batch_norm, dropout):
    """VGG9 at an eighth of the width on 8 x 8 images, written out."""

    def block(i, o, pool=False):
        parts = [nn.Conv2d(i, o, 3, padding=1, bias=False)]
        parts += [nn.BatchNorm2d(o)] if batch_norm else []
        parts += [nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
        return parts + ([nn.AvgPool2d(2)] if pool else [])

    return nn.Sequential(
        *block(3, 8),
        *block(8, 8, True),
        *block(8, 16),
        *block(16, 16, True),
        *block(16, 32),
        *block(32, 32),
        *block(32, 32, True),
        nn.Flatten(),
        nn.Linear(32, 128, bias=False),
        *([nn.BatchNorm1d(128)] if batch_norm else []),
        nn.ReLU(),
        *([nn.Dropout(dropout)] if dropout else []),
        nn.Linear(128, 10, bias=False),
    )


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False])
def test_dense_network_is_the_sequential_it_describes(batch_norm, dropout, training):
    ours = DenseNetwork(weight_layers("vgg9", (3, 8, 8), 10, 1 / 8), batch_norm=batch_norm, dropout=dropout)
    by_hand = dense_by_hand(batch_norm, dropout)
    mine, theirs = ours.state_dict(), by_hand.state_dict()
    assert [v.shape for v in mine.values()] == [v.shape for v in theirs.values()]
    by_hand.load_state_dict(dict(zip(theirs, mine.values(), strict=True)))
    ours.train(training), by_hand.train(training)
    x, results = random(0, 6, 3, 8, 8, dtype=torch.float32), []
    for network in (ours, by_hand):
        torch.manual_seed(3)
        logits = network(x)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in network.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_dense_and_spiking_networks_share_their_weights_names():
    """So that a conversion starts from the dense network's weights."""
    layers = weight_layers("vgg16", (3, 32, 32), 10, 1 / 16)
    dense = DenseNetwork(layers, dropout=0.5).state_dict()
    SpikingNetwork(layers, 1, norm="none").load_state_dict(dense)


# -- bad input -----------------------------------------------------------------------------------------------------


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown architecture 'vgg8'; there are vgg5, vgg9"):
        weight_layers("vgg8", (3, 32, 32), 10)
    with pytest.raises(ValueError, match="unknown norm 'btnn'; there are none, bntt"):
        SpikingNetwork(VGG9, 5, norm="btnn")
    with pytest.raises(ValueError, match="readout is 'mean' or 'sum', not 'last'"):
        SpikingNetwork(VGG9, 5, readout="last")


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize("norm", ["none", "bntt"])
def test_no_time(steps, norm):
    with pytest.raises(ValueError, match=f"time_steps is at least 1, not {steps}"):
        SpikingNetwork(VGG9, steps, norm=norm)


@pytest.mark.parametrize("side", [9, 12, 42])
def test_images_that_cannot_be_halved(side):
    """12 halves to 6, then 3, and then no more; VGG11 ends in a global pooling but halves before."""
    with pytest.raises(ValueError, match="vgg9 cannot halve a side of"):
        weight_layers("vgg9", (3, side, side), 10)


def test_images_that_are_not_square():
    with pytest.raises(ValueError, match="square, got 32 x 16"):
        weight_layers("vgg9", (3, 32, 16), 10)


def test_a_batch_of_one_sample_in_training():
    """The fully connected layer has one value per channel and step then."""
    network = vgg9("bntt", 3, 1 / 8, 8)
    with pytest.raises(ValueError, match="more than one value per channel: use a batch of at least 2 samples"):
        network(input_spikes(0, 3, 1, 3, 8, 8))
    network.eval()(input_spikes(0, 3, 1, 3, 8, 8))
    vgg9("none", 3, 1 / 8, 8)(input_spikes(0, 3, 1, 3, 8, 8))


def test_more_steps_than_the_norm_has():
    network = vgg9("bntt", 3, 1 / 8, 8)
    with pytest.raises(ValueError, match="trains on T = 3, got 4"):
        network(input_spikes(0, 4, 2, 3, 8, 8))
    with pytest.raises(ValueError, match="has T = 3, step 4 was asked for"):
        network.eval()(input_spikes(0, 4, 2, 3, 8, 8))
    state = {}
    network.resume(input_spikes(0, 3, 2, 3, 8, 8), 0, state)
    with pytest.raises(ValueError, match="has T = 3, step 4 was asked for"):
        network.resume(input_spikes(0, 1, 2, 3, 8, 8), 3, state)
