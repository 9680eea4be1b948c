"""The preliminary overview: one page of the first seeds, in the place of the overview, and nothing else."""

import re
import shutil
from pathlib import Path

import pytest
from tiny import EXPERIMENT, assert_one_line, bntt_here, experiment

from bntt.common.errors import UserError
from bntt.common.files import read_sealed, write_sealed
from bntt.drawing.notebook import titles
from bntt.drawing.preliminary import OVERVIEW, executed, seeds
from bntt.drawing.records import is_current, read_record, remove_outdated, wants_preliminary, write_record
from bntt.results.collect import Results
from bntt.runs.status import found

DRAWINGS = [f"table{number}" for number in range(1, 4)] + [f"figure{number}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, trained):
    """Three seeds are planned; all of the first is there, and a part of the second."""
    root = tmp_path_factory.mktemp("preliminary")
    experiment(root, seeds=[0, 1, 2])
    shutil.copytree(trained / "tiny", root / "tiny", ignore=shutil.ignore_patterns("seed-2"))
    shutil.rmtree(root / "tiny/runs/digits/rmp/seed-1")
    ran = bntt_here("preliminary", "--experiment", root / "tiny.yaml", "--results", root)
    assert (ran.returncode, ran.stdout) == (0, f"{root}/tiny/overview.html\n"), ran.stderr
    return root


@pytest.fixture
def root(drawn, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(drawn, tmp_path / "results")


@pytest.fixture(scope="module")
def page(drawn):
    return (drawn / "tiny/overview.html").read_text()


def test_it_says_what_it_is(page):
    text = re.sub(r"\s+", " ", page)
    assert "PRELIMINARY: seed 0 of every row; still to come: 8 other runs" in text
    assert "the final overview, of all seeds, takes the place of this page" in text
    assert "/tiny/overview.html</code>: reload it then" in text
    assert "<title>Preliminary overview of the BNTT" in text


def test_it_has_every_table_and_figure_of_the_first_seed_alone(page):
    headings = re.findall(r"<h2[^>]*>([^<]*)", page)
    assert [title for title in headings if title in {*titles("table").values(), *titles("figure").values()}] == [
        *titles("table").values(), *titles("figure").values()
    ]  # fmt: skip
    assert len(re.findall("<h1", page)) == 1
    assert page.count('src="data:image/png;base64,') >= 2 * 6  # in the overview and alone
    assert "Search:" not in page and 'class="sortable"' in page
    (runs,) = re.findall(r"<h2[^>]*>Every run</h2>.*?</table>", page, re.DOTALL)
    assert len(re.findall("<tr>", runs)) == 1 + 4
    for gone in ("n = 2", "n = 3", "Traceback"):
        assert gone not in page, gone


def test_its_links_stay_on_it(page):
    links = re.findall(r'\bhref="([^"]*)"', page)
    assert {f"#{name}" for name in DRAWINGS} <= set(links)
    assert all(link.startswith("#") and f'id="{link[1:]}"' in page for link in links), links
    assert not re.search(r'\bsrc="(?!data:)', re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_nothing_else_is_written(drawn):
    files = {path.relative_to(drawn).as_posix() for path in drawn.rglob("*") if path.is_file()}
    assert {name for name in files if "/runs/" not in name and "/scratch/" not in name} == {
        "tiny.yaml",
        "tiny/overview.html",
        "tiny/notebooks/overview.json",
    }


def test_an_experiment_with_it_is_not_finished(drawn):
    ran = bntt_here("check", drawn / "tiny", "--experiment", drawn / "tiny.yaml")
    assert ran.returncode == 1
    assert f"[preliminary] {drawn}/tiny/overview.html shows the first seeds alone" in ran.stdout
    ran = bntt_here("archive", drawn / "tiny", drawn / "out.tar.zst", "--experiment", drawn / "tiny.yaml")
    assert ran.returncode == 2
    assert "is not finished" in ran.stderr


# -- when it is made ---------------------------------------------------------------------------------------------------


def test_it_is_not_made_before_the_first_seeds_are_there_nor_after_all_are(root, trained):
    options = ("--experiment", root / "tiny.yaml", "--results", root)
    shutil.rmtree(root / "tiny")
    shutil.copytree(trained / "tiny", root / "tiny")
    ran = bntt_here("preliminary", *options)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "every run has ended" in ran.stdout
    shutil.rmtree(root / "tiny/runs/digits/plain/seed-0")
    assert_one_line(bntt_here("preliminary", *options), "not measured yet: digits/plain/seed-0 (missing)")
    assert not (root / "tiny/overview.html").exists()


def test_it_does_not_replace_an_overview_that_came_while_it_was_drawn(root, trained, monkeypatch):
    """As a job may that waited long in a cluster's queue."""

    def draw(results, planned):
        shutil.copytree(trained / "tiny", root / "tiny", dirs_exist_ok=True)
        (root / "tiny/overview.html").write_text("the final one")
        return "the preliminary one"

    monkeypatch.setattr("bntt.commands.preliminary.draw", draw)
    ran = bntt_here("preliminary", "--experiment", root / "tiny.yaml", "--results", root)
    assert "every run has ended" in ran.stdout
    assert (root / "tiny/overview.html").read_text() == "the final one"


@pytest.mark.parametrize(
    ("change", "wanted", "kept"),
    [
        ("nothing", False, True),
        ("another seed is there", False, True),
        ("the page is gone", True, True),
        ("the record is gone", True, False),
        ("a first seed is measured again", True, False),
        ("a first seed is gone", True, False),
        ("a row is new", True, True),
        ("an overview of what is there", False, True),
        ("an overview of what is no more", True, False),
    ],
)
def test_it_is_made_again_or_removed(root, trained, change, wanted, kept):
    settings, folder = {"seeds": [0, 1, 2]}, root / "tiny"
    page, record, run = folder / "overview.html", folder / "notebooks/overview.json", folder / "runs/digits/plain"
    if change == "another seed is there":
        shutil.copytree(trained / "tiny/runs/digits/rmp/seed-1", folder / "runs/digits/rmp/seed-1")
    elif change == "the page is gone":
        page.unlink()
    elif change == "the record is gone":
        record.unlink()
    elif change == "a first seed is measured again":
        write_sealed(run / "seed-0/evaluate.json", read_sealed(run / "seed-0/evaluate.json") | {"seconds": 0})
    elif change == "a first seed is gone":
        shutil.rmtree(run / "seed-0")
    elif change == "a row is new":
        settings["rows"] = {**EXPERIMENT["rows"], "new": {"method": "ann"}}
    elif change.startswith("an overview"):
        write_record(record, OVERVIEW, "tiny", Results(experiment(root, **settings), root), [page])
        if change.endswith("no more"):
            shutil.rmtree(run / "seed-1")
    whole = experiment(root, **settings)
    runs = list(found(whole, root))
    assert wants_preliminary(folder, OVERVIEW, whole.first_seeds(), runs) == wanted
    assert not is_current(folder, OVERVIEW, whole, runs) or change == "an overview of what is there"
    remove_outdated(folder, [OVERVIEW], runs)
    assert page.exists() == (kept and change != "the page is gone")
    assert record.exists() == kept


def test_its_record_says_what_it_shows(drawn):
    record = read_record(drawn / "tiny", "overview")
    assert record["preliminary"] is True
    assert sorted(record["measured"]) == [f"digits/{row}/seed-0" for row in ("ann", "bntt", "plain", "rmp")]
    assert list(record["files"]) == ["overview.html"]


# -- how it is made ----------------------------------------------------------------------------------------------------


def test_seeds_in_words(tmp_path):
    rows = dict(EXPERIMENT["rows"])
    assert seeds(experiment(tmp_path, seeds=[3, 4]).first_seeds().runs) == "seed 3 of every row"
    rows["rmp"] = rows["rmp"] | {"seeds": [4]}
    assert seeds(experiment(tmp_path, seeds=[3, 4], rows=rows).first_seeds().runs) == (
        "seed 3 of bntt and plain, seeds 3 and 4 of ann and seed 4 of rmp"
    )


SOURCE = """# %% [markdown]
# # A title

# %% tags=["parameters"]
word = "default"

# %%
from IPython.display import Markdown, display
print(word, "personal" in globals())
display(Markdown("**one**"))
2 + 3

# %% tags=["files"]
open("a file", "w")
"""


def test_cells_are_executed_as_in_a_notebook_but_for_those_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.py").write_text(SOURCE)
    for word in ("first", "second"):  # nothing is left of the one before
        title, _, cell = executed(Path("one.py"), {"word": word}, str(tmp_path / "ipython"))
        assert title.source == "# A title"
        printed, shown, value = cell.outputs
        assert printed.text == f"{word} False\n"
        assert shown.data["text/markdown"] == "**one**"
        assert value.data["text/plain"] == "5"
        Path("one.py").write_text(SOURCE.replace("5\n", "personal = 5\n"))
    assert not Path("a file").exists()


def test_a_cell_that_fails_is_one_line(tmp_path):
    source = tmp_path / "bad.py"
    source.write_text("# %%\n1\n\n# %%\nraise ValueError('one\\ntwo')\n")
    with pytest.raises(UserError) as raised:
        executed(source, {}, str(tmp_path))
    assert_one_line(raised.value, "bad.py failed: cell 2: ValueError: one two")
