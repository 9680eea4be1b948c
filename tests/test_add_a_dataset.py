"""docs/add-a-dataset.md is executed: its files are written into a copy of the project, its commands are run there."""

import re
import shlex
import shutil

import pytest
from tiny import PROJECT, copy_project, python

PAGE = (PROJECT / "docs/add-a-dataset.md").read_text()
BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def test_every_block_of_the_page_is_a_file_or_commands():
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) == PAGE.count("\n```") / 2
    assert all((block["file"] is None) == (block["kind"] == "sh") for block in blocks)
    commands = [line for block in blocks if block["kind"] == "sh" for line in block["text"].splitlines()]
    assert all(line.startswith("python ") for line in commands)


@pytest.mark.slow
def test_the_page_leads_from_an_empty_file_to_trained_networks(tmp_path):
    copy = copy_project(tmp_path / "a copy")
    data = str(copy / "data")
    for block in BLOCK.finditer(PAGE):
        if block["file"]:
            (copy / block["file"]).write_text(block["text"])
            continue
        for line in block["text"].splitlines():
            ran = python(*shlex.split(line)[1:], cwd=copy, BNTT_DATA=data)
            assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
    for name in ("scans", "scans-dvs"):
        assert (copy / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (copy / f"results/{name}/runs/{name}/bntt/seed-0/anytime.csv").is_file()
        counts = python("-m", "bntt", "data", "list", name, cwd=copy, BNTT_DATA=data).stdout
        assert "120 train, 30 validation, 50 test" in counts
        assert " prepared " in counts
    shutil.rmtree(copy)
