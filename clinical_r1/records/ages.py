"""Ages as people write them: years, months, words, both languages; birth dates of any precision. Unsure is ""."""

import re
from collections.abc import Iterator
from functools import cache

from clinical_r1.privacy.ages import age_band
from clinical_r1.records.values import is_placeholder, iso_date, word_lists
from clinical_r1.text import one_width

OLDEST = 125
_OVER = re.compile(
    r"^(?:>|≥|≧|over|above|older than|at least|大于|超过)\s*=?\s*(\d+)"
    r"|^(\d+)\s*(?:\+|岁?及?以上|(?:and|or) (?:over|older|above))"
)
_UNDER = re.compile(r"^(?:<|≤|under|less than|小于)\s*=?\s*(\d+)")
_RANGE = re.compile(r"^(\d{1,3})\s*(?:-|–|—|~|to|至|到)\s*(\d{1,3})\s*(?:years?|yrs?|y|岁)?$")
_LEAD = re.compile(r"^(?:aged?|年龄)\s*[:=]?\s*|^(?:about|approx\.?|approximately|around|~|约|大约)\s*")
_TAIL = re.compile(
    r"\s*(?:year)?s?[- ]?(?:old|of age)?\s*[,/ ]?\s*\b(?:f|m|female|male|man|woman|boy|girl)$|[,\s]*[男女]性?$"
    r"|[- ](?:years?|months?|weeks?|days?)-old$"
)
_HAN_NUMBER = re.compile(r"[零一二两三四五六七八九十百〇廿卅]+")
_HAN_DIGITS = {char: n for n, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}


@cache
def _days() -> dict[str, float]:
    return {word: float(days) for days, words in word_lists()["age_units"].items() for word in words}


@cache
def _part() -> re.Pattern[str]:
    unit = "|".join(sorted(map(re.escape, _days()), key=len, reverse=True))
    return re.compile(rf"(\d+(?:[.,]\d+)?)\s*({unit})?(半)?(?![a-z])\s*(?:of age|old|-old)?[\s,;+]*(?:and\s+|零)?")


@cache
def _number_words() -> dict[str, int]:
    words = word_lists()
    return {word: n for n, word in enumerate(words["numbers"])} | {w: 10 * n for n, w in enumerate(words["tens"], 2)}


def band_of_age(text: str) -> str:
    """The ten-year band of an age or a band ("45 years", "18 mo", "67岁3个月", ">89", "40s"); "" where it is not sure.

    A number without a unit is years. A range is a band only where it is one: "45-50" is "".
    """
    words = _LEAD.sub("", one_width(text).casefold().strip(" .。'\""))
    words = re.sub(r"^半(?=[年岁歲])", "0.5", re.sub(r"([个個])半(月)", r"\1\2半", words))
    if not words or is_placeholder(words):
        return ""
    if words in word_lists()["newborn"]:
        return age_band(0)
    if decade := re.match(r"^(\d0)\s*(?:'?s|岁?代)$", words):
        return age_band(int(decade[1]))
    if over := _OVER.match(words):
        return age_band(90) if int(over[1] or over[2]) >= 89 else ""
    if spread := _RANGE.match(words):
        low, high = int(spread[1]), int(spread[2])
        return age_band(low) if low % 10 == 0 and high == low + 9 else ""
    if under := _UNDER.match(words):
        return age_band(0) if int(under[1]) <= 10 else ""
    if re.match(r"^p(?:\d+[ymwd])+$", words):  # ISO 8601
        words = words[1:]
    years = _years(_digits(words))
    return "" if years is None or not 0 <= years <= OLDEST else age_band(int(years))


def _years(words: str) -> float | None:
    """Years of `67 years 3 months`; None where a part is not understood."""
    words = _TAIL.sub("", words) or words
    position, days, count = 0, 0.0, 0
    while position < len(words):
        part = _part().match(words, position)
        if not part or part.end() == position:
            return None
        if not part[2] and (count or part.end() < len(words)):
            return None  # a bare number stands alone
        unit = _days()[part[2]] if part[2] else 365.25
        days += (float(part[1].replace(",", ".")) + (0.5 if part[3] else 0)) * unit
        position, count = part.end(), count + 1
    return (days + 1e-6) / 365.25 if count else None


def _digits(words: str) -> str:
    """Number words as digits: forty-five, 四十五."""
    letters, known = re.findall(r"[a-z]+", words), _number_words()
    spelled = [word for word in letters if word in known or word == "hundred"]
    if spelled:
        total = 0
        for word in spelled:
            total = (total or 1) * 100 if word == "hundred" else total + known[word]
        rest = " ".join(w for w in letters if w not in known and w not in ("hundred", "a", "and", "old"))
        return f"{total} {rest}".strip()
    return _HAN_NUMBER.sub(lambda match: str(_han_number(match[0])), words)


def _han_number(text: str) -> int:
    text = text.replace("廿", "二十").replace("卅", "三十")
    if "十" not in text and "百" not in text:
        return int("".join(str(_HAN_DIGITS[char]) for char in text))
    total, digit = 0, 0
    for char in text:
        if char in "十百":
            total += (digit or 1) * (10 if char == "十" else 100)
            digit = 0
        else:
            digit = _HAN_DIGITS[char]
    return total + digit


def band_at(birth: str, seen: str) -> str:
    """The band of who was born on `birth` (YYYY, YYYY-MM or YYYY-MM-DD) on the day `seen`; "" where it could be two."""
    bands = {age_band(age) if 0 <= age <= OLDEST else "" for age in _ages(birth, seen)}
    return bands.pop() if len(bands) == 1 else ""


def _ages(birth: str, seen: str) -> Iterator[int]:
    """The youngest and the oldest that the two dates allow."""
    born = re.match(r"^(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", iso_date(birth) or birth.strip())
    when = re.match(r"^(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", iso_date(seen) or seen.strip())
    if not born or not when:
        return
    for early, late in (((12, 31), (1, 1)), ((1, 1), (12, 31))):
        birthday = (int(born[2] or early[0]), int(born[3] or early[1]))
        day = (int(when[2] or late[0]), int(when[3] or late[1]))
        yield max(-1, int(when[1]) - int(born[1]) - (day < birthday))
