"""Verdicts as parts of the overview."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from bntt.report import DASH, GREY, Html, ends, listed, number, small, table, word
from bntt.reproduction import Judged
from bntt.verdicts import DECIDED, WORDS, what_chance_does

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
