"""List, prepare, verify or show datasets."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from bntt.common.errors import UserError, check_name
from bntt.data import store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and the dataset."""
    parser.add_argument(
        "action",
        choices=["list", "prepare", "verify", "show"],
        help="list all; or of one: download and prepare its arrays, verify them, or draw a contact sheet",
    )
    parser.add_argument("name", nargs="?", help="dataset; list shows all of them if none is named")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="for prepare: the publisher's archive, or a folder that holds it or its files; nothing is downloaded",
    )
    parser.add_argument("--out", type=Path, metavar="PNG", help="for show: its picture; by default NAME.png")


def run(parsed: argparse.Namespace) -> None:
    """Do the action, and print what was done."""
    for option, given, action in (("--from", parsed.source, "prepare"), ("--out", parsed.out, "show")):
        if given is not None and parsed.action != action:
            raise UserError(f"data {parsed.action} takes no {option}; only data {action} does")
    if parsed.name is not None:
        check_name("dataset", parsed.name, store.names(), f"data {parsed.action}")
    elif parsed.action != "list":
        raise UserError(f"data {parsed.action} needs the name of a dataset; there are {', '.join(store.names())}")
    if parsed.action == "list":
        for name in store.names() if parsed.name is None else [parsed.name]:
            _list(name)
        return
    if parsed.action == "prepare":
        if parsed.source is not None and not parsed.source.exists():
            raise UserError(f"--from {parsed.source}: there is no such folder or file")
        there = store.is_current(parsed.name)
        print(store.prepare(parsed.name, parsed.source))
        if there:
            found = store.manifest(parsed.name)
            if parsed.source is not None:
                place = store.folder(parsed.name)
                told = f"already prepared, in state {found['state']}; delete {place} first to prepare it again"
                print(told, file=sys.stderr)
            _remark(found)
    elif parsed.action == "show":
        from bntt.data.sheet import contact_sheet

        out, shown = contact_sheet(parsed.name, parsed.out or Path(f"{parsed.name}.png"))
        print(out)
        print(f"{parsed.name}: {shown}", file=sys.stderr)
        _remark(store.manifest(parsed.name))
    else:
        found = store.verify(parsed.name)
        content, images = found["content_sha256"][:16], store.counts(found)
        print(
            f"{parsed.name}: {len(found['files'])} files are whole; {images}; state {found['state']}, content {content}"
        )
        _remark(found)


def _list(name: str) -> None:
    """One line of ``data list``, and below it what a user must know of the prepared data."""
    found = None
    if not store.manifest_path(name).is_file():
        status = "not prepared"
    else:
        with contextlib.suppress(UserError):
            found = store.manifest(name)
        status = "damaged" if found is None else "prepared" if store.is_current(name) else "outdated"
    state, images = ("", "") if found is None else (found["state"], store.counts(found))
    print(f"{name:30} {status:13} {state:8} {images:38} {store.facts(name)['title']}")
    for remark in [] if found is None else store.remarks(found):
        print(f"{'':30} {remark}")


def _remark(found: dict[str, Any]) -> None:
    for remark in store.remarks(found):
        print(f"{found['dataset']}: {remark}", file=sys.stderr)
