"""The tables of the overview: claims, verdicts, runs, decay of gamma, provenance."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bntt.common.text import DASH, duration, ends, interval, listed, number
from bntt.drawing.page import GREY, STATUS_COLOURS, Html, small, table, text_of, verdict, word
from bntt.paper.claims import Claim, Part
from bntt.paper.decay import (
    PAPER_DECAY_BUDGET,
    PAPER_GAMMA_DECAY,
    RELEASED_DECAY_BUDGET,
    RELEASED_GAMMA_DECAY,
)
from bntt.paper.reproduction import Judged
from bntt.paper.verdicts import DECIDED, WORDS, what_chance_does
from bntt.results.collect import Results, at_threshold
from bntt.results.facts import test_images
from bntt.results.intervals import peak_step, standard_error


def claims_table(claims: Sequence[Claim]) -> Html:
    """Each claim with its verdict and the comparisons that it rests on."""
    lines = [
        {
            "Verdict": verdict(claim.verdict),
            "The paper says": Html(
                f"{text_of(claim.text)}<br>{small(claim.where)}<br>{small('Statistic: ' + claim.statistic + '.')}"
            ),
            "Measured": Html(
                "".join(_part(part, claim.unit) for part in claim.parts) + f"<div>{small(claim.note)}</div>"
            ),
        }
        for claim in claims
    ]
    return table(pd.DataFrame(lines))


def _part(part: Part, unit: str) -> str:
    measured = "" if part.estimate is None else f" {text_of(interval(part.estimate, 2, unit))}"
    beside = "" if part.counts else small(" (for comparison)")
    note = f"<br>{small(part.note)}" if part.note else ""
    line = f"<b>{text_of(part.label)}</b>{measured} {verdict(part.verdict)}{beside}{note}"
    return f'<div style="margin-bottom:.35rem">{line}</div>'


def noise_table(differences: pd.DataFrame) -> Html:
    """Accuracy of bntt minus each row's at each sigma; bold where the paired interval leaves out 0."""
    lines = []
    for row, part in differences.groupby("row", sort=False):
        cells = {
            f"{one.sigma:g}": Html(f"<b>{value}</b>") if one.low > 0 or one.high < 0 else value
            for one in part.itertuples()
            for value in [number(one.difference, 1)]
        }
        lines.append({"bntt minus": row} | cells)
    frame = pd.DataFrame(lines).fillna(DASH)
    return table(frame, right=list(frame.columns[1:]))


def runs_table(results: Results) -> Html:
    """Every planned run: status, accuracy after all steps, T, parameters, training time, decay budget."""
    anytime = results.frame("anytime.csv")
    lines = []
    for one in results.summary.itertuples():
        found = anytime[
            (anytime["dataset"] == one.dataset) & (anytime["row"] == one.row) & (anytime["seed"] == one.seed)
        ]
        lines.append(
            {
                "Dataset": one.dataset,
                "Row": one.row,
                "Seed": one.seed,
                "Status": Html(f"{word(one.status, STATUS_COLOURS)} {small(_reason(one.status, one.reason))}"),
                "Accuracy (%)": _last_accuracy(found, test_images(results, one.dataset)),
                "T": one.time_steps,
                "Parameters": DASH if pd.isna(one.parameters) else f"{one.parameters:,.0f}",
                "Training": duration(one.seconds),
                "Decay budget": number(one.decay_budget, 1),
            }
        )
    return table(pd.DataFrame(lines), right=["T", "Parameters", "Decay budget"])


def _reason(status: str, reason: str) -> str:
    return "" if status in ("done", "missing") else reason


def _last_accuracy(anytime: pd.DataFrame, images: int | None) -> str:
    if anytime.empty or images is None:
        return DASH
    accuracy = float(anytime.loc[anytime["time_step"].idxmax(), "accuracy"])
    return f"{number(accuracy)} ± {number(100 * standard_error(accuracy / 100 * images, images))}"


def gamma_decay(options: Mapping[str, Any]) -> float | None:
    """Weight decay on gamma: its own, or the weights'; None for a row without a norm."""
    if options.get("norm", "none") == "none" or "weight_decay" not in options:
        return None
    return options["weight_decay"] if options.get("gamma_decay") is None else options["gamma_decay"]


def decay_table(results: Results, dataset: str) -> Html:
    """Rows with a decayed scale: decay, budget and what became of gamma, beside the paper's and the released code's."""
    gamma, spikes, anytime, exits = (
        results.frame(name) for name in ("gamma.csv", "spikes.csv", "anytime.csv", "early_exit.csv")
    )
    lines = []
    for run in (one.run for one in results.runs if one.run.dataset == dataset):
        decay = gamma_decay(run.options)
        if decay is None:
            continue
        mine = [_of_run(frame, run) for frame in (gamma, spikes, anytime, exits)]
        recorded = results.summary.merge(pd.DataFrame([{"dataset": dataset, "row": run.row, "seed": run.seed}]))
        exit_step = at_threshold(mine[3], run.evaluation["exit_threshold"])
        layers = {layer: part.pivot(index="time_step", columns="channel", values="gamma")
                  for layer, part in (mine[0].groupby("layer", sort=False) if len(mine[0]) else ())}  # fmt: skip
        peaks = [peak_step(part) for part in layers.values()]
        last = max((part.iloc[-1].mean() for part in layers.values()), default=math.nan)
        lines.append(
            {
                "": f"{run.row}, seed {run.seed}" if len({one.run.seed for one in results.runs}) > 1 else run.row,
                "Decay on gamma": f"{decay:g}",
                "Budget (e-folds)": number(recorded["decay_budget"].iloc[0], 1),
                "Peak step of mean gamma, by depth": ", ".join(map(str, peaks)) or DASH,
                "Largest mean gamma at T": number(last),
                "Exit step": _exit(exit_step),
                "Spikes per neuron, over layers": _spikes_per_neuron(mine[1]),
                "Accuracy (%)": _last_accuracy(mine[2], test_images(results, dataset)),
            }
        )
    for name, decay, budget in (
        ("paper's text, CIFAR-10", PAPER_GAMMA_DECAY, PAPER_DECAY_BUDGET),
        ("released code, CIFAR-10", RELEASED_GAMMA_DECAY, RELEASED_DECAY_BUDGET),
    ):
        lines.append({"": small(name), "Decay on gamma": f"{decay:g}", "Budget (e-folds)": number(budget, 1)})
    return table(pd.DataFrame(lines).fillna(DASH))


def _exit(exits: pd.DataFrame) -> str:
    if exits.empty:
        return DASH
    return str(exits["exit_step"].iloc[0]) if exits["exits"].iloc[0] else "no exit"


def _of_run(frame: pd.DataFrame, run: Any) -> pd.DataFrame:
    return frame[(frame["dataset"] == run.dataset) & (frame["row"] == run.row) & (frame["seed"] == run.seed)]


def _spikes_per_neuron(spikes: pd.DataFrame) -> str:
    """The range over layers of the spike count over all steps."""
    if spikes.empty:
        return DASH
    counts = spikes.groupby("layer")["spikes"].sum()
    return f"{number(counts.min())} to {number(counts.max())}"


def provenance_table(results: Results) -> Html:
    """Where the numbers come from: code, versions, device, threads, data and dates, each value once."""
    records = [one.training for one in results.runs if one.training]
    facts: dict[str, list[str]] = {
        key: [] for key in ("Code", "Python", "Packages", "Platform", "Device", "Threads", "Data", "Trained")
    }
    for record in records:
        made = record["provenance"]
        commit = made.get("commit", "")[:12] + (" with local changes" if made.get("dirty") else "")
        facts["Code"].append(commit or f"source {made.get('source_sha256', 'unknown')[:12]}, no git")
        facts["Python"].append(made["python"])
        facts["Packages"].append(", ".join(f"{name} {version}" for name, version in made["packages"].items()))
        facts["Platform"].append(f"{made['platform']}, {made['processor']}")
        facts["Device"].append(made["device"])
        facts["Threads"].append(f"{made['threads']} per run")
        facts["Data"].append(f"{record['data']['dataset']}, content {record['data']['content_sha256'][:12]}, "
                             f"split {record['data']['split_sha256'][:12]}")  # fmt: skip
    dates = sorted(record["started"][:16].replace("T", " ") for record in records)
    facts["Trained"] = [f"{dates[0]} to {dates[-1]} UTC"] if dates else []
    lines = [(key, Html("<br>".join(map(text_of, dict.fromkeys(values)))) or DASH) for key, values in facts.items()]
    return table(pd.DataFrame(lines, columns=["", " "]))


# -- verdicts ----------------------------------------------------------------------------------------------------


COLOURS = {
    "MATCH": "#1c6b43",
    "CONSISTENT": "#1c6b43",
    "BETTER": "#14507d",
    "WORSE": "#a5301c",
    "DIFFERS": "#a5301c",
    "INCOMPLETE": "#7a5a00",
}


def verdict_counts(judged: Sequence[Judged]) -> str:
    """How many numbers have which verdict, why most of the others have none, and what chance would do."""
    counts = Counter(one.verdict.word for one in judged)
    text = f"Of {len(judged)} printed numbers: {listed([f'{counts[name]} {name}' for name in WORDS if counts[name]])}."
    if any(counts[name] for name in DECIDED):
        text += " " + what_chance_does([one.verdict for one in judged])
    reasons = Counter(one.verdict.reason for one in judged if one.verdict.word == "NOT_RUN")
    if reasons:
        first, often = reasons.most_common(1)[0]
        text += f" NOT_RUN mostly because {first} ({often})."
    return text


def verdicts_table(judged: Sequence[Judged]) -> Html:
    """Each number with its verdict, the mean over seeds and the prediction interval."""
    lines = []
    for one in judged:
        cell, verdict = one.cell, one.verdict
        digits = 2 if verdict.mean is None or abs(verdict.mean) >= 1 else 4
        lines.append(
            {
                "Verdict": word(str(verdict), {str(verdict): COLOURS.get(verdict.word, GREY)}),
                "Where": f"{cell.place}, {cell.row}, {cell.column}",
                "Printed": cell.printed,
                "Reproduced": DASH
                if verdict.mean is None
                else f"{number(verdict.mean, digits)} (n = {len(verdict.values)})",
                "One new run": ends(verdict.interval, digits) if verdict.half_width else DASH,
                "Note": small(verdict.reason),
            }
        )
    return table(pd.DataFrame(lines))
