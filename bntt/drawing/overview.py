"""The parts of the overview: what ran, claims, verdicts, runs, decay of gamma, provenance."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from bntt.common.text import DASH, counted, duration, ends, listed, number
from bntt.data import store
from bntt.data.sheet import contact_sheet
from bntt.drawing.page import figure, piece, table
from bntt.drawing.tables import MEASURED, Table
from bntt.paper.claims import BNTT, Claim
from bntt.paper.decay import PAPER, RELEASED
from bntt.paper.reproduction import Judged
from bntt.paper.scores import remarks, scores
from bntt.paper.verdicts import WORDS
from bntt.results.collect import Results, at_threshold, gammas, last_step, select
from bntt.results.dead import AT_CHANCE, SILENT, chance
from bntt.results.facts import STATES, images_used, test_images
from bntt.results.intervals import standard_error
from bntt.results.waves import clear_peak
from bntt.training import schedule

OUTCOMES: Mapping[str, tuple[str, str]] = {  # of claims, for one and for several
    "holds": ("holds", "hold"),
    "holds (one seed)": ("holds (one seed)", "hold (one seed)"),
    "fails": ("fails", "fail"),
    "fails (one seed)": ("fails (one seed)", "fail (one seed)"),
    "undecided": ("is undecided", "are undecided"),
    "not decidable": ("is not decidable", "are not decidable"),
}


def what_ran(results: Results, accuracies: Table, claims: Mapping[str, Sequence[Claim]]) -> str:
    """What ran, on what, and how it went, in Markdown: a line on the runs, and one on each dataset.

    ``accuracies`` is Table 1; ``claims`` are those of each dataset.
    """
    status = results.summary["status"].value_counts()
    devices = list(dict.fromkeys(one.training["provenance"]["device"] for one in results.runs if one.training))
    runs = f"{listed([f'{n} {word}' for word, n in status.items()])} of {counted(len(results.runs), 'run')}"
    spent = f"{duration(results.summary['seconds'].sum())} of training, on {listed(devices)}"
    lines = [f"* **Runs.** {runs}; {spent}."]
    for dataset in results.experiment.datasets:
        own = select(results.summary, dataset=dataset)
        states = [STATES.get(state, state) for state in sorted(own["data_state"].dropna().unique())]
        about = f"{images_used(results, dataset)}; {listed(states) or 'not read yet'}"
        said = [f"* **{dataset}.** {store.facts(dataset)['title']}: {about}. Chance: {chance(dataset):.3g} %."]
        for word in (SILENT, AT_CHANCE):
            if of_word := list(dict.fromkeys(own.loc[own["dead"] == word, "row"])):
                said.append(f"**{word.capitalize()}: {listed([f'`{row}`' for row in of_word])}.**")
        said += _reached(accuracies, dataset)
        outcomes = Counter(claim.word for claim in claims[dataset] if not claim.ours)
        counts = [f"{outcomes[word]} {forms[outcomes[word] > 1]}" for word, forms in OUTCOMES.items() if outcomes[word]]
        said.append(f"Of {counted(outcomes.total(), 'claim')} of the paper, {listed(counts)}.")
        lines.append(" ".join(said))
    return "\n".join(lines)


def _reached(accuracies: Table, dataset: str) -> Iterator[str]:
    """The accuracy of bntt, and that at its early exit."""
    shown = accuracies.sections[MEASURED]
    shown = shown.assign(dead=accuracies.data["dead"].iloc[: len(shown)])
    for row in (BNTT, f"{BNTT} + early exit"):
        for _, line in select(shown, Dataset=dataset, Row=row).iterrows():
            value, _, seeds = line["Accuracy (%)"].partition(" (")
            if value[0].isdigit():
                steps = line["Time-steps"]
                value += f" % ({seeds}" if seeds else " %"
                value += f" after {counted(float(steps), 'time-step')}" if steps != DASH else ""
            no_exit = "no exit" if line.get("Note", "").startswith("no exit") else ""
            yield ", ".join(filter(None, [f"`{row}`: {value}", no_exit, line["dead"]])) + "."


def claims_list(claims: Sequence[Claim]) -> Markup:
    """A line for each claim with its outcome; its statistic and the comparisons that it rests on are folded.

    Claims of ours stand below those of the paper, under a heading of their own.
    """
    of_paper, ours = ([one for one in claims if one.ours == own] for own in (False, True))
    heading = piece("minor", "Claims of ours, which the paper does not make") if ours else Markup()
    return Markup().join([*(piece("claim", one) for one in of_paper), heading, *(piece("claim", one) for one in ours)])


def recordings(datasets: Iterable[str], folder: Path) -> list[Markup]:
    """A card with the contact sheet of each dataset of recordings that is prepared, drawn in ``folder``/figures."""
    cards = []
    for name in datasets:
        if store.is_of_recordings(name) and store.manifest_path(name).is_file():
            file = f"figures/recordings-{name}.png"
            out, _ = contact_sheet(name, folder / file)
            cards.append(figure(out, f"What the camera saw: {name}", file, file, height=15))
    return cards


def noise_table(differences: pd.DataFrame, dead: Mapping[str, str]) -> Markup:
    """Accuracy of bntt minus each row's at each sigma; bold if its interval excludes 0, with the number of seeds.

    ``dead`` gives ``silent`` or ``at chance`` for rows that are so.
    """

    def name(row: str) -> str:
        return ", ".join(filter(None, [row, dead.get(row)]))

    lines = []
    for row, part in differences.groupby("row", sort=False):
        cells = {
            f"{one.sigma:g}": Markup("<b>{}</b>" if one.low > 0 or one.high < 0 else "{}").format(
                number(one.difference, 1)
            )
            for one in part.itertuples()
        }
        seeds = {"Seeds": "one seed" if part["seeds"].max() == 1 else str(part["seeds"].max())}
        lines.append({f"{name(BNTT)} minus": name(str(row))} | seeds | cells)
    frame = pd.DataFrame(lines).fillna(DASH)
    return table(frame, right=list(frame.columns[2:]))


def runs_table(results: Results) -> Markup:
    """Every planned run: status, accuracy after all steps, T, parameters, training time, decay budget."""
    lines = []
    for one in results.summary.itertuples():
        found = results.frame("anytime.csv", dataset=one.dataset, row=one.row, seed=one.seed)
        reason = one.why_dead if one.status == "done" else "" if one.status == "missing" else one.reason
        lines.append(
            {
                "Dataset": one.dataset,
                "Row": one.row,
                "Seed": one.seed,
                "Status": piece("word", one.dead or one.status) + " " + piece("small", reason),
                "Accuracy (%)": _last_accuracy(found, test_images(results, one.dataset)),
                "T": one.time_steps,
                "Parameters": DASH if pd.isna(one.parameters) else f"{one.parameters:,.0f}",
                "Training": duration(one.seconds),
                "Decay budget": number(one.decay_budget, 1),
            }
        )
    return table(pd.DataFrame(lines), right=["T", "Parameters", "Decay budget"])


def _last_accuracy(anytime: pd.DataFrame, images: int | None) -> str:
    if anytime.empty or images is None:
        return DASH
    accuracy = float(last_step(anytime)["accuracy"].iloc[0])
    return f"{number(accuracy)} ± {number(100 * standard_error(accuracy / 100 * images, images))}"


def gamma_decay(options: Mapping[str, Any]) -> float | None:
    """Weight decay on gamma: ``gamma_decay``, else ``weight_decay``; None for a row without a norm."""
    if options.get("norm", "none") == "none" or "weight_decay" not in options:
        return None
    return schedule.gamma_decay({"gamma_decay": None, **options})


def decay_table(results: Results, dataset: str) -> Markup:
    """Weight decay, its budget and the resulting gamma of rows with a norm; then the paper's and the code's decay."""
    lines = []
    several = len({run.seed for run in results.experiment.runs}) > 1
    for run in (one.run for one in results.runs if one.run.dataset == dataset):
        decay = gamma_decay(run.options)
        if decay is None:
            continue
        keys = {"dataset": dataset, "row": run.row, "seed": run.seed}
        gamma, spikes, anytime, exits = (
            results.frame(f"{name}.csv", **keys) for name in ("gamma", "spikes", "anytime", "early_exit")
        )
        about = select(results.summary, **keys).iloc[0]
        layers = gammas(gamma).values()
        exits = at_threshold(exits, run.evaluation["exit_threshold"])
        exit_step = "".join(str(one.exit_step) if one.exits else "no exit" for one in exits.itertuples())
        lines.append(
            {
                "": ", ".join(filter(None, [run.row, f"seed {run.seed}" if several else "", about["dead"]])),
                "Decay on gamma": f"{decay:g}",
                "On other weights": f"{run.options['weight_decay']:g}",
                "Budget (e-folds)": number(about["decay_budget"], 1),
                "Peak step of mean gamma, by depth": ", ".join(
                    str(clear_peak(one.mean(axis=1)) or "none") for one in layers
                )
                or DASH,
                "Largest mean gamma at T": number(max((one.iloc[-1].mean() for one in layers), default=None)),
                "Exit step": exit_step or DASH,
                "Spikes per neuron, over layers": _spikes_per_neuron(spikes),
                "Accuracy (%)": _last_accuracy(anytime, test_images(results, dataset)),
            }
        )
    for source, decay, _, budget in (PAPER, RELEASED):
        stated = dict.fromkeys(("Decay on gamma", "On other weights"), f"{decay:g}")
        stated["Budget (e-folds)"] = number(budget, 1)
        lines.append({"": piece("small", source)} | stated)
    return table(pd.DataFrame(lines).fillna(DASH))


def _spikes_per_neuron(spikes: pd.DataFrame) -> str:
    """The smallest and the largest spikes per neuron of a layer, over all steps."""
    if spikes.empty:
        return DASH
    counts = spikes.groupby("layer")["spikes"].sum()
    return f"{number(counts.min())} to {number(counts.max())}"


def provenance_table(results: Results) -> Markup:
    """Where the numbers come from: code, versions, device, threads, data and dates, each value once."""
    records = [one.training for one in results.runs if one.training]
    dates = sorted(record["started"][:16].replace("T", " ") for record in records)
    lines = []
    for record in records:
        made, data = record["provenance"], record["data"]
        commit = made.get("commit", "")[:12] + (" with local changes" if made.get("dirty") else "")
        lines += [
            ("Code", commit or f"source {made.get('source_sha256', 'unknown')[:12]}, no git"),
            ("Python", made["python"]),
            ("Packages", ", ".join(f"{name} {version}" for name, version in made["packages"].items())),
            ("Platform", f"{made['platform']}, {made['processor']}"),
            ("Device", made["device"]),
            ("Threads", f"{made['threads']} per run"),
            ("Data", f"{data['dataset']}, content {data['content_sha256'][:12]}, split {data['split_sha256'][:12]}"),
            ("Trained", f"{dates[0]} to {dates[-1]} UTC"),
        ]
    facts = pd.DataFrame(lines, columns=["", " "]).drop_duplicates().groupby("", sort=False)[" "]
    return table(pd.DataFrame([(key, Markup("<br>").join(values)) for key, values in facts], columns=["", " "]))


def verdict_counts(judged: Sequence[Judged]) -> str:
    """What chance would do, how often numbers are repeated, and the most frequent reason for NOT_RUN."""
    lines = [f"{len(judged)} printed numbers.", *remarks(judged)]
    reasons = Counter(one.verdict.reason for one in judged if one.verdict.word == "NOT_RUN")
    if reasons:
        first, often = reasons.most_common(1)[0]
        lines.append(f"Most frequent reason for NOT_RUN: {first} ({often}).")
    return " ".join(lines)


def scores_table(judged: Sequence[Judged]) -> Markup:
    """How many numbers of each kind have each verdict, and what a dead network would earn."""
    found = scores(judged)
    words = [word for word in WORDS if any(score.counts[word] for score in found)]
    lines = [
        {"Numbers": score.kind}
        | {word: score.counts[word] or DASH for word in words}
        | {"Weak": score.weak.total() or DASH}
        | {"Earned by a dead network": f"{score.dead_earns} of {score.dead.total()}" if score.dead else DASH}
        | {"Judged without accuracy": score.dead_alone if score.dead else DASH}
        for score in found
    ]
    frame = pd.DataFrame(lines)
    return table(frame, right=list(frame.columns[1:]))


def verdicts_table(judged: Sequence[Judged]) -> Markup:
    """Each number with its verdict, the mean over seeds, its difference and the prediction interval."""
    lines = []
    for one in judged:
        cell, verdict = one.cell, one.verdict
        digits = 2 if verdict.mean is None or abs(verdict.mean) >= 1 else 4
        lines.append(
            {
                "Verdict": piece("word", str(verdict)),
                "Where": f"{cell.place}, {cell.row}, {cell.column}",
                "Printed": cell.printed,
                "Reproduced": DASH
                if verdict.mean is None
                else f"{number(verdict.mean, digits)} (n = {len(verdict.values)})",
                "Difference": number(one.difference, digits),
                "One new run": ends(verdict.interval, digits) if verdict.half_width else DASH,
                "Note": piece("small", verdict.reason),
            }
        )
    return table(pd.DataFrame(lines))
