"""How well the approximations of Section 3.3 hold in the trained network, and how many spikes they get wrong.

Eqs. 13 to 16 neglect the mean, take the scale of neighbouring steps as equal, and conclude that BNTT acts as a
threshold sqrt(var + eps) / gamma * theta on the membrane without BNTT. Each layer is run twice on the currents that it
receives in the network: once with BNTT, and once with only that threshold.
"""

import torch
from torch import Tensor

from bntt.classifiers import SpikingClassifier
from bntt.measurements import Rows, Subject
from bntt.spiking.encoding import encode
from bntt.spiking.networks import SpikingNetwork
from bntt.spiking.neurons import as_rows

IMAGES = 100  # test images used; they give some million neuron-steps, which is enough for a mean

COLUMNS = {
    "layer": "Hidden layer, conv1 first.",
    "time_step": "1..T.",
    "relative_mean": "Median over channels of |mean| / sqrt(var + eps), tracked moments; neglected in the paper.",
    "scale_change": "Median over channels of |s[t] - s[t-1]| / |s[t]|, s = gamma / sqrt(var + eps); also neglected.",
    "variance": "Mean over channels of the tracked variance; the paper says it is similar at all steps.",
    "spikes": "Spikes per neuron with BNTT.",
    "wrong": "Spikes per neuron that Eq. 16 adds or misses, given the same currents.",
}


def threshold_only(x: Tensor, scale: Tensor, leak: float, theta: float) -> Tensor:
    """Spikes ``[T, M, C]`` of currents ``x [T, M, C]`` by Eq. 16: no norm, threshold and soft reset theta / scale[t].

    ``scale`` is ``[T, C]``. Where it is not positive, the firing condition cannot be met, and nothing fires.
    """
    membrane = torch.zeros_like(x[0])
    spikes = torch.zeros_like(x)
    for t in range(len(x)):
        threshold = torch.where(scale[t] > 0, theta / scale[t], torch.inf)
        membrane = leak * membrane + x[t]
        spikes[t] = membrane > threshold
        membrane = membrane - torch.where(spikes[t] > 0, threshold, 0)
    return spikes


@torch.no_grad()
def measure(subject: Subject) -> Rows | str:
    """One row per layer and step; only for norms with a scale for every step, and neurons with soft reset."""
    classifier, data = subject.classifier, subject.data
    if not isinstance(classifier, SpikingClassifier) or not classifier.gammas():
        return "no scale that changes with time"
    network = classifier.network
    if not isinstance(network, SpikingNetwork):
        return "Eq. 16 is about the paper's neuron"
    if any(layer.neuron.reset != "soft" for layer in network.hidden().values()):
        return "Eq. 16 is about soft reset"
    samples = torch.arange(min(IMAGES, len(data.test)), device=data.mean.device)
    scaled = classifier.scaled(data, data.test.unit(samples))
    spikes = encode(scaled, classifier.time_steps, subject.noise_key(), samples, signed=classifier.signed)
    rows: Rows = []
    norms = network.norms()
    for name, layer in network.hidden().items():
        step = layer.resume(spikes, 0, None)
        norm, neuron = norms[name], layer.neuron
        scale, _ = norm.inference_affine(0, classifier.time_steps)
        variance = norm.running_var.double()
        relative = (norm.running_mean.double().abs() / (variance + norm.eps).sqrt()).median(1).values
        change = (scale.diff(dim=0).abs() / scale[1:].abs().clamp_min(1e-12)).median(1).values
        exact = as_rows(step.spikes)
        wrong = threshold_only(as_rows(step.current), scale.float(), neuron.leak, neuron.threshold) != exact
        for t in range(classifier.time_steps):
            own = min(t, len(variance) - 1)  # shared moments have one row
            rows.append(
                {
                    "layer": name,
                    "time_step": t + 1,
                    "relative_mean": relative[own].item(),
                    "scale_change": change[t - 1].item() if t else float("nan"),
                    "variance": variance[own].mean().item(),
                    "spikes": exact[t].double().mean().item(),
                    "wrong": wrong[t].double().mean().item(),
                }
            )
        spikes = step.output
    return rows
