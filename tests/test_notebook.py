"""Notebooks: executed with their parameters, rendered as a page that needs no network, whole or not at all."""

import json
import os
import platform
import re
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupyter_client.connect import LocalPortCache
from tiny import PROJECT, assert_one_line, bntt, experiment, python

from bntt.common.errors import UserError
from bntt.drawing import notebook
from bntt.drawing.notebook import at_working_folder, execute, opened, render, titles
from bntt.runs import pipeline

PARAMETERS = {"experiment": "demo", "results": "results", "output": "results/demo"}
SOURCE = """# %% [markdown]
# # A title with <em>marks</em> & signs
# Some text with $x^2$ and [a link](figures/one.png).

# %% tags=["parameters"]
word = "default"
other = "kept"

# %%
import sys
import pandas as pd
print(f"the word is {word}, the other is {other}")

# %%
pd.DataFrame({"a": [1, 2], "b": ["<script>alert(1)</script>", "x"]})

# %%
import matplotlib
matplotlib.use("module://matplotlib_inline.backend_inline")
import matplotlib.pyplot as plt
plt.plot([1, 2]);

# %%
changed = {key for key in ("text.usetex", "savefig.bbox", "axes.facecolor", "font.size")
           if matplotlib.rcParams[key] != matplotlib.rcParamsDefault[key]}
print("interpreter", sys.executable, "changed", changed, pd.options.display.max_rows, "personal" in globals())
"""
MATPLOTLIBRC = "text.usetex: True\nsavefig.bbox: tight\naxes.facecolor: black\nfont.size: 30\nno.such.key: 1\n"
START_UP = """import matplotlib.pyplot, pandas
matplotlib.pyplot.style.use("dark_background")
pandas.set_option("display.max_rows", 1)
personal = True
"""


def personal_settings(home: Path) -> dict[str, str]:
    """Files with a user's settings, each of which would change a notebook, and the variables that name them."""
    for name, content in {
        "jupyter/kernels/python3/kernel.json": json.dumps(
            {"argv": ["/bin/false"], "display_name": "Mine", "language": "python", "env": {"MINE": "1"}}
        ),
        "jupyter/nbconvert/templates/basic/conf.json": '{"base_template": "base"}',
        "jupyter/nbconvert/templates/basic/index.html.j2": "a page of my own",
        "jupyter/nbconvert/templates/base/index.html.j2": "a page of my own",
        "ipython/profile_default/startup/00-mine.py": START_UP,
        "ipython/profile_default/ipython_config.py": "c.InteractiveShell.ast_node_interactivity = 'none'\n",
        "ipython/profile_default/ipython_kernel_config.py": "c.InlineBackend.figure_formats = {'svg'}\n",
        "start_up.py": START_UP,
        "matplotlib/matplotlibrc": MATPLOTLIBRC,
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    return {
        "JUPYTER_PATH": str(home / "jupyter"),
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "mine",
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONSTARTUP": str(home / "start_up.py"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "MATPLOTLIBRC": str(home / "matplotlib" / "matplotlibrc"),
        "MPLBACKEND": "svg",
    }


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook that was executed in spite of all settings that a user may have."""
    folder = tmp_path_factory.mktemp("note books")
    (folder / "tiny.py").write_text(SOURCE, encoding="utf-8-sig")
    with pytest.MonkeyPatch.context() as changed:
        for name, value in personal_settings(tmp_path_factory.mktemp("home")).items():
            changed.setenv(name, value)
        execute(folder / "tiny.py", folder / "out" / "tiny.ipynb", folder / "out" / "tiny.html", {"word": "given"})
    return folder / "out"


def test_a_notebook_runs_in_this_interpreter_without_personal_settings(executed):
    notebook = nbformat.read(executed / "tiny.ipynb", as_version=4)
    assert f"interpreter {sys.executable} changed set() 60 False" in json.dumps(notebook)
    assert notebook.metadata.language_info.version == platform.python_version()
    assert "a page of my own" not in (executed / "tiny.html").read_text()
    assert not [one for cell in notebook.cells for one in cell.get("outputs", []) if one.get("name") == "stderr"]


def test_cells_are_executed_with_the_parameters_given(executed):
    notebook = nbformat.read(executed / "tiny.ipynb", as_version=4)
    text = json.dumps(notebook)
    assert "the word is given, the other is kept" in text
    assert "image/png" in text
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5, 6]


def test_the_page_needs_no_network_and_runs_nothing(executed):
    page = (executed / "tiny.html").read_text()
    assert "<script" not in page.lower()
    assert not re.search(r"\b(src|href|srcset|data|action)\s*=\s*[\"']?\s*(https?:)?//", page)
    assert not re.search(r"@import|url\(", page)
    assert not re.search(r"\son\w+\s*=", page)
    assert "<link" not in page
    assert 'src="data:image/png;base64,' in page
    assert "the word is given" in page
    assert "import pandas" not in page  # the code is in the notebook


def test_the_page_is_titled_by_its_heading(executed):
    page = (executed / "tiny.html").read_text()
    assert "<title>A title with marks &amp; signs</title>" in page
    assert page.startswith("<!doctype html>")
    assert page.count("<html") == page.count("</html>") == 1


def test_nothing_else_is_left(executed):
    assert sorted(path.name for path in executed.iterdir()) == ["tiny.html", "tiny.ipynb"]


def test_an_output_that_would_fetch_is_not_on_the_page(tmp_path):
    """A stray image or frame from elsewhere, in an output or in the text."""
    outside = '<img src="https://example.org/a.png"><iframe src="//example.org"></iframe>'
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", {"text/html": outside})])
    text = nbformat.v4.new_markdown_cell("# T\n![x](https://example.org/b.png)")
    nbformat.write(nbformat.v4.new_notebook(cells=[text, cell]), tmp_path / "x.ipynb")
    assert not re.search(r"\bsrc\s*=\s*[\"']?(https?:)?//", render(tmp_path / "x.ipynb", "x"))


@pytest.fixture
def failing(tmp_path):
    def run(body: str):
        (tmp_path / "bad.py").write_text(f"# %%\nprint('so far')\n\n# %%\n{body}\n")
        (tmp_path / "bad.html").write_text("an earlier page")
        with pytest.raises(UserError) as raised:
            execute(tmp_path / "bad.py", tmp_path / "bad.ipynb", tmp_path / "bad.html", {})
        return raised.value

    return run


def test_a_cell_that_fails_is_one_line_and_what_ran_is_kept(failing, tmp_path):
    error = failing("raise ValueError('no such thing')")
    assert_one_line(error, "bad.py", "ValueError", "no such thing", "bad.failed.ipynb")
    assert "so far" in (tmp_path / "bad.failed.ipynb").read_text()
    assert not (tmp_path / "bad.ipynb").exists()
    assert (tmp_path / "bad.html").read_text() == "an earlier page"
    (tmp_path / "bad.py").write_text("# %%\n1\n")
    execute(tmp_path / "bad.py", tmp_path / "bad.ipynb", tmp_path / "bad.html", {})
    assert not (tmp_path / "bad.failed.ipynb").exists()  # mended
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.html", "bad.ipynb", "bad.py"]


def test_an_error_of_several_lines_is_one_line(failing):
    assert_one_line(failing("raise ValueError('one\\ntwo')"), "bad.py", "ValueError", "one", "two")


AGAIN = "starting a kernel once more"


@pytest.fixture
def taken(monkeypatch):
    """Makes so many of the next ports that kernels choose ones that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        find = LocalPortCache.find_available_port

        def take(count: int) -> None:
            ports = [server.getsockname()[1]] * count
            monkeypatch.setattr(LocalPortCache, "find_available_port", lambda *of: ports.pop() if ports else find(*of))

        yield take


def test_a_kernel_whose_port_is_taken_is_started_once_more(taken, tmp_path, capfd):
    (tmp_path / "one.py").write_text("# %%\nprint('it', 'ran')\n")
    taken(1)
    execute(tmp_path / "one.py", tmp_path / "one.ipynb", tmp_path / "one.html", {})
    assert "it ran" in (tmp_path / "one.ipynb").read_text()
    (said,) = [line for line in capfd.readouterr().err.splitlines() if AGAIN in line]
    assert said.startswith(f"{tmp_path}/one.py: Kernel died before replying")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "one.ipynb", "one.py"]


def test_a_kernel_that_cannot_start_is_one_line_after_two_starts(taken, failing, tmp_path, capfd):
    taken(99)
    assert_one_line(failing("print('never', 'ran')"), "bad.py", "Kernel died before replying", "bad.failed.ipynb")
    assert "never ran" not in (tmp_path / "bad.failed.ipynb").read_text()
    said = capfd.readouterr().err
    assert (said.count(AGAIN), said.count("ZMQError: Address already in use")) == (1, 2)


KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    "cells",
    [["{count}; " + KILL], ["{count}", KILL], ["{count}", "raise RuntimeError('of its own')"]],
    ids=["killed in its first cell", "killed in its second cell", "a cell raises"],
)
def test_no_cell_is_run_twice(tmp_path, capfd, cells):
    count = f"open({str(tmp_path / 'counted')!r}, 'a').write('.')"
    (tmp_path / "bad.py").write_text("".join(f"# %%\n{cell.format(count=count)}\n" for cell in cells))
    with pytest.raises(UserError) as raised:
        execute(tmp_path / "bad.py", tmp_path / "bad.ipynb", tmp_path / "bad.html", {})
    assert_one_line(raised.value, "bad.py", "bad.failed.ipynb")
    assert not (tmp_path / "bad.ipynb").exists()
    assert (tmp_path / "counted").read_text() == "."
    assert AGAIN not in capfd.readouterr().err


def test_a_source_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError) as raised:
        execute(tmp_path / "none.py", tmp_path / "x.ipynb", tmp_path / "x.html", {})
    assert_one_line(raised.value, "none.py", "analysis/")
    assert not list(tmp_path.iterdir())


# -- the notebooks of analysis/ ---------------------------------------------------------------------------------------

SOURCES = sorted((PROJECT / "analysis").glob("*.py"), key=lambda path: (path.stem == "overview", path.stem))
OF_CONSTANTS = {"figure2", "table2"}  # these draw no result

# As a kernel that was started in some folder executes a notebook, without the wait for one. With a language, which only
# one of the two has, matplotlib and pandas have other settings too.
EXECUTE = """
import json, locale, os, sys
import matplotlib
matplotlib.use("Agg")
if os.environ.get("LC_ALL"):
    import pandas, seaborn
    seaborn.set_theme(style="dark", font_scale=3)
    matplotlib.rcParams.update({"axes.formatter.use_locale": True, "text.usetex": True, "savefig.bbox": "tight",
                                "savefig.pad_inches": 1, "path.sketch": (1, 100, 2), "axes.unicode_minus": False})
    for option, value in {"precision": 1, "max_rows": 1, "max_columns": 1, "max_colwidth": 5}.items():
        pandas.set_option(f"display.{option}", value)
    pandas.set_option("display.float_format", "<{}>".format)
import jupytext
from bntt.common.errors import UserError
refusals = {}
for source in sys.argv[2:]:
    names = {}
    try:
        for cell in jupytext.read(source).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, source, "exec"), names)
            if "parameters" in cell.metadata.get("tags", ()):
                names.update(json.loads(sys.argv[1]))
    except UserError as error:
        refusals[source] = str(error)
print("REFUSALS", json.dumps(refusals))
"""


def execute_all(place, parameters, **settings) -> dict[str, str]:
    """Execute every notebook from a folder; returns what those that refuse say, by source."""
    ran = python("-c", EXECUTE, json.dumps(parameters), *SOURCES, cwd=place, PYTHONPATH=str(PROJECT), **settings)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.rpartition("REFUSALS ")[2])


def written(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture
def measured(tmp_path, trained):
    """The tiny experiment with its results."""
    root = tmp_path / "measured"
    experiment(root)
    shutil.copytree(trained / "tiny", root / "tiny", ignore=shutil.ignore_patterns("seed-[12]"))
    return root


@pytest.mark.slow
def test_every_notebook_draws_the_same_files_wherever_it_is_opened_and_whatever_the_settings(measured, tmp_path):
    """The results are named by a path from the repository's root, as the default is."""
    matplotlibrc = tmp_path / "matplotlibrc"
    matplotlibrc.write_text(MATPLOTLIBRC)
    hostile = {"MATPLOTLIBRC": str(matplotlibrc), "MPLBACKEND": "svg", "LC_ALL": "C", "PYTHONUTF8": "0"}

    def draw(name: str) -> dict[str, str]:
        parameters = {
            "experiment": str(measured / "tiny.yaml"),
            "results": os.path.relpath(measured, PROJECT),
            "output": os.path.relpath(tmp_path / name, PROJECT),
        }
        if name == "root":
            return execute_all(PROJECT, parameters)
        return execute_all(PROJECT / "analysis", parameters, **hostile)

    with ThreadPoolExecutor() as both:
        refused = list(both.map(draw, ("root", "analysis")))
    study = str(PROJECT / "analysis" / "wave.py")  # it compares rows that this experiment does not have
    assert [list(refusals) for refusals in refused] == [[study], [study]]
    assert_one_line(UserError(refused[0][study]), "no rows decay-neither and decay-gamma", "wave-digits")
    files = written(tmp_path / "root")
    assert written(tmp_path / "analysis") == files
    expected = {f"figures/figure{number}.{kind}" for number in range(1, 7) for kind in ("png", "svg", "pdf")}
    expected |= {f"tables/table{number}.{kind}" for number in range(1, 4) for kind in ("csv", "md", "tex")}
    assert expected <= set(files)
    assert b"no result yet" not in b"".join(content for name, content in files.items() if name.startswith("tables"))


@pytest.mark.slow
def test_an_experiment_without_the_row_bntt_is_drawn_by_every_notebook(tmp_path):
    """It is a study of two rows, so the notebook of the study draws it, too."""
    row = {"method": "surrogate", "norm": "bntt", "time_steps": 5, "gradient_epochs": [0, 1]}
    rows = {"decay-neither": row | {"gamma_decay": 0.0}, "decay-gamma": row | {"gamma_decay": 5e-4}}  # the paper's
    study = experiment(tmp_path, rows=rows, seeds=[0, 1])
    for run in study.runs:
        pipeline.train(study, run, tmp_path, "cpu")
        pipeline.evaluate(study, run, tmp_path, "cpu")
    parameters = {"experiment": str(tmp_path / "tiny.yaml"), "results": str(tmp_path), "output": str(tmp_path / "out")}
    assert execute_all(PROJECT, parameters) == {}
    drawn = {Path(name).stem for name in written(tmp_path / "out") if name.endswith(".png")}
    assert drawn >= {f"figure{number}" for number in range(1, 7)} | {"wave-law", "wave-decay"}


def test_a_notebook_that_finds_nothing_writes_nothing_and_says_what_to_run(tmp_path):
    experiment(tmp_path)
    parameters = {"experiment": str(tmp_path / "tiny.yaml"), "results": str(tmp_path), "output": str(tmp_path / "out")}
    refusals = execute_all(PROJECT / "analysis", parameters)
    assert {source.stem for source in SOURCES if str(source) not in refusals} == OF_CONSTANTS
    for refusal in refusals.values():
        assert_one_line(UserError(refusal), f"{tmp_path}/tiny has no result", "snakemake --cores 8 all --config")
    assert {name.partition(".")[0] for name in written(tmp_path / "out")} == {"figures/figure2", "tables/table2"}


@pytest.mark.slow
def test_the_command_that_finds_nothing_is_one_line(tmp_path):
    experiment(tmp_path)
    arguments = ("--experiment", tmp_path / "tiny.yaml", "--results", tmp_path)
    outputs = ("--notebook", tmp_path / "out/figure4.ipynb", "--page", tmp_path / "out/figure4.html")
    ran = bntt("notebook", "analysis/figure4.py", *arguments, *outputs)
    assert ran.returncode == 2
    said = ran.stderr.splitlines()[-1]  # after what the kernel says of itself
    assert said.startswith(f"bntt: analysis/figure4.py: {tmp_path}/tiny has no result to draw; make some first: snake")
    assert "Traceback" not in ran.stderr
    assert written(tmp_path) == {"tiny.yaml": (tmp_path / "tiny.yaml").read_bytes()}


def test_results_that_all_diverged_are_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diverging = experiment(tmp_path, rows={"bntt": {"method": "surrogate", "norm": "bntt", "learning_rate": 1e30}})
    pipeline.train(diverging, diverging.runs[0], tmp_path, "cpu")
    found = opened(str(tmp_path / "tiny.yaml"), str(tmp_path))
    assert [one.status for one in found.runs] == ["diverged"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_names_what_it_draws_and_has_the_workflows_parameters(source):
    cells = jupytext.read(source).cells
    (parameters,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    defaults: dict = {}
    exec(parameters, {}, defaults)
    committed = {"experiment": "wave-digits", "results": "results/reference", "output": "results/reference/wave-digits"}
    assert defaults == (committed if source.stem == "wave" else PARAMETERS)
    if source.stem.startswith("figure"):
        assert cells[0].source.startswith(f"# Figure {source.stem[-1]}: ") and "What the paper says" in cells[0].source


def test_titles_are_the_headings_of_the_notebooks():
    assert titles("figure")["figure1"] == "Figure 1: spikes of each layer over time"
    assert list(titles("table")) == ["table1", "table2", "table3"]


def test_only_sources_that_can_be_drawn_have_titles(tmp_path, monkeypatch):
    monkeypatch.setattr("bntt.drawing.notebook.ANALYSIS", tmp_path)
    for name in ("figure1", "figure1 (copy)", "figure1-old", ".figure2"):
        (tmp_path / f"{name}.py").write_text("# ---\n# # One\n", encoding="utf-8-sig")
    (tmp_path / "figure3.py").mkdir()
    assert titles("figure") == {"figure1": "One"}
    (tmp_path / "figure4.py").write_bytes(b"# # \xff\n")
    with pytest.raises(UserError) as raised:
        titles("figure")
    assert_one_line(raised.value, f"{tmp_path}/figure4.py is not in UTF-8")


@pytest.mark.parametrize(
    ("opened_in", "results", "working"),
    [
        ("work/results/demo/notebooks", "results", "work"),
        ("work/my/results/demo/notebooks", "my/results", "work"),
        ("work/other/demo/notebooks", "results", "work/other/demo/notebooks"),
        ("work", "results", "work"),
        ("checkout/analysis", "results", "checkout"),
    ],
)
def test_paths_start_at_the_working_folder_wherever_a_notebook_is_opened(
    tmp_path, monkeypatch, opened_in, results, working
):
    monkeypatch.setattr(notebook, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(notebook, "ANALYSIS", tmp_path / "checkout/analysis")
    (tmp_path / opened_in).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / opened_in)
    at_working_folder(results)
    assert Path.cwd() == tmp_path / working
