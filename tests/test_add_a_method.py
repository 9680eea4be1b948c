"""`docs/add-a-method.md` does what it says: its files are written, its commands are run, and its rows appear."""

import re
import shlex

import pandas as pd
import pytest
import torch
import yaml
from tiny import PROJECT, copy_project, python

PAGE = (PROJECT / "docs/add-a-method.md").read_text()
FILES = dict(re.findall(r"into\s`([\w/.]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
METHODS = {"my-norm": 20, "adaptive": 60}  # lines at most
TINY = {"width": 0.05, "train_limit": 64, "test_limit": 40, "time_steps": 2, "epochs": 1, "batch_size": 32}


def test_the_page_has_two_methods_an_experiment_and_the_commands():
    assert list(FILES) == ["bntt/methods/my_norm.py", "bntt/methods/adaptive.py", "config/mine.yaml"]
    for method, most in METHODS.items():
        assert len(FILES[f"bntt/methods/{method.replace('-', '_')}.py"].splitlines()) <= most
    assert len(COMMANDS) == 4


def test_the_adaptive_neuron_is_that_of_its_equations():
    """Step by step and neuron by neuron, in plain numbers."""
    names: dict = {}
    exec(FILES["bntt/methods/adaptive.py"], names)
    leak, beta, rho = 0.75, 0.5, 0.5
    x = torch.randint(-4, 9, (12, 3, 2), generator=torch.Generator().manual_seed(0)).double() / 4
    spikes, _ = names["Adaptive"](leak, beta, rho)(x)
    for n in range(3):
        for i in range(2):
            u = trace = 0.0
            for t in range(12):
                u, threshold = leak * u + x[t, n, i].item(), 1 + beta * trace
                fired = u > threshold
                assert spikes[t, n, i].item() == fired
                u, trace = u - threshold * fired, rho * trace + (1 - rho) * fired
    assert 0 < spikes.mean() < 1


@pytest.mark.slow
def test_from_empty_files_to_table_1_figure_4_and_the_comparison(tmp_path):
    """Its commands, on fewer images, and of the drawings only those that it names."""
    project = copy_project(tmp_path / "project")
    for name, text in FILES.items():
        (project / name).write_text(text)
    small = yaml.safe_load(FILES["config/mine.yaml"])
    small["protocol"] |= TINY
    small["seeds"] = [0]
    (project / "config/mine.yaml").write_text(yaml.safe_dump(small))
    said = []
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] in ("python", "snakemake")
        if words[0] == "snakemake":
            place = words.index("all")
            words[place : place + 1] = ["results/mine/tables/table1.csv", "results/mine/figures/figure4.png"]
            words[:1] = ["python", "-m", "snakemake"]
        ran = python(*words[1:], cwd=project, BNTT_DATA="data")
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        said.append(ran.stdout)
    for method, tested in zip(METHODS, said, strict=False):
        assert re.fullmatch(rf"{method}: \d+ passed, 0 failed, \d+ not applicable", tested.splitlines()[-1])
    table = pd.read_csv(project / "results/mine/tables/table1.csv").set_index("row")
    assert {"bntt", *METHODS} <= set(table.index)
    drawn = (project / "results/mine/notebooks/figure4.html").read_text()
    for method in METHODS:
        last = table.loc[[method]].iloc[-1]
        assert 0 <= last["accuracy"] <= 100
        assert pd.notna(last["minus_bntt"])
        assert drawn.count(f"<th>{method}</th>") >= 2, "a column of spikes and one of accuracy under noise"
        assert f"digits, bntt and {method}, accuracy: " in said[3]
