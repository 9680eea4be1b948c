"""What others' tools read of this repository: the citation, the catalogue of workflows, continuous integration.

`python tests/test_metadata.py` writes codemeta.json anew from CITATION.cff.
"""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml
from tiny import copy_project, python

PROJECT = Path(__file__).parent.parent
CITATION = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
CODEMETA = PROJECT / "codemeta.json"


def codemeta() -> str:
    """CITATION.cff in the terms of CodeMeta 3.0."""

    def authors(given: list[dict[str, str]]) -> list[dict[str, str]]:
        return [
            {"@type": "Organization", "name": one["name"]}
            if "name" in one
            else {"@type": "Person", "givenName": one["given-names"], "familyName": one["family-names"]}
            for one in given
        ]

    (paper,) = CITATION["references"]
    content: dict[str, Any] = {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": CITATION["title"],
        "version": CITATION["version"],
        "license": f"https://spdx.org/licenses/{CITATION['license']}",
        "author": authors(CITATION["authors"]),
        "keywords": CITATION["keywords"],
        "programmingLanguage": "Python",
        "referencePublication": {
            "@type": "ScholarlyArticle",
            "@id": f"https://doi.org/{paper['doi']}",
            "name": paper["title"],
            "author": authors(paper["authors"]),
        },
    }
    return json.dumps(content, indent=2) + "\n"


def test_codemeta_says_what_the_citation_says():
    assert CODEMETA.read_text() == codemeta(), "run python tests/test_metadata.py"


def test_the_package_says_what_the_citation_says():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (paper,) = CITATION["references"]
    preprint = paper["identifiers"][0]["value"].removeprefix("arXiv:")
    assert project["urls"] == {
        "Paper": f"https://doi.org/{paper['doi']}",
        "Preprint": f"https://arxiv.org/abs/{preprint}",
    }
    assert project["license"] == CITATION["license"]
    assert [one["name"] for one in project["authors"]] == [one["name"] for one in CITATION["authors"]]


def test_both_continuous_integrations_take_the_same_steps():
    (steps,) = re.findall(r"^for step in (.*); do$", (PROJECT / ".ci/run").read_text(), re.MULTILINE)
    jobs = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())["jobs"]
    run = [step for step in jobs["ci"]["steps"] if "run" in step]
    assert [(step["run"], step["timeout-minutes"]) for step in run] == [
        (f"make {name}", int(minutes)) for name, minutes in (step.split(":") for step in steps.split())
    ]
    assert jobs["ci"]["timeout-minutes"] == 90
    assert {step["if"] for step in run} == {"${{ !cancelled() }}"}  # as .ci/run goes on after a failure


def test_a_step_of_continuous_integration_that_takes_too_long_is_stopped_and_the_others_run(tmp_path):
    """With minutes of a second: all but the last step have one, and take a hundred."""
    script = (PROJECT / ".ci/run").read_text()
    assert script.count("60 * ") == 2
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text(re.sub(r"60 \* ", "", re.sub(r"(?<!test-all):\d+", ":1", script)))
    (tmp_path / "Makefile").write_text(".PHONY: test-all\n%:\n\t@sleep 100\ntest-all:\n\t@echo all tests pass\n")
    ran = subprocess.run(["bash", tmp_path / ".ci/run"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 124
    assert "all tests pass" in ran.stdout.splitlines()
    said = [line for line in ran.stderr.splitlines() if line.endswith("and stopped")]
    stopped = ("lint", "docs", "demo", "test-cluster")
    assert said == [f"make {name}: not done within 1 seconds, and stopped" for name in stopped]


def test_the_catalogue_of_workflows_has_what_it_asks_for():
    settings = yaml.safe_load((PROJECT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(settings) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (PROJECT / "config/README.md").is_file()
    opening = (PROJECT / "README.md").read_text().lower().partition("\n## ")[0]
    assert "snakemake" in opening
    assert "workflow" in opening


def test_the_snakefile_of_the_catalogue_is_the_same_workflow_with_the_package_beside_it(tmp_path):
    copy = copy_project(tmp_path / "copy")
    with (copy / "bntt/__init__.py").open("a") as stream:
        stream.write("print('imported', __file__)\n")
    # -P, as for the command `snakemake`: what lies in the working directory is not imported just because of that.
    ran = python("-P", "-m", "snakemake", "-n", "-s", "workflow/Snakefile", "--cores", "1", cwd=copy)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"imported {copy}" in ran.stdout
    assert re.search(r"^overview +1$", ran.stdout, re.MULTILINE), ran.stdout


if __name__ == "__main__":
    CODEMETA.write_text(codemeta())
