"""pyproject.toml, constraints.txt and environment.yml tell the same story."""

import re
from pathlib import Path

import lock
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCK = lock.read_lock(ROOT)


@pytest.mark.parametrize("text", lock.direct_requirements(ROOT))
def test_every_direct_dependency_is_locked_within_its_range(text):
    requirement = Requirement(text)
    version = LOCK.get(lock.canonical(requirement.name))
    assert version, f"constraints.txt lacks {requirement.name}: run make lock"
    assert version in requirement.specifier, f"constraints.txt has {version} for {text}: run make lock"


@pytest.mark.parametrize(("name", "version"), [("torch", "2.13.0"), ("torchvision", "0.28.0")])
def test_the_pair_of_the_committed_measurements_is_pinned(name, version):
    assert lock.FIXED[name] == LOCK[name] == version


def test_the_lock_serves_every_machine():
    """Plain pins only: no build suffix, no address, no hash."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=lambda line: line.split("=="))
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)]


def test_environment_file_is_the_generated_one():
    written = (ROOT / "environment.yml").read_text()
    assert written == lock.environment(ROOT), "run python scripts/lock.py --environment"
