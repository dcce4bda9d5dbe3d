"""The one exception that a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Wrong input or environment: one sentence that names the thing, the place (file, line, key) and the fix.

    The command line prints it without a traceback and exits with code 2. Never put record text into it:
    name the file and the line instead.
    """


def near_miss(word: str, known: Iterable[str]) -> str:
    """The question whether one of the known words was meant; empty where none is close."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean '{close[0]}'?" if close else ""
