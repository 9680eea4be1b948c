"""Energy of an inference by the paper's formula (Section 4.3, Appendix B), under each reading of it.

A dense layer costs 4.6 pJ per multiply-accumulate. A spiking layer costs 0.9 pJ per accumulate. Its accumulates are
its dense operations times a spike count, which has three readings:

* ``own``: spikes per neuron of the layer itself, as the paper's text defines the spike rate. The classifier is taken as
  not spiking, and ``events`` is used for it; the spikes of output neurons, which `neunorm` has, are not counted;
* ``events``: non-zero inputs per input neuron: the work of an event-driven accelerator;
* ``mass``: sum of |inputs| per input neuron, so a pooled fraction counts as a fraction.

Norm, leak and reset cost nothing here, as in the paper. The input layer has its own rows, so it can be left out.
"""

from bntt.measurements import Rows, Subject
from bntt.measurements.operations import AC_PJ, ACCOUNTINGS, MAC_PJ

COLUMNS = {
    "time_step": "Steps used, at the reported steps; 1 for a dense network.",
    "layer": "Layer, conv1 first, the classifier last.",
    "macs": "Multiply-accumulates of the dense layer per image.",
    "count_own": "Spikes per neuron of the layer over the steps used.",
    "count_events": "Non-zero inputs per input neuron over the steps used.",
    "count_mass": "Sum of |inputs| per input neuron over the steps used.",
    "dense_mj": "Energy of the dense layer in mJ per image.",
    "own_mj": "Energy in mJ per image, counting the layer's own spikes.",
    "events_mj": "Energy in mJ per image, counting its non-zero inputs.",
    "mass_mj": "Energy in mJ per image, counting its inputs by magnitude.",
}
MJ_PER_PJ = 1e-9


def measure(subject: Subject) -> Rows | str:
    """One row per reported step and layer. For a dense network all counts and energies except ``dense_mj`` are NaN."""
    if not subject.classifier.layers:
        return "a classifier without layers has no operations of layers"
    seen, images = subject.observation, len(subject.data.test)
    rows: Rows = []
    for step in subject.report_steps:
        for layer in subject.classifier.layers:
            row: dict[str, float | int | str] = {"time_step": step, "layer": layer.name, "macs": layer.macs}
            counts = dict.fromkeys(ACCOUNTINGS, float("nan"))
            if subject.classifier.spiking:
                inputs = images * seen.input_size[layer.name]
                counts["events"] = seen.input_events[layer.name][:step].sum().item() / inputs
                counts["mass"] = seen.input_mass[layer.name][:step].sum().item() / inputs
                own = seen.spikes[layer.name][:step].sum().item() / (images * layer.neurons)
                counts["own"] = counts["events"] if layer is subject.classifier.layers[-1] else own
            row |= {f"count_{name}": count for name, count in counts.items()}
            row["dense_mj"] = layer.macs * MAC_PJ * MJ_PER_PJ
            row |= {f"{name}_mj": layer.macs * count * AC_PJ * MJ_PER_PJ for name, count in counts.items()}
            rows.append(row)
    return rows
