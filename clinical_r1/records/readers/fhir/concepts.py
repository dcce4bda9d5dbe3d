"""Codeable concepts and states, in all the forms that exports write them."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.records.values import is_placeholder


@cache
def terms(name: str) -> frozenset[str]:
    """One list of terms.yaml."""
    return frozenset(map(str, table()[name]))


@cache
def table() -> dict[str, Any]:
    """terms.yaml."""
    return yaml.safe_load(Path(__file__).with_name("terms.yaml").read_text(encoding="utf-8"))


@cache
def _tags() -> re.Pattern[str]:
    names = "|".join(map(re.escape, terms("disorder_tags") | terms("other_tags")))
    return re.compile(rf"\s*\(({names})\)\s*$", re.IGNORECASE)


def each(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list, or one object: exports write either."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield one


def codings(concept: Any) -> list[dict[str, Any]]:
    """Codings of a concept, of a list of concepts, of a Coding that stands for one, or of R5's `concept`."""
    found: list[dict[str, Any]] = []
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
        if isinstance(one.get("concept"), dict):
            one = one["concept"]
        names = [one.get("text"), *(coding.get("display") for coding in codings(one)), one.get("display")]
        for name in names:
            if isinstance(name, str) and (not is_placeholder(name) or name == "Na"):  # sodium
                return name.strip()
    return ""


def words(concept: Any) -> set[str]:
    """Codes, displays and texts of a state or category, in lower case, whatever form it is written in."""
    if isinstance(concept, str):
        return {concept.strip().casefold()}
    found: set[str] = set()
    for one in concept if isinstance(concept, list) else [concept]:
        if isinstance(one, str):
            found.add(one.strip().casefold())
        elif isinstance(one, dict):
            concept_of = one.get("concept")
            inner = concept_of if isinstance(concept_of, dict) else one
            values = [inner.get("text"), *(c.get(k) for c in codings(inner) for k in ("code", "display"))]
            found |= {str(value).strip().casefold() for value in values if value}
    return {re.sub(r"[\s_]+", "-", word) for word in found if word}


def tag(name: str) -> str:
    """SNOMED CT's semantic tag at the end of a name ("disorder"), "" for none."""
    match = _tags().search(name)
    return match[1].casefold() if match else ""


def without_tag(name: str) -> str:
    """The name without "(disorder)"."""
    return _tags().sub("", name).strip() if tag(name) in terms("disorder_tags") | {"finding"} else name.strip()
