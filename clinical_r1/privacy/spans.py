"""What recognizers return, and how overlapping finds become one list."""

import re
from dataclasses import dataclass
from enum import StrEnum

from clinical_r1.text import HAN


class Kind(StrEnum):
    """Types of identifiers: HIPAA Safe Harbor's eighteen (45 CFR 164.514(b)(2)) with their Chinese counterparts."""

    NAME = "name"
    ADDRESS = "address"
    DATE = "date"
    AGE = "age"
    """Ages over 89."""
    PHONE = "phone"
    """Telephone and fax."""
    EMAIL = "email"
    SSN = "ssn"
    RESIDENT_ID = "resident_id"
    RECORD = "record_number"
    """MRN, inpatient, outpatient, accession and other hospital numbers."""
    PLAN = "health_plan"
    ACCOUNT = "account"
    """Bank cards, accounts, IBAN."""
    LICENSE = "license"
    """Certificates, licences, passports."""
    VEHICLE = "vehicle"
    DEVICE = "device"
    URL = "url"
    IP = "ip"
    BIOMETRIC = "biometric"
    PHOTO = "photo"
    """File names of images, embedded images."""
    OTHER = "other_id"
    """Any other identifier-shaped token; social network accounts."""


@dataclass(frozen=True)
class Span:
    """One find, in folded coordinates."""

    start: int
    end: int
    kind: Kind
    score: float = 1.0
    """Below the gate's threshold it is a doubt: the record goes to quarantine."""
    text: str = ""
    """Replacement; empty means the placeholder of its kind."""


def stems(alternatives: str) -> tuple[str, ...]:
    """The literal beginnings of a pattern's alternatives: where a text has none of them, the pattern need not be tried
    (a search for a substring is a hundred times as fast). Empty where an alternative begins with no letters."""
    found = []
    for part in re.split(r"\|", re.sub(r"\[[^\]]*\]", ".", alternatives)):
        literal = re.match(rf"(?:\\b|\(\?:)*([a-z{HAN} ]+)", part.casefold())
        kept = (
            re.sub(r".$", "", literal[1])
            if literal and part.casefold()[literal.end() :][:1] in ("?", "*", "{")
            else literal[1]
            if literal
            else ""
        )
        if not kept.strip():
            return ()
        found.append(kept)
    return tuple(dict.fromkeys(found))


def present(needed: tuple[str, ...], lowered: str) -> bool:
    """Does the lower-case text hold one of the stems?"""
    return not needed or any(stem in lowered for stem in needed)


def resolve(spans: list[Span]) -> list[Span]:
    """Non-overlapping spans in order. Overlapping finds merge into one that covers all; the longest names the kind,
    and among equals one with a replacement of its own (a shifted date), then one of a named type."""
    merged: list[Span] = []
    best = 0
    for span in sorted(spans, key=lambda s: (s.start, -s.end, not s.text, s.kind is Kind.OTHER)):
        if not merged or span.start >= merged[-1].end:
            merged.append(span)
            best = span.end - span.start
            continue
        last = merged[-1]
        longest = span if span.end - span.start > best else last
        best = max(best, span.end - span.start)
        whole = (min(last.start, span.start), max(last.end, span.end))
        covers = whole == (longest.start, longest.end)
        text = longest.text if covers else ""
        merged[-1] = Span(*whole, longest.kind, max(last.score, span.score), text)
    return merged
