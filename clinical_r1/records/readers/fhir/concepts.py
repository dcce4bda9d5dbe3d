"""Codeable concepts and states, in all the forms that exports write them."""

import re
from collections.abc import Iterator
from typing import Any

from clinical_r1.records.values import is_placeholder

_TAG = re.compile(r"\s*\((disorder|finding|morphologic abnormality|situation|event|procedure|person|observable entity|"
                  r"regime/therapy|context-dependent category|qualifier value|social concept|occupation|substance|"
                  r"product|medicinal product|clinical drug|body structure|record artifact)\)\s*$", re.IGNORECASE)  # fmt: skip
_DROPPED_TAGS = ("disorder", "finding", "morphologic abnormality")


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
            found += [coding for coding in each(one["coding"])]
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
            if isinstance(name, str) and not is_placeholder(name):
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
            inner = one.get("concept") if isinstance(one.get("concept"), dict) else one
            values = [inner.get("text"), *(c.get(k) for c in codings(inner) for k in ("code", "display"))]
            found |= {str(value).strip().casefold() for value in values if value}
    return {re.sub(r"[\s_]+", "-", word) for word in found if word}


def tag(name: str) -> str:
    """SNOMED CT's semantic tag at the end of a name ("disorder"), "" for none."""
    match = _TAG.search(name)
    return match[1].casefold() if match else ""


def without_tag(name: str) -> str:
    """The name without "(disorder)"."""
    return _TAG.sub("", name).strip() if tag(name) in _DROPPED_TAGS else name.strip()
