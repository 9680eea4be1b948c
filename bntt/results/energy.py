"""E_ANN / E_method from the measured energies, under each reading of the paper's formula (Section 4.3, Appendix B)."""

import math

import pandas as pd

from bntt.measurements.operations import AC_PJ, ACCOUNTINGS, MAC_PJ

READINGS = {
    "own": "own (paper)",
    "own_hidden": "own, hidden",
    "events": "events",
    "events_hidden": "events, hidden",
    "mass": "mass",
    "mass_hidden": "mass, hidden",
}


def energy_ratios(energy: pd.DataFrame) -> pd.DataFrame:
    """E_ANN / E_method from ``energy.csv``: one line per dataset, row, seed and step, one column per accounting.

    E_ANN is the dense energy of the same layers. ``own`` is the paper's accounting; ``*_hidden`` leaves the input layer
    out of both energies. ``spikes`` is the spikes per neuron in the paper's formula, weighted by dense operations. For
    a dense network, which has no spike counts, the ratio is 1.
    """
    lines = []
    keys = ["dataset", "row", "seed", "time_step"]
    for key, layers in energy.groupby(keys, sort=False):
        line = dict(zip(keys, key, strict=True))
        for suffix, part in (("", layers), ("_hidden", layers[layers["layer"] != layers["layer"].iloc[0]])):
            dense = part["dense_mj"].sum()
            for accounting in ACCOUNTINGS:
                own = part[f"{accounting}_mj"]
                line[accounting + suffix] = 1.0 if own.isna().all() else ratio(dense, own.sum())
        counts = layers["count_own"]
        line["spikes"] = math.nan if counts.isna().all() else (layers["macs"] * counts).sum() / layers["macs"].sum()
        lines.append(line)
    return pd.DataFrame(lines, columns=[*keys, *READINGS, "spikes"])


def exit_energy_ratios(energy: pd.DataFrame, spikes: pd.DataFrame, exit_step: int) -> dict[str, float]:
    """The ratios of one run after ``exit_step`` steps, which ``energy.csv`` does not report, by the paper's accounting.

    A layer's count is its spikes per neuron up to this step. The output layer takes the count of the layer before it,
    which is fully connected and therefore not pooled.
    """
    layers = energy[energy["time_step"] == energy["time_step"].max()]
    counts = spikes[spikes["time_step"] <= exit_step].groupby("layer", sort=False)["spikes"].sum()
    counts = [*(counts[name] for name in layers["layer"].iloc[:-1]), counts[layers["layer"].iloc[-2]]]
    dense, spent = layers["macs"] * MAC_PJ, layers["macs"] * counts * AC_PJ
    return {
        "own": ratio(dense.sum(), spent.sum()),
        "own_hidden": ratio(dense.iloc[1:].sum(), spent.iloc[1:].sum()),
        "spikes": (layers["macs"] * counts).sum() / layers["macs"].sum(),
    }


def ratio(dense: float, spent: float) -> float:
    """``dense / spent``; infinite for a network without spikes, which spends nothing."""
    return dense / spent if spent > 0 else math.inf
