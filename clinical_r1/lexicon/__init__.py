"""Words and characters that several rooms read: clinical findings by name, traditional characters as simplified."""

from functools import cache
from pathlib import Path


@cache
def simplified() -> dict[int, str]:
    """traditional.tsv as a table for `str.translate`: one character for one, so that places in a text stay."""
    lines = Path(__file__).with_name("traditional.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    return {ord(old): new for new, olds in pairs for old in olds}
