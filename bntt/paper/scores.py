"""How many of the printed numbers were reproduced, for each kind of number, and what a dead network would earn.

Settings are apart: a run of the protocol has them by construction. A number that the paper repeats counts once.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bntt.common.text import counted, listed
from bntt.paper.admission import the_paper
from bntt.paper.published import Cell, repeated
from bntt.paper.reproduction import Judged, accuracy_cell, judge_values
from bntt.paper.verdicts import DECIDED, FAVOURABLE, WORDS, Word, what_chance_does
from bntt.results.dead import chance

KINDS = {
    "Table 1": "measured in Table 1",
    "Table 2": "constants of Table 2",
    "Table 3": "measured in Table 3",
    "figures": "measured in figures",
    "text": "in the text",
    "settings": "settings, which match by construction",
}
DEAD_SEEDS = 3


@dataclass(frozen=True)
class Score:
    """The verdicts on the numbers of one kind."""

    kind: str
    counts: Counter[Word]
    weak: Counter[Word]  # of these, those that are weak
    dead: Counter[Word]  # the verdicts on a dead network
    dead_alone: int  # how many of these would be favourable if no number were judged together with its accuracy

    @property
    def dead_earns(self) -> int:
        """How many numbers of a dead network are MATCH, CONSISTENT or BETTER."""
        return sum(self.dead[word] for word in FAVOURABLE)


def scores(judged: Iterable[Judged]) -> list[Score]:
    """A score for each kind of number, in the order of KINDS; kinds without a number are left out."""
    by_kind: dict[str, list[Judged]] = {kind: [] for kind in KINDS}
    for one in judged:
        if repeated(one.cell) is None:
            by_kind[one.cell.kind].append(one)
    return [_score(KINDS[kind], own) for kind, own in by_kind.items() if own]


def _score(kind: str, judged: Sequence[Judged]) -> Score:
    can_fail = [one.cell for one in judged if is_decidable(one.cell)]
    return Score(
        kind,
        Counter(one.verdict.word for one in judged),
        Counter(one.verdict.word for one in judged if one.verdict.weak),
        Counter(_dead(cell) for cell in can_fail),
        sum(judge_values(cell, [dead_value(cell)] * DEAD_SEEDS).word in FAVOURABLE for cell in can_fail),
    )


def is_decidable(cell: Cell) -> bool:
    """Whether runs of the protocol can decide a number: one is printed, and its row is there and specified."""
    paper = the_paper()
    has_row = cell.dataset in paper.datasets and cell.run in paper.rows_on(cell.dataset)
    return has_row and cell.value is not None and not cell.underspecified


def _dead(cell: Cell) -> Word:
    """The verdict on a dead network."""
    accuracy = accuracy_cell(cell)
    bought = None if accuracy is None else judge_values(accuracy, [dead_value(accuracy)] * DEAD_SEEDS)
    return judge_values(cell, [dead_value(cell)] * DEAD_SEEDS, bought).word


def dead_value(cell: Cell) -> float:
    """What is measured on a dead network; a setting has the printed value."""
    match cell.metric:
        case "accuracy" | "exit_accuracy":
            return chance(cell.dataset)
        case "energy_ratio":
            return math.inf
        case "mean_gamma":
            return 0.01
        case "exit_step" | "peak_step":
            return 1.0
        case "saved_steps":
            return 100.0  # one step of many
        case _:
            return cell.number


def headline(judged: Sequence[Judged]) -> list[str]:
    """A sentence for each kind of number; then the `remarks`."""
    lines = [
        f"{counted(score.counts.total(), 'number')} {score.kind}: {_verdicts(score)}."
        + (
            f" A dead network would earn {score.dead_earns} of the {score.dead.total()} that can be decided."
            if score.dead
            else ""
        )
        for score in scores(judged)
    ]
    return [*lines, *remarks(judged)]


def remarks(judged: Sequence[Judged]) -> list[str]:
    """What chance alone does to the measured numbers, if any is decided, and how many numbers are repeated."""
    distinct = [one for one in judged if repeated(one.cell) is None]
    measured = [one.verdict for one in distinct if one.cell.kind != "settings"]
    chance_does = [what_chance_does(measured)] if any(one.word in DECIDED for one in measured) else []
    return [*chance_does, f"{counted(len(judged) - len(distinct), 'number')} that the paper repeats count once."]


def _verdicts(score: Score) -> str:
    """``3 MATCH (2 weak) and 7 NOT_RUN``."""
    weak = {word: f" ({count} weak)" for word, count in score.weak.items()}
    return listed([f"{score.counts[word]} {word}{weak.get(word, '')}" for word in WORDS if score.counts[word]])
