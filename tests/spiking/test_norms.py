"""What is particular to each temporal norm: its moments, what it tracks, its scale over time, its complaints."""

import pytest
import torch
from torch import nn

from bntt.spiking.networks import SpikingNetwork, initialise, weight_layers
from bntt.spiking.norms import BNTT, NORMS, TAB, TEBN, TSBN, PooledBN, ReleasedTAB, RepeatedBN, TemporalNorm

from .helpers import disturb, random, relative

CLASSES = {name: norm for name, norm in NORMS.items() if norm is not None}
STEPS, SAMPLES, CHANNELS = 4, 5, 3


def currents(seed=0):
    """Means and spreads that differ from step to step."""
    t = torch.arange(1, STEPS + 1, dtype=torch.float64).reshape(-1, 1, 1)
    return t * random(seed, STEPS, SAMPLES, CHANNELS) + t**2


def moments_over(x):
    """Mean, biased variance and count over samples and steps, by torch on the values themselves."""
    values = x.reshape(-1, CHANNELS)
    return values.mean(0), values.var(0, correction=0), len(values)


# Which steps' currents normalise step t.
SEEN = {
    "bntt": lambda x, t: x[t],
    "bntt-shared-gamma": lambda x, t: x[t],
    "bn-repeated": lambda x, t: x[t],
    "bn-pooled": lambda x, t: x,
    "bn-pooled-step-gamma": lambda x, t: x,
    "tdbn": lambda x, t: x,
    "tebn": lambda x, t: x,
    "tab": lambda x, t: x[: t + 1],
    "tab-released": lambda x, t: x[: t + 1],
    "tsbn": lambda x, t: x[max(0, t - 2) : t + 1],
}
EPS = {name: 1e-5 if name == "tab-released" else 1e-4 for name in CLASSES}


@pytest.mark.parametrize("name", CLASSES)
def test_each_step_is_normalised_by_the_moments_of_the_steps_it_sees(name):
    norm, x = CLASSES[name](CHANNELS, STEPS, threshold=1.0).double(), currents()
    y = norm(x)
    for t in range(STEPS):
        mean, variance, _ = moments_over(SEEN[name](x, t))
        torch.testing.assert_close(y[t].detach(), (x[t] - mean) / (variance + EPS[name]).sqrt(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "bn-repeated"])
def test_it_tracks_those_moments_with_the_unbiased_factor_of_their_own_count(name):
    norm, x = CLASSES[name](CHANNELS, STEPS, momentum=1.0).double(), currents()
    norm(x)
    for row in range(len(norm.running_mean)):
        mean, variance, count = moments_over(SEEN[name](x, row))
        assert relative(norm.running_mean[row], mean) < 1e-13
        assert relative(norm.running_var[row], variance * count / (count - 1)) < 1e-13


def test_bn_repeated_moves_one_pair_step_after_step():
    norm, x = RepeatedBN(CHANNELS, STEPS, momentum=0.3).double(), currents()
    mean, variance = torch.zeros(CHANNELS, dtype=torch.float64), torch.ones(CHANNELS, dtype=torch.float64)
    norm(x)
    for t in range(STEPS):
        mean = 0.7 * mean + 0.3 * x[t].mean(0)
        variance = 0.7 * variance + 0.3 * x[t].var(0)
    assert norm.running_mean.shape == (1, CHANNELS)
    assert relative(norm.running_mean[0], mean) < 1e-13 and relative(norm.running_var[0], variance) < 1e-13


def test_bn_repeated_differs_between_training_and_inference():
    """The naive batch norm's defect that BNTT mends: one pair of moments for steps that are not alike."""
    x = currents()
    for norm, same in ((RepeatedBN(CHANNELS, STEPS, momentum=1.0), False), (BNTT(CHANNELS, STEPS, momentum=1.0), True)):
        norm.double()
        trained = norm(x).detach()
        found = norm.eval()(x).detach()
        assert (relative(found, trained * (4 / 5) ** 0.5) < 1e-3) == same  # but for the unbiased factor


@pytest.mark.parametrize("pooled", [PooledBN, TAB, ReleasedTAB])
def test_pooled_deviation(pooled):
    norm, x = pooled(CHANNELS, STEPS, momentum=1.0, tracking="deviation").double(), currents()
    norm(x)
    assert relative(norm.running_var[-1], moments_over(x)[1]) < 1e-13


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_at_the_start(name):
    """Scales 1, tdBN's the threshold; shifts 0; the weights of steps 1; BNTT and the controls have no shift."""
    norm = CLASSES[name](CHANNELS, STEPS, threshold=0.7)
    per_step = name in ("bntt", "bn-pooled-step-gamma", "tab", "tab-released", "tsbn")
    assert norm.gamma.shape == (STEPS if per_step else 1, CHANNELS)
    assert (norm.gamma == (0.7 if name == "tdbn" else 1.0)).all()
    assert (norm.beta is not None) == (name in ("tdbn", "tebn", "tab", "tab-released", "tsbn"))
    assert norm.beta is None or (norm.beta == 0).all()
    extra = {key: value for key, value in norm.named_parameters() if key not in ("gamma", "beta")}
    assert {key: value.shape for key, value in extra.items()} == {
        "tebn": {"step_weight": (STEPS, 1)},
        "tab": {"log_weight": (STEPS, 1)},
        "tab-released": {"root_weight": (STEPS, 1)},
    }.get(name, {})
    assert all((value == (0 if key == "log_weight" else 1)).all() for key, value in extra.items())
    assert (norm.running_mean == 0).all() and (norm.running_var == 1).all()
    assert (norm.eps, norm.momentum, norm.tracking) == (EPS[name], 0.1, "variance")


def test_step_weights_multiply_the_shift_too():
    for norm, weights in (
        (TEBN(2, 2), lambda n: n.step_weight),
        (TAB(2, 2), lambda n: n.log_weight.exp()),
        (ReleasedTAB(2, 2), lambda n: n.root_weight**2),
    ):
        disturb(norm.double(), 0)
        x = random(1, 2, 6, 2)
        y = norm(x - x.mean(1, keepdim=True))  # only the shift moves the means of the result
        beta = norm.beta.expand(2, 2)
        for t in range(2):
            torch.testing.assert_close(y[t].mean(0), weights(norm)[t] * beta[t], rtol=1e-10, atol=1e-12)


def test_temporal_scale():
    """The scale over time that gamma measurements and early exit read; None where there is none."""
    for name, cls in CLASSES.items():
        norm = cls(CHANNELS, STEPS)
        disturb(norm, 0)
        scale = norm.temporal_scale()
        if name in ("bntt-shared-gamma", "bn-pooled", "bn-repeated", "tdbn"):
            assert scale is None, name
            continue
        assert scale.shape == (STEPS, CHANNELS) and not scale.requires_grad, name
        expected = norm.gamma.detach()
        if name == "tebn":
            expected = torch.stack([norm.gamma[0] * p for p in norm.step_weight]).detach()
        if name == "tab":
            expected = torch.stack([g * p.exp() for g, p in zip(norm.gamma, norm.log_weight, strict=True)]).detach()
        if name == "tab-released":
            expected = torch.stack([g * p * p for g, p in zip(norm.gamma, norm.root_weight, strict=True)]).detach()
        torch.testing.assert_close(scale, expected)


@pytest.mark.parametrize("name", CLASSES)
def test_inference_on_a_window_of_steps(name):
    norm = CLASSES[name](CHANNELS, STEPS).double().eval()
    disturb(norm, 0)
    scale, shift = norm.inference_affine(0, STEPS)
    assert scale.shape == shift.shape == (STEPS, CHANNELS)
    part = norm.inference_affine(1, 2)
    assert torch.equal(part[0], scale[1:3]) and torch.equal(part[1], shift[1:3])
    x = currents()
    torch.testing.assert_close(norm(x), x * scale[:, None] + shift[:, None])
    assert torch.equal(norm(x[:2]), norm(x)[:2])  # stopping early


@pytest.mark.parametrize("name", CLASSES)
def test_inference_tracks_nothing(name):
    norm = CLASSES[name](CHANNELS, STEPS).eval()
    disturb(norm, 0)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    norm(currents().float())
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("window", [1, 2, STEPS, STEPS + 3])
def test_a_sliding_window(window):
    """From BNTT's statistics, at a window of 1, to TAB's, at one of T or more; by loops over single values."""
    x = currents()
    y = TSBN(CHANNELS, STEPS, window=window).double()(x).detach()
    for t in range(STEPS):
        for channel in range(CHANNELS):
            values = [x[s, n, channel].item() for s in range(STEPS) if t - window < s <= t for n in range(SAMPLES)]
            mean = sum(values) / len(values)
            spread = (sum((value - mean) ** 2 for value in values) / len(values) + 1e-4) ** 0.5
            expected = [(x[t, n, channel].item() - mean) / spread for n in range(SAMPLES)]
            assert y[t, :, channel].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-11)
    of_one, of_all = NORMS["bntt"](CHANNELS, STEPS).double()(x), TAB(CHANNELS, STEPS).double()(x)
    assert (relative(y, of_one) < 1e-11) == (window == 1)
    assert (relative(y, of_all) < 1e-11) == (window >= STEPS)


def test_time_chunks_are_exact_with_a_window_of_one_step_and_refused_with_longer_ones():
    def network(window):
        made = SpikingNetwork(weight_layers("vgg5", (1, 8, 8), 3, 0.1), STEPS, norm=TSBN, window=window)
        initialise(made, 0, 2.0)
        return made.double()

    x = random(0, STEPS, SAMPLES, 1, 8, 8)
    whole = network(1)(x)
    assert whole.abs().max() > 0
    torch.testing.assert_close(network(1)(x, 3), whole)
    with pytest.raises(ValueError, match="TSBN pools over time-steps"):
        network(2)(x, 3)


def test_a_window_of_no_steps():
    with pytest.raises(ValueError, match="at least 1 time-step, not 0"):
        TSBN(CHANNELS, STEPS, window=0)


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_are_those_of_finite_differences(name):
    """Of currents and of every parameter, in float64."""
    norm = CLASSES[name](2, 3).double()
    disturb(norm, 0)
    norm.tracks = False
    named = dict(norm.named_parameters())

    def normalised(x, *parameters):
        return torch.func.functional_call(norm, dict(zip(named, parameters, strict=True)), (x,))

    x = (2 * random(1, 3, 4, 2) + random(2, 3, 1, 1)).requires_grad_()
    torch.autograd.gradcheck(normalised, (x, *(parameter.detach().requires_grad_() for parameter in named.values())))


def test_a_channel_that_is_silent_gives_zero_and_finite_gradients():
    """Layers fall silent under strong decay; the variance is then 0."""
    norm = BNTT(CHANNELS, STEPS)
    x = torch.zeros(STEPS, SAMPLES, CHANNELS, requires_grad=True)
    y = norm(x)
    y.backward(torch.ones_like(y))
    assert (y == 0).all() and x.grad.isfinite().all() and norm.gamma.grad.isfinite().all()
    assert norm.running_var.isfinite().all()


class OwnNorm(TemporalNorm):
    """What a user would write: root mean square at every step, no mean taken off."""

    def affine(self, mean, variance, steps):
        scale = self._at(self.gamma, steps) / (variance + mean**2 + self.eps).sqrt()
        return scale, torch.zeros_like(mean) * scale


def test_a_norm_of_ones_own_in_a_few_lines():
    norm, x = OwnNorm(CHANNELS, STEPS).double(), random(1, STEPS, SAMPLES, CHANNELS)
    expected = x / (x.square().mean(1, keepdim=True) + 1e-4).sqrt()
    torch.testing.assert_close(norm(x).detach(), expected)


def test_as_many_batch_norms():
    """A last look from outside: BNTT's parameters loaded into T PyTorch batch norms answer alike at inference."""
    norm = BNTT(CHANNELS, STEPS).double().eval()
    disturb(norm, 0)
    x = currents()
    for t in range(STEPS):
        bn = nn.BatchNorm1d(CHANNELS, eps=1e-4).double().eval()
        bn.load_state_dict(
            {
                "weight": norm.gamma[t],
                "bias": torch.zeros(CHANNELS),
                "num_batches_tracked": torch.tensor(0),
                "running_mean": norm.running_mean[t],
                "running_var": norm.running_var[t],
            }
        )
        torch.testing.assert_close(norm(x)[t], bn(x[t]), rtol=1e-12, atol=1e-13)


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(0, 4), (3, 0), (3, -1)])
def test_no_channels_or_no_time(arguments):
    with pytest.raises(ValueError, match="channels and time_steps of at least 1"):
        BNTT(*arguments)


def test_unknown_tracking():
    with pytest.raises(ValueError, match="'variance' or 'deviation', not 'sigma'"):
        BNTT(3, 4, tracking="sigma")


@pytest.mark.parametrize("name", CLASSES)
def test_one_value_per_channel(name):
    with pytest.raises(ValueError, match="at least 2 samples"):
        CLASSES[name](CHANNELS, STEPS)(torch.zeros(STEPS, 1, CHANNELS))
    CLASSES[name](CHANNELS, STEPS)(torch.zeros(STEPS, 1, CHANNELS, 2, 2))  # one image has many positions


@pytest.mark.parametrize("name", CLASSES)
def test_more_or_fewer_steps_than_the_norm_has(name):
    norm = CLASSES[name](CHANNELS, STEPS)
    for steps in (STEPS - 1, STEPS + 1):
        with pytest.raises(ValueError, match=f"trains on T = {STEPS}, got {steps}"):
            norm(torch.zeros(steps, SAMPLES, CHANNELS))
    norm.eval()
    with pytest.raises(ValueError, match=f"has T = {STEPS}, step {STEPS + 1} was asked for"):
        norm(torch.zeros(STEPS + 1, SAMPLES, CHANNELS))
    with pytest.raises(ValueError, match=f"has T = {STEPS}, step"):
        norm.inference_affine(STEPS - 1, 2)


@pytest.mark.parametrize("training", [True, False])
def test_steps_before_the_first_are_refused(training):
    """They would be counted from the end."""
    with pytest.raises(ValueError, match="step -1 was asked for"):
        BNTT(4, STEPS).train(training)(random(0, 2, 5, 4), -1)
