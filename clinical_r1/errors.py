"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Wrong input or environment: one sentence that names the thing, the place (file, line, key) and the fix.

    The command line prints it without a traceback and exits with code 2. Never put record text into it:
    name the file and the line instead.
    """
