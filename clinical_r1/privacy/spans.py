"""What recognisers see: text of one width, one script, without invisible characters. What they find, how overlapping
finds become one list, and the way back to the original.

Adversarial or sloppy typing (full-width digits, Cyrillic look-alikes, zero-width joiners, exotic dashes) must not hide
an identifier, nor must the script (陳曉明 is 陈晓明), and what is not one must come out as it went in. So recognisers
match on the folded text, in simplified characters, and their spans are mapped back.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from clinical_r1.lexicon import simplified
from clinical_r1.text import one_width

# Cyrillic and Greek letters that look like Latin ones.
_LOOKALIKES = str.maketrans(
    "АВЕКМНОРСТУХІЈЅаеорсухіјѕԁɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρτυ",
    "ABEKMHOPCTYXIJSaeopcyxijsdgABEZHIKMNOPTYXovptu",
)
_ONE_FORM = str.maketrans("‐‑‒–—―−﹣－ー•‧・", "-" * 10 + "·" * 3)
_OTHER_SCRIPT = re.compile(r"[\u0370-\u03ff\u0400-\u052f]{2,}")


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
    kind: Kind = Kind.NAME
    text: str = ""
    """Replacement; empty means the placeholder of its kind."""
    doubt: bool = False
    """It may be none: the record goes to quarantine."""


@dataclass(frozen=True)
class Folded:
    """Folded text and, for each of its characters and its end, the index of the original one."""

    text: str
    origin: tuple[int, ...]

    def back(self, start: int, end: int) -> tuple[int, int]:
        """Original span of a non-empty folded span (end exclusive); what was dropped behind its last character (a
        combining accent) belongs to it."""
        return self.origin[start], self.origin[end]


def fold(text: str) -> Folded:
    """Fold character by character, so that spans map back."""
    own, han = _own_script(text), simplified()
    out: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        plain = char
        if not char.isascii():
            if unicodedata.category(char) in ("Cf", "Mn", "Me"):  # zero-width, marks laid over letters
                continue
            digit = unicodedata.digit(char, None) if not "\u2070" <= char <= "\u209f" and char not in "¹²³" else None
            plain = str(digit) if digit is not None else one_width(char)
            plain = plain.translate(_ONE_FORM).translate(han)
            plain = plain if index in own else plain.translate(_LOOKALIKES)
            plain = re.sub(r"[^\S\n]", " ", plain)
        out.append(plain)
        origin += [index] * len(plain)
    return Folded("".join(out), (*origin, len(text)))


def _own_script(text: str) -> set[int]:
    """Where a whole word is Greek or Cyrillic in earnest: not all of its letters look like Latin ones."""
    own: set[int] = set()
    for match in _OTHER_SCRIPT.finditer(text):
        beside = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
        latin = re.search(r"[A-Za-z\u200b-\u200f]", beside)
        if not latin and any(ord(char) not in _LOOKALIKES for char in match.group()):
            own |= set(range(*match.span()))
    return own


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
        text = longest.text if whole == (longest.start, longest.end) else ""
        merged[-1] = Span(*whole, longest.kind, text, last.doubt and span.doubt)
    return merged
