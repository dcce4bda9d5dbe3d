"""The one exception that a user is meant to read, and the base of all models that wrong input meets."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict


class UserError(Exception):
    """Wrong input or environment: one sentence that names the thing, the place (file, line, key) and the fix.

    The command line prints it without a traceback and exits with code 2. Never put record text into it:
    name the file and the line instead.
    """


class Strict(BaseModel):
    """Base of configurations and records: unknown keys are refused, a typo is an error and not a silent loss."""

    model_config = ConfigDict(extra="forbid")


def near_miss(word: str, known: Iterable[str]) -> str:
    """The question whether one of the known words was meant; empty where none is close."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean '{close[0]}'?" if close else ""
