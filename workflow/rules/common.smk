"""What all rules share: the experiment, read and validated by the same code as the command line, and the paths."""

import fcntl
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

# Code, notebooks and experiment files are those beside the Snakefile, which may be read-only. Results and data lie in
# the working folder, where Snakemake was started, and an experiment file may lie in its config/.
CHECKOUT = Path(str(workflow.current_basedir)).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

# Jobs use the package beside the Snakefile, even if another is installed or lies in the working folder, and the
# interpreter that runs Snakemake; with --sdm, that of the conda environment or of the image. An image has its packages,
# and none of the host's; what its jobs keep at home (compiled kernels) lies out of the way of the working folder, which
# is their home. These paths are not part of the rules, so other ones rerun nothing.
DEPLOYED = workflow.deployment_settings.deployment_method
PLACES = {"PYTHONSAFEPATH": ["1"], "PYTHONPATH": [str(CHECKOUT), os.environ.get("PYTHONPATH")]}
if not DEPLOYED:
    PLACES["PATH"] = [str(Path(sys.executable).parent), os.environ.get("PATH")]
if DeploymentMethod.APPTAINER in DEPLOYED:
    PLACES |= {"PYTHONPATH": [str(CHECKOUT)], "HOME": [str(Path(".snakemake/home").absolute())]}
EXPORTS = " ".join(f"{name}={quote(':'.join(filter(None, places)))}" for name, places in PLACES.items())
shell.prefix(f"set -euo pipefail; export {EXPORTS}; ".replace("{", "{{").replace("}", "}}"))

from bntt.common.errors import UserError
from bntt.data import store
from bntt.drawing import records
from bntt.drawing.records import STUDY, is_study
from bntt.experiment.schema import load
from bntt.runs import needs, status
from bntt.runs.directory import RunDirectory

for key in config:
    if key not in ("experiment", "results", "container"):
        raise WorkflowError(f"unknown key {key!r} in --config; there are experiment, results and container")
try:
    EXPERIMENT = load(str(config.get("experiment", "demo")))
except UserError as error:
    raise WorkflowError(str(error)) from None

IMAGE = str(config.get("container", "bntt.sif"))
if DeploymentMethod.APPTAINER in DEPLOYED and "://" not in IMAGE and not Path(IMAGE).exists():
    raise WorkflowError(
        f"no container image {IMAGE}; docs/containers.md says how to build it, --config container=... names one"
    )

RESULTS = Path(config.get("results", "results"))
ROOT = RESULTS / EXPERIMENT.name
ANALYSIS = Path(os.path.relpath(CHECKOUT)) / "analysis"
FIGURES, TABLES = (
    sorted(path.stem for path in ANALYSIS.glob(f"{kind}*.py") if path.stem.isidentifier())
    for kind in ("figure", "table")
)
BNTT = "python3 -m bntt"
OF_EXPERIMENT = f"--experiment {quote(str(config.get('experiment', 'demo')))} --results {quote(str(RESULTS))}"
RUNS = {run.name: run for run in EXPERIMENT.runs}
FIRST = EXPERIMENT.first_seeds()  # these come first, and are shown as soon as they are measured
FIRST_NAMES = {run.name for run in FIRST.runs}
LOOK = str(ROOT / "scratch/preliminary")  # an empty file: they were shown by the Snakemake at work
RUN = "{dataset}/{row}/seed-{seed}"
TRAINED, EVALUATED = (str(ROOT / "runs" / RUN / name) for name in ("train.json", "evaluate.json"))
OF_RUN = f"{OF_EXPERIMENT} --dataset {{wildcards.dataset}} --row {{wildcards.row}} --seed {{wildcards.seed}}"


container: IMAGE


wildcard_constraints:
    dataset="|".join(EXPERIMENT.datasets),
    row="|".join(EXPERIMENT.rows),
    seed=r"\d+",


def directory_of(run):
    """The directory of a run."""
    return RunDirectory.of(run, RESULTS)


def take_over():
    """Remove the locks of Snakemake processes that were killed while they made this experiment.

    Each process that runs this workflow here shares a lock of the kernel until it ends. Whoever gets it alone knows that
    no other is alive. Jobs that outlive their Snakemake are waited for by those that would do the same. Where the disk
    has no such locks, nobody knows, and Snakemake's own stay until its --unlock.
    """
    Path(".snakemake").mkdir(exist_ok=True)
    alive = open(".snakemake/bntt.lock", "a")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made_here = (f"{ROOT}/", f"{store.folder('')}/")
        for lock in Path(".snakemake/locks").glob("*.lock"):
            if any(line.startswith(made_here) for line in lock.read_text().splitlines()):
                lock.unlink()
    except OSError:  # another is alive, or the disk has no locks
        pass
    with suppress(OSError):
        fcntl.flock(alive, fcntl.LOCK_SH)
    return alive


if workflow.is_main_process:
    ALIVE = take_over()


# What must be made is decided by bntt/runs/status.py and bntt/drawing/records.py alone. Snakemake's own record does not
# know what is damaged, what was made without it, or what a killed command left. So the profile turns its triggers off.
try:
    FOUND = list(status.found(EXPERIMENT, RESULTS))
    UNFINISHED = status.unfinished(EXPERIMENT, RESULTS)
except UserError as error:
    raise WorkflowError(str(error)) from None
ORDERED = workflow.dag_settings and (workflow.dag_settings.forceall or workflow.dag_settings.forcerun)


def force(output):
    """Make Snakemake run the job of an output, as --forcerun does, but only if something asks for the output."""
    workflow.dag.forcefiles.add(str(output))


LENGTHS = {run.name: run.options.get("epochs", 0) * run.options.get("time_steps", 1) for run in EXPERIMENT.runs}


def urgency(trains, wildcards):
    """The priority of a job of a run: first seeds first, then trainings before measurements, the longest first."""
    name = RUN.format(**wildcards)
    return (name in FIRST_NAMES) + round(trains * (1 + LENGTHS[name]) / (2 + max(LENGTHS.values())), 3)


AT_ONCE = 2  # the priority of what first seeds wait for, and of showing them


def settled(files, due):
    """Inputs, which rerun a job only if it is due; Snakemake forgets to force a job after `ancient` inputs that change."""
    return files if due or ORDERED else ancient(files)


def data_of(wildcards, output, unfinished):
    """The prepared dataset of a run. A finished run does not need it: deleted data is no reason to train again."""
    data, due = store.manifest_path(wildcards.dataset), RUN.format(**wildcards) in unfinished
    if due:
        force(output.format(**wildcards))
        if not store.is_current(wildcards.dataset):
            force(data)
    return settled(str(data), due) if due or data.exists() else []


def start_of(wildcards):
    """What a run waits for: the training of the row that it starts from, if it starts from one."""
    run = RUNS[RUN.format(**wildcards)]
    start = RUN.format(dataset=run.dataset, row=run.start, seed=run.seed)
    return settled(str(directory_of(RUNS[start]).train_json), run.name in UNFINISHED.training) if run.start else []


def drawn_from(name, drawings=(), root=ROOT, experiment=EXPERIMENT, runs=FOUND, unfinished=UNFINISHED.evaluation):
    """What a notebook shows: measurements and drawings. It is due if one of them is, or if it does not show them."""
    sources = [ANALYSIS / f"{Path(path).stem}.py" for path in (name, *drawings)]
    due = bool(unfinished) or not all(records.is_current(root, one, experiment, runs) for one in dict.fromkeys(sources))
    if due:
        force(root / "notebooks" / f"{name}.json")
    measured = [str(one.directory.evaluate_json) for one in runs]
    return {
        "source": settled(str(sources[0]), due),
        "measured": settled(measured, due),
        "drawings": settled(list(drawings), due),
    }


# A preliminary overview is not made again while it is current, and takes the place of no fuller one, as of an experiment
# that was extended.
PRELIMINARY = bool(UNFINISHED.evaluation - FIRST_NAMES) and records.wants_preliminary(
    ROOT, ANALYSIS / "overview.py", FIRST, FOUND
)


def looked_at(wildcards):
    """What a preliminary overview shows; only a due one is asked for."""
    force(LOOK)
    return [str(directory_of(run).evaluate_json) for run in FIRST.runs]


# What to ask a batch system for. Only a profile that has defaults for it, such as profiles/slurm, asks for anything.
DEFAULTS = workflow.resource_settings.default_resources or {}
try:
    NEEDS = needs.read(EXPERIMENT, RESULTS) if DEFAULTS else {}
except UserError as error:
    raise WorkflowError(str(error)) from None


def asked(work):
    """What a job asks for: what its run was measured to need (`bntt/runs/needs.py`), else the profile's default.

    The default of the time is also its limit, because a partition refuses more, and a stopped run continues.
    """

    def amount(resource, wildcards, input, threads, attempt):
        default = DEFAULTS[resource].evaluate(wildcards, input=input, threads=threads, attempt=attempt).value
        need = NEEDS.get((wildcards.dataset, wildcards.row))
        if need is None:
            return default
        of_run = getattr(need, work).ask(attempt)[resource]
        return min(of_run, default) if resource == "runtime" else of_run

    return {resource: partial(amount, resource) for resource in ("mem_mb", "runtime") if resource in DEFAULTS}


onstart:
    if {"train", "evaluate", "figure", "table", "study", "overview", "preliminary"} & {
        job.rule.name for job in workflow.dag.needrun_jobs()
    }:
        records.remove_outdated(ROOT, sorted(ANALYSIS.glob("*.py")), FOUND)
        Path(LOOK).unlink(missing_ok=True)  # of a Snakemake that was killed or failed
    if workflow.dag_settings.forceall or workflow.dag_settings.forcerun:
        for job in workflow.dag.needrun_jobs():
            if job.rule.name == "train":  # its job removes nothing; see train.smk
                Path(job.output[0]).unlink(missing_ok=True)


onsuccess:
    Path(LOOK).unlink(missing_ok=True)


REFERENCE = Path("results/reference")


def of_reference(experiment, name, drawings=()):
    """What a notebook shows of committed measurements; they may be of a part of the planned runs."""
    experiment = load(experiment)
    runs = list(status.found(experiment, REFERENCE))
    shown = drawn_from(name, drawings, REFERENCE / experiment.name, experiment, runs, set())
    return shown | {"measured": [path for path in shown["measured"] if Path(path).exists()]}


def drawings_of(experiment):
    """The notebooks of a committed experiment, besides its overview."""
    return [*FIGURES, *TABLES, *([STUDY] if is_study(load(experiment)) else [])]
