"""The package's own environment variables; docs/architecture.md lists them, and the standard ones that it reads."""

import os
from pathlib import Path

from bntt.common.errors import UserError, unknown

PREFIX, KNOWN = "BNTT_", ("BNTT_DATA", "BNTT_KERNELS")


def data_folder() -> Path:
    """``BNTT_DATA``, the folder of prepared data and downloads; by default, or if it is empty, ``data``."""
    given = os.environ.get("BNTT_DATA") or "data"
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise UserError(f"BNTT_DATA is {given}: there is no such user; set it to a folder") from None


def plain_kernels() -> bool:
    """Whether ``BNTT_KERNELS`` turns the fused kernels off; raises UserError for a value that it cannot have."""
    given = os.environ.get("BNTT_KERNELS", "")
    if given not in ("", "plain"):
        raise UserError(f"BNTT_KERNELS is {given!r}: set it to 'plain' to turn the fused kernels off, or unset it")
    return given == "plain"


def check() -> None:
    """Raise UserError if a variable has a value that it cannot have, or if there is no such variable."""
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in KNOWN:
            raise UserError(unknown("environment variable", name, KNOWN))
    data_folder()
    plain_kernels()
