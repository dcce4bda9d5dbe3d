"""Cells as hospitals fill them in: placeholders, identities, sexes, dates and ages. Unsure is "", never a guess."""

import math
import re
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.privacy.dates import age_band
from clinical_r1.text import one_width

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@cache
def word_lists() -> dict[str, Any]:
    """words.yaml."""
    return read_table(Path(__file__).with_name("words.yaml"))


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(map(_plain, word_lists()[name]))


@cache
def _by_word(name: str) -> dict[str, Any]:
    return {_plain(word): value for value, words in word_lists()[name].items() for word in words}


def _plain(text: str) -> str:
    """The text in one width, lower case and single spaces."""
    return " ".join(one_width(text).casefold().split())


class NotText(ValueError):  # noqa: N818  (it is caught, and told as a row's reject)
    """A value that is no text: what is wrong with it, without what it holds."""


def is_placeholder(text: str) -> bool:
    """Does the whole cell say that nothing is known (N/A, ?, 待查)?"""
    if len(text) > 60:
        return False
    words = _plain(text)
    if re.match(r"^[\W_]*$", words):
        return True
    words = re.sub(r"^[<\[({（【](.*)[>\])}）】]$", r"\1", words).strip(" .。")
    return not words or words in _words("placeholders") or words.replace("_", " ") in _words("placeholders")


def is_no_person(text: str) -> bool:
    """Does the cell name nobody: a placeholder, a test patient, a row of one digit (0000)?"""
    digits = re.sub(r"[\s\-+().]", "", text)
    return is_placeholder(text) or _plain(text) in _words("nobody") or bool(re.fullmatch(r"(\d)\1{3,}", digits))


def as_text(value: Any) -> str:
    """A cell as text, "" for none. NotText where it is no text or holds half a character.

    Control characters (a NUL that a broken export left) are no text and go; nothing else of the value changes.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
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


def number_key(text: str) -> str:
    """A number that names something without the ".0" that a column with gaps gives it (12345 and 12345.0 are one)."""
    return re.sub(r"^(\d+)\.0+$", r"\1", one_width(text).strip())


def patient_key(value: Any) -> str:
    """The patient's number in one spelling; "" for a placeholder."""
    text = as_text(value)
    nobody = is_placeholder(text) or _plain(text) in _words("nobody") or re.fullmatch(r"0{4,}", _plain(text))
    return "" if nobody else number_key(text)


def sex_of(text: str) -> str:
    """female, male or ""."""
    return _by_word("sex").get(number_key(_plain(text).strip(" .。")), "")


def language_of(text: str) -> str:
    """en, zh, or "" for a word of no known language."""
    return _by_word("language").get(_plain(text), "")


_DATE = re.compile(
    r"(\d{4})(?:-(\d{1,2})-(\d{1,2})(?:[T ].*)?$|[/.](\d{1,2})[/.](\d{1,2})(?:[T ].*)?$|(\d\d)(\d\d)(?:\d{4,6})?$"
    r"|\s*年\s*(\d{1,2})\s*月\s*(\d{1,2})\s*日?)"
)


def iso_date(text: str) -> str:
    """YYYY-MM-DD of a date that begins with its year; "" for others (3/4/2021 is two dates)."""
    match = _DATE.match(one_width(text).strip())
    try:
        return date(*(int(part) for part in match.groups() if part)).isoformat() if match else ""
    except ValueError:
        return ""


_OLDEST = 125
_HAN_DIGITS = {char: n for n, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}


def band_of_age(text: str) -> str:
    """The ten-year band of an age or a band ("45 years", "18 mo", "67岁3个月", ">89", "40s"); "" where it is not sure.

    A number without a unit is years. A range is a band only where it is one: "45-50" is "".
    """
    forms = word_lists()["age_forms"]
    words = re.sub(forms["lead"], "", one_width(text).casefold().strip(" .。'\""))
    words = re.sub(r"^半(?=[年岁歲])", "0.5", re.sub(r"([个個])半(月)", r"\1\2半", words))
    if not words or is_placeholder(words):
        return ""
    if words in word_lists()["newborn"]:
        return age_band(0)
    if decade := re.match(r"^(\d0)\s*(?:'?s|岁?代)$", words):
        return age_band(int(decade[1]))
    if over := re.match(forms["over"], words):
        return age_band(90) if int(over[1] or over[2]) >= 89 else ""
    if spread := re.match(forms["range"], words):
        low, high = int(spread[1]), int(spread[2])
        return age_band(low) if low % 10 == 0 and high == low + 9 else ""
    if under := re.match(forms["under"], words):
        return age_band(0) if int(under[1]) <= 10 else ""
    if re.match(r"^p(?:\d+[ymwd])+$", words):  # ISO 8601
        words = words[1:]
    years = _years(_digits(words))
    return "" if years is None or not 0 <= years <= _OLDEST else age_band(int(years))


@cache
def _part() -> re.Pattern[str]:
    unit = "|".join(sorted(map(re.escape, _by_word("age_units")), key=len, reverse=True))
    return re.compile(rf"(\d+(?:[.,]\d+)?)\s*({unit})?(半)?(?![a-z])\s*(?:of age|old|-old)?[\s,;+]*(?:and\s+|零)?")


def _years(words: str) -> float | None:
    """Years of `67 years 3 months`; None where a part is not understood."""
    words = re.sub(word_lists()["age_forms"]["tail"], "", words) or words
    position, days = 0, 0.0
    while position < len(words):
        part = _part().match(words, position)
        if not part or (not part[2] and (position or part.end() < len(words))):
            return None  # a bare number stands alone
        number = float(part[1].replace(",", ".")) + (0.5 if part[3] else 0)
        days += number * float(_by_word("age_units")[part[2]] if part[2] else 365.25)
        position = part.end()
    return (days + 1e-6) / 365.25 if position else None


def _digits(words: str) -> str:
    """Number words as digits: forty-five, 四十五."""
    lists, letters = word_lists(), re.findall(r"[a-z]+", words)
    known = {word: n for n, word in enumerate(lists["numbers"])} | {w: 10 * n for n, w in enumerate(lists["tens"], 2)}
    spelled = [word for word in letters if word in known or word == "hundred"]
    if not spelled:
        return re.sub(r"[零一二两三四五六七八九十百〇廿卅]+", lambda match: str(_han_number(match[0])), words)
    total = 0
    for word in spelled:
        total = (total or 1) * 100 if word == "hundred" else total + known[word]
    rest = " ".join(w for w in letters if w not in known and w not in ("hundred", "a", "and", "old"))
    return f"{total} {rest}".strip()


def _han_number(text: str) -> int:
    text = text.replace("廿", "二十").replace("卅", "三十")
    if "十" not in text and "百" not in text:
        return int("".join(str(_HAN_DIGITS[char]) for char in text))
    total, digit = 0, 0
    for char in text:
        if char in "十百":
            total, digit = total + (digit or 1) * (10 if char == "十" else 100), 0
        else:
            digit = _HAN_DIGITS[char]
    return total + digit


def band_at(birth: str, seen: str) -> str:
    """The band of who was born on `birth` (YYYY, YYYY-MM or YYYY-MM-DD) on the day `seen`; "" where it could be two."""
    day = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?")
    born, when = (day.match(iso_date(text) or text.strip()) for text in (birth, seen))
    if not born or not when:
        return ""
    bands = set()
    for early, late in (((12, 31), (1, 1)), ((1, 1), (12, 31))):  # the youngest and the oldest that the dates allow
        birthday = (int(born[2] or early[0]), int(born[3] or early[1]))
        before = (int(when[2] or late[0]), int(when[3] or late[1])) < birthday
        age = int(when[1]) - int(born[1]) - before
        bands.add(age_band(age) if 0 <= age <= _OLDEST else "")
    return bands.pop() if len(bands) == 1 else ""
