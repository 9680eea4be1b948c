"""The profiles: what each asks of Snakemake and of Slurm, and the needs that jobs on a cluster ask for. No Slurm."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import yaml
from tiny import PROJECT, assert_one_line, bntt_here, copy_project, environment, experiment, python, write_experiment

from bntt.common.errors import UserError
from bntt.runs import needs
from bntt.runs.cost import Cost

PROFILES = {name: PROJECT / "profiles" / name / "profile.yaml" for name in ("default", "slurm")}
PROFILE = {name: yaml.safe_load(path.read_text()) for name, path in PROFILES.items()}
needs_plugin = pytest.mark.skipif(
    find_spec("snakemake_executor_plugin_slurm") is None, reason="snakemake-executor-plugin-slurm is not installed"
)

PARSED = """
import json, sys
from snakemake.cli import parse_args
parsed = parse_args(["--workflow-profile", sys.argv[1], "--cores", "1"])[1]
resources = {key: value.value for key, value in (parsed.default_resources or {}).items() if not value.is_evaluable()}
print(json.dumps([parsed.executor, parsed.retries, resources]))
"""


def test_the_profile_of_slurm_has_what_the_default_one_says():
    assert PROFILE["default"].items() <= PROFILE["slurm"].items()


@needs_plugin
@pytest.mark.parametrize("name", PROFILES)
def test_snakemake_knows_every_option_of_a_profile(name, tmp_path):
    ran = python("-c", PARSED, PROFILES[name].parent)
    assert ran.returncode == 0, ran.stderr
    if name == "slurm":
        assert ran.stdout.splitlines()[-1] == '["slurm", 10, {"mem_mb": 8000, "runtime": 1440}]'
    (tmp_path / "profile.yaml").write_text(PROFILES[name].read_text() + "\nslurm-requeueue: true\n")
    assert "unrecognized arguments: --slurm-requeueue" in python("-c", PARSED, tmp_path).stderr


def test_the_profile_names_rules_that_there_are_and_no_rule_has_retries():
    """As a rule's own value, retries would count inside each job, too."""
    rules = "\n".join(path.read_text() for path in (PROJECT / "workflow/rules").glob("*.smk"))
    named = PROFILE["slurm"]["set-resources"] | PROFILE["slurm"]["groups"]
    assert set(named) <= set(re.findall(r"^rule (\w+):", rules, flags=re.MULTILINE))
    assert "retries" not in rules
    assert set(PROFILE["slurm"]["groups"]) == {
        rule for rule, asked in PROFILE["slurm"]["set-resources"].items() if "drawings" in asked
    }


def test_a_state_is_asked_for_until_there_is_an_answer():
    """The plugin forgets all jobs when its attempts are over, and sacct has states that it does not know."""
    assert PROFILE["slurm"]["slurm-status-command"] == "squeue"
    assert (
        PROFILE["slurm"]["slurm-status-attempts"] / PROFILE["slurm"]["max-status-checks-per-second"] > 10 * 365 * 86400
    )


def test_without_accounting_the_states_of_jobs_come_from_squeue(tmp_path):
    (tmp_path / "squeue").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "squeue").chmod(0o755)
    sacct = PROJECT / "profiles/slurm/without-accounting/sacct"

    def asked(*arguments):
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run([sacct, *arguments], env={"PATH": path}, capture_output=True, text=True)

    polled = asked("-X", "--parsable2", "--clusters", "all", "--noheader", "--format=JobIdRaw,State", "--name", "a b")
    assert polled.stdout.splitlines() == ["--states=all", "--noheader", "--format=%i|%T", "--name", "a b"]
    other = asked("-j", "12.0", "--format=Reason")
    assert (other.returncode, other.stdout, other.stderr.count("\n")) == (1, "", 1)


def test_a_command_that_is_finished_is_not_undone_by_a_signal():
    """Snakemake removes the output of a job that ends with a signal, and trains again."""
    last = "import atexit, os, runpy, signal, sys; sys.argv = ['bntt', 'keys']\n"
    last += "[atexit.register(os.kill, os.getpid(), number) for number in (15, signal.SIGINT, signal.SIGUSR1)]\n"
    ran = python("-c", last + "runpy.run_module('bntt', run_name='__main__')")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


# -- needs ------------------------------------------------------------------------------------------------

COST = Cost("digits", "bntt", None, (0.0,), 0.1, 600.0, 90.0, 4e8, 3.001e8, 0.0, 2e6)


@pytest.fixture
def used(tmp_path):
    return experiment(tmp_path / "config")


def test_needs_are_what_was_measured_and_jobs_ask_for_more(used, tmp_path):
    path = needs.write(used, tmp_path, "some cpu", [COST, replace(COST, row="ann", training=1.0)])
    assert path == tmp_path / "tiny/needs.yaml"
    document = yaml.safe_load(path.read_text())
    assert (document["experiment"], document["device"]) == ("tiny", "some cpu")
    assert document["needs"]["digits"]["bntt"] == {
        "training": {"memory_mb": 400, "minutes": 10.0},
        "evaluation": {"memory_mb": 301, "minutes": 1.5},
    }
    found = needs.read(used, tmp_path)
    assert set(found) == {("digits", "bntt"), ("digits", "ann")}
    assert found["digits", "ann"].training.minutes == 0.02
    job = found["digits", "bntt"].training
    assert job.ask() == {"mem_mb": 1100, "runtime": 25}
    assert job.ask(2) == job.ask(9) == {"mem_mb": 1700, "runtime": 25}


def test_without_a_file_nothing_is_known(used, tmp_path):
    assert needs.read(used, tmp_path) == {}


ROW = "{training: {memory_mb: 1, minutes: 1.0}, evaluation: {memory_mb: 1, minutes: 1.0}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid YAML"),
        ("", "must be a mapping of keys to values"),
        ("experiment: tiny\ndevice: cpu\n", "needs is missing"),
        (f"experiment: other\ndevice: cpu\nneeds: {{digits: {{bntt: {ROW}}}}}", "is of experiment other, not tiny"),
        (f"experiment: tiny\ndevice: cpu\nneeds: {{cifar10: {{bntt: {ROW}}}}}", "unknown dataset 'cifar10'"),
        (f"experiment: tiny\ndevice: cpu\nneeds: {{digits: {{bnt: {ROW}}}}}", "unknown row 'bnt'"),
        (f"experiment: tiny\ndevice: cpu\nneeds: {{digits: {{bntt: {ROW.replace('1.0', '0')}}}}}", "minutes"),
        (f"experiment: tiny\ndevice: cpu\nneeds: {{digits: {{bntt: {ROW.replace('1.0', '.inf')}}}}}", "minutes"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_file_of_something_else_is_one_line(used, tmp_path, text, message):
    path = needs.path_of(used, tmp_path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as raised:
        needs.read(used, tmp_path)
    assert_one_line(raised.value, str(path), message, "--needs`, or remove the file")


def test_needs_are_of_the_whole_experiment(used, tmp_path):
    ran = bntt_here("plan", tmp_path / "config/tiny.yaml", "--needs", "--row", "ann")
    assert_one_line(ran, "--needs is of the whole experiment; leave out --dataset and --row")


def test_plan_writes_needs(used, tmp_path, monkeypatch):
    monkeypatch.setattr("bntt.commands.plan.plan", lambda *_: iter([COST]))
    arguments = ["plan", tmp_path / "config/tiny.yaml", "--results", tmp_path / "results", "--device", "cpu"]
    assert bntt_here(*arguments).returncode == 0
    assert not (tmp_path / "results").exists()
    ran = bntt_here(*arguments, "--needs")
    assert ran.stdout.splitlines()[-1] == f"written: {tmp_path}/results/tiny/needs.yaml"
    assert needs.read(used, tmp_path / "results")["digits", "bntt"].training.memory_mb == 400


# -- what a job asks for ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with the tiny experiment, of which one row's needs are known."""
    copy = copy_project(tmp_path_factory.mktemp("a cluster") / "the project")
    write_experiment(copy / "config")
    needs.write(experiment(copy / "config"), copy / "results", "cpu", [replace(COST, evaluation=1e6)])
    return copy


def jobs(copy, *options: str) -> dict[str, dict[str, str]]:
    """The resources of each training and evaluation of a dry run, by rule and row."""
    command = [sys.executable, "-m", "snakemake", *options, "-n", "--config", "experiment=tiny", "--", "all"]
    ran = subprocess.run(command, cwd=copy, env=environment(BNTT_DATA="data"), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.findall(
        r"^rule (train|evaluate):.*?row=(\w+),.*?resources: (.*?)$", ran.stdout, re.DOTALL | re.MULTILINE
    )
    return {f"{rule} {row}": dict(re.findall(r"(\w+)=([^,]+)", text)) for rule, row, text in found}


@needs_plugin
def test_a_job_on_a_cluster_asks_for_what_its_run_needs_and_else_for_the_default(copy):
    asked = jobs(copy, "--workflow-profile", "profiles/slurm")
    amounts = {job: (one["mem_mb"], one["runtime"], one["gpu"]) for job, one in asked.items()}
    assert amounts == {
        "train bntt": ("1100", "25", "1"),
        "evaluate bntt": ("952", "1440", "1"),  # it needs longer than a job may take
        **{f"{rule} {row}": ("8000", "1440", "1") for rule in ("train", "evaluate") for row in ("plain", "ann", "rmp")},
    }


def test_a_job_on_this_machine_asks_for_nothing(copy):
    asked = jobs(copy, "--cores", "2")
    assert len(asked) == 8
    assert all(one.keys() == {"tmpdir"} for one in asked.values())


@needs_plugin
def test_a_foreign_file_of_needs_stops_a_workflow_on_a_cluster_alone(copy):
    path = copy / "results/tiny/needs.yaml"
    right = path.read_text()
    path.write_text(right.replace("experiment: tiny", "experiment: other"))
    try:
        with pytest.raises(AssertionError, match=r"results/tiny/needs.yaml is of experiment other, not tiny"):
            jobs(copy, "--workflow-profile", "profiles/slurm")
        assert len(jobs(copy, "--cores", "2")) == 8
    finally:
        path.write_text(right)
