"""E_ANN / E_method from the measured energies, under each reading of the paper's formula (Section 4.3, Appendix B)."""

import math

import pandas as pd

from bntt.experiment import declared

# Read from the source of the measurement that uses them, not imported: tables are drawn without torch.
MAC_PJ, AC_PJ = (declared.literal("bntt.measurements.energy", name) for name in ("MAC_PJ", "AC_PJ"))

ACCOUNTINGS = ("own", "events", "mass")  # of energy.csv; the first is the paper's

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
    out of both sides. ``spikes`` is the count per neuron that the paper's formula sees, weighted by dense operations. A
    network without spikes is dense: its ratio is 1.
    """
    lines = []
    by_run = energy.groupby(["dataset", "row", "seed", "time_step"], sort=False) if len(energy) else ()
    for keys, layers in by_run:
        line = dict(zip(("dataset", "row", "seed", "time_step"), keys, strict=True))
        for suffix, part in (("", layers), ("_hidden", layers[layers["layer"] != layers["layer"].iloc[0]])):
            dense = part["dense_mj"].sum()
            for accounting in ACCOUNTINGS:
                own = part[f"{accounting}_mj"]
                line[accounting + suffix] = 1.0 if own.isna().all() else _ratio(dense, own.sum())
        counts = layers["count_own"]
        line["spikes"] = math.nan if counts.isna().all() else (layers["macs"] * counts).sum() / layers["macs"].sum()
        lines.append(line)
    return pd.DataFrame(lines, columns=["dataset", "row", "seed", "time_step", *READINGS, "spikes"])


def exit_energy_ratios(energy: pd.DataFrame, spikes: pd.DataFrame, exit_step: int) -> dict[str, float]:
    """The same for one run after ``exit_step`` steps, which energy.csv does not report: the paper's accounting alone.

    A hidden layer's count is its spikes up to then. The classifier takes those of the layer before it, which is fully
    connected and therefore not pooled.
    """
    layers = energy[energy["time_step"] == energy["time_step"].max()]
    counts = spikes[spikes["time_step"] <= exit_step].groupby("layer", sort=False)["spikes"].sum()
    counts = [*(counts[name] for name in layers["layer"].iloc[:-1]), counts[layers["layer"].iloc[-2]]]
    dense, spent = layers["macs"] * MAC_PJ, layers["macs"] * counts * AC_PJ
    return {
        "own": _ratio(dense.sum(), spent.sum()),
        "own_hidden": _ratio(dense.iloc[1:].sum(), spent.iloc[1:].sum()),
        "spikes": (layers["macs"] * counts).sum() / layers["macs"].sum(),
    }


def _ratio(dense: float, spent: float) -> float:
    """A silent network spends nothing: its ratio is infinite."""
    return dense / spent if spent > 0 else math.inf
