"""The workflow: what an edit reruns, what a killed or diverging run leaves, and what a mistake is told."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tiny import EXPERIMENT, PROJECT, bntt, copy_project, environment, python, write_experiment

from bntt.experiment.schema import load

ROWS = ("bntt", "plain", "ann", "rmp")
FIGURES = {f"figure figure{number}" for number in range(1, 7)}
TABLES = {f"table table{number}" for number in range(1, 4)}
NOTEBOOKS = FIGURES | TABLES | {"overview"}
EVALUATIONS = {f"evaluate {row}" for row in ROWS}
EVERYTHING = {f"train {row}" for row in ROWS} | EVALUATIONS | NOTEBOOKS

TRAIN_ALL = """
from pathlib import Path
from bntt.runs import pipeline
from bntt.experiment.schema import load
experiment = load("tiny")
for run in experiment.runs:
    pipeline.train(experiment, run, Path("results"), "cpu")
    pipeline.evaluate(experiment, run, Path("results"), "cpu")
"""


def snakemake(project: Path, *arguments: str, name: str = "tiny", config=(), **settings):
    options = ["--cores", "2", "--config", f"experiment={name}", *config]
    return python("-m", "snakemake", *arguments, *options, cwd=project, BNTT_DATA="data", **settings)


def planned(project: Path, *arguments: str, name: str = "tiny", config=()) -> set[str]:
    """What a dry run would do: ``train ann``, ``figure figure3``, ``overview``, ..."""
    ran = snakemake(project, "-n", "all", *arguments, name=name, config=config)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    jobs = set()
    for block in re.split(r"^(?=(?:local)?rule )", ran.stdout, flags=re.MULTILINE)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block).group(1)
        wildcards = re.search(r"wildcards: (.*)", block)
        values = dict(pair.split("=") for pair in wildcards.group(1).split(", ")) if wildcards else {}
        jobs.add(" ".join([rule, *(values[key] for key in ("row", "figure", "table") if key in values)]))
    return jobs - {"all"}


def make_stand_ins(results: Path) -> None:
    """Files in the places of all notebooks' outputs."""
    for folder, numbers, suffixes in (
        ("figures", range(1, 7), ("png", "svg", "pdf")),
        ("tables", range(1, 4), ("csv", "md", "tex")),
    ):
        for number in numbers:
            name = f"{folder[:-1]}{number}"
            places = [results / folder / f"{name}.{suffix}" for suffix in suffixes]
            places += [results / "notebooks" / f"{name}.{suffix}" for suffix in ("ipynb", "html", "json")]
            for place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("stand-in")
    (results / "overview.html").write_text("stand-in")
    (results / "notebooks" / "overview.ipynb").write_text("stand-in")
    (results / "notebooks" / "overview.json").write_text("stand-in")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which the tiny experiment is finished: really trained, with stand-ins for notebooks."""
    copy = copy_project(tmp_path_factory.mktemp("a copy") / "the project")
    (copy / "analysis").mkdir(exist_ok=True)
    for name in [*(job.split()[1] for job in FIGURES | TABLES), "overview"]:
        (copy / "analysis" / f"{name}.py").touch()
    write_experiment(copy / "config")
    ran = python("-c", TRAIN_ALL, cwd=copy, BNTT_DATA="data")
    assert ran.returncode == 0, ran.stderr
    make_stand_ins(copy / "results" / "tiny")
    ran = snakemake(copy, "--touch", "--forceall", "all")  # records code and parameters as a real run does
    assert ran.returncode == 0, ran.stderr
    return copy


@contextmanager
def edited(path: Path, old: str, new: str):
    """A file with one edit, and afterwards as it was, its times too."""
    text, times = path.read_text(), path.stat()
    assert old in text, f"{path} has no {old!r}: this test must follow it"
    path.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def added(path: Path, text: str):
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()


def of(*rows: str) -> set[str]:
    return {f"{rule} {row}" for rule in ("train", "evaluate") for row in rows} | NOTEBOOKS


# -- what reruns ------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_done_again(project):
    assert planned(project) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("bntt/methods/conversion.py", "HELD = 2**26", "HELD = 2**27", of("rmp")),
        ("bntt/methods/ann.py", 'EXTENDS = ["bntt', 'ODD = 1\nEXTENDS = ["bntt', of("ann", "rmp")),
        ("bntt/methods/surrogate.py", "-(-len(data.train)", "-(-1 * len(data.train)", of("bntt", "plain")),
        ("bntt/spiking/norms.py", "a[: t + 1]", "a[: t + 2]", EVERYTHING),
        ("bntt/spiking/kernels/plain.py", "x.mean(1)", "x.sum(1)", EVERYTHING),
        ("bntt/training/loop.py", "epoch * 1_000_000", "epoch * 1_000_001", EVERYTHING),
        ("bntt/measurements/energy.py", "AC_PJ = 0.9", "AC_PJ = 1.0", EVALUATIONS | NOTEBOOKS),
        ("bntt/results/collect.py", '"decay_budget"', '"budget"', NOTEBOOKS),
        ("bntt/paper/tables.yaml", "4.6", "4.7", NOTEBOOKS),
        ("analysis/figure2.py", "", "# a new cell\n", {"figure figure2", "overview"}),
        ("config/tiny.yaml", "norm: bntt\n", "norm: bntt\n    leak: 0.5\n", of("bntt")),
        ("config/tiny.yaml", "dropout: 0.0", "dropout: 0.1", of("ann", "rmp")),
        ("config/tiny.yaml", "reset: soft", "reset: hard", of("rmp")),
        ("config/tiny.yaml", "report_steps:\n  - 2", "report_steps:\n  - 1", EVALUATIONS | NOTEBOOKS),
        ("config/tiny.yaml", "learning_rate: 0.1", "learning_rate: 0.2", EVERYTHING),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_an_edit_reruns_what_it_decides_and_nothing_else(project, file, old, new, expected):
    with edited(project / file, old, new):
        assert planned(project) == expected


def test_an_edited_dataset_reruns_every_run(project):
    with edited(project / "bntt/data/digits.py", "255 / 16", "255 / 17"):
        assert planned(project) - {"prepare"} == EVERYTHING


def test_comments_docstrings_titles_and_new_methods_rerun_nothing(project):
    """All at once, since nothing is to happen."""
    with (
        edited(project / "bntt/training/loop.py", '"""The training loop.', '# a comment\n"""A training loop.'),
        edited(project / "bntt/methods/ann.py", '"""The network that', '"""A network that'),
        edited(project / "bntt/spiking/norms.py", "\n\n\nclass BNTT", "\n\n\n# a comment\n\nclass BNTT"),
        edited(project / "bntt/commands/__init__.py", "The command line", "A command line"),
        edited(project / "bntt/measurements/noise.py", '"""Accuracy under', '"""The accuracy under'),
        edited(project / "workflow/rules/train.smk", "# What decides", "# That which decides"),
        added(project / "bntt/methods/mine.py", '"""Mine."""\nOPTIONS = {}\n'),
        added(project / "config/other.yaml", yaml.safe_dump({**EXPERIMENT, "seeds": [5]})),
    ):
        assert planned(project) == set()


def test_an_edited_figure_reruns_notebooks_alone(project):
    files = sorted((project / "bntt" / "figures").glob("*.py"))
    for path in (files[0], files[-1]):
        with edited(path, "", "ODD = 1\n" if "__future__" not in path.read_text() else ""):
            assert planned(project) == NOTEBOOKS


def test_a_new_row_is_run_and_drawn_and_the_others_are_left(project):
    with edited(project / "config/tiny.yaml", "rows:\n", "rows:\n  new:\n    method: ann\n"):
        assert planned(project) == of("new")


def test_another_interpreter_or_place_reruns_nothing(project, tmp_path):
    """A clone that was moved, or the same versions in another environment: no number changes by it."""
    script = (
        "import sys; sys.executable = '/other/env/bin/python'\n"
        "from snakemake.cli import main\n"
        "main(['-n', 'all', '--cores', '1', '--config', 'experiment=tiny'])"
    )
    ran = python("-c", script, cwd=project, BNTT_DATA="data")
    assert ran.returncode == 0, ran.stderr
    assert "Nothing to be done" in ran.stdout, set(re.findall(r"reason: (.{0,60})", ran.stdout))


def test_another_number_of_cores_reruns_nothing(project):
    ran = python(
        "-m", "snakemake", "-n", "all", "--cores", "7", "--config", "experiment=tiny", cwd=project, BNTT_DATA="data"
    )
    assert "Nothing to be done" in ran.stdout


def test_an_empty_results_folder_plans_everything_once(project):
    jobs = planned(project, config=["results=my results"])
    assert jobs == EVERYTHING


def test_after_all_those_edits_nothing_is_left_to_do(project):
    assert planned(project) == set()


# -- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (["experiment=nosuch"], ["no experiment 'nosuch'", "demo"]),
        (["experiment=tiny", "epochs=3"], ["unknown key 'epochs' in --config", "experiment and results"]),
        (["experiment=broken"], ["config/broken.yaml", "unknown key 'epoch'", "did you mean 'epochs'?"]),
        (["experiment=seedless"], ["seedless.yaml", "seeds"]),
    ],
)
def test_a_mistake_is_told_before_anything_runs(project, config, said):
    with (
        added(project / "config/broken.yaml", yaml.safe_dump({**EXPERIMENT, "protocol": {"epoch": 1}})),
        added(project / "config/seedless.yaml", yaml.safe_dump({**EXPERIMENT, "seeds": []})),
    ):
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
            assert "code=" in rule or name in ("prepare", "check"), path
    assert len((PROJECT / "Snakefile").read_text().splitlines()) < 45


# -- for real ---------------------------------------------------------------------------------------------


def digests(project: Path) -> dict[str, dict]:
    """Hashes of all weights and measurements, by run; what names times is left out."""
    found = {}
    for path in sorted((project / "results" / "tiny" / "runs").rglob("*.json")):
        files = json.loads(path.read_text())["files"]
        found[str(path.relative_to(project))] = {k: v for k, v in files.items() if k != "history.csv"}
    return found


@pytest.fixture
def fresh(tmp_path):
    copy = copy_project(tmp_path / "a fresh clone")
    write_experiment(copy / "config")
    return copy


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
        assert "<script" not in text.lower(), page
        assert not re.search(r"\bsrc\s*=\s*[\"']?(https?:)?//", text), page
        assert "Traceback" not in text, page
        for target in re.findall(r'(?:href|src)="([^"#:]+)"', text):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"
    assert digests(fresh) == digests(project)  # the same numbers as in one process, at another place
    assert planned(fresh) == set()
    logs = list((results / "logs").rglob("*.log"))
    assert len(logs) == 1 + 8 + 10
    assert not any(str(PROJECT) in log.read_text() for log in logs)
    left = {path.name for path in fresh.iterdir()} - {path.name for path in project.iterdir()}
    assert not left, "something was written outside results/ and data/"


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
    assert digests(fresh) == digests(project)
    assert not list(fresh.glob("results/tiny/runs/*/*/*/.*"))


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


@pytest.mark.parametrize("name", ["paper", "paper-literal", "released-code", "cifar10-small"])
def test_a_dry_run_plans_exactly_the_runs_and_datasets_of_the_file(tmp_path, name):
    project = copy_project(tmp_path / "copy")
    ran = snakemake(project, "-n", "all", name=name)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, set] = {"train": set(), "evaluate": set(), "prepare": set()}
    for rule, wildcards in re.findall(
        r"^rule (train|evaluate|prepare):\n(?:.*\n)*?    wildcards: (.*)", ran.stdout, re.M
    ):
        found[rule].add(tuple(pair.split("=")[1] for pair in wildcards.split(", ")))
    experiment = load(name)
    runs = {(run.dataset, run.row, str(run.seed)) for run in experiment.runs}
    assert found["train"] == found["evaluate"] == runs
    assert found["prepare"] == {(dataset,) for dataset in experiment.datasets}
