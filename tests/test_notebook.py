"""Notebooks: executed with their parameters, rendered as a page that needs no network, whole or not at all."""

import json
import re

import nbformat
import pytest
from tiny import assert_one_line

from bntt.common.errors import UserError
from bntt.drawing.notebook import execute, render

SOURCE = """# %% [markdown]
# # A title with <em>marks</em> & signs
# Some text with $x^2$ and [a link](figures/one.png).

# %% tags=["parameters"]
word = "default"
other = "kept"

# %%
import pandas as pd
print(f"the word is {word}, the other is {other}")

# %%
pd.DataFrame({"a": [1, 2], "b": ["<script>alert(1)</script>", "x"]})

# %%
import matplotlib
matplotlib.use("module://matplotlib_inline.backend_inline")
import matplotlib.pyplot as plt
plt.plot([1, 2]);
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("note books")
    (folder / "tiny.py").write_text(SOURCE)
    execute(folder / "tiny.py", folder / "out" / "tiny.ipynb", folder / "out" / "tiny.html", {"word": "given"})
    return folder / "out"


def test_cells_are_executed_with_the_parameters_given(executed):
    notebook = nbformat.read(executed / "tiny.ipynb", as_version=4)
    text = json.dumps(notebook)
    assert "the word is given, the other is kept" in text
    assert "image/png" in text
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]


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


def test_a_kernel_that_dies_is_one_line(failing, tmp_path):
    assert_one_line(failing("import os; os._exit(3)"), "bad.py")
    assert not (tmp_path / "bad.ipynb").exists()


def test_a_source_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError) as raised:
        execute(tmp_path / "none.py", tmp_path / "x.ipynb", tmp_path / "x.html", {})
    assert_one_line(raised.value, "none.py", "analysis/")
    assert not list(tmp_path.iterdir())
