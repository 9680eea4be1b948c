"""The containers: both recipes build the same from the lock, and jobs run in the image with its Python alone.

No container engine is needed. Stand-ins take the place of what only a container's root may do, and one of ``apptainer``
runs what Snakemake hands to it, which asks for an ``apptainer`` even in a dry run.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name
from test_environment import direct, pins
from tiny import PROJECT, copy_project, environment, python, write_experiment

CONTAINERS = PROJECT / "containers"


def stand_in(folder: Path, name: str, script: str) -> None:
    """A command of that name for those who have the folder in their PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


# -- the recipes ------------------------------------------------------------------------------------------------------


def test_both_recipes_have_the_same_base_files_steps_and_variables():
    """An instruction of the Dockerfile is one line, and there are no others."""
    lines = [line for line in (CONTAINERS / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["FROM", "ARG", "COPY", "RUN", "ENV"]
    base, argument, copied, step, variables = (line.partition(" ")[2] for line in lines)
    *files, place = copied.split()
    name = argument.removesuffix("=")
    assert re.fullmatch(r"docker\.io/library/debian:\d+\.\d+-slim", base)
    header, *sections = re.split(r"^%(\w+)\n", (CONTAINERS / "bntt.def").read_text(), flags=re.MULTILINE)
    assert header.split("\n")[1:3] == ["Bootstrap: docker", f"From: {base}"]
    read = [[line.strip() for line in text.splitlines() if line] for text in sections[1::2]]
    assert dict(zip(sections[::2], read, strict=True)) == {
        "arguments": [argument],
        "files": [f"{file} {place}" for file in files],
        "post": [f'export {name}="{{{{ {name} }}}}"', step],
        "environment": [f"export {variables}"],
    }
    assert step == f"sh {place}install.sh" and variables.startswith(f"PATH={place}bin:$PATH ")
    committed = subprocess.run(["git", "ls-files", *files], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert sorted(committed.stdout.split()) == sorted(files)


@pytest.fixture
def install(tmp_path):
    """Runs the step of both recipes in a folder of its own, without what only root may do; returns its commands."""
    place = tmp_path / "the place"
    place.mkdir()
    for file in (PROJECT / "environment.yml", PROJECT / "constraints.txt", CONTAINERS / "install.sh"):
        (place / file.name).write_text(file.read_text())

    def run(python3: str, *options: str) -> list[str]:
        for command in ("apt-get", "rm"):
            stand_in(tmp_path / "commands", command, f"echo {command} $* >>../ran")
        stand_in(tmp_path / "commands", "python3", python3)
        path = f"{tmp_path / 'commands'}:{os.environ['PATH']}"
        step = ["sh", str(place / "install.sh"), *options]
        ran = subprocess.run(step, env=environment(PATH=path), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return (tmp_path / "ran").read_text().splitlines()

    return run


PIP = "-m pip install --no-input --no-cache-dir --disable-pip-version-check"
LOCKED = "--constraint constraints.txt --requirement requirements.txt"


def test_the_step_installs_what_the_environment_file_lists_from_the_lock(install, tmp_path):
    ran = install("echo python3 $* >>../ran; mkdir bin; cp ../commands/apt-get bin/python")
    assert ran == [
        "apt-get update",
        "apt-get install --yes --no-install-recommends ca-certificates g++ git python3-dev python3-venv",
        "rm -r /var/lib/apt/lists",
        "python3 -m venv .",
        f"apt-get {PIP} {LOCKED}",  # the stand-in of pip
    ]
    *_, of_pip = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    assert (tmp_path / "the place/requirements.txt").read_text().splitlines() == of_pip["pip"]


@pytest.mark.slow
def test_pip_would_install_the_locked_version_of_every_package(install, tmp_path):
    """It asks the index, and downloads no more than it must to know what the packages need."""
    report = tmp_path / "report.json"
    install(f'exec "{sys.executable}" "$@"', "--dry-run", f"--report={report}")
    found = {
        canonicalize_name(one["metadata"]["name"]): one["metadata"]["version"].partition("+")[0]
        for one in json.loads(report.read_text())["install"]
    }
    version = ".".join(map(str, sys.version_info[:3]))
    assert {name: [f"=={pinned}"] for name, pinned in found.items()} == {name: pins(name, version) for name in found}
    assert set(found) >= {canonicalize_name(one.name) for one in direct("vision", "workflow", "test")}


# -- the workflow -----------------------------------------------------------------------------------------------------

APPTAINER = """
if [ "$1" = --version ]; then echo apptainer version 1.4.5; exit; fi
echo "$@" >>{told}
while [ "$1" != here.sif ]; do shift; done
shift
export HOME="$PWD" PATH={image}:/usr/bin:/bin
exec "$@"
"""


@pytest.fixture
def snakemake(tmp_path):
    """Runs the workflow with the container engine's stand-in and a Python in the image that says what it was told."""
    project = copy_project(tmp_path / "the project")
    write_experiment(project / "config")
    stand_in(tmp_path / "engine", "apptainer", APPTAINER.format(told=tmp_path / "told", image=tmp_path / "image"))
    said = f'echo "$PYTHONPATH $HOME" >>"{tmp_path}/python"'
    stand_in(tmp_path / "image", "python3", f'{said}\nexec "{sys.executable}" "$@"')

    def run(*arguments: str, config: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        options = ["--cores", 1, "--sdm", "apptainer", "--config", "experiment=tiny", *config]
        path = f"{tmp_path / 'engine'}:{os.environ['PATH']}"
        settings = {"BNTT_DATA": "data", "PATH": path, "PYTHONPATH": "/the/hosts", "PYTHONDONTWRITEBYTECODE": ""}
        return python("-m", "snakemake", *arguments, *options, cwd=project, **settings)

    return run


@pytest.mark.slow
def test_jobs_run_in_the_image_with_its_python_and_none_of_the_hosts_packages(snakemake, tmp_path):
    project = tmp_path / "the project"
    (project / "here.sif").touch()
    ran = snakemake("data/digits/manifest.json", "--apptainer-args=--nv", config=("container=here.sif",))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (project / "data/digits/manifest.json").exists()
    assert re.match(r"exec --home \S.* --nv .*here.sif bash -c set -euo pipefail; ", (tmp_path / "told").read_text())
    assert (tmp_path / "python").read_text() == f"{project} {project}/.snakemake/home\n"


def test_everything_is_planned_for_the_image_of_the_working_folder(snakemake, tmp_path):
    (tmp_path / "the project/bntt.sif").touch()
    ran = snakemake("-n", "all")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "evaluate" in ran.stdout and "overview" in ran.stdout
    assert not (tmp_path / "told").exists()


def test_an_image_that_is_not_there_is_told_before_anything_runs(snakemake):
    ran = snakemake("-n", "all", config=("container=images/mine.sif",))
    assert ran.returncode == 1
    assert "no container image images/mine.sif; docs/containers.md says how to build it" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
