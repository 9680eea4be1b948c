"""How far gamma is driven, where it falls, and what the law of `bntt.training.paths` predicts of both.

docs/wave.md has the rules. The first part holds pure functions of small arrays, the second reads them from results.
Time-steps are counted from 1. A *setting* is a row; its layers are told apart by their number of leaky membranes to the
loss, 1 for the last hidden layer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bntt.experiment.schema import Run
from bntt.results.collect import Results, images_of, select
from bntt.training.paths import driven
from bntt.training.schedule import undriven

Curve = NDArray[np.float64]
MOVED = 0.01  # the least distance from the undriven value at which gamma counts as driven


# -- curves over time-steps --------------------------------------------------------------------------------------


def log_correlation(gradients: ArrayLike, leaky_layers: int, leak: float) -> float:
    """Pearson's correlation over t of log gradient[t] and log P_m(T - t); NaN if one does not change, or has a 0."""
    found, law = np.asarray(gradients, dtype=float), np.log(driven(leaky_layers, np.asarray(gradients).size, leak))
    if not found.all() or found.std() == 0 or law.std() == 0:
        return math.nan
    return float(np.corrcoef(np.log(found), law)[0, 1])


def distance(gradients: ArrayLike, leaky_layers: int, leak: float) -> float:
    """How far gradients are from the law, with nothing fitted: 0 where all shares of the first step are the law's.

    Root mean square over t of log(g[t] / g[1]) - log(P_m(T - t) / P_m(T - 1)); infinite if a gradient is 0.
    """
    found = np.asarray(gradients, dtype=float)
    if not found.all():
        return math.inf
    away = np.log(found / found[0]) - np.log(driven(leaky_layers, len(found), leak))
    return float(np.sqrt(np.mean(away**2)))


def nearest(gradients: ArrayLike, leak: float, most: int) -> int | None:
    """The m from 1 to ``most`` whose law is nearest to the gradients, by `distance`; None if a gradient is 0."""
    distances = {m: distance(gradients, m, leak) for m in range(1, most + 1)}
    best = min(distances, key=lambda m: distances[m])
    return best if math.isfinite(distances[best]) else None


def reach(mean: ArrayLike, deviation: ArrayLike, undriven_value: float, least: float = MOVED) -> int:
    """The last step at which gamma's root mean square distance from its undriven value is at least ``least``; else 0.

    ``mean`` and ``deviation``, ``[T]``, are over the channels of a layer; the deviation divides by their number.
    """
    away = np.hypot(np.asarray(mean, dtype=float) - undriven_value, np.asarray(deviation, dtype=float))
    (steps,) = np.nonzero(away >= least)
    return int(steps[-1]) + 1 if steps.size else 0


def half_fall(mean: ArrayLike) -> int:
    """The first step after its peak at which a curve is below half its peak; T + 1 if there is none."""
    curve = np.asarray(mean, dtype=float)
    peak = int(curve.argmax())
    (steps,) = np.nonzero((curve[peak:] < curve[peak] / 2) & (curve[peak] > 0))
    return peak + int(steps[0]) + 1 if steps.size else curve.size + 1


def late_share(spikes: ArrayLike) -> float | None:
    """F of one run: mean over layers of (mean of the last fifth of the steps) / (largest step), ``spikes [layers, T]``.

    Layers without a spike do not count; None if no layer has one.
    """
    curves = np.asarray(spikes, dtype=float)
    peaks, last = curves.max(1), -(-curves.shape[1] // 5)
    if not (peaks > 0).any():
        return None
    return float((curves[:, -last:].mean(1)[peaks > 0] / peaks[peaks > 0]).mean())


def level_at(curve: ArrayLike, step: float) -> float:
    """The value of a curve at a step that may lie between whole ones; a limit of it outside 1 .. T.

    Before the first step it is infinite, as nothing reaches it; beyond T it is minus infinity, as everything does.
    """
    values = np.asarray(curve, dtype=float)
    if not 1 <= step <= values.size:
        return math.inf if step < 1 else -math.inf
    return float(np.interp(step, np.arange(1, values.size + 1), values))


def last_above(curve: ArrayLike, level: float) -> float:
    """The last step at which a curve is at least ``level``, interpolated to where it crosses it; 0 if it never is."""
    values = np.asarray(curve, dtype=float)
    (steps,) = np.nonzero(values >= level)
    if not steps.size:
        return 0.0
    last = int(steps[-1])
    if last == values.size - 1:
        return float(values.size)
    return last + 1 + float((values[last] - level) / (values[last] - values[last + 1]))


def leaky_layers(layers: Iterable[str]) -> dict[str, int]:
    """The number of leaky membranes from each layer to the loss, its own included; ``layers`` are in order of depth."""
    names = list(dict.fromkeys(layers))
    return dict(zip(names, range(len(names), 0, -1), strict=True))


# -- settings ----------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A row whose reach, or fall, is measured: its T and leak, and for each layer, by m, the mean over seeds."""

    row: str
    time_steps: int
    leak: float
    measured: Mapping[int, float]
    gradients: Mapping[int, Curve]  # log root mean square of dL/dgamma before training, [T], mean over seeds
    seeds: int


def predictions(centre: Setting, setting: Setting, beyond: int = 0) -> pd.DataFrame:
    """For each layer, conv1 first, the measured step and five predictions of it from ``centre``.

    ``relative`` has the shape of P_m and a constant for each layer. ``absolute`` has the gradients measured before
    training and one constant, and ``first step`` the size of the gradient at t = 1, the shape of P_m and one constant;
    both are NaN where gradients were not measured. ``same step`` and ``same share`` know no law. A layer that is above
    its level up to T has the step T + ``beyond``, which is 1 where the step is that of a fall, which then does not
    come.
    """
    most = setting.time_steps + beyond

    def of_curve(curve: ArrayLike, level: float) -> float:
        step = last_above(curve, level)
        return float(most) if step == setting.time_steps else step

    def one_constant(of_centre: Mapping[int, Curve], own: Curve | None) -> float:
        levels = [level_at(of_centre[m], step) for m, step in centre.measured.items() if m in of_centre]
        within = [level for level in levels if math.isfinite(level)]  # a layer driven nowhere, or up to T, has none
        return of_curve(own, float(np.mean(within))) if own is not None and within else math.nan

    levels = {m: level_at(np.log(driven(m, centre.time_steps, centre.leak)), r) for m, r in centre.measured.items()}
    centre_by_law, own_by_law = _from_first_step(centre), _from_first_step(setting)
    lines = []
    for m, measured in setting.measured.items():
        share = centre.measured[m] / centre.time_steps
        lines.append(
            {
                "row": setting.row,
                "leaky_layers": m,
                "measured": measured,
                "relative": of_curve(np.log(driven(m, setting.time_steps, setting.leak)), levels[m]),
                "absolute": one_constant(centre.gradients, setting.gradients.get(m)),
                "first step": one_constant(centre_by_law, own_by_law.get(m)),
                "same step": min(centre.measured[m], most),
                "same share": min(share * setting.time_steps, most),
            }
        )
    return pd.DataFrame(lines)


def _from_first_step(setting: Setting) -> dict[int, Curve]:
    """Log gradients with the measured size at t = 1 and the shape of the law."""
    shapes = {m: np.log(driven(m, setting.time_steps, setting.leak)) for m in setting.gradients}
    return {m: curve[0] + shapes[m] for m, curve in setting.gradients.items()}


def settings(results: Results, rows: Sequence[str], outcome: str, seeds: int = 3) -> list[Setting]:
    """The settings of rows that have results; ``outcome`` is ``reach`` or ``half_fall``. The first so many seeds count.

    Silent runs, in which no neuron spikes, do not count.
    """
    found = []
    for row in rows:
        steps: dict[int, list[float]] = {}
        logs: dict[int, list[Curve]] = {}
        counted = 0
        for one in results.of_row(row):
            quartiles, images, spikes = one.table("gamma_quartiles.csv"), images_of(one), one.table("spikes.csv")
            if one.run.seed >= seeds or quartiles is None or images is None or spikes is None or is_silent(spikes):
                continue
            counted += 1
            alone = undriven(dict(one.run.options), images["train"])
            gradients = one.table("gradients.csv")
            for layer, m in leaky_layers(quartiles["layer"]).items():
                part = select(quartiles, layer=layer)
                step = reach(part["mean"], part["deviation"], alone) if outcome == "reach" else half_fall(part["mean"])
                steps.setdefault(m, []).append(step)
                if gradients is not None:
                    before = select(gradients, layer=layer, epoch=0)["gamma"]
                    logs.setdefault(m, []).append(np.log(before.to_numpy()))
        if counted:
            measured = {m: float(np.mean(of_layer)) for m, of_layer in steps.items()}
            means = {m: np.mean(of_layer, axis=0) for m, of_layer in logs.items()}
            found.append(Setting(row, *_time(results, row), measured, means, counted))
    return found


def is_silent(spikes: pd.DataFrame) -> bool:
    """Whether no neuron of a run ever spikes, from its ``spikes.csv``."""
    return not (spikes["spikes"] > 0).any()


def _time(results: Results, row: str) -> tuple[int, float]:
    run: Run = results.of_row(row)[0].run
    return int(run.options["time_steps"]), float(run.options["leak"])


def correlations(results: Results, row: str, seeds: int = 5, epoch: int = 0) -> pd.DataFrame:
    """After an epoch, for each layer and each of the first seeds: `log_correlation` for gamma and for the membrane.

    One line per layer and seed. ``last`` and ``law``: gamma's gradient at the last step as a share of that at the
    first, measured and by the law. ``distance``: gamma's from the law. ``nearest``: the m whose law is nearest to it,
    of all layers' and one more, if there is one.
    """
    _, leak = _time(results, row)
    lines = []
    gradients = select(results.frame("gradients.csv"), row=row, epoch=epoch)
    for seed, of_run in gradients[gradients["seed"] < seeds].groupby("seed"):
        for layer, m in leaky_layers(of_run["layer"]).items():
            part = select(of_run, layer=layer)
            of_gamma, of_membrane = (part[column].to_numpy() for column in ("gamma", "membrane"))
            lines.append(
                {
                    "layer": layer,
                    "leaky_layers": m,
                    "seed": seed,
                    "gamma": log_correlation(of_gamma, m, leak),
                    "membrane": log_correlation(of_membrane, m, leak),
                    "last": of_gamma[-1] / of_gamma[0],
                    "law": driven(m, len(of_gamma), leak)[-1],
                    "distance": distance(of_gamma, m, leak),
                    "nearest": nearest(of_gamma, leak, most=of_run["layer"].nunique() + 1),
                }
            )
    columns = ["layer", "leaky_layers", "seed", "gamma", "membrane", "last", "law", "distance", "nearest"]
    return pd.DataFrame(lines, columns=columns)


def late_shares(results: Results) -> pd.DataFrame:
    """F of each run that has spikes: columns ``row``, ``seed`` and ``F``; see `late_share`."""
    lines = []
    for (row, seed), part in results.frame("spikes.csv").groupby(["row", "seed"], sort=False):
        value = late_share(part.pivot(index="layer", columns="time_step", values="spikes"))
        if value is not None:
            lines.append({"row": row, "seed": seed, "F": value})
    return pd.DataFrame(lines, columns=["row", "seed", "F"])
