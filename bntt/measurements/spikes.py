"""Spikes of each layer in each time-step: Figures 1 and 4(a)."""

from bntt.measurements import Rows, Subject

COLUMNS = {
    "layer": "Hidden layer, conv1 first.",
    "time_step": "1..T.",
    "spikes": "Mean spikes per neuron and image in this step, before pooling.",
}


def measure(subject: Subject) -> Rows | str:
    """One row per hidden layer and time-step. The sum over steps is the spike count R."""
    if not subject.classifier.spiking:
        return subject.classifier.not_spiking
    images, spikes = len(subject.data.test), subject.observation.spikes
    return [
        {"layer": layer.name, "time_step": t, "spikes": value}
        for layer in subject.classifier.layers[:-1]
        for t, value in enumerate((spikes[layer.name] / (images * layer.neurons)).tolist(), 1)
    ]
