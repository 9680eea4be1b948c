"""The one exception that means: the user can mend this, and the message says how."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """
