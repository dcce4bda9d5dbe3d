"""Cells as hospitals fill them in: placeholders, identities, sexes, dates. Unknown is "", never a guess."""

import math
import re
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.text import one_width

_MARKS_ONLY = re.compile(r"^[\W_]*$")
_BRACKETS = re.compile(r"^[<\[({（【](.*)[>\])}）】]$")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@cache
def word_lists() -> dict[str, Any]:
    """words.yaml."""
    return yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(plain(word) for word in word_lists()[name])


@cache
def _by_word(name: str) -> dict[str, str]:
    return {plain(word): value for value, words in word_lists()[name].items() for word in words}


def plain(text: str) -> str:
    """The text in one width, lower case and single spaces."""
    return " ".join(one_width(text).casefold().split())


class NotText(ValueError):  # noqa: N818  (it is caught, and told as a row's reject)
    """A value that is no text: what is wrong with it, without what it holds."""


def is_placeholder(text: str) -> bool:
    """Does the whole cell say that nothing is known (N/A, ?, 待查)?"""
    if len(text) > 60:
        return False
    words = plain(text)
    if _MARKS_ONLY.match(words):
        return True
    inner = _BRACKETS.match(words)
    words = (inner[1] if inner else words).strip(" .。")
    return not words or words in _words("placeholders") or words.replace("_", " ") in _words("placeholders")


def is_no_person(text: str) -> bool:
    """Does the cell name nobody: a placeholder, a test patient, a row of one digit (0000)?"""
    digits = re.sub(r"[\s\-+().]", "", text)
    return is_placeholder(text) or plain(text) in _words("nobody") or bool(re.fullmatch(r"(\d)\1{3,}", digits))


def as_text(value: Any) -> str:
    """A cell as text, "" for none. NotText where it is no text or holds half a character.

    Control characters (a NUL that a broken export left) are no text and go; nothing else of the value changes.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime) and (value.hour, value.minute, value.second) == (0, 0, 0):
        value = value.date()
    if isinstance(value, bytes):
        raise NotText("bytes, not a text")
    if isinstance(value, list | tuple):
        return "; ".join(filter(None, map(as_text, value)))
    if isinstance(value, dict):
        raise NotText("an object, not a text; reach into it with a dot (--map FIELD=KEY.KEY)")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        escaped = 0xDC80 <= ord(text[error.start]) <= 0xDCFF
        raise NotText("bytes that are not in the file's encoding" if escaped else "half of a character") from None
    return _CONTROLS.sub("", text).strip()


def known_text(value: Any) -> str:
    """`as_text`, and "" for a placeholder."""
    text = as_text(value)
    return "" if is_placeholder(text) else text


def number_key(text: str) -> str:
    """A number that names something without the ".0" that a column with gaps gives it (12345 and 12345.0 are one)."""
    return re.sub(r"^(\d+)\.0+$", r"\1", one_width(text).strip())


def patient_key(value: Any) -> str:
    """The patient's number in one spelling; "" for a placeholder."""
    text = as_text(value)
    if is_placeholder(text) or plain(text) in _words("nobody") or re.fullmatch(r"0{4,}", plain(text)):
        return ""
    return number_key(text)


def sex_of(text: str) -> str:
    """female, male or ""."""
    return _by_word("sex").get(number_key(plain(text).strip(" .。")), "")


def language_of(text: str) -> str:
    """en, zh, or "" for a word of no known language."""
    return _by_word("language").get(plain(text), "")


_DATES = (
    r"^(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ].*)?$",
    r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[T ].*)?$",
    r"^(\d{4})(\d{2})(\d{2})(?:\d{4,6})?$",
    r"^(\d{4})\s*年\s*(\d{1,2})\s*月\s*(\d{1,2})\s*日?",
)


def iso_date(text: str) -> str:
    """YYYY-MM-DD of a date that begins with its year; "" for others (3/4/2021 is two dates)."""
    words = one_width(text).strip()
    for pattern in _DATES:
        if match := re.match(pattern, words):
            try:
                return date(int(match[1]), int(match[2]), int(match[3])).isoformat()
            except ValueError:
                return ""
    return ""
