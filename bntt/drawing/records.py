"""The record of a drawing: its notebook, the code, interpreter and measurements that it used, and what it drew.

The record is ``notebooks/<name>.json``, beside the executed notebook. It holds the hash of every file, so a table or a
figure that was changed later, or that was drawn from other measurements, is detected.
"""

from pathlib import Path
from typing import Any

from bntt.common.errors import UserError
from bntt.common.files import read_sealed, sha256, write_sealed
from bntt.experiment import code_hash
from bntt.results.collect import Results
from bntt.runs import provenance


def write_record(path: Path, source: Path, experiment: str, results: Results, outputs: list[Path]) -> None:
    """Write to ``path`` the record of a drawing just made from ``results``, with the files drawn in their folder."""
    folder = results.folder
    measured = {
        one.run.name: sha256(one.directory.evaluate_json)
        for one in results.runs
        if one.status.ended and one.directory.evaluate_json.is_file()
    }
    drawn = sorted(path for kind in ("tables", "figures") for path in (folder / kind).glob(f"{source.stem}.*"))
    files = [*drawn, *(one for one in outputs if one.resolve().is_relative_to(folder.resolve()))]
    document = {
        "source": source.as_posix(),
        "source_sha256": sha256(source),
        "experiment": experiment,
        "code": code_hash.drawing_code(),
        **provenance.source(),
        "interpreter": provenance.interpreter(),  # also of the notebook
        "drawn": provenance.now(),
        "measured": measured,
        "files": {one.resolve().relative_to(folder.resolve()).as_posix(): sha256(one) for one in files},
    }
    write_sealed(path, document)


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """The record of a table, a figure or the overview; raises UserError if it is missing or damaged."""
    path = folder / "notebooks" / f"{name}.json"
    try:
        record = read_sealed(path)
        if not isinstance(record["files"], dict) or not isinstance(record["measured"], dict):
            raise ValueError
    except FileNotFoundError:
        raise UserError(f"{path} is missing; draw {name} again, by Snakemake or `python -m bntt notebook`") from None
    except (ValueError, KeyError):
        raise UserError(f"{path} is damaged; draw {name} again") from None
    return record


def vouched(folder: Path, record: dict[str, Any], file: str) -> Path:
    """The path of a drawn file; raises UserError if the file is missing or was changed."""
    path = folder / file
    if file not in record["files"] or not path.is_file() or sha256(path) != record["files"][file]:
        raise UserError(f"{path} is missing or was changed since it was drawn; draw {Path(file).stem} again")
    return path


def damaged_drawings(folder: Path) -> list[str]:
    """One message for each damaged drawing in a results folder, of those that have a record; empty if there is none."""
    faults = []
    for path in sorted((folder / "notebooks").glob("*.json")):
        try:
            record = read_record(folder, path.stem)
            for file in record["files"]:
                vouched(folder, record, file)
        except UserError as error:
            faults.append(str(error))
    return faults
