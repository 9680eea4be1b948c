"""What all rules share: the experiment, read and validated by the same code as the command line, and the paths."""

import sys
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError

# The package `bntt` is the one beside the Snakefile, even if another is installed: Snakemake puts the Snakefile's
# folder first in sys.path.

# Jobs use the interpreter that runs Snakemake. Its path is not part of the rules, so another one reruns nothing.
if not workflow.deployment_settings.deployment_method:  # with --sdm conda, jobs use the environment's
    shell.prefix(f"set -euo pipefail; export PATH={quote(str(Path(sys.executable).parent))}:$PATH; ")

from bntt.common.errors import UserError
from bntt.data import store
from bntt.experiment import code_hash
from bntt.experiment.schema import load
from bntt.runs import status
from bntt.runs.directory import RunDirectory

for key in config:
    if key not in ("experiment", "results"):
        raise WorkflowError(f"unknown key {key!r} in --config; there are experiment and results")
try:
    EXPERIMENT = load(str(config.get("experiment", "demo")))
except UserError as error:
    raise WorkflowError(str(error)) from None

RESULTS = Path(config.get("results", "results"))
ROOT = RESULTS / EXPERIMENT.name
BNTT = "python3 -m bntt"
OF_EXPERIMENT = f"--experiment {quote(str(config.get('experiment', 'demo')))} --results {quote(str(RESULTS))}"
RUNS = {run.name: run for run in EXPERIMENT.runs}
RUN = "{dataset}/{row}/seed-{seed}"
OF_RUN = f"{OF_EXPERIMENT} --dataset {{wildcards.dataset}} --row {{wildcards.row}} --seed {{wildcards.seed}}"


wildcard_constraints:
    dataset="|".join(EXPERIMENT.datasets),
    row="|".join(EXPERIMENT.rows),
    seed=r"\d+",


def run_of(wildcards):
    """The planned run that the wildcards name."""
    return RUNS[RUN.format(**wildcards)]


def directory_of(run):
    """The directory of a run."""
    return RunDirectory.of(run, RESULTS)


def start_of(wildcards):
    """What a run waits for: the training of the row that it starts from, if it starts from one."""
    run = run_of(wildcards)
    return [] if run.start is None else str(directory_of(RUNS[f"{run.dataset}/{run.start}/seed-{run.seed}"]).train_json)


REFERENCE = Path("results/reference")


def measurements_of(wildcards):
    """Every committed manifest and measurement of an experiment."""
    return sorted(map(str, (REFERENCE / wildcards.reference / "runs").rglob("*.*")))
