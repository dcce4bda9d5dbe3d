"""Dates move by one keyed offset per patient, so that intervals survive; ages over 89 fold into "90+".

Years alone stay (Safe Harbor keeps them); a date that cannot be parsed, or a date of birth, goes altogether. An age is
one where the words say so: `fever of 102 F`, `Tc-99m`, `HR 98` and `G2P1 29-year-old` hold numbers that no age is meant
by. The patterns are in `dates.yaml`.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta

from clinical_r1.privacy.lexicon import rules
from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.text import has_han

RULE, EACH, _ = rules("dates")
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
Shift = Callable[[date], date]
"""Moves a date."""


def shifter(days: int) -> Shift:
    """Move dates `days` back."""
    return lambda day: day - timedelta(days=days)


def shift_iso(text: str, days: int) -> str:
    """A shifted ISO date (of an ISO date or date-time), "" for anything else."""
    try:
        return shifter(days)(date.fromisoformat(text[:10])).isoformat()
    except ValueError:
        return ""


def find_dates(text: str, shift: Shift | None) -> Iterator[Span]:
    """Dates in folded text with their shifted form; without `shift` (no key) they go altogether."""
    months, han = bool(RULE["any_month"].search(text)), has_han(text)
    for layout, pattern in EACH["dates"]:
        if ("january" in pattern.pattern and not months) or (RULE["chinese"].search(pattern.pattern) and not han):
            continue
        group = "v" if "v" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            if _is_reading(layout, match, text):
                continue
            start = match.start(group)
            if layout in ("md_num", "md_cue", "md_word", "dm_word"):
                yield from _series(text, match.end(), shift)
            birth = RULE["birth"].search(text[max(0, start - 20) : start]) or RULE["born"].match(
                text[match.end() :][:3]
            )
            moved = "" if birth else _moved(layout, match, shift)
            weekday = RULE["weekday"].search(text[max(0, start - 16) : start]) if moved else None
            start -= len(weekday.group()) if weekday else 0
            yield Span(start, match.end(group), Kind.DATE, moved)


def _series(text: str, position: int, shift: Shift | None) -> Iterator[Span]:
    """`3/14 and again 3/21`: what follows a date in a list. Where it may as well be a grade (4/5), it is none."""
    while match := RULE["next"].match(text, position):
        if match["d"] and int(match["d"]) <= 12 and not match["again"]:
            return
        moved = "" if match["dm"] else _moved("md_num", match, shift)
        yield Span(match.start("dm" if match["dm"] else "m"), match.end(), Kind.DATE, moved)
        position = match.end()


def _is_reading(layout: str, match: re.Match[str], text: str) -> bool:
    """`3.9 0.28` is two values of a table, `strength increases to 5/5` a grade: neither is a date."""
    before, after = text[max(0, match.start() - 32) : match.start()], text[match.end() : match.end() + 12]
    if layout == "md_num":
        return match["d"] in ("5", "10") and bool(RULE["grade_before"].search(before))
    if layout != "xy_sep":
        return False
    if re.search(r"[/\-] ?$", before) or re.match(r" ?/ ?\d", after[:3]):
        return True  # `3.1 / 99 / 27 / 12`: a panel of values
    if RULE["counted"].match(after) or RULE["scored"].search(before[-24:]):
        return True  # `Apgar评分9-10-10分`, `C 5-6-7 discs`
    if len(match["y"].replace(" ", "")) == 2 and not 1 <= min(int(re.sub(r"\s", "", match[n])) for n in "ab") <= 12:
        return True  # `3-0-10 Vicryl`
    return match["sep"] == "." and bool(re.search(r"\d\s\d", match["b"])) and not re.search(r"\s", match["a"])


def _moved(layout: str, match: re.Match[str], shift: Shift | None) -> str:
    """The shifted date in the layout of the match; "" where it is no date, or its layout is not one that moves."""
    if shift is None:
        return ""
    part = {key: re.sub(r"\s", "", value) for key, value in match.groupdict().items() if value}
    sep = part.get("sep")
    try:
        day_first = layout == "xy_sep" and int(part["a"]) > 12
        if layout == "xy_sep":  # `3/14/2021`: month first as in the US, unless the first number cannot be a month
            part["m"], part["d"] = (part["b"], part["a"]) if day_first else (part["a"], part["b"])
        named = [month[:3].casefold() for month in _MONTHS]
        month = int(part["m"]) if "m" in part else named.index(part["mon"].casefold()[:3]) + 1
        year = int(part.get("y", "2001"))
        new = shift(date(year + (0 if year > 99 else 2000 if year < 40 else 1900), month, int(part.get("d", "15"))))
    except (ValueError, KeyError, OverflowError):
        return ""
    word, pair = _MONTHS[new.month - 1], (new.day, new.month) if day_first else (new.month, new.day)
    layouts = {
        "xy_sep": f"{pair[0]:02d}{sep}{pair[1]:02d}{sep}{new.year if year > 99 else f'{new.year % 100:02d}'}",
        "ymd_sep": f"{new.year}{sep}{new.month:02d}{sep}{new.day:02d}",
        "ym_sep": f"{new.year}{sep}{new.month:02d}",
        "ymd_zh": f"{new.year}年{new.month}月{new.day}日",
        "ym_zh": f"{new.year}年{new.month}月",
        "yy_zh": f"{new.year}年{new.month}月" + (f"{new.day}日" if "d" in part else ""),
        "md_zh": f"{new.month}月{new.day}日",
        "compact": f"{new:%Y%m%d}",
        "mdy_word": f"{word} {new.day}, {new.year}",
        "dmy_word": f"{new.day} {word} {new.year}",
        "my_word": f"{word} {new.year}",
        "md_word": f"{word} {new.day}",
        "dm_word": f"{new.day} {word}",
        "md_num": f"{new.month}/{new.day}",
        "my_num": f"{new.month:02d}/{new.year}",
    }
    return layouts[layout]


def find_old_ages(text: str) -> Iterator[Span]:
    """Ages over 89 in folded text, replaced by 90+."""
    for _, pattern in EACH["old_ages"]:
        for match in pattern.finditer(text):
            start, end = match.span("age")
            if not RULE["heat"].search(text[max(0, match.start() - 24) : start]):
                yield Span(start, end, Kind.AGE, "90+")


def age_band(age: int) -> str:
    """Ten-year band; 90 and over is one band (Safe Harbor)."""
    return "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"


def safe_age_band(text: str) -> str:
    """A band as given; a bare age becomes its band; anything that starts at 90 or more is folded."""
    match = re.match(r"\s*(\d{1,3})", text)
    if not match:
        return ""
    return age_band(int(match.group(1))) if text.strip().isdigit() or int(match.group(1)) >= 90 else text.strip()[:8]
