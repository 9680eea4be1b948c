"""Claims about what BNTT does: peaks of gamma, spikes, early exit, noise, training, energy (Sections 1, 3.4 and 4)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bntt.common.text import counted, listed, number
from bntt.paper.claims._decision import Value, component, ordered
from bntt.paper.claims._evidence import (
    ANN,
    BNTT,
    SURROGATE,
    Disqualified,
    Evidence,
    Group,
    Lines,
    Missing,
    Part,
    Seeds,
    Weigh,
    baselines,
    claim,
    diverged_everywhere,
    first_with,
    in_every_seed,
    mean_accuracy,
    row_of,
    versus,
    worst_layer,
)
from bntt.results.collect import at_threshold, gammas, last_step
from bntt.results.dead import chance
from bntt.results.energy import READINGS, energy_ratios, ratio
from bntt.results.intervals import LEVEL, Estimate, paired_mean_difference
from bntt.results.waves import LEAST_LAYERS, clear_peak, fall, mean_step, peak_order, trained
from bntt.training.schedule import undriven

# Section 4.2 calls savings of 17 to 40 % "~20 %": 20, give or take half the unit of its last digit, 5.
SAVED_PERCENT = 15.0
LITTLE_POINTS = 1.1  # Table 1's early exits lose 0.2, 0.8 and 1.0, the last from 57.8 and 56.8, which rounding may move
HALF = 0.5  # we take "falls again" and "shrinks to zero" (Sections 3.4 and 4.4) to mean: below half of the peak
NO_HELP_POINTS = 1.0  # a gain of more than a point would be help
STRONG_NOISE = 0.4  # the only intensity that Section 4.6 names: "degrades considerably for sigma > 0.4"
STANDARD_BN = ("bn-pooled", "bn-repeated")  # both ways to use one batch norm for all time-steps

TANGO = "Tango's interval over test images, paired by image, for one seed"
PAIRED_SEEDS = "Student's interval over {seeds}, paired by seed"
LOG_SEEDS = "Student's interval of its logarithm over {seeds}"
OF_LAYERS = "exact permutation test over layers, with the mean step of {seeds}"


def _claim_of_order(text: str, where: str, curve: str) -> Callable[[Lines], Weigh]:
    """The decorator of a claim that a ``curve`` peaks later in deeper layers."""
    statistic = (
        f"Kendall's tau-b between depth and the step at which {curve} peaks. It holds or fails if a random order of "
        "the layers would give such a tau, or a more extreme one, in at most 2.5 % of cases"
    )
    return claim(text, where, statistic, by_seed=OF_LAYERS, by_image=OF_LAYERS.format(seeds="one seed"))


@_claim_of_order("Gamma peaks later in deeper layers.", "Section 4.4, Figs. 3 and 5", "mean gamma")
def gamma_peaks_later(seeds: Seeds) -> list[Part]:
    def peaks(one: Evidence, row: str) -> dict[str, int | str]:
        layers = gammas(one.table("gamma", row))
        value = _undriven(one, row)
        marks = {layer: None if value is None else trained(gamma, value) for layer, gamma in layers.items()}
        return {layer: _peak(gamma.mean(axis=1).to_numpy(), marks[layer]) for layer, gamma in layers.items()}

    rows = first_with(seeds, lambda one: one.has("gamma"))
    return [_order(row, seeds, partial(peaks, row=row), row == BNTT) for row in dict.fromkeys([BNTT, *rows])]


def _undriven(one: Evidence, row: str) -> float | None:
    """The value of a gamma that no gradient reached; None for a method of other options than the paper's training."""
    if one.options[row].get("optimiser", "sgd") != "sgd":
        return None
    try:
        return undriven(dict(one.options[row]), one.train_images[row])
    except KeyError:
        return None


def _peak(curve: NDArray[np.float64], informative: NDArray[np.bool_] | None = None) -> int | str:
    """The step at which a curve ``[T]`` has a clear peak, or why it has none."""
    peak = clear_peak(curve, informative)
    return peak or ("no clear peak" if clear_peak(curve) is None else "peak at a step without training")


def _order(row: str, seeds: Seeds, peaks: Callable[[Evidence], Mapping[str, int | str]], counts: bool = True) -> Part:
    """Whether deeper layers of a row peak later, from the peak of each layer in each seed."""
    found = in_every_seed(row, seeds, peaks, counts)
    if isinstance(found, Part):
        return found
    order = peak_order([_steps(of_seed.values()) for of_seed in found.values])
    typical = {layer: _typical([of_seed[layer] for of_seed in found.values]) for layer in found.values[0]}
    clear = [f"{layer} {step:.3g}" for layer, step in typical.items() if isinstance(step, float)]
    notes = [f"peak steps: {', '.join(clear)}"] if clear else []
    for reason in dict.fromkeys(reason for reason in typical.values() if isinstance(reason, str)):
        notes.append(f"{reason}: {listed([layer for layer, said in typical.items() if said == reason])}")
    if order is None:
        notes.insert(0, f"a clear peak in {len(clear)} of {counted(len(typical), 'layer')}, {LEAST_LAYERS} are needed")
    else:
        notes.append(f"p = {order.p_later:.2g} that a random order rises so, {order.p_earlier:.2g} that it falls so")
    estimate = None if order is None else Estimate.exact(order.tau)
    note = "; ".join(filter(None, [*notes, found.without]))
    return Part(row, estimate, ordered(order), note, counts, len(found.seeds))


def _typical(peaks: Sequence[int | str]) -> float | str:
    """The mean over seeds of a layer's peak step, or, if most seeds have none, the most frequent reason."""
    step = mean_step(_steps(peaks))
    return Counter(peak for peak in peaks if isinstance(peak, str)).most_common(1)[0][0] if step is None else step


def _steps(peaks: Iterable[int | str]) -> list[int | None]:
    """The steps of peaks, without the reasons why there is none."""
    return [peak if isinstance(peak, int) else None for peak in peaks]


@_claim_of_order(
    "Each layer's spikes peak and then decrease, later in deeper layers.", "Section 1, Fig. 1(c)", "spikes per neuron"
)
def spikes_peak_later(seeds: Seeds) -> list[Part]:
    def peaks(one: Evidence) -> dict[str, int | str]:
        spikes = one.table("spikes", BNTT).groupby("layer", sort=False)["spikes"]
        return {str(layer): _peak(curve.to_numpy()) for layer, curve in spikes}

    return [_order(BNTT, seeds, peaks)]


@claim(
    "Gamma falls again after its peak, in every layer.",
    "Sections 3.4 and 4.4",
    f"mean gamma after the last step / at its peak, in the layer where this is largest, below {HALF:g}",
)
def gamma_falls(seeds: Seeds) -> list[Group | Part]:
    def falls(one: Evidence) -> dict[str, float]:
        layers = {layer: fall(gamma.mean(axis=1)) for layer, gamma in gammas(one.table("gamma", BNTT)).items()}
        if never := [layer for layer, value in layers.items() if value is None]:
            raise Missing(f"row {BNTT}: mean gamma is at no step positive in {listed(never)}")
        return {layer: value for layer, value in layers.items() if value is not None}

    return [worst_layer(seeds, falls, HALF)]


# -- spikes and energy ---------------------------------------------------------------------------------------------


@claim(
    "BNTT spikes less than the other spiking methods in every layer, each after all of its own time-steps.",
    "Section 4.3, Fig. 4(a)",
    "spikes per neuron of the other method / of bntt in a layer, mean over all test images, above 1",
    "×",
    by_seed=LOG_SEEDS + ", paired by seed",
)
def fewer_spikes(seeds: Seeds) -> list[Group | Part]:
    def compare(one: Evidence, row: str) -> dict[str, Value]:
        _both_work(one, row)
        own, other = (one.table("spikes", r).groupby("layer", sort=False)["spikes"].sum() for r in (BNTT, row))
        if set(own.index) != set(other.index):
            raise Missing(f"row {row} has other layers than {BNTT}")
        return {str(layer): Value(ratio(float(other[layer]), float(own[layer]))) for layer in own.index}

    def note(found: Seeds, row: str) -> str:
        return f"T = {found[0].last_step(row)}"

    return versus(baselines(seeds), seeds, compare, note, border=1.0, log=True, noun="layer")


def _both_work(one: Evidence, row: str) -> None:
    """Raise Disqualified unless bntt and a compared row work: who classifies nothing saves spikes and energy."""
    one.working(BNTT, dense=ANN)
    one.working(row)


@claim(
    "BNTT spikes less than the other spiking methods after equally many time-steps.",
    "Section 4.3 compares each after its own",
    "spikes per neuron of the other method − of bntt, mean over test images",
    "spikes per neuron",
    "A network that does not work after so few steps is not compared.",
    by_seed=PAIRED_SEEDS,
    by_image="Student's interval over test images, paired by image, for one seed",
    ours=True,
)
def fewer_spikes_at_equal_steps(seeds: Seeds) -> list[Group | Part]:
    def compare(one: Evidence, row: str) -> dict[str, Value]:
        one.working(BNTT, dense=ANN)
        step = one.last_step(BNTT)
        one.working(row, step)
        other, own = one.image_spikes(row, step), one.image_spikes(BNTT, step)
        return {"": Value(float((other - own).mean()), partial(paired_mean_difference, other, own))}

    def note(found: Seeds, row: str) -> str:
        step = found[0].last_step(BNTT)
        accuracies = [f"{name} {mean_accuracy(found, name, step)}" for name in (row, BNTT)]
        return f"accuracy after {counted(step, 'step')}: {', '.join(accuracies)}"

    return versus(baselines(seeds), seeds, compare, note)


@claim(
    "BNTT needs less energy than the dense network and than the other spiking methods.",
    "Section 4.3, Table 3",
    "energy of the other method / energy of bntt, each after all of its steps, by the paper's accounting, mean over "
    "all test images, above 1",
    "×",
    "The dense network (ann) is bntt's own architecture at 4.6 pJ per operation.",
    by_seed=LOG_SEEDS + ", paired by seed",
)
def low_energy(seeds: Seeds) -> list[Group | Part]:
    times: dict[tuple[int, str], pd.Series] = {}  # energy of a row over that of bntt, by seed and row

    def ratios(one: Evidence, row: str) -> pd.Series:
        """E_ANN / E_row after all of the row's steps, under each reading of the formula; 1 for the dense network."""
        return energy_ratios(last_step(one.table("energy", row)))[list(READINGS)].iloc[0]

    def compare(one: Evidence, row: str) -> dict[str, Value]:
        _both_work(one, row)
        times[one.seed, row] = ratios(one, BNTT) / ratios(one, row)
        return {"": Value(float(times[one.seed, row]["own"]))}

    def note(found: Seeds, row: str) -> str:
        means = np.log(pd.DataFrame([times[one.seed, row] for one in found])).mean()
        same = int(((means > 0) == (means["own"] > 0)).sum())
        return f"same outcome under {same} of {counted(len(means), 'reading')} of the formula"

    return versus([ANN, *baselines(seeds)], seeds, compare, note, border=1.0, log=True)


# -- early exit ----------------------------------------------------------------------------------------------------


@claim(
    "Early exit saves steps at little loss of accuracy.",
    "Sections 3.4 and 4.5, Fig. 6, Table 1",
    lambda seeds: (
        f"at threshold {seeds[0].exit_threshold:g} on gamma: more than {SAVED_PERCENT:g} % of the steps saved, and "
        f"less than {LITTLE_POINTS:g} points of accuracy lost"
    ),
    by_image="the saving exact, and Tango's interval over test images, paired by image, for one seed",
)
def early_exit_saves(seeds: Seeds) -> list[Group | Part]:
    def exits(one: Evidence, row: str) -> tuple[int, int]:
        """The step of the exit, and T."""
        if row == BNTT:
            one.working(BNTT, dense=ANN)
        found = at_threshold(one.table("early_exit", row), one.exit_threshold)
        if found.empty:
            raise Missing(f"row {row}: early exit was not measured at threshold {one.exit_threshold:g}")
        return int(found["exit_step"].iloc[0]), one.last_step(row)

    def saved(one: Evidence, row: str) -> dict[str, Value]:
        step, last = exits(one, row)
        return {"": Value(100 * (last - step) / last, unit=100 / last)}

    def change(one: Evidence, row: str) -> dict[str, Value]:
        return {"": one.gain(row, row, exits(one, row)[0])}

    def used(found: Seeds, row: str) -> str:
        steps = [exits(one, row) for one in found]
        taken = [str(step) for step, _ in steps]
        alike = len(found) > 1 and len(set(taken)) == 1
        said = f"{listed(taken[:1] if alike else taken)} of {counted(steps[0][1], 'step')}{' in every seed' * alike}"
        none = [str(one.seed) for one, (step, last) in zip(found, steps, strict=True) if step == last]
        if not none:
            return said
        where = "" if len(none) == len(found) else f" in seed {listed(none)}"
        return f"{said}; no exit{where}, because gamma reaches the threshold at the last step"

    lines: list[Group | Part] = []
    for row in dict.fromkeys([BNTT, *first_with(seeds, lambda one: one.has("early_exit"))]):
        counts = row == BNTT
        lines += [
            row_of(
                f"{row}: steps saved, %",
                seeds,
                partial(saved, row=row),
                border=SAVED_PERCENT,
                counts=counts,
                note=partial(used, row=row),
            ),
            row_of(
                f"{row}: accuracy at exit − at T, points",
                seeds,
                partial(change, row=row),
                border=-LITTLE_POINTS,
                counts=counts,
            ),
        ]
    return lines


# -- accuracy ------------------------------------------------------------------------------------------------------


def _ranking(seeds: Seeds) -> str:
    noisy = pd.concat([last_step(one.frames["noise"]) for one in seeds])
    means = noisy[noisy["sigma"] > 0].groupby("row", sort=False)["accuracy"].mean()
    ranked = [f"{row} {number(mean, 1)} %" for row, mean in means.sort_values(ascending=False, kind="stable").items()]
    return f"Mean accuracy over sigma > 0: {', '.join(ranked)}." if ranked else ""


@claim(
    "BNTT is more accurate than the other methods at every intensity of noise.",
    "Section 4.6, Fig. 4(b)",
    "accuracy of bntt − of the other method at each sigma > 0, each after all of its steps, above 0",
    "points",
    _ranking,
    by_seed=PAIRED_SEEDS,
    by_image=TANGO,
)
def better_under_noise(seeds: Seeds) -> list[Group | Part]:
    def compare(one: Evidence, row: str) -> dict[str, Value]:
        one.working(row)
        return _by_sigma(one.gain_under_noise(BNTT, row))

    papers = baselines(seeds, ANN)  # the methods of Fig. 4(b); other rows are shown for comparison
    others = first_with(seeds, lambda one: [row for row in one.has("noise") if row not in (BNTT, *papers)])
    return [
        row_of(
            row,
            seeds,
            partial(compare, row=row),
            counts=row in papers and not diverged_everywhere(seeds, row),
            noun="noise level",
        )
        for row in [*papers, *others]
    ]


def _by_sigma(gains: Mapping[float, Value]) -> dict[str, Value]:
    return {f"{sigma:g}": gain for sigma, gain in gains.items()}


@claim(
    "Surrogate gradients without a norm are more accurate than the dense network under strong noise.",
    "Section 4.6",
    f"accuracy of surrogate − of ann at each sigma above {STRONG_NOISE:g}, the only intensity that the section names, "
    "each after all of its steps, above 0",
    "points",
    by_seed=PAIRED_SEEDS,
    by_image=TANGO,
)
def surrogate_beats_dense_under_strong_noise(seeds: Seeds) -> list[Group | Part]:
    def compare(one: Evidence) -> dict[str, Value]:
        one.working(SURROGATE)
        one.working(ANN)
        gains = one.gain_under_noise(SURROGATE, ANN)
        strong = {sigma: gain for sigma, gain in gains.items() if sigma > STRONG_NOISE}
        if not strong:
            raise Missing(f"no sigma above {STRONG_NOISE:g} was measured")
        return _by_sigma(strong)

    return [row_of(f"{SURROGATE}, {ANN}", seeds, compare, noun="noise level")]


def noise_differences(seeds: Seeds) -> pd.DataFrame:
    """Accuracy of bntt minus that of each other row at each sigma, in points, with its interval and number of seeds.

    Paired by seed, with Student's interval; with one common seed by image, with Tango's. Dead networks are included.
    """
    values: dict[tuple[str, float], list[Value]] = {}
    for row in first_with(seeds, lambda one: one.has("noise")):
        for one in seeds:
            if row != BNTT and {row, BNTT} <= set(one.has("noise")):
                for sigma, gain in one.admitting(row, BNTT).gain_under_noise(BNTT, row, zero=True).items():
                    values.setdefault((row, sigma), []).append(gain)
    lines = [(*key, *component("", gains).interval(LEVEL), len(gains)) for key, gains in values.items()]
    return pd.DataFrame(lines, columns=["row", "sigma", "difference", "low", "high", "seeds"])


@claim(
    "Without a norm, training with surrogate gradients reaches a lower accuracy.",
    "Section 4.2, Table 1",
    "accuracy of bntt − of surrogate, each at its own T, above 0",
    "points",
    "A training without a norm that diverged counts as an accuracy at chance.",
    by_seed=PAIRED_SEEDS,
    by_image=TANGO,
)
def surrogate_trains_worse(seeds: Seeds) -> list[Group | Part]:
    planned = [one for one in seeds if SURROGATE in one.rows] or seeds

    def compare(one: Evidence) -> dict[str, Value]:
        own = one.accuracy(BNTT)
        if SURROGATE in one.diverged:
            return {"": Value(own - chance(one.dataset), unit=100 / one.images)}
        # A network at chance was trained badly, and that is what is claimed.
        return {"": one.admitting(SURROGATE).gain(BNTT, SURROGATE)}

    def note(found: Seeds) -> str:
        trained = [one.admitting(SURROGATE) for one in found if SURROGATE not in one.diverged]
        said = [f"{BNTT} {mean_accuracy(found, BNTT)} at T = {found[0].last_step(BNTT)}"]
        if trained:
            said.append(f"{SURROGATE} {mean_accuracy(trained, SURROGATE)} at T = {trained[0].last_step(SURROGATE)}")
        dead = {one.dead[SURROGATE]: None for one in found if SURROGATE in one.dead}
        gone = [f"seed {one.seed} {one.absent[SURROGATE]}" for one in found if SURROGATE in one.diverged]
        return "; ".join([", ".join(said), *dead, *gone])

    line = row_of(SURROGATE, planned, compare, note=note)
    if isinstance(line, Group) and diverged_everywhere(planned, SURROGATE):
        return [Part(SURROGATE, None, "holds", f"row {SURROGATE} {planned[0].absent[SURROGATE]}", seeds=line.seeds)]
    return [line]


@claim(
    "Standard batch normalisation does not help the training of a spiking network.",
    "Section 1",
    f"accuracy with one batch norm for all steps ({' or '.join(STANDARD_BN)}) − without a norm (surrogate), each at "
    f"its own T, below {NO_HELP_POINTS:g} point",
    "points",
    "If either network does not work, or diverged, this is undecided: how well one of them was tuned would decide it.",
    by_seed=PAIRED_SEEDS,
    by_image=TANGO,
)
def standard_bn_does_not_help(seeds: Seeds) -> list[Group | Part]:
    def compare(one: Evidence, row: str) -> dict[str, Value]:
        for name in (SURROGATE, row):
            if name in one.diverged:
                raise Disqualified(f"row {name}: {one.absent[name]}")
            one.working(name)
        return {"": one.gain(row, SURROGATE)}

    def note(found: Seeds, row: str) -> str:
        return ", ".join(
            f"{name} {mean_accuracy(found, name)} at T = {found[0].last_step(name)}" for name in (row, SURROGATE)
        )

    rows = first_with(seeds, lambda one: [row for row in one.rows if one.options[row].get("norm") in STANDARD_BN])
    if not rows:
        return [
            Part("standard BN", None, "undecided", f"this experiment has no row with norm {' or '.join(STANDARD_BN)}")
        ]
    return [
        row_of(row, seeds, partial(compare, row=row), border=NO_HELP_POINTS, above=False, note=partial(note, row=row))
        for row in rows
    ]
