"""The workflow: what an edit reruns, what a killed or diverging run leaves, and what a mistake is told."""

import csv
import ctypes
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from edits import add_a_statement, describe_otherwise, rewrite
from tiny import EXPERIMENT, PROJECT, bntt, copy_project, digests, environment, python, write_experiment

from bntt.data import store
from bntt.drawing.records import read_record, write_record
from bntt.experiment.schema import load
from bntt.results.collect import Results
from bntt.runs.status import found

ROWS = ("bntt", "plain", "ann", "rmp")
FIGURES = {f"figure figure{number}" for number in range(1, 7)}
TABLES = {f"table table{number}" for number in range(1, 4)}
NOTEBOOKS = FIGURES | TABLES | {"overview"}
EVALUATIONS = {f"evaluate {row}" for row in ROWS}
EVERYTHING = {f"train {row}" for row in ROWS} | EVALUATIONS | NOTEBOOKS

ELSEWHERE = """
import errno, fcntl, sys
sys.executable = "/other/env/bin/python"
def flock(*_): raise OSError(errno.ENOLCK, "No locks available")  # as on some network disks
fcntl.flock = flock
from snakemake.cli import main
main(sys.argv[1:])
"""


def snakemake(project: Path, *arguments, name="tiny", config=(), cores=2, run=("-m", "snakemake"), **settings):
    options = ["--cores", cores, "--config", f"experiment={name}", *config]
    return python(*run, *arguments, *options, cwd=project, BNTT_DATA="data", **settings)


def planned(project: Path, **settings) -> set[str]:
    """What a dry run would do: ``train ann``, ``figure figure3``, ``overview``, ..."""
    ran = snakemake(project, "-n", "all", **settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    jobs = set()
    for block in re.split(r"^(?=(?:local)?rule )", ran.stdout, flags=re.MULTILINE)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block).group(1)
        wildcards = re.search(r"wildcards: (.*)", block)
        values = dict(pair.split("=") for pair in wildcards.group(1).split(", ")) if wildcards else {}
        jobs.add(" ".join([rule, *(values[key] for key in ("row", "figure", "table") if key in values)]))
    return jobs - {"all"}


def make_stand_ins(project: Path) -> None:
    """Files in the places of all notebooks' outputs, and their records."""
    root = project / "results"
    results = Results(load(str(project / "config/tiny.yaml")), root)
    for source in sorted((project / "analysis").glob("*.py")):
        name, folder = source.stem, results.folder
        kind, suffixes = ("figures", "png svg pdf") if name.startswith("figure") else ("tables", "csv md tex")
        places = [folder / kind / f"{name}.{suffix}" for suffix in suffixes.split()] if name != "overview" else []
        notebook = folder / "notebooks" / f"{name}.ipynb"
        outputs = [notebook, folder / "overview.html" if name == "overview" else notebook.with_suffix(".html")]
        for place in (*places, *outputs):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("stand-in")
        write_record(notebook.with_suffix(".json"), source, "tiny", results, outputs)


@pytest.fixture(scope="module")
def project(tmp_path_factory, trained):
    """A copy of the project in which the tiny experiment is finished: really trained, with stand-ins for notebooks."""
    copy = copy_project(tmp_path_factory.mktemp("a copy") / "the project")
    write_experiment(copy / "config")
    shutil.copytree(trained / "tiny", copy / "results" / "tiny", ignore=shutil.ignore_patterns("seed-[12]"))
    shutil.copytree(store.prepare("digits").parent, copy / "data" / "digits")
    make_stand_ins(copy)
    assert planned(copy, PYTHONDONTWRITEBYTECODE="") == set()  # which leaves Snakemake compiled for what follows
    return copy


@contextmanager
def edited(*paths: Path):
    """Files that may be edited or made: afterwards they are as they were, their times too, or gone."""
    before = {path: (path.read_bytes(), path.stat()) if path.exists() else None for path in paths}
    try:
        yield
    finally:
        for path, was in before.items():
            if was is None:
                path.unlink()
            else:
                path.write_bytes(was[0])
                os.utime(path, ns=(was[1].st_atime_ns, was[1].st_mtime_ns))


def changed(document: dict, **changes) -> dict:
    """A document with some of its entries changed, those of dictionaries within it one by one."""
    merged = {
        key: changed(document.get(key, {}), **new) if isinstance(new, dict) else new for key, new in changes.items()
    }
    return document | merged


RARE = partial(pytest.param, marks=pytest.mark.slow)


def of(*rows: str) -> set[str]:
    return {f"{rule} {row}" for rule in ("train", "evaluate") for row in rows} | NOTEBOOKS


# -- what reruns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "config", "expected"),
    [
        (["bntt/methods/conversion.py"], {"rows": {"bntt": {"leak": 0.5}}}, of("rmp", "bntt")),
        RARE(["bntt/methods/ann.py"], {"rows": {"plain": {"gain": 5.0}}}, of("ann", "rmp", "plain")),
        RARE(["bntt/methods/surrogate.py"], {"rows": {"rmp": {"reset": "hard"}}}, of("bntt", "plain", "rmp")),
        ([], {"rows": {"ann": {"dropout": 0.1}, "new": {"method": "ann"}}}, of("ann", "rmp", "new")),
        (["bntt/spiking/kernels/plain.py", "bntt/training/loop.py"], {}, EVERYTHING),
        RARE(["bntt/data/digits.py"], {}, EVERYTHING | {"prepare"}),
        (["bntt/measurements/energy.py"], {}, EVALUATIONS | NOTEBOOKS),
        RARE([], {"evaluation": {"report_steps": [1]}}, EVALUATIONS | NOTEBOOKS),
        (["bntt/results/collect.py", "bntt/paper/tables.yaml", "bntt/drawing/figures/style.py"], {}, NOTEBOOKS),
        RARE(["analysis/figure2.py"], {"title": "Another"}, {"figure figure2", "overview"}),
    ],
    ids=[
        "a method, an option", "a method others start from", "a method of two rows", "a start's option, a new row",
        "mathematics", "a dataset", "a measurement", "evaluation", "drawing", "a notebook",
    ],
)  # fmt: skip
def test_an_edit_reruns_what_it_decides_and_nothing_else(project, files, config, expected):
    """Two edits at once where they decide of different rows; test_code_hash.py has every file's alone."""
    with edited(project / "config/tiny.yaml", *(project / file for file in files)):
        for file in files:
            add_a_statement(project / file)
        write_experiment(project / "config", **changed(EXPERIMENT, **config))
        assert planned(project) == expected


def test_what_decides_no_number_reruns_nothing(project):
    """All at once: comments, docstrings, new plug-ins and half-written ones, what editors leave, other experiments,
    another interpreter, fewer or more cores, a disk without locks."""
    described = [
        project / "bntt" / file
        for file in (
            "training/loop.py",
            "methods/ann.py",
            "spiking/norms.py",
            "commands/__init__.py",
            "measurements/noise.py",
        )
    ]
    rules = project / "workflow/rules/train.smk"
    method, other = project / "bntt/methods/mine.py", project / "config/other.yaml"
    half = [project / f"bntt/{folder}/half.py" for folder in ("methods", "data", "measurements")]
    locks = [project / name for name in ("bntt/methods/.#ann.py", "analysis/.#figure1.py", "config/.#tiny.yaml")]
    with edited(*described, rules, method, other, *half, *locks):
        for path in half:
            path.write_text("OPTIONS = DATASET = COLUMNS = (\n")
        for path in locks:
            path.symlink_to("somebody@somewhere.1234:5678")  # Emacs'
        for path in described:
            rewrite(path, describe_otherwise)
        add_a_statement(rules)
        method.write_text('"""Mine."""\nOPTIONS = {}\n')
        write_experiment(project / "config", "other", seeds=[5])
        assert planned(project, cores=7, run=("-c", ELSEWHERE)) == set()


@pytest.mark.parametrize(
    "name",
    ["paper", *(pytest.param(n, marks=pytest.mark.slow) for n in ("paper-literal", "released-code", "cifar10-small"))],
)
def test_a_dry_run_plans_exactly_the_runs_and_datasets_of_the_file(project, name):
    """In a results folder where nothing is, whatever copies of notebooks there are."""
    copies = [project / f"analysis/{copy}.py" for copy in ("figure1 (copy)", "figure1-old", ".#figure1", "table1.orig")]
    with edited(*copies):
        for path in copies:
            path.write_text("(")
        ran = snakemake(project, "-n", "all", name=name, config=["results=my results"])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    jobs: dict[str, list] = {rule: [] for rule in ("train", "evaluate", "prepare", "figure", "table")}
    for rule, wildcards in re.findall(r"^rule (\w+):\n(?:.*\n)*?    wildcards: (.*)", ran.stdout, re.M):
        jobs[rule].append(tuple(pair.split("=")[1] for pair in wildcards.split(", ")))
    experiment = load(name)
    runs = sorted((run.dataset, run.row, str(run.seed)) for run in experiment.runs)
    assert sorted(jobs["train"]) == sorted(jobs["evaluate"]) == runs
    assert set(jobs["prepare"]) == {(dataset,) for dataset in experiment.datasets} - {("digits",)}
    drawn = {f"{rule} {name}" for rule in ("figure", "table") for (name,) in jobs[rule]}
    assert drawn == FIGURES | TABLES


def test_committed_measurements_of_a_part_of_an_experiment_are_drawn(tmp_path):
    copy = copy_project(tmp_path / "project")
    committed = Path("results/reference/cifar10/runs")
    shutil.copytree(PROJECT / committed, copy / committed)
    assert len(list((copy / committed).rglob("evaluate.json"))) < len(load("cifar10").runs)
    ran = snakemake(copy, "-n", "reference", name="cifar10")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    drawn = re.findall(r"^rule draw_reference:\n(?:.*\n)*?    wildcards: (.*)", ran.stdout, re.M)
    assert len(drawn) == len(FIGURES | TABLES) and all("reference=cifar10" in one for one in drawn)


# -- the first look ----------------------------------------------------------------------------------------


def priorities(project: Path, **settings) -> dict[str, float]:
    """The priority of each planned job of a run, ``train ann 0``, and of ``preliminary``, if it is planned."""
    ran = snakemake(project, "-n", "all", **settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = {}
    for block in re.split(r"^(?=(?:rule |Job \d))", ran.stdout, flags=re.MULTILINE):
        rule, wildcards, priority = (
            re.search(pattern, block)
            for pattern in (r"^rule (\w+)", "wildcards: .*row=(.*), seed=(.*)", "priority: (.*)")
        )
        if wildcards:
            found[f"{rule.group(1)} {' '.join(wildcards.groups())}"] = float(priority.group(1)) if priority else 0.0
        elif "a first look" in block:
            found["preliminary"] = math.inf
    return found


def test_first_seeds_come_first_and_of_these_the_longest_trainings(project):
    """With a row that starts from another seed's weights than the first of its start."""
    rows = EXPERIMENT["rows"] | {"other": EXPERIMENT["rows"]["rmp"] | {"seeds": [2]}}
    with edited(project / "config/tiny.yaml"):
        write_experiment(project / "config", seeds=[1, 2], rows=rows)
        found = priorities(project)
    assert found.pop("preliminary")
    first = {f"{rule} {row} 1" for rule in ("train", "evaluate") for row in ROWS}
    first |= {f"{rule} {row} 2" for rule in ("train", "evaluate") for row in ("ann", "other")}
    others = {f"{rule} {row} 2" for rule in ("train", "evaluate") for row in ("bntt", "plain", "rmp")}
    assert found.keys() == first | others
    assert min(found[job] for job in first) > max(found[job] for job in others)
    of_bntt, of_plain, of_ann, of_rmp = (found[f"train {row} 1"] for row in ROWS)
    assert of_bntt == of_plain > of_ann > of_rmp > found["evaluate bntt 1"]


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [({"seeds": [0]}, False), ({"seeds": [0, 1]}, False), ({"seeds": [1, 0]}, False), ({"seeds": [1, 2]}, True)],
    ids=["one seed", "an overview of what is there", "the same, and another first seed", "no overview of these"],
)
def test_a_preliminary_overview_is_planned_where_more_seeds_follow_and_none_is_there(project, changed, wanted):
    with edited(project / "config/tiny.yaml"):
        write_experiment(project / "config", **changed, title="Another")
        assert ("preliminary" in priorities(project)) == wanted


# -- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (["experiment=tiny", "epochs=3"], ["unknown key 'epochs' in --config", "experiment, results and container"]),
        (["experiment=broken"], ["config/broken.yaml", "unknown key 'epoch'", "did you mean 'epochs'?"]),
    ],
)
def test_a_mistake_is_told_before_anything_runs(project, config, said):
    with edited(project / "config/broken.yaml"):
        write_experiment(project / "config", "broken", protocol={"epoch": 1})
        ran = python("-m", "snakemake", "-n", "all", "--cores", "1", "--config", *config, cwd=project)
    assert ran.returncode == 1
    for part in said:
        assert part in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr


# -- form -------------------------------------------------------------------------------------------------


def test_the_workflow_is_formatted():
    ran = python("-m", "snakefmt", "--check", "Snakefile", "workflow")
    assert ran.returncode == 0, ran.stderr


def test_the_sources_are_in_style():
    ran = python("-m", "ruff", "check", "--no-cache")
    assert ran.returncode == 0, ran.stdout


def test_the_linter_is_content():
    ran = python("-m", "snakemake", "--lint", "--cores", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "your workflow is in a good condition" in ran.stdout + ran.stderr


def test_every_rule_has_a_log_a_benchmark_threads_and_says_what_it_needs():
    for path in sorted((PROJECT / "workflow" / "rules").glob("*.smk")):
        text = path.read_text()
        assert text.startswith('"""')
        for rule in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
            name = rule.partition(":")[0]
            if name == "reference":  # a name for what other rules make
                continue
            makes = () if name == "check" else ("output:", "benchmark:")  # it only prints
            for part in ("log:", "conda:", "threads:", "shell:", *makes):
                assert part in rule, f"{path.name}: {name} has no {part}"


# -- for real ---------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path):
    copy = copy_project(tmp_path / "a fresh clone")
    write_experiment(copy / "config")
    return copy


@pytest.mark.slow
def test_a_second_job_for_a_run_keeps_what_the_first_has_finished_unless_it_is_ordered(fresh):
    """A killed Snakemake leaves its jobs in a cluster's queue, and the next one submits them again."""
    target = "results/tiny/runs/digits/ann/seed-0/train.json"
    trained = []
    for options in ([], ["--force"], ["--forcerun", "train"]):
        ran = snakemake(fresh, target, *options)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        trained.append((fresh / target).read_bytes())
    assert trained[0] == trained[1] != trained[2]
    assert "already trained" not in (fresh / "results/tiny/logs/train/digits/ann/seed-0.log").read_text()


@pytest.mark.slow
def test_everything_end_to_end_and_then_nothing(fresh, project):
    ran = snakemake(fresh, "all")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    results = fresh / "results" / "tiny"
    for figure in sorted(job.split()[1] for job in FIGURES):
        assert all((results / "figures" / f"{figure}.{suffix}").stat().st_size for suffix in ("png", "svg", "pdf"))
    for table in sorted(job.split()[1] for job in TABLES):
        assert all((results / "tables" / f"{table}.{suffix}").stat().st_size for suffix in ("csv", "md", "tex"))
    pages = [results / "overview.html", *(results / "notebooks").glob("*.html")]
    assert len(pages) == 10
    for page in pages:
        text = page.read_text()
        scripts = re.findall(r"<script[^>]*>", text, re.I)
        assert bool(scripts) == (page.name == "table1.html"), page  # readers sort and search its wide table
        assert not any(re.search(r"\bsrc\b", tag) for tag in scripts), scripts
        text = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.S | re.I)
        assert not re.search(r"\bsrc\s*=\s*[\"']?(https?:)?//", text), page
        assert "Traceback" not in text, page
        for target in re.findall(r'(?:href|src)="([^"#:]+)"', text):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"
    # The same numbers as in one process, at another place.
    assert digests(fresh / "results") == digests(project / "results")
    assert planned(fresh) == set()
    logs = list((results / "logs").rglob("*.log"))
    assert len(logs) == 1 + 8 + 10
    assert not any(str(PROJECT) in log.read_text() for log in logs)
    left = {path.name for path in fresh.iterdir()} - {path.name for path in project.iterdir()}
    assert not left, "something was written outside results/ and data/"


# A job that is about to write the file $PAUSE_AT says its process id, once, and waits for a signal.
PAUSE = """
import os, signal, sys
def pause(event, arguments):
    if event == "open" and os.path.basename(str(arguments[0])).startswith("." + os.environ["PAUSE_AT"] + "-"):
        try:
            os.unlink(os.environ["PAUSED"] + ".armed")
        except FileNotFoundError:
            return
        with open(os.environ["PAUSED"], "w") as fifo:
            fifo.write(str(os.getpid()))
        signal.pause()
if "PAUSE_AT" in os.environ:
    sys.addaudithook(pause)
"""
# In the place of the notebooks that take long: it writes the files of a figure, and its text is a page.
STUB = """# %% [markdown]
# # A stand-in

# %% tags=["parameters"]
output = ""

# %%
from pathlib import Path
for kind in ("png", "svg", "pdf"):
    place = Path(output) / "figures" / f"figure1.{kind}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a stand-in")
"""


@pytest.fixture(scope="module")
def stoppable(project, tmp_path_factory):
    """A finished experiment of one row and one real notebook, whose jobs pause where a test says."""
    folder = tmp_path_factory.mktemp("stopped")
    copy = copy_project(folder / "project")
    for source in sorted((copy / "analysis").glob("*.py")):
        if source.stem in ("figure1", "overview"):
            source.write_text(STUB)
        elif source.stem != "table1":
            source.unlink()
    write_experiment(copy / "config", rows={"ann": EXPERIMENT["rows"]["ann"]})
    shutil.copytree(project / "data", copy / "data")
    shutil.copytree(project / "results/tiny/runs/digits/ann", copy / "results/tiny/runs/digits/ann")
    make_stand_ins(copy)
    (folder / "sitecustomize.py").write_text(PAUSE)
    os.mkfifo(folder / "paused")
    return copy


def all_of(project: Path, pause_at: str = "") -> subprocess.Popen:
    """Start `snakemake --cores 1 all`; if it is to be paused, return when it is, with ``paused``, the job's process."""
    fifo, settings = project.parent / "paused", {}
    if pause_at:
        Path(f"{fifo}.armed").touch()
        settings = {"PYTHONPATH": str(fifo.parent), "PAUSE_AT": pause_at, "PAUSED": str(fifo)}
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", "all", "--config", "experiment=tiny"], cwd=project,
        env=environment(PYTHONDONTWRITEBYTECODE="", BNTT_DATA="data", **settings), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=(project / "stderr").open("w"),
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # which tests in the background ignore
    )  # fmt: skip
    if pause_at:
        # Open for writing too: else the end of a killed job that is still holding the other end reads as an empty line.
        reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        assert select.select([reader], [], [], 120)[0], (project / "stderr").read_text()
        process.paused = int(os.read(reader, 20))
        os.close(reader)
    return process


def assert_nothing_else_is_shown(project: Path) -> bool:
    """No drawing shows a number that is no present result; return whether everything is made."""
    tiny, root = load(str(project / "config/tiny.yaml")), project / "results"
    (one,) = found(tiny, root)
    drawn = [path for kind in ("tables/*", "figures/*", "overview.html") for path in (root / "tiny").glob(kind)]
    measured = one.directory.evaluate_json.stat().st_mtime_ns if one.status.measured else math.inf
    assert all(path.stat().st_mtime_ns >= measured for path in drawn)
    return one.status.measured and len(drawn) == 7


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_the_same_command_makes_everything_however_the_last_one_ended(stoppable, number):
    """Another configuration than before, stopped while it trains, measures and draws: one job, Ctrl-C, a power cut."""
    settings = EXPERIMENT["rows"]["ann"] | {"learning_rate": 0.1 + number / 1000}
    write_experiment(stoppable / "config", rows={"ann": settings})
    for place in ("belongs_to.json", "anytime.csv", "table1.md"):
        process = all_of(stoppable, pause_at=place)
        if number == signal.SIGTERM:
            os.kill(process.paused, number)
        else:
            os.killpg(process.pid, number)
        assert process.wait(timeout=120) != 0
        assert not assert_nothing_else_is_shown(stoppable)
    assert all_of(stoppable).wait(timeout=120) == 0, (stoppable / "stderr").read_text()
    assert assert_nothing_else_is_shown(stoppable)


@pytest.mark.slow
def test_a_preliminary_overview_stands_until_the_final_one_takes_its_place(stoppable):
    """Killed while the first look is drawn, and twice while another seed trains."""
    settings = EXPERIMENT["rows"]["ann"] | {"learning_rate": 0.2}
    write_experiment(stoppable / "config", rows={"ann": settings}, seeds=[0, 1])
    root = stoppable / "results/tiny"
    page, runs, first_look = root / "overview.html", root / "runs/digits/ann", b"PRELIMINARY: seed 0 of every row"
    shown = []
    try:
        for place in ("overview.html", "belongs_to.json", "belongs_to.json"):
            process = all_of(stoppable, pause_at=place)
            assert (runs / "seed-0/evaluate.json").exists()
            assert not (runs / "seed-1/train.json").exists()
            shown.append(page.read_bytes() if page.exists() else None)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert shown[0] is None and first_look in shown[1] and shown[2] == shown[1]
        assert all_of(stoppable).wait(timeout=120) == 0, (stoppable / "stderr").read_text()
        assert "PRELIMINARY" not in page.read_text()
        assert "preliminary" not in read_record(root, "overview")
        assert not (root / "scratch/preliminary").exists()
        assert planned(stoppable) == set()
    finally:
        write_experiment(stoppable / "config", rows={"ann": settings})
        shutil.rmtree(runs / "seed-1", ignore_errors=True)


@pytest.mark.slow
def test_the_same_command_makes_what_was_deleted(stoppable):
    for gone in (["figures", "tables/table1.tex"], ["runs/digits/ann"]):
        for path in (stoppable / "results/tiny" / name for name in gone):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        assert all_of(stoppable).wait(timeout=120) == 0, (stoppable / "stderr").read_text()
        assert assert_nothing_else_is_shown(stoppable)


def bound_by_permissions() -> None:
    """Take from this process, even if it is root's, the right to write where permissions forbid it."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE; without effect for other users


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away in Linux's way")
def test_a_read_only_checkout_is_used_from_another_folder(project, tmp_path):
    checkout, work = copy_project(tmp_path / "a checkout"), tmp_path / "work"
    (checkout / "config/tiny.yaml").unlink(missing_ok=True)
    write_experiment(work / "config")
    for folder in ("results/tiny/runs", "data"):
        shutil.copytree(project / folder, work / folder)
    before = sorted(checkout.rglob("*"))
    for path in (checkout, *before):
        path.chmod(path.stat().st_mode & 0o555)
    settings = {"cwd": work, "env": environment(PYTHONDONTWRITEBYTECODE="", BNTT_DATA="data", PYTHONPATH=str(checkout)),
                "preexec_fn": bound_by_permissions, "capture_output": True, "text": True}  # fmt: skip
    assert subprocess.run(["touch", checkout / "new"], **settings).returncode != 0

    options = ["--cores", "1", "--config", "experiment=tiny"]
    command = [sys.executable, "-m", "snakemake", "-s", checkout / "workflow/Snakefile"]
    ran = subprocess.run([*command, "results/tiny/tables/table1.csv", *options], **settings)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert sorted(checkout.rglob("*")) == before
    assert {path.name for path in work.iterdir()} == {".snakemake", "config", "data", "results"}
    assert read_record(work / "results/tiny", "table1")["source"] == "analysis/table1.py"
    ran = subprocess.run([sys.executable, "-m", "bntt", "runs", "--experiment", "tiny"], **settings)
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["done"] * 4, ran.stderr


@pytest.mark.slow
def test_a_killed_workflow_goes_on_to_the_same_numbers(fresh, project):
    targets = [f"results/tiny/runs/digits/{row}/seed-0/evaluate.json" for row in ROWS]
    options = ["--cores", "2", "--config", "experiment=tiny"]
    for moment in ("train.json", "evaluate.json"):
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *targets, *options], cwd=fresh, env=environment(BNTT_DATA="data"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not list(fresh.glob(f"results/tiny/runs/*/*/*/{moment}")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)  # the machine went down: children and all
        process.wait()
        assert python("-m", "snakemake", "--unlock", *options, cwd=fresh, BNTT_DATA="data").returncode == 0
    ran = snakemake(fresh, *targets)
    assert ran.returncode == 0, ran.stderr
    assert digests(fresh / "results") == digests(project / "results")
    assert not list(fresh.glob("results/tiny/runs/*/*/*/.*"))


@contextmanager
def small_disk(folder: Path):
    """A disk of its own, in memory; yields a function that sets its size in kB."""

    def resize(size: int, *how: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*how, f"size={size}k"]), "none", folder], check=True)

    folder.mkdir()
    resize(4)
    try:
        yield lambda size: resize(size, "remount")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_disk_that_is_full_at_any_step_costs_nothing_but_the_step(tmp_path, project):
    """Training, evaluation and a notebook meet it in turn; with more room the same command goes on."""
    checkout, disk = copy_project(tmp_path / "checkout"), tmp_path / "disk"
    met = set()
    with small_disk(disk) as resize:
        for size in (160, 260, 800, 65536):  # kB
            resize(size)
            write_experiment(disk / "config")
            targets = [*(f"results/tiny/runs/digits/{row}/seed-0/evaluate.json" for row in ROWS),
                       "results/tiny/tables/table1.csv"]  # fmt: skip
            run = ("-m", "snakemake", "-s", checkout / "Snakefile")
            settings = {"BNTT_DATA": str(project / "data"), "PYTHONPATH": str(checkout)}
            ran = python(*run, *targets, "--cores", 2, "--config", "experiment=tiny", cwd=disk, **settings)
            if ran.returncode == 0:
                break
            said = re.findall(
                r"bntt: .*cannot write (\S+): No space left on device; make room", ran.stdout + ran.stderr
            )
            met |= {
                "notebook" if "/runs/" not in path and "/scratch/" not in path else Path(path).name for path in said
            }
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        assert size == 65536
        assert "notebook" in met
        assert len(met) > 1, met
        assert digests(disk / "results") == digests(project / "results")


@pytest.mark.slow
def test_a_run_that_diverges_stops_no_other_and_appears_as_diverged(fresh):
    rows = {
        "ann": EXPERIMENT["rows"]["ann"],
        "boom": {"method": "ann", "learning_rate": 1e12},
        "after-boom": EXPERIMENT["rows"]["rmp"] | {"start": "boom"},
    }
    write_experiment(fresh / "config", rows=rows)
    targets = [f"results/tiny/runs/digits/{row}/seed-0/evaluate.json" for row in rows]
    ran = snakemake(fresh, *targets)
    assert ran.returncode == 0, ran.stderr
    listed = bntt("runs", "--experiment", "tiny", cwd=fresh).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["done", "diverged", "diverged"]
    assert "not finite" in listed[1]
    assert "boom, diverged" in listed[2]
    ran = snakemake(fresh, "results/tiny/tables/table1.csv")
    assert ran.returncode == 0, ran.stdout[-3000:]
    folder = fresh / "results" / "tiny" / "tables"
    with (folder / "table1.csv").open() as stream:
        of_row = {line["row"]: line for line in csv.DictReader(stream)}
    assert of_row["boom"]["status"] == of_row["after-boom"]["status"] == "diverged"
    assert of_row["boom"]["accuracy"] == ""
    assert float(of_row["ann"]["accuracy"]) > 0
    lines = [line for line in (folder / "table1.md").read_text().splitlines() if "boom" in line]
    assert lines
    assert all("n/a" in line for line in lines)  # the paper's word for it


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_to_finish(fresh):
    """An error is not a divergence: it is shown, and what does not need it goes on."""
    rows = {"bad": {"method": "ann", "batch_size": 95}, "ann": EXPERIMENT["rows"]["ann"]}
    write_experiment(fresh / "config", rows=rows)
    targets = [f"results/tiny/runs/digits/{row}/seed-0/evaluate.json" for row in rows]
    ran = snakemake(fresh, *targets)
    assert ran.returncode != 0
    assert "batch_size 95 leaves a last batch of one image" in ran.stdout + ran.stderr
    listed = bntt("runs", "--experiment", "tiny", cwd=fresh).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["missing", "done"]
    shutil.rmtree(fresh)
