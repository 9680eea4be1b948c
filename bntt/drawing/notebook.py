"""Executes a notebook source of ``analysis/`` with papermill and renders it as a page that needs no network.

The notebook runs in the interpreter that runs this module, without the user's settings of IPython, Jupyter, matplotlib
and Python: they would change what is drawn.

The page is plain HTML with its own small style sheet. It shows outputs and text, without code. No script of an output
runs; if a table can be sorted, the page has the one that sorts it. The executed notebook keeps the code; open it in
JupyterLab.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bntt.common.errors import UserError
from bntt.common.files import write_atomically
from bntt.drawing import page as pages
from bntt.experiment.declared import is_source
from bntt.results.collect import Results
from bntt.runs.provenance import ROOT

if TYPE_CHECKING:
    from nbformat import NotebookNode

ANALYSIS = ROOT / "analysis"


def at_working_folder(results: str) -> None:
    """Make the folder that holds ``results`` the working folder, if the notebook was opened where it lies.

    JupyterLab opens a source in ``analysis/``, and an executed notebook in ``<results>/<experiment>/notebooks/``.
    """
    here, places = Path.cwd(), Path(results).parts
    if here == ANALYSIS:
        os.chdir(ROOT)
    elif here.name == "notebooks" and here.parts[-2 - len(places) : -2] == places:
        os.chdir(here.parents[1 + len(places)])


def opened(experiment: str | Results, results: str) -> Results:
    """The results that a notebook draws, wherever the notebook was opened: of an experiment, or those given.

    Raises UserError, which says what to run, if no run of the experiment has a result. So no empty drawing replaces an
    earlier one.
    """
    at_working_folder(results)
    found = Results.of(experiment, results) if isinstance(experiment, str) else experiment
    if not any(one.training for one in found.runs):
        raise UserError(
            f"{found.folder} has no result to draw; make some first: "
            f"snakemake --cores 8 all --config experiment={experiment} results={results}"
        )
    return found


def titles(kind: str) -> dict[str, str]:
    """The name and the heading of each notebook of a kind, ``figure`` or ``table``, found by file names."""
    found = sorted(path for path in ANALYSIS.glob(f"{kind}*.py") if is_source(path, ANALYSIS) and path.is_file())
    sources = {source.stem: text_of(source) for source in found}
    return {name: text.partition("\n# # ")[2].partition("\n")[0] for name, text in sources.items()}


def execute(source: Path, notebook: Path, page: Path, parameters: dict[str, str]) -> None:
    """Run ``source`` (jupytext percent format) into ``notebook`` and ``page``; both appear whole or not at all.

    If a cell fails, the notebook up to that cell is kept beside ``notebook``, with suffix ``.failed.ipynb``, and the
    UserError names it. If a cell raises UserError, no notebook is kept, and its message is passed on.

    A kernel that dies before its first cell is started once more: between the choice of its ports and their use, a
    notebook that starts at the same time can take one of them.
    """
    import jupytext
    import papermill
    from nbclient.exceptions import DeadKernelError

    if not source.is_file():
        raise UserError(f"no notebook source {source}; they lie in analysis/")
    document = jupytext.reads(text_of(source), fmt="py")
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    failed = notebook.with_suffix(".failed.ipynb")

    def run(beside: Path) -> None:
        prepared = beside.with_suffix(".source.ipynb")
        executed = beside.with_suffix(".executed.ipynb")
        jupytext.write(document, prepared, fmt="ipynb")

        def start() -> None:
            with tempfile.TemporaryDirectory(prefix="bntt-notebook-") as settings:
                papermill.execute_notebook(
                    str(prepared), str(executed), parameters, kernel_name="python3", start_timeout=300,
                    progress_bar=False, cwd=str(Path.cwd()), kernel_manager_class=_own_kernel(settings),
                )  # fmt: skip

        try:
            try:
                start()
            except DeadKernelError:
                raise
            except RuntimeError as error:  # jupyter_client's, of a kernel that never answered
                print(f"{source}: {error}; starting a kernel once more", file=sys.stderr)
                start()
            executed.replace(beside)
        except (papermill.PapermillExecutionError, RuntimeError) as error:
            reason = str(error)
            if isinstance(error, papermill.PapermillExecutionError):
                if error.ename == UserError.__name__:  # its message says what to do
                    raise UserError(f"{source}: {error.evalue}") from None
                reason = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
            reason = " ".join(reason.split())
            if executed.exists():
                executed.replace(failed)
            raise UserError(f"{source} failed: {reason}; what was executed is in {failed}") from None
        finally:
            prepared.unlink(missing_ok=True)
            executed.unlink(missing_ok=True)

    write_atomically(notebook, run)
    failed.unlink(missing_ok=True)
    write_atomically(page, lambda beside: beside.write_text(render(notebook, source.stem), encoding="utf-8"))


def text_of(source: Path) -> str:
    """The text of a notebook source; raises UserError if it is not in UTF-8."""
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{source} is not in UTF-8; save it so") from None


def _own_kernel(settings: str) -> Any:
    """A kernel manager class that starts this interpreter, whichever kernels are installed.

    The kernel finds no settings of the user's: IPython looks for them in ``settings``, an empty folder. A
    ``matplotlibrc`` in the working folder is still read; `bntt.drawing.figures.style` undoes it.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
            env={
                "IPYTHONDIR": settings,
                "MATPLOTLIBRC": os.devnull,
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # ipykernel's default
                "PYTHONSTARTUP": "",
                # The kernel imports the package that starts it. The first place is empty, because ipykernel removes it
                # from the path where it is the working folder, as a checkout is.
                "PYTHONPATH": os.pathsep.join(filter(None, [settings, str(ROOT), os.environ.get("PYTHONPATH")])),
            },
            metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}},
        )

    return OwnKernel


def render(notebook: Path, name: str) -> str:
    """An executed notebook as one self-contained page without code and without its scripts."""
    import nbformat

    body = body_of(nbformat.read(notebook, as_version=4))
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, flags=re.DOTALL)
    return pages.whole(Markup(heading.group(1)).striptags() if heading else name, Markup(body))


def body_of(notebook: "NotebookNode") -> str:
    """The body of an executed notebook's page: HTML without code and without its scripts."""
    from jupyter_core.paths import ENV_JUPYTER_PATH, SYSTEM_JUPYTER_PATH, jupyter_path
    from nbconvert import HTMLExporter

    class Exporter(HTMLExporter):
        def get_prefix_root_dirs(self) -> list[str]:
            """Where templates are looked for: the interpreter's own come before the user's of the same name."""
            return [*ENV_JUPYTER_PATH, *SYSTEM_JUPYTER_PATH, *jupyter_path()]

    exporter: Any = Exporter
    exporter = exporter(
        template_name="basic", exclude_input=True, exclude_anchor_links=True, extra_template_basedirs=[]
    )
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r"<(script|style|iframe)\b.*?</\1>", "", body, flags=re.DOTALL)
    return re.sub(r"\bsrc\s*=\s*(?:\"(?:https?:)?//[^\"]*\"|'(?:https?:)?//[^']*')", "", body)  # it would be fetched
