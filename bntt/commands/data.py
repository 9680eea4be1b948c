"""List, prepare, verify or show datasets."""

import argparse
import sys
from pathlib import Path

from bntt.common.errors import UserError, check_name
from bntt.data import store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and the dataset."""
    parser.add_argument(
        "action",
        choices=["list", "prepare", "verify", "show"],
        help="list all; or of one: download and prepare its arrays, verify them, or draw a contact sheet",
    )
    parser.add_argument("name", nargs="?", help="dataset, for all actions except list")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="folder that holds the data; nothing is downloaded"
    )
    parser.add_argument("--out", type=Path, metavar="PNG", help="where show writes its picture; by default NAME.png")


def run(parsed: argparse.Namespace) -> None:
    """Do the action, and print what was done."""
    if parsed.action == "list":
        for name in store.names():
            prepared = "prepared" if store.manifest_path(name).is_file() else "not prepared"
            print(f"{name:20} {prepared:13} {store.facts(name)['title']}")
        return
    if parsed.name is None:
        raise UserError(f"data {parsed.action} needs the name of a dataset; there are {', '.join(store.names())}")
    check_name("dataset", parsed.name, store.names(), f"data {parsed.action}")
    if parsed.action == "prepare":
        if parsed.source is not None and not parsed.source.is_dir():
            raise UserError(f"--from {parsed.source}: there is no such folder")
        there = store.is_current(parsed.name)
        print(store.prepare(parsed.name, parsed.source))
        if there and parsed.source is not None:
            state, place = store.manifest(parsed.name)["state"], store.folder(parsed.name)
            print(f"already prepared, in state {state}; delete {place} first to prepare it again", file=sys.stderr)
    elif parsed.action == "show":
        from bntt.data.sheet import contact_sheet

        print(contact_sheet(parsed.name, parsed.out or Path(f"{parsed.name}.png")))
    else:
        found = store.verify(parsed.name)
        content = found["content_sha256"][:16]
        print(f"{parsed.name}: {len(found['files'])} files are whole; state {found['state']}, content {content}")
