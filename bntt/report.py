"""Small helpers that turn tables, verdicts and figures into HTML for the notebooks, and numbers into text.

Styles are inline, because a page keeps no style sheet from a notebook's outputs; nothing refers to another host.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bntt import data
from bntt.collect import Results, at_threshold
from bntt.statistics import Estimate, peak_step, standard_error

if TYPE_CHECKING:
    from bntt.claims import Claim, Part

INK, GREY, FAINT = "#1d1f23", "#62666e", "#e4e2dc"
VERDICT_COLOURS = {"holds": "#1c6b43", "fails": "#a5301c", "undecided": "#7a5a00"}
STATUS_COLOURS = {"done": VERDICT_COLOURS["holds"], "diverged": VERDICT_COLOURS["fails"]}
SANS = "font-family:'Source Sans 3','Helvetica Neue',Arial,sans-serif"
DASH = "–"

# e-folds by which decay alone shrinks gamma, sum(lr * decay) / (1 - momentum), on CIFAR-10 at batch 256, 196 steps an
# epoch: the text's 120 epochs at decay 5e-4, the released code's 100 epochs at 1e-4; both lr 0.3, / 10 at 50, 70, 90 %.
PAPER_GAMMA_DECAY, PAPER_DECAY_BUDGET = 5e-4, 18.4
RELEASED_GAMMA_DECAY, RELEASED_DECAY_BUDGET = 1e-4, 3.1


class Html(str):
    """Text that is HTML already and is not escaped again."""


# -- numbers as text -------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals and a true minus sign; very large ones as a power of ten; a dash for none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1e5:
        power = f"{math.log10(abs(value)):.0f}".translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"about {'' if value > 0 else '−'}10{power}"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def interval(estimate: Estimate | None, digits: int = 2, unit: str = "") -> str:
    """``value [low, high] unit``; without brackets where the value has no uncertainty."""
    if estimate is None:
        return DASH
    text = number(estimate.value, digits)
    if not estimate.low == estimate.value == estimate.high:
        text += f" [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"
    return text + unit if unit == "×" else f"{text} {unit}".strip()


def ends(estimate: Estimate | None, digits: int = 2) -> str:
    """The interval alone, ``[low, high]``."""
    return DASH if estimate is None else f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def listed(words: Sequence[str]) -> str:
    """Words as an enumeration: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def duration(seconds: float | None) -> str:
    """Seconds as ``45 s``, ``7 min 3 s`` or ``2 h 5 min``."""
    if seconds is None or math.isnan(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# -- HTML --------------------------------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """A cell's content: HTML as it is, all else escaped."""
    return str(value) if isinstance(value, Html) else html.escape(str(value))


def word(text: str, colours: Mapping[str, str]) -> Html:
    """A status or verdict as a bold coloured word; the word says it without the colour, too."""
    return Html(f'<strong style="color:{colours.get(text, GREY)};{SANS}">{html.escape(text)}</strong>')


def verdict(text: str) -> Html:
    """A verdict as a coloured word."""
    return word(text, VERDICT_COLOURS)


def small(text: object) -> Html:
    """A grey remark."""
    return Html(f'<span style="color:{GREY};font-size:.92em">{text_of(text)}</span>') if str(text) else Html("")


def table(frame: pd.DataFrame, right: Sequence[str] = ()) -> Html:
    """A frame as a plain table; the columns named in ``right`` are set flush right. Numbers are not broken."""
    align = {column: "text-align:right" if column in right else "text-align:left" for column in frame.columns}
    cell = "padding:.3rem .9rem .3rem 0;vertical-align:top"
    head = "".join(
        f'<th style="{cell};{align[c]};border-bottom:1.5px solid {GREY}">{text_of(c)}</th>' for c in frame.columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{cell};{align[c]}{_width(value)};border-bottom:1px solid {FAINT}">{text_of(value)}</td>'
            for c, value in zip(frame.columns, line, strict=True)
        )
        + "</tr>"
        for line in frame.itertuples(index=False)
    )
    style = f"border-collapse:collapse;{SANS};font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums"
    return Html(f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def _width(value: object) -> str:
    """Numbers stay on one line with their interval, long texts get room for more than a word."""
    text = "" if isinstance(value, Html) else str(value)
    if len(text) > 24:
        return ";min-width:8.5rem"
    return ";white-space:nowrap" if text[:1].isdigit() or text.startswith("−") else ""


def figure(path: Path, title: str, link: str) -> Html:
    """A figure as a card: the picture within the page, its title below, both linked to the notebook."""
    if path.is_file():
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        picture = (
            f'<img alt="{html.escape(title)}" src="data:image/png;base64,{content}" '
            'style="width:100%;height:15rem;object-fit:contain;background:#fff">'
        )
    else:
        picture = (
            f'<span style="display:block;height:15rem;line-height:15rem;text-align:center;color:{GREY}">'
            "not drawn yet</span>"
        )
    return Html(
        f'<a href="{html.escape(link)}" style="display:block;text-decoration:none;color:{INK};background:#fff;'
        f'border:1px solid {FAINT};border-radius:4px;padding:.7rem;{SANS};font-size:13.5px;line-height:1.35">'
        f'{picture}<span style="display:block;margin-top:.5rem">{html.escape(title)}</span></a>'
    )


def grid(cards: Sequence[Html]) -> Html:
    """Cards side by side, as many as the page is wide."""
    style = "display:grid;grid-template-columns:repeat(auto-fill,minmax(24rem,1fr));gap:1rem;margin:1rem 0"
    return Html(f'<div style="{style}">{"".join(cards)}</div>')


# -- what was drawn ------------------------------------------------------------------------------------------------


def sources(results: Results) -> str:
    """The data a notebook drew, in Markdown: dataset and state, rows, seeds, test images, and what is missing."""
    lines = []
    runs = results.summary
    name = results.experiment.name
    for dataset in results.experiment.datasets:
        own = runs[runs["dataset"] == dataset]
        states = sorted(own["data_state"].dropna().unique())
        known = {
            "archive": "the publisher's files",
            "content": "content as expected",
            "partial": "content as expected but for some listed test items",
            "unknown": "content NOT known to be the publisher's",
        }
        state = listed([known.get(one, one) for one in states]) or "not read yet"
        seeds = sorted(own["seed"].unique())
        images = test_images(results, dataset)
        lines.append(
            f"**Data drawn.** Experiment `{name}`, dataset {data.facts(dataset)['title']} ({state}); "
            f"{'test images not read yet' if images is None else f'{images} test images'}; "
            f"rows {listed([f'`{row}`' for row in dict.fromkeys(own['row'])])}; "
            f"{'seed' if len(seeds) == 1 else f'n = {len(seeds)} seeds'} {listed([str(seed) for seed in seeds])}."
        )
        absent = own[own["status"] != "done"]
        names = [f"`{one.row}`, seed {one.seed} ({why_absent(one.status, one.reason)})" for one in absent.itertuples()]
        lines.append(f"Without a result: {listed(names)}." if names else "No run is missing.")
    return "\n\n".join(lines)


def test_images(results: Results, dataset: str) -> int | None:
    """The number of test images of a dataset, as its runs recorded it; None where none has been trained."""
    for one in results.runs:
        if one.run.dataset == dataset and one.training:
            there = int(one.training["data"]["images"]["test"])
            return min(there, one.run.options["test_limit"] or there)
    return None


def why_absent(status: str, reason: str) -> str:
    """Why a run has no result, for a reader."""
    return {"missing": "no result yet", "diverged": f"diverged: {reason}"}.get(status, f"{status}: {reason}")


# -- the overview's tables -----------------------------------------------------------------------------------------


def claims_table(claims: Sequence["Claim"]) -> Html:
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


def _part(part: "Part", unit: str) -> str:
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
