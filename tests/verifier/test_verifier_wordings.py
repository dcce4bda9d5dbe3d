"""The tables of wordings: what they say they match, they match; nothing in them is unused."""

import re
from pathlib import Path

import pytest
import yaml

from clinical_r1 import verifier
from clinical_r1.lexicon import wordings

ROOM = Path(verifier.__file__).parent
ROWS = {
    ROOM / name: yaml.safe_load((ROOM / name).read_text(encoding="utf-8"))
    for name in ("wordings.yaml", "choice.yaml", "replies.yaml")
}


@pytest.mark.parametrize(
    ("table", "name", "text"),
    [
        (path, name, text)
        for path, rows in ROWS.items()
        for name, row in rows.items()
        for text in row.get("matches", ())
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_a_rule_matches_its_examples(table: Path, name: str, text: str) -> None:
    assert wordings(table)[name].search(text)


@pytest.mark.parametrize("table", ROWS, ids=lambda path: path.stem)
def test_every_rule_is_used_and_says_what_for(table: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in ROOM.glob("*.py"))
    named = " ".join(re.findall(r"(?:for \w+ in|kinds =) \(([^)]*)\)", code))
    asked = {*re.findall(r'RULE\["(\w+)"\]', code), *re.findall(r'"(\w+)"', named)} & ROWS[table].keys()
    held = set(re.findall(r"@(\w+)@", table.read_text(encoding="utf-8")))
    assert ROWS[table].keys() <= asked | held
    assert all(ROWS[table][name].get("why") for name in asked)
