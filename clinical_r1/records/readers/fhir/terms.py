"""FHIR's words in all the forms that exports write: objects and lists of them, texts, concepts, states; terms.yaml."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.records.values import is_placeholder

Resource = dict[str, Any]


@cache
def table() -> dict[str, Any]:
    """terms.yaml."""
    return read_table(Path(__file__).with_name("terms.yaml"))


@cache
def terms(name: str) -> frozenset[str]:
    """One list of terms.yaml."""
    return frozenset(map(str, table()[name]))


@cache
def _tags() -> re.Pattern[str]:
    names = "|".join(map(re.escape, terms("disorder_tags") | terms("other_tags")))
    return re.compile(rf"\s*\(({names})\)\s*$", re.IGNORECASE)


def tag(name: str) -> str:
    """SNOMED CT's semantic tag at the end of a name ("disorder"), "" for none."""
    match = _tags().search(name)
    return match[1].casefold() if match else ""


def without_tag(name: str) -> str:
    """The name without "(disorder)"."""
    return _tags().sub("", name).strip() if tag(name) in terms("disorder_tags") | {"finding"} else name.strip()


def each(value: Any) -> Iterator[Resource]:
    """The objects of a list, or one object: exports write either."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield one


def texts(value: Any) -> list[str]:
    """The texts of a list, or the one text."""
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one]


def codings(concept: Any) -> list[Resource]:
    """Codings of a concept, of a list of concepts, of a Coding that stands for one, or of R5's `concept`."""
    found: list[Resource] = []
    for one in each(concept):
        if isinstance(one.get("concept"), dict):
            found += codings(one["concept"])
        elif "coding" in one:
            found += each(one["coding"])
        elif "code" in one and not isinstance(one["code"], dict):
            found.append(one)
    return found


def concept_text(concept: Any) -> str:
    """What a concept is called: its text, else a display, else "" (a bare code tells a reader nothing)."""
    for one in each(concept):
        one = one["concept"] if isinstance(one.get("concept"), dict) else one
        for name in (one.get("text"), *(coding.get("display") for coding in codings(one)), one.get("display")):
            if isinstance(name, str) and (not is_placeholder(name) or name == "Na"):  # sodium
                return name.strip()
    return ""


def words(concept: Any) -> set[str]:
    """Codes, displays and texts of a state or category, in lower case, whatever form it is written in."""
    if isinstance(concept, str):
        return {concept.strip().casefold()}
    said: list[Any] = []
    for one in concept if isinstance(concept, list) else [concept]:
        if isinstance(one, str):
            said.append(one)
        elif isinstance(one, dict):
            inner = one["concept"] if isinstance(one.get("concept"), dict) else one
            said += [inner.get("text"), *(c.get(key) for c in codings(inner) for key in ("code", "display"))]
    folded = (str(word).strip().casefold() for word in said if word)
    return {re.sub(r"[\s_]+", "-", word) for word in folded if word}
