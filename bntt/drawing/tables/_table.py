"""A table and the files it is written to: csv, Markdown and LaTeX, and HTML for a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from bntt.common.files import write_atomically
from bntt.drawing import page


@dataclass(frozen=True)
class Table:
    """A table: ``data``, plain numbers for the csv file; ``sections`` by heading, texts as readers see them; notes.

    Readers of a page can sort and search the sections that ``order`` names. It holds the numbers behind their texts:
    lines as in the section, and the columns that have numbers.
    """

    name: str
    title: str
    data: pd.DataFrame
    sections: Mapping[str, pd.DataFrame]
    notes: Sequence[str]
    order: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def write(table: Table, folder: str | Path) -> list[Path]:
    """Write a table as csv, md and tex under ``folder``; returns the paths."""
    contents = {"csv": table.data.to_csv(index=False), "md": to_markdown(table), "tex": to_latex(table)}
    paths = {Path(folder) / f"{table.name}.{suffix}": content for suffix, content in contents.items()}
    for path, content in paths.items():
        write_atomically(path, partial(Path.write_text, data=content, encoding="utf-8"))
    return list(paths)


def to_html(table: Table) -> Markup:
    """The table for a notebook: its sections, each with its heading, and the notes below."""
    sections = {heading: frame for heading, frame in table.sections.items() if len(frame)}
    parts = [(heading, page.table(frame, order=table.order.get(heading))) for heading, frame in sections.items()]
    return page.piece("sections", parts, table.notes)


def to_markdown(table: Table) -> str:
    """The table in Markdown, its notes below."""
    parts = [f"# {table.title}"]
    for heading, frame in table.sections.items():
        if frame.empty:
            continue
        lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
        cells = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
        parts += [*([f"## {heading}"] if heading else []), "\n".join(cells)]
    return "\n\n".join([*parts, *(f"* {note}" for note in table.notes)]) + "\n"


WIDE = 8  # columns, more than which LaTeX scales to the width of the text
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "–": "--",
    "∞": r"$\infty$",
})  # fmt: skip


def latex_escape(text: object) -> str:
    """Text with LaTeX's special characters, and the signs that these tables use, escaped."""
    return str(text).translate(_LATEX)


def to_latex(table: Table) -> str:
    """The table for LaTeX with booktabs: one ``table`` per section, no wider than the text; notes below the first."""
    parts = ["% needs \\usepackage{booktabs,graphicx}\n"]
    for heading, frame in table.sections.items():
        if frame.empty:
            continue
        caption = latex_escape(table.title + (f": {heading[0].lower()}{heading[1:]}" if heading else ""))
        escaped = frame.map(latex_escape).rename(columns=latex_escape)
        text = escaped.to_latex(index=False, escape=False, caption=caption, column_format="l" * len(frame.columns))
        if len(frame.columns) > WIDE:
            text = text.replace("\\begin{tabular}", "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}")
            text = text.replace("\\end{tabular}", "\\end{tabular}}")
        notes = "".join(f"\\par {latex_escape(note)}\n" for note in table.notes)
        if len(parts) == 1:
            text = text.replace("\\end{table}", f"\\par\\footnotesize\n{notes}\\end{{table}}")
        parts.append(text)
    return "".join(parts)
