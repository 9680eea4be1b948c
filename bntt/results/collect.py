"""All measurements of an experiment as tidy frames, from which tables, figures and the overview are drawn."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bntt.common.errors import UserError
from bntt.experiment import declared
from bntt.experiment.schema import Experiment, load
from bntt.results.dead import Dead, diagnosis
from bntt.runs.directory import OF_TRAINING, RESULTS
from bntt.runs.status import Found, found
from bntt.training.schedule import undriven

DECAYING = {"tebn": 2, "tab-released": 3}  # factors that start at 1 in gamma p[t] and gamma w[t]^2


class Results:
    """The planned runs of an experiment joined with those found under a results root.

    Missing, damaged and diverged runs stay in ``runs`` with their status. The frames do not contain their
    measurements, so a caller that needs one must check.
    """

    def __init__(self, experiment: Experiment, results: Path = RESULTS, here: bool = True) -> None:
        """If ``here`` is false, runs may be of other code and data than those found here; see `bntt.runs.status`."""
        self.experiment, self.root, self.here = experiment, results, here
        self.folder = results / experiment.name
        self._frames: dict[str, pd.DataFrame] = {}
        self._dead: dict[tuple[str, int | None], Dead | None] = {}

    @classmethod
    def of(cls, experiment: str, results: str | Path = RESULTS) -> "Results":
        return cls(load(experiment), Path(results))

    @classmethod
    def at(cls, folder: Path, experiment: str | None = None, here: bool = True) -> "Results":
        """The results in ``folder``; raises UserError if it is missing or not named like its experiment."""
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such results folder; give one such as results/demo")
        folder = folder.resolve()
        loaded = load(experiment or folder.name)
        if loaded.name != folder.name:
            raise UserError(f"{folder} does not hold experiment {loaded.name}, whose folder is called {loaded.name}")
        return cls(loaded, folder.parent, here)

    @cached_property
    def runs(self) -> list[Found]:
        return list(found(self.experiment, self.root, self.here))

    def of_row(self, row: str, dataset: str | None = None) -> list[Found]:
        """The runs of a row, one per seed (and dataset, unless one is named)."""
        return [one for one in self.runs if one.run.row == row and dataset in (None, one.run.dataset)]

    def frame(self, name: str, **keys: object) -> pd.DataFrame:
        """Measurement ``name`` of all runs that have it, with the columns ``dataset, row, seed`` in front.

        ``keys`` select some of them: ``frame("anytime.csv", dataset="digits", row="bntt")``.
        """
        if name not in self._frames:
            self._frames[name] = self._joined(name)
        return select(self._frames[name], **keys).copy()

    def _joined(self, name: str) -> pd.DataFrame:
        parts = []
        for one in self.runs:
            table = one.table(name)
            if table is not None:
                for place, key in enumerate(("dataset", "row", "seed")):
                    table.insert(place, key, getattr(one.run, key))
                parts.append(table)
        if parts:
            return pd.concat(parts, ignore_index=True)
        room = "training" if name in OF_TRAINING else "measurements"
        columns = declared.literal(f"bntt.{room}.{name.removesuffix('.csv')}", "COLUMNS")
        nothing = pd.DataFrame(columns=["dataset", "row", "seed", *columns], dtype=float)
        return nothing.astype({"dataset": str, "row": str, "seed": int})

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One line per planned run: what it is, its status, and what training recorded."""
        lines = []
        for one in self.runs:
            training: Mapping[str, Any] = one.training or {}
            line = {key: getattr(one.run, key) for key in ("dataset", "row", "seed", "method")}
            line |= {"status": "done" if one.status.measured else str(one.status), "reason": one.reason}
            line["time_steps"] = one.run.options.get("time_steps", 1)
            line |= {key: training.get(key) for key in ("parameters", "decay_budget", "steps", "seconds")}
            line["data_state"] = training.get("data", {}).get("state")
            images = images_of(one) or {}
            line |= {f"{part}_images": images.get(part) for part in ("train", "test")}
            line["undriven_gamma"] = _undriven(one, training, images)
            dead = self.dead(one)
            line |= {"dead": dead.word if dead else "", "why_dead": dead.reason if dead else ""}
            lines.append(line)
        return pd.DataFrame(lines)

    def dead(self, one: Found, steps: int | None = None) -> Dead | None:
        """Whether a run is silent or at chance after ``steps`` steps, by default all; None if not, or not measured."""
        asked = one.run.name, steps
        if asked not in self._dead:
            self._dead[asked] = self._diagnosis(one, steps)
        return self._dead[asked]

    def _diagnosis(self, one: Found, steps: int | None) -> Dead | None:
        keys = {key: getattr(one.run, key) for key in ("dataset", "row", "seed")}
        anytime, images = self.frame("anytime.csv", **keys), images_of(one)
        at = last_step(anytime) if steps is None else select(anytime, time_step=steps)
        if at.empty or images is None:
            return None
        accuracy, step = float(at["accuracy"].iloc[0]), int(at["time_step"].iloc[0])
        return diagnosis(self.frame("spikes.csv", **keys), accuracy, step, images["test"], one.run.dataset)


def _undriven(one: Found, training: Mapping[str, Any], images: Mapping[str, int]) -> float | None:
    """The value of a scale that no gradient reached: of gamma, or of its product with a weight that decays like it.

    None where there is no gamma, and for a training that has other options than the paper's.
    """
    if training.get("decay_budget") is None:
        return None
    try:
        value = undriven(dict(one.run.options), images["train"], training.get("selected_epoch"))
    except KeyError:
        return None
    return value ** DECAYING.get(str(one.run.options.get("norm")), 1)


def images_of(one: Found) -> dict[str, int] | None:
    """The numbers of training and test images that a run used, by part; None if it has not ended."""
    if one.training is None:
        return None
    there, options = one.training["data"]["images"], one.run.options
    images = {"train": int(there["train"]) - options.get("held_out", 0), "test": int(there["test"])}
    return {part: min(count, options.get(f"{part}_limit") or count) for part, count in images.items()}


def select(frame: pd.DataFrame, **keys: object) -> pd.DataFrame:
    """The part of a frame with these values in its columns: ``select(frame, dataset="digits", row="bntt")``."""
    for column, value in keys.items():
        frame = frame[frame[column] == value]
    return frame


def gammas(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Gamma of each layer of one run, frames ``[T, C]``, from ``gamma.csv``; conv1 comes first."""
    return {
        str(layer): part.pivot(index="time_step", columns="channel", values="gamma")
        for layer, part in frame.groupby("layer", sort=False)
    }


def last_step(frame: pd.DataFrame) -> pd.DataFrame:
    """Each run's lines after all of its time-steps."""
    run = [column for column in ("dataset", "row", "seed") if column in frame]
    return frame[frame["time_step"] == frame.groupby(run)["time_step"].transform("max")]


def at_threshold(exits: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The lines of ``early_exit.csv`` at a threshold, which the file gives to six digits."""
    return exits[np.isclose(exits["threshold"], threshold, rtol=1e-5, atol=0)]
