"""The one exception that means: the user can mend this, and the message says how."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


class Stopped(Exception):
    """Training stopped before its end, at a saved state; the same command goes on from there."""

    def __init__(self, reason: str, interrupted: bool) -> None:
        super().__init__(reason)
        self.interrupted = interrupted  # by the user, who does not want it to be started again
