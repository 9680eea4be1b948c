"""The documentation says what the code does: keys, commands, and the README's examples, which are run."""

import re
import shutil

import torch
from test_claims import BY_NAME, judged
from tiny import PROJECT, python

from bntt.experiment.manual import reference
from bntt.experiment.schema import load

README = (PROJECT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_configuration_manual_ends_with_every_key():
    assert (PROJECT / "config/README.md").read_text().endswith(reference())


def test_the_network_of_the_readme_runs():
    names: dict = {}
    exec(PYTHON[0], names)
    assert names["logits"].shape == (4, 10)
    assert torch.isfinite(names["logits"]).all()


def test_the_method_of_the_readme_is_planned_trained_and_measured(tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(PROJECT / "bntt", copy / "bntt", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "bntt/methods/my_norm.py").write_text(PYTHON[1])
    (copy / "mine.yaml").write_text(
        "title: mine\ndatasets: [digits]\nseeds: [0]\n"
        "protocol: {width: 0.05, image_size: 8, train_limit: 64, test_limit: 40, batch_size: 32, epochs: 1}\n"
        "rows:\n  my-norm: {method: my-norm, time_steps: 2}\n"
        "evaluation: {noise_sigmas: [0.0]}\n"
    )
    common = ["--experiment", "mine.yaml", "--row", "my-norm"]
    both = f"from bntt.commands import main; exit(main(['train', *{common}]) or main(['evaluate', *{common}]))"
    ran = python("-c", both, cwd=copy)
    assert ran.returncode == 0, ran.stderr


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the table of a page under docs/ whose first line begins so."""
    text = (PROJECT / "docs" / page).read_text().partition(f"\n| {header} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]


def test_the_table_of_claims_says_what_the_code_judges():
    claims = [judged(name) for name in BY_NAME]
    for header, ours in (("claim | in words", False), ("claim of ours", True)):
        rows = [row[:3] for row in table("claims.md", header)]
        assert rows == [[f"`{claim.name}`", claim.text, claim.where] for claim in claims if claim.ours == ours]


def test_the_page_of_claims_names_every_drawing_and_files_that_there_are():
    page = (PROJECT / "docs/claims.md").read_text()
    drawings = {path.stem for path in (PROJECT / "analysis").glob("*[0-9].py")}
    assert {row[0].lower().replace(" ", "") for row in table("claims.md", "printed")} == drawings
    assert set(re.findall(r"`(\w+)\.(?:png|md)`", page)) == drawings
    measured = {path.stem for path in (PROJECT / "bntt/measurements").glob("[!_]*.py")}
    assert set(re.findall(r"`(\w+)\.csv`", page)) <= measured
    for name in re.findall(r"(?:EXPERIMENT=|experiment=|config/)([\w-]+)", page):
        load(name)


def test_the_demos_decay_budgets_are_those_of_its_page():
    from bntt.training.schedule import decay_budget

    page = (PROJECT / "docs/demo.md").read_text()
    for experiment, row in (("demo", "bntt"), ("demo-all", "bntt"), ("demo-all", "bntt-tuned")):
        run = next(run for run in load(experiment).runs if (run.dataset, run.row) == ("digits", row))
        options = dict(run.options)
        cells = [17, options["epochs"], f"{options['weight_decay']:.0e}".replace("e-0", "e-")]
        line = f"| `{experiment}`, row `{row}` | {' | '.join(map(str, cells))} | {decay_budget(options, 1077):.1f} |"
        assert line in page.splitlines()
