"""Cells as hospitals fill them in: placeholders, numbers, sexes, ages, dates. Unknown is "", never a guess."""

import math
import re
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from clinical_r1.privacy.bands import age_band

_PLACEHOLDERS = frozenset(
    unicodedata.normalize("NFKC", word)
    for word in ["n/a", "na", "n.a.", "n.a", "#n/a", "#na", "null", "nul", "nil", "nan", "none", "nat", "undefined", "unknown", "unk", "unkn", "tbd", "tba", "tbc", "pending", "missing", "unspecified", "anonymous", "anon", "not_available", "not_applicable", "not_known", "not_recorded", "not_specified", "not_stated", "not_given", "to_be_determined", "to_be_confirmed", "to_follow", "no_data", "no_diagnosis", "no_value", "none_recorded", "none_given", "see_note", "diagnosis_pending", "pending_diagnosis", "awaiting_results", "diagnosis_unknown", "unknown_diagnosis", "undiagnosed", "deferred", "diagnosis_deferred", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!", "(null)", "[null]", "(blank)", "(empty)", "empty", "blank", "xx", "xxx", "xxxx", "未知", "不详", "不明", "未详", "无", "没有", "待查", "待定", "待诊", "待诊断", "待明确", "未明", "未明确", "未填", "未填写", "未提供", "未录入", "未记录", "未诊断", "暂无", "空", "空白", "缺失", "缺", "不清楚", "不知道", "不适用", "诊断不明", "诊断待查", "诊断未明", "诊断待定", "无诊断", "暂无诊断", "不能提供", "拒绝提供", "保密", "匿名", "无名", "无名氏", "desconocido", "inconnu", "unbekannt", "keine", "keine_angabe", "k.a.", "nd", "n.d.", "s/d"]
)
_TEST_PERSONS = frozenset(
    ["test patient", "patient test", "test", "patient", "the patient", "unknown patient", "unknown male", "unknown female", "dummy", "dummy patient", "sample patient", "demo patient", "demo", "no name", "name withheld", "withheld", "redacted", "deidentified", "de-identified", "患者", "病人", "测试", "测试患者", "测试病人"]
)
_MARKS_ONLY = re.compile(r"^[\W_]*$")
_BRACKETS = re.compile(r"^[<\[({（【](.*)[>\])}）】]$")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class NotText(ValueError):
    """A value that is no text: what is wrong with it, without what it holds."""


def is_placeholder(text: str) -> bool:
    """Does the cell say that nothing is known (N/A, ?, 待查)? Whole cells only: "fever of unknown origin" is a finding."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip()
    if _MARKS_ONLY.match(plain):
        return True
    inner = _BRACKETS.match(plain)
    plain = (inner[1] if inner else plain).strip(" .。!！")
    return plain.replace(" ", "_") in _PLACEHOLDERS or not plain


def is_no_person(text: str) -> bool:
    """Does the cell name nobody: a placeholder, a test patient, a row of one digit (0000)?"""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    digits = re.sub(r"[\s\-+().]", "", plain)
    return is_placeholder(text) or plain in _TEST_PERSONS or (digits.isdigit() and len(set(digits)) == 1)


def as_text(value: Any) -> str:
    """A cell as text, "" for none. NotText where it is no text or holds half characters.

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
    return re.sub(r"^(\d+)\.0+$", r"\1", unicodedata.normalize("NFKC", text).strip())


def patient_key(value: Any) -> str:
    """The patient's number in one spelling (12345 and 12345.0 are one); "" for a placeholder."""
    text = as_text(value)
    if is_no_person(text):
        return ""
    return number_key(text)


_SEX = {
    "female": "f fem female females woman girl lady w weiblich 女 女性 女士 女孩 女婴 女童 2 f/女 女/f",
    "male": "m male males man boy gentleman männlich 男 男性 男士 男孩 男婴 男童 1 m/男 男/m",
}
_SEXES = {word: sex for sex, words in _SEX.items() for word in words.split()}


def sex_of(text: str) -> str:
    """female, male or ""; the digits are those of ISO/IEC 5218 and GB/T 2261.1 (1 male, 2 female)."""
    plain = unicodedata.normalize("NFKC", text).casefold().strip(" .。")
    return _SEXES.get(plain, "")


_UNITS = {
    "year": (365.25, "years year yrs yr y/o yo y.o. y.o y jahre jahr ans an años 岁半 周岁 岁 年"),
    "month": (30.4375, "months month mths mth mons mon mos mo m monate mois 个月 月龄 月"),
    "week": (7.0, "weeks week wks wk w 周 星期"),
    "day": (1.0, "days day d tage jours 日龄 天 日"),
    "hour": (1 / 24, "hours hour hrs hr h 小时 时"),
    "minute": (1 / 1440, "minutes minute mins min 分钟"),
}
_DAYS = {word: days for days, words in _UNITS.values() for word in words.split()}
_UNIT = "|".join(sorted(map(re.escape, _DAYS), key=len, reverse=True))
_PART = re.compile(rf"(\d+(?:[.,]\d+)?)\s*({_UNIT})?(?![a-z])\s*(?:of age|old|-old)?[\s,;+和零]*(?:and\s+)?")
_OVER = re.compile(
    r"^(?:>|≥|>=|over|above|older than|at least|大于|超过|≧)\s*=?\s*(\d+)|^(\d+)\s*(?:\+|岁?以上|and (?:over|older|above)|or (?:over|older|above))"
)
_RANGE = re.compile(r"^(\d{1,3})\s*(?:-|–|—|~|～|to|至|到)\s*(\d{1,3})\s*(?:years?|yrs?|y|岁)?$")
_LEAD = re.compile(r"^(?:age|aged|年龄)\s*[:：=]?\s*|^(?:about|approx\.?|approximately|around|~|约|大约)\s*")
_TAIL = re.compile(
    r"\s*(?:year)?s?[- ]?(?:old|of age)?\s*[,/ ]?\s*\b(?:f|m|female|male|man|woman|boy|girl)$|[,，\s]*[男女]性?$|[- ](?:years?|months?|weeks?|days?)-old$"
)
_ENGLISH = {
    word: number
    for number, words in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
    )
    for word in [words]
} | {word: 10 * n for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)}
_HAN_DIGITS = {char: n for n, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0, "廿": 20, "卅": 30}
_NEWBORN = frozenset(["newborn", "neonate", "neonatal", "infant", "toddler", "newborn", "infant", "新生儿", "婴儿", "新生婴儿", "幼儿"])
OLDEST = 125


def band_of_age(text: str) -> str:
    """The ten-year band of an age as people write it ("45 years", "18 mo", "67岁3个月", ">89"); "" where it is not sure.

    A number without a unit is years. A range is a band only where it lies in one: "45-50" is "".
    """
    plain = unicodedata.normalize("NFKC", text).casefold().strip(" .。'\"")
    plain = _LEAD.sub("", plain)
    if not plain or is_placeholder(plain):
        return ""
    if plain in _NEWBORN:
        return age_band(0)
    if over := _OVER.match(plain):
        return age_band(90) if int(over[1] or over[2]) >= 89 else ""
    if spread := _RANGE.match(plain):
        low, high = int(spread[1]), int(spread[2])
        return age_band(low) if low % 10 == 0 and high == low + 9 else ""
    if under := re.match(r"^(?:<|≤|<=|under|less than|小于)\s*(\d+)", plain):
        return age_band(0) if int(under[1]) <= 10 else ""
    if duration := re.match(r"^p(\d+)([ymwd])$", plain):  # ISO 8601
        plain = duration[1] + duration[2]
    years = _years(_digits(plain))
    return "" if years is None or not 0 <= years <= OLDEST else age_band(int(years))


def _years(plain: str) -> float | None:
    """Years of `67 years 3 months`; None where a part is not understood."""
    plain = _TAIL.sub("", plain) or plain
    position, days, count = 0, 0.0, 0
    while position < len(plain):
        part = _PART.match(plain, position)
        if not part or part.end() == position:
            return None
        number = float(part[1].replace(",", "."))
        if not part[2] and (count or part.end() < len(plain)):
            return None  # a bare number stands alone
        days += number * (_DAYS[part[2]] if part[2] else 365.25)
        if part[2] == "岁半":
            days += 183
        position, count = part.end(), count + 1
    return (days + 1e-6) / 365.25 if count else None


def _digits(plain: str) -> str:
    """Number words as digits: forty-five, 四十五."""
    words = re.findall(r"[a-z]+", plain)
    spelled = [word for word in words if word in _ENGLISH or word == "hundred"]
    if spelled:
        total = 0
        for word in spelled:
            total = (total or 1) * 100 if word == "hundred" else total + _ENGLISH[word]
        rest = " ".join(w for w in words if w not in _ENGLISH and w not in ("hundred", "a", "and", "old"))
        return f"{total} {rest}".strip()
    return re.sub(r"[零一二两三四五六七八九十百〇廿卅]+", lambda m: str(_han_number(m[0])), plain)


def _han_number(text: str) -> int:
    total, digit = 0, 0
    for char in text:
        if char in "十百":
            total += (digit or (1 if char == "十" or not total else 0)) * (10 if char == "十" else 100)
            digit = 0
        elif _HAN_DIGITS[char] >= 20:
            total += _HAN_DIGITS[char]
        else:
            digit = (
                digit * 10 + _HAN_DIGITS[char] if digit and "十" not in text and "百" not in text else _HAN_DIGITS[char]
            )
    return total + digit


def band_of_band(text: str) -> str:
    """A band column: `40-49`, `40–49`, `40s`, `90+`; a bare age becomes its band."""
    plain = unicodedata.normalize("NFKC", text).casefold().strip()
    decade = re.match(r"^(\d0)\s*(?:'?s|岁?代)$", plain)
    return age_band(int(decade[1])) if decade else band_of_age(plain)


_DATES = (
    r"^(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ].*)?$",
    r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[T ].*)?$",
    r"^(\d{4})(\d{2})(\d{2})(?:\d{4,6})?$",
    r"^(\d{4})\s*年\s*(\d{1,2})\s*月\s*(\d{1,2})\s*日?",
)


def iso_date(text: str) -> str:
    """YYYY-MM-DD of a date that begins with its year; "" for others (3/4/2021 is two dates)."""
    plain = unicodedata.normalize("NFKC", text).strip()
    for pattern in _DATES:
        if match := re.match(pattern, plain):
            try:
                return date(int(match[1]), int(match[2]), int(match[3])).isoformat()
            except ValueError:
                return ""
    return ""


def band_at(birth: str, seen: str) -> str:
    """The band of who was born on `birth` (YYYY, YYYY-MM or YYYY-MM-DD) on the day `seen`; "" where it could be two."""
    bands = {age_band(age) for age in _ages(birth, seen) if 0 <= age <= OLDEST}
    return bands.pop() if len(bands) == 1 else ""


def _ages(birth: str, seen: str) -> Iterator[int]:
    day, born = iso_date(seen), re.match(r"^(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", iso_date(birth) or birth.strip())
    if not born:
        return
    then = date.fromisoformat(day) if day else None
    year = re.match(r"^(\d{4})", seen)
    if then is None and not year:
        return
    for month, dom in ((1, 1), (12, 31)):
        at = then or date(int(year[1]), month, dom)  # type: ignore[index]
        for other_month, other_day in ((1, 1), (12, 31)):
            b = (int(born[2] or other_month), int(born[3] or other_day))
            yield max(-1, at.year - int(born[1]) - ((at.month, at.day) < b))
