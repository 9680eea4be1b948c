"""Executes a notebook source of ``analysis/`` with papermill and renders it as a page that needs no network.

The page is plain HTML with a small style of its own: outputs and text, no code, no script. The executed notebook keeps
the code and is what one opens in JupyterLab.
"""

import html
import os
import re
from pathlib import Path

from bntt.common.errors import UserError
from bntt.common.files import write_atomically
from bntt.runs.provenance import ROOT

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 "Source Serif 4", Charter, Georgia, serif; color: #1d1f23; background: #fdfdfb;
  max-width: 62rem; margin: 2.5rem auto 5rem; padding: 0 1.25rem; }
h1, h2, h3 { font-family: "Source Sans 3", "Helvetica Neue", Arial, sans-serif; line-height: 1.2; font-weight: 600; }
h1 { font-size: 1.9rem; } h2 { font-size: 1.3rem; margin-top: 2.4rem; } h3 { font-size: 1.05rem; }
a { color: #14507d; } img, svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font: 14px/1.4 "Source Sans 3", "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; margin: 1rem 0; border: 0; }
th, td { padding: .3rem .7rem .3rem 0; border: 0; border-bottom: 1px solid #e4e2dc; text-align: left;
  vertical-align: top; }
thead th { border-bottom: 1.5px solid #55585f; font-weight: 600; }
pre { font: 13px/1.45 "Source Code Pro", Menlo, Consolas, monospace; white-space: pre-wrap; }
.jp-Cell, .output, .cell { overflow-x: auto; } .anchor-link, .jp-InputPrompt, .prompt { display: none; }
"""


def at_root() -> None:
    """Make the repository's root the working folder, wherever a notebook was opened, so that its paths are alike."""
    os.chdir(ROOT)


def execute(source: Path, notebook: Path, page: Path, parameters: dict[str, str]) -> None:
    """Run ``source`` (jupytext percent format) into ``notebook`` and ``page``; both appear whole or not at all.

    A cell that fails is the user's to see: the notebook as far as it came is kept beside its place, with the suffix
    ``.failed.ipynb``, and the error names it.
    """
    import jupytext
    import papermill
    from nbclient.exceptions import DeadKernelError

    if not source.is_file():
        raise UserError(f"no notebook source {source}; they lie in analysis/")
    document = jupytext.read(source)
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    failed = notebook.with_suffix(".failed.ipynb")

    def run(beside: Path) -> None:
        prepared = beside.with_suffix(".source.ipynb")
        executed = beside.with_suffix(".executed.ipynb")
        jupytext.write(document, prepared, fmt="ipynb")
        try:
            papermill.execute_notebook(
                str(prepared), str(executed), parameters, kernel_name="python3", start_timeout=300,
                progress_bar=False, cwd=str(Path.cwd()),
            )  # fmt: skip
            executed.replace(beside)
        except (papermill.PapermillExecutionError, DeadKernelError) as error:
            if executed.exists():
                executed.replace(failed)
            reason = str(error)
            if isinstance(error, papermill.PapermillExecutionError):
                reason = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
            reason = " ".join(reason.split())
            raise UserError(f"{source} failed: {reason}; what was executed is in {failed}") from None
        finally:
            prepared.unlink(missing_ok=True)
            executed.unlink(missing_ok=True)

    write_atomically(notebook, run)
    failed.unlink(missing_ok=True)
    write_atomically(page, lambda beside: beside.write_text(render(notebook, source.stem), encoding="utf-8"))


def render(notebook: Path, name: str) -> str:
    """An executed notebook as one self-contained page without code and without scripts."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_anchor_links=True)
    body, _ = exporter.from_filename(str(notebook))
    body = re.sub(r"<(script|style|iframe)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r"\bsrc\s*=\s*(?:\"(?:https?:)?//[^\"]*\"|'(?:https?:)?//[^']*')", "", body)  # would be fetched
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, flags=re.DOTALL)
    title = html.escape(html.unescape(re.sub(r"<[^>]+>", "", heading.group(1)))) if heading else name
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
