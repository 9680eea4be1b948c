"""Spikes of the whole network on each test image, so that two methods can be compared image by image."""

from bntt.measurements import Rows, Subject

COLUMNS = {
    "time_step": "Steps used, at the reported steps.",
    "sample": "Index in the test set.",
    "spikes": "Spikes per neuron over all hidden layers and the steps used.",
}


def measure(subject: Subject) -> Rows | str:
    """One row per reported step and test image."""
    if not subject.classifier.spiking:
        return subject.classifier.not_spiking
    neurons = sum(layer.neurons for layer in subject.classifier.layers[:-1])
    until = subject.observation.spikes_by_image / neurons
    return [
        {"time_step": step, "sample": sample, "spikes": value}
        for step, of_step in zip(subject.report_steps, until.tolist(), strict=True)
        for sample, value in enumerate(of_step)
    ]
