"""What several rooms read: clinical findings by name, traditional characters as simplified; and the form in which rooms
keep patterns as data."""

import re
from functools import cache
from pathlib import Path

from clinical_r1.atomic import read_table


@cache
def simplified() -> dict[int, str]:
    """traditional.tsv as a table for `str.translate`: one character for one, so that places in a text stay."""
    lines = Path(__file__).with_name("traditional.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    return {ord(old): new for new, olds in pairs for old in olds}


def held(pattern: str, parts: dict[str, str]) -> str:
    """The pattern with the parts that it names as `@name@`."""
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], pattern)


@cache
def wordings(table: Path, languages: tuple[str, ...] = ("en", "zh")) -> dict[str, re.Pattern[str]]:
    """Rules by name, compiled, those that have a form in one of the languages: `rule["strong"].search(sentence)`. What
    each is for stands in the table. One that names another holds it; only rules above it can be named."""
    parts: dict[str, str] = {}
    for name, rule in read_table(table).items():
        kinds = [rf"\b(?:{'|'.join(rule['words'])})\b"] if "words" in rule else []
        kinds += [kind for language in languages for kind in rule.get(language, ())]
        if kinds:
            parts[name] = held(kinds[0] if len(kinds) == 1 else f"(?:{'|'.join(kinds)})", parts)
    return {name: re.compile(pattern, re.IGNORECASE) for name, pattern in parts.items()}
