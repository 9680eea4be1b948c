"""What the runs of an experiment need of a cluster: memory and minutes, in ``results/<experiment>/needs.yaml``.

`python -m bntt plan EXPERIMENT --needs` writes there what it measured. The workflow asks a batch system for that and a
margin, because a measurement is of the first steps: `MEMORY` times the memory, and `TIME` times the minutes. A job also
holds Snakemake, twice: once to start the step, and once in it.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import Field

from bntt.common.errors import UserError, check_name
from bntt.common.files import read_yaml, write_atomically
from bntt.experiment.options import Strict, validated
from bntt.experiment.schema import Experiment

if TYPE_CHECKING:
    from bntt.runs.cost import Cost

MEMORY = 1.5  # of what is asked for to what was measured
TIME = 2.0
SNAKEMAKE_MB = 500  # more: 160 were measured of each
SNAKEMAKE_MINUTES = 5  # more: both start before the run itself, from a disk that others use, too

Amount = Annotated[float, Field(gt=0)]


class Job(Strict):
    """What one job was measured to need."""

    memory_mb: Amount = Field(description="peak memory of the process")
    minutes: Amount = Field(description="how long it takes")

    def ask(self, attempt: int = 1) -> dict[str, int]:
        """What to ask for, in Snakemake's names and units.

        Later attempts ask for twice the memory, because it may have run out. They do not ask for more and more, because
        an attempt also ends at its time limit, and a long run has many.
        """
        return {
            "mem_mb": math.ceil(MEMORY * self.memory_mb * min(attempt, 2)) + SNAKEMAKE_MB,
            "runtime": math.ceil(TIME * self.minutes) + SNAKEMAKE_MINUTES,
        }


class Need(Strict):
    """What the runs of one row on one dataset were measured to need."""

    training: Job = Field(description="memory_mb and minutes of one training")
    evaluation: Job = Field(description="memory_mb and minutes of one evaluation")


class _File(Strict):
    experiment: str = Field(description="name of the experiment")
    device: str = Field(description="where it was measured")
    needs: dict[str, dict[str, Need]] = Field(description="what was measured, by dataset and row")


def path_of(experiment: Experiment, results: Path) -> Path:
    """The file of an experiment's needs."""
    return results / experiment.name / "needs.yaml"


def write(experiment: Experiment, results: Path, device: str, costs: "Iterable[Cost]") -> Path:
    """Write what was measured; returns the file."""

    def job(memory: float, seconds: float) -> dict[str, float]:
        return {"memory_mb": math.ceil(memory / 1e6), "minutes": math.ceil(seconds / 0.6) / 100}

    needs: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for one in costs:
        needs.setdefault(one.dataset, {})[one.row] = {
            "training": job(one.memory, one.training),
            "evaluation": job(one.evaluation_memory, one.evaluation),
        }
    text = yaml.safe_dump({"experiment": experiment.name, "device": device, "needs": needs}, sort_keys=False, width=120)
    path = path_of(experiment, results)
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))
    return path


def read(experiment: Experiment, results: Path) -> Mapping[tuple[str, str], Need]:
    """What is known of the experiment's needs, by dataset and row; raises UserError for a file of something else."""
    path = path_of(experiment, results)
    if not path.exists():
        return {}
    again = f"; measure again with `python -m bntt plan {experiment.name} --needs`, or remove the file"
    try:
        file = validated(_File, read_yaml(path.read_bytes(), str(path)), str(path))
        if file.experiment != experiment.name:
            raise UserError(f"{path} is of experiment {file.experiment}, not {experiment.name}")
        for dataset, rows in file.needs.items():
            check_name("dataset", dataset, experiment.datasets, str(path))
            for row in rows:
                check_name("row", row, experiment.rows, str(path))
    except UserError as error:
        raise UserError(f"{error}{again}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}{again}") from None
    return {(dataset, row): need for dataset, rows in file.needs.items() for row, need in rows.items()}
