"""The preliminary overview: one page with all tables and figures of the first seeds, while the others still train.

It is drawn from the notebooks' sources, as the final pages are, but in this process and into one page, which takes
seconds. It stands in the place of the overview and is replaced by it. No other file is written, so that nothing which
looks final is preliminary.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jupytext
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from markupsafe import Markup
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook, new_output
from traitlets.config import Config

from bntt.common.errors import UserError
from bntt.common.text import counted, listed
from bntt.drawing import page as pages
from bntt.drawing.figures import style
from bntt.drawing.notebook import ANALYSIS, body_of, text_of, titles
from bntt.drawing.records import STUDY, is_study
from bntt.experiment.schema import Run
from bntt.results.collect import Results

OVERVIEW = ANALYSIS / "overview.py"
OF_FILES = "files"  # tag of the cells that name files, which this page does not have


def draw(results: Results, planned: int) -> str:
    """The page of ``results``, which hold the first seeds alone, of an experiment with ``planned`` runs.

    Raises UserError, which names the notebook and its cell, if one fails.
    """
    study = {STUDY: "What makes the wave"} if is_study(results.experiment) else {}
    contents = study | titles("table") | titles("figure")
    with tempfile.TemporaryDirectory(prefix="bntt-preliminary-") as folder, style.png_alone():
        parameters = {"experiment": results, "results": str(results.root), "output": folder}
        drawn = {name: executed(ANALYSIS / f"{name}.py", parameters, folder) for name in contents}
        cells = executed(OVERVIEW, parameters, folder)  # it shows the figures
    for name, of_drawing in drawn.items():
        for cell in of_drawing:
            if cell.cell_type == "markdown":
                cell.source = re.sub("^#", "##", cell.source, flags=re.MULTILINE)
        cells += [new_markdown_cell(f'<a id="{name}"></a>'), *of_drawing]

    def link(found: re.Match[str]) -> str:
        name = Path(found[1]).stem
        return f'href="#{name}"' if name in contents else ""

    body = re.sub(r'href="(?!#|\w+:)([^"]*)"', link, body_of(new_notebook(cells=cells)))
    banner = pages.piece(
        "preliminary",
        seeds(results.experiment.runs),
        counted(planned - len(results.runs), "other run"),
        results.folder / "overview.html",
        contents,
    )
    return pages.whole("Preliminary overview of the BNTT reproducibility benchmark", Markup(banner) + Markup(body))


def seeds(runs: Sequence[Run]) -> str:
    """The seeds of runs for a reader: ``seed 0 of every row``; rows with others are named."""
    of_rows: dict[str, list[int]] = {}
    for run in runs:
        of_rows.setdefault(run.row, [])
        if run.seed not in of_rows[run.row]:
            of_rows[run.row].append(run.seed)
    rows: dict[str, list[str]] = {}
    for row, own in of_rows.items():
        rows.setdefault(f"{'seed' if len(own) == 1 else 'seeds'} {listed([str(seed) for seed in own])}", []).append(row)
    if len(rows) == 1:
        return f"{next(iter(rows))} of every row"
    return listed([f"{which} of {listed(names)}" for which, names in rows.items()])


class _Shell(InteractiveShell):
    def init_virtualenv(self) -> None:
        """Stay in this interpreter's environment."""


def executed(source: Path, parameters: Mapping[str, object], folder: str) -> list[NotebookNode]:
    """The cells of a notebook source, except those of files, executed in this process without a user's settings.

    ``folder`` is for what IPython writes. Raises UserError, which names the cell, if one fails.
    """
    shell = _Shell.instance(config=Config(HistoryManager={"enabled": False}), ipython_dir=folder)
    try:
        return list(_run(shell, source, parameters))
    finally:
        shell.restore_sys_module_state()
        _Shell.clear_instance()


def _run(shell: InteractiveShell, source: Path, parameters: Mapping[str, object]) -> Iterator[NotebookNode]:
    for number, cell in enumerate(jupytext.reads(text_of(source), fmt="py").cells, start=1):
        tags = cell.metadata.get("tags", ())
        if OF_FILES in tags:
            continue
        if cell.cell_type == "code":
            with shell.display_trap, capture_output() as captured:
                result = shell.run_cell(cell.source)
            if (error := result.error_before_exec or result.error_in_exec) is not None:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"{source} failed: cell {number}: {reason}") from error
            if "parameters" in tags:
                shell.push(dict(parameters))
            printed = [new_output("stream", text=captured.stdout)] if captured.stdout else []
            shown = [new_output("display_data", data=one.data, metadata=one.metadata or {}) for one in captured.outputs]
            cell.outputs = printed + shown
        yield cell
