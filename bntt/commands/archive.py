"""Pack a finished experiment as one file, with its plan, its provenance (RO-Crate) and checksums."""

import argparse
from pathlib import Path

from bntt.common.errors import UserError
from bntt.common.files import sha256
from bntt.common.text import MOST_NAMED, counted, listed
from bntt.drawing.records import damaged_drawings, is_preliminary
from bntt.experiment.schema import file_of
from bntt.results.collect import Results
from bntt.runs.archive import check_target, pack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, the archive, and the options."""
    parser.add_argument(
        "folder", type=Path, metavar="RESULTS", help="the results of an experiment, such as results/demo"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the archive to write, such as demo.tar.zst")
    parser.add_argument("--experiment", help="its experiment file, if that is not in config/")
    parser.add_argument(
        "--partial", action="store_true", help="also pack an experiment that is not finished; the archive says so"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that is there")


def run(parsed: argparse.Namespace) -> None:
    """Write the archive, and print what it holds."""
    results = Results.at(parsed.folder, parsed.experiment)
    check_target(parsed.out, results.folder, parsed.overwrite)
    plan = file_of(parsed.experiment or results.experiment.name).read_bytes()
    faults = [f"{one.run.name} ({one.status})" for one in results.runs if not one.status.ended]
    # Without the folder's path, because an archive names no folder of its maker.
    faults += [reason.replace(f"{results.folder}/", "") for reason in damaged_drawings(results.folder)]
    faults += ["overview.html (preliminary)"] if is_preliminary(results.folder) else []
    if faults and not parsed.partial:
        raise UserError(
            f"{parsed.folder} is not finished: {listed(faults, MOST_NAMED)}; `python -m bntt check` says "
            "what to do; --partial packs what is there"
        )
    packed = pack(results.experiment, plan, results.runs, results.folder, parsed.out, faults)
    size, files = parsed.out.stat().st_size, counted(packed.files, "file")
    print(f"{parsed.out}: {files} of {packed.size / 1e6:.1f} MB in {size / 1e6:.1f} MB, sha256 {sha256(parsed.out)}")
