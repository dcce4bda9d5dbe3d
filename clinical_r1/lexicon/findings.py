"""Clinical findings by name, English and Chinese: find them in a text; tell asserted from denied or supposed ones."""

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from clinical_r1.atomic import read_table
from clinical_r1.text import has_han

TABLE = Path(__file__).parent / "findings.tsv"
_STANCES = read_table(Path(__file__).with_name("stances.yaml"))
_MEASURED = [(re.compile(pattern), keys) for pattern, keys in _STANCES.pop("measured")]
_RULE = {name: re.compile("|".join(alternatives)) for name, alternatives in _STANCES.items()}
_SENTENCE = re.compile(r"[^.;!?\n。；！？]+(?:\.(?=\d)[^.;!?\n。；！？]+)*")


class Finding(NamedTuple):
    """One group of names for the same finding."""

    key: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]
    broader: tuple[str, ...]


class Mention(NamedTuple):
    """A finding named in a text."""

    key: str
    text: str
    start: int
    stance: str
    """asserted | denied | supposed."""


@cache
def _rows() -> list[list[str]]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [[*line.split("\t"), "", ""][:3] for line in lines if line and not line.startswith("#")]


@cache
def findings() -> dict[str, Finding]:
    """The shipped lexicon by first English name."""
    table = {}
    for english, chinese, broader in _rows():
        if english != "!":
            names = english.split("|")
            implied = tuple(name for name in broader.split("|") if name)
            table[names[0]] = Finding(names[0], tuple(names), tuple(chinese.split("|")), implied)
    return table


@cache
def _pattern() -> tuple[re.Pattern[str], dict[str, str]]:
    names = {}
    for row in _rows():
        if row[0] == "!":
            names.update(dict.fromkeys((name.casefold() for name in "|".join(row[1:]).split("|") if name), ""))
    for key, finding in findings().items():
        for name in (*finding.english, *finding.chinese):
            names.setdefault(name.casefold(), key)
    ordered = sorted(names, key=len, reverse=True)
    english = "|".join(re.escape(name) for name in ordered if name.isascii()).replace("'", "['’]")
    chinese = "|".join(re.escape(name) for name in ordered if not name.isascii())
    return re.compile(rf"(?<![\w-])(?:{english})(?:s|es)?(?![\w])|(?:{chinese})", re.IGNORECASE), names


def mentions(text: str) -> list[Mention]:
    """All findings that a text names, in order, longest names first where they overlap."""
    pattern, names = _pattern()
    found = []
    for sentence in _SENTENCE.finditer(text):
        for match in pattern.finditer(sentence[0]):
            name = match[0].casefold().replace("’", "'")
            key = next((names[form] for form in (name, name[:-1], name[:-2]) if form in names), "")
            if key:
                before, after = sentence[0][: match.start()], sentence[0][match.end() :]
                found.append(Mention(key, match[0], sentence.start() + match.start(), stance(before, after)))
    return found


def stance(before: str, after: str) -> str:
    """asserted, denied or supposed, from the words of the sentence around a mention."""
    if _RULE["denied_after"].search(after):
        return "denied"
    if _RULE["supposed_after"].search(after):
        return "supposed"
    lowered = before.casefold()
    turns = [match.end() for match in _RULE["turn_zh" if has_han(before) else "turn_en"].finditer(lowered)]
    near = lowered[turns[-1] :] if turns else lowered
    if _RULE["denied"].search(near):
        return "denied"
    return "supposed" if _RULE["supposed"].search(near) else "asserted"


@lru_cache(maxsize=4096)
def supported(case_text: str) -> tuple[set[str], set[str]]:
    """Findings that a case has (with the broader ones they imply), and those that it only denies.

    A measured temperature, pulse or blood pressure lets the thought name fever, tachycardia and the like.
    """
    present: set[str] = set()
    denied: set[str] = set()
    for mention in mentions(case_text):
        (denied if mention.stance == "denied" else present).add(mention.key)
    present |= {key for pattern, keys in _MEASURED for key in keys if pattern.search(case_text)}
    implied = {broader for key in present for broader in findings()[key].broader}
    narrower = {key for key, finding in findings().items() if present & set(finding.broader)}
    return present | implied, denied - present - implied - narrower
