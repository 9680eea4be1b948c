"""pyproject.toml, constraints.txt, environment.yml and CITATION.cff tell the same story."""

import tomllib
from itertools import chain, product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bntt

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def requirements(lines):
    return [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


LOCK = requirements((ROOT / "constraints.txt").read_text().splitlines())


def direct(*extras):
    return requirements([*PROJECT["project"]["dependencies"], *chain(*(EXTRAS[extra] for extra in extras))])


def pins(name, python="3.11.9", system="linux"):
    """The versions of a package that the lock has for a machine."""
    machine = {"python_full_version": python, "python_version": python[:4], "sys_platform": system}
    mine = [pin for pin in LOCK if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [str(pin.specifier) for pin in mine if pin.marker is None or pin.marker.evaluate(machine)]


@pytest.mark.parametrize("requirement", direct(*EXTRAS), ids=str)
def test_every_direct_dependency_is_locked_within_its_range(requirement):
    for python, system in product(("3.11.9", "3.12.7", "3.13.2"), ("linux", "darwin")):
        if requirement.marker is None or requirement.marker.evaluate({"sys_platform": system}):
            found = pins(requirement.name, python, system)
            assert len(found) == 1, f"constraints.txt has {found} of {requirement}: run make lock"
            assert found[0].removeprefix("==") in requirement.specifier, "run make lock"


def test_the_pair_of_the_committed_measurements_is_pinned():
    pair = ["torch==2.13.0", "torchvision==0.28.0"]
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == pair
    assert [f"{name}{pin}" for name in ("torch", "torchvision") for pin in pins(name)] == pair


def test_the_lock_serves_every_index():
    """One pin a line: no address, no hash, and no suffix that says which build it is."""
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") and pin.url is None for pin in LOCK)
    assert not [pin for pin in LOCK if "+" in str(pin.specifier)]
    assert "--" not in (ROOT / "constraints.txt").read_text()


def test_the_environment_file_has_what_the_lock_has():
    *_, of_pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = requirements(of_pip["pip"])
    names = sorted(canonicalize_name(requirement.name) for requirement in direct("vision", "workflow", "test"))
    assert [pin.name for pin in listed] == names, "run make lock"
    assert all([str(pin.specifier)] == pins(pin.name) for pin in listed), "run make lock"


def test_the_citation_has_the_version_of_the_package():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == bntt.__version__
