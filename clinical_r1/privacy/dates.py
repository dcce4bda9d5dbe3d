# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Dates move by one keyed offset per patient, so that intervals survive.

Years alone stay (Safe Harbor keeps them); a date that cannot be parsed, or a date of birth, goes altogether.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta

from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.text import has_han

_MONTHS = ("january february march april may june july august september october november december").split()
_MONTH = "(?:" + "|".join(rf"{m}|{m[:3]}" + (r"|sept" if m == "september" else "") for m in _MONTHS) + r")\.?"
_S = r"[ \t]{0,2}"
_Y = r"(?P<y>(?:1[89]|20)\s?\d\s?\d)"
_HAN_NUM = "零〇一二三四五六七八九十"

_ABBREVIATED = "|".join(m[:3].capitalize() for m in _MONTHS) + "|Sept"
_CAPITAL = "|".join(m.capitalize() for m in _MONTHS)

# fmt: off
_PATTERNS: list[tuple[str, str]] = [
    # name of the layout, pattern
    ("ymd_sep", rf"(?<!\d){_Y}{_S}(?P<sep>[-/.]){_S}(?P<m>\d[ ]?\d?){_S}(?P=sep){_S}(?P<d>\d[ ]?\d?)(?!\d)"),
    ("ymd_zh", rf"(?<!\d){_Y}{_S}年{_S}(?P<m>\d[ ]?\d?){_S}月{_S}(?P<d>\d[ ]?\d?){_S}[日号]"),
    ("ym_zh", rf"(?<!\d){_Y}{_S}年{_S}(?P<m>\d[ ]?\d?){_S}月(?:份|初|中旬|下旬|上旬|底|末)?(?!{_S}\d)"),
    ("ymd_han", rf"[二一][零〇九八]?[{_HAN_NUM}]{{2,3}}年[{_HAN_NUM}]{{1,3}}月(?:[{_HAN_NUM}]{{1,3}}[日号])?"),
    ("yy_zh", rf"(?<!\d)(?P<y>\d\d){_S}年{_S}(?P<m>1[0-2]|0?[1-9]){_S}月(?:{_S}(?P<d>\d[ ]?\d?){_S}[日号]|份)"),
    ("md_han", rf"(?<![{_HAN_NUM}个])(?<![\d{_HAN_NUM}]年)(?:十[一二]?|[一二三四五六七八九])月(?:[一二三]?十[一二三四五六七八九]?|[一二三四五六七八九])[日号]"),
    ("md_zh", rf"(?<!\d)(?<![\d{_HAN_NUM}]年)(?P<m>1[ ]?[0-2]|0?[ ]?[1-9]){_S}月{_S}(?P<d>[0-3]?[ ]?\d){_S}[日号]"),
    ("compact", r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?!\d)"),
    ("xy_sep", r"(?<![\d./\-])(?P<a>\d[ ]?\d?)[ ]?(?P<sep>[-/.])[ ]?(?P<b>\d[ ]?\d?)[ ]?(?P=sep)[ ]?(?P<y>(?:1[89]|20)[ ]?\d[ ]?\d|\d\d)(?![\d/\-]|\.\d)"),
    ("mdy_word", rf"(?i)\b(?P<mon>{_MONTH}){_S}(?P<d>\d{{1,2}})(?:[ ]?(?:st|nd|rd|th))?(?:[ ]?,)?\s{{1,2}}(?:of\s)?'?{_Y}(?!\d)"),
    ("mdy_word", rf"(?i)\b(?P<mon>{_MONTH}){_S}(?P<d>\d{{1,2}})(?:[ ]?(?:st|nd|rd|th))?{_S},{_S}'?{_Y}(?!\d)"),
    ("dmy_word", rf"(?i)(?<![\d.])(?P<d>\d{{1,2}})(?:[ ]?(?:st|nd|rd|th))?(?:\sday)?{_S}(?:of\s)?[-/.]?{_S}(?P<mon>{_MONTH}){_S}[-/.,]?{_S}'?(?P<y>(?:1[89]|20)[ ]?\d[ ]?\d|(?<=[-/])\d\d)(?!\d)"),
    ("my_word", rf"(?i)\b(?P<mon>{_MONTH}){_S}(?:of\s|,[ ]?|[-/][ ]?)?{_Y}(?!\d)"),
    ("md_word", rf"\b(?P<mon>(?i:{_MONTH}))\s{{1,2}}(?P<d>[0-3]?\d)(?:st|nd|rd|th)?\b(?![ ]?(?:%|mg|mm|/\d|\d|months?|years?|weeks?|days?))"),
    ("dm_word", rf"(?<![\d.])(?P<d>[0-3]?\d)(?:st|nd|rd|th)?(?:\sof)?\s(?P<mon>(?:{'|'.join(m.capitalize() for m in _MONTHS)}))\b"),
    ("md_num", r"(?i)\b(?:on|since|dated|date|from|until|by|to)[ \t]{1,2}(?P<m>1[0-2]|0?[1-9])/(?P<d>3[01]|[12]\d|0?[1-9])(?![\d/%])"),
    ("my_num", r"(?<![\d/.])(?P<m>0?[1-9]|1[0-2])[ ]?/[ ]?(?P<y>(?:19|20)\d\d)(?![\d/])"),
    ("ym_sep", r"(?<![\d./\-])(?P<y>(?:19|20)\d\d)(?P<sep>[-/.])(?P<m>0[1-9]|1[0-2])(?![\d/\-]|\.\d|[ ]?%)"),
    ("gone", r"(?<![\d./\-])(?:0?[1-9]|1[0-2])[ ]?[/\-.][ ]?'\d\d(?!\d)"),
    ("gone", rf"(?i)\b{_MONTH}[ ]?'\d\d\b"),
    ("gone", rf"\b(?:{_ABBREVIATED})-\d\d\b(?!-?\d)"),
    ("gone", r"(?<![\d./\-])\d{1,2}[-/.]\d{1,2}[ T]{1,2}(?:at )?(?:[01]?\d|2[0-3]):[0-5]\d"),
    ("gone", rf"(?i)\b{_MONTH}[ ](?:the[ ])?\d{{1,2}}(?:st|nd|rd|th)\b"),
    ("gone", rf"(?i)(?<!\d)\d{{1,2}}(?:st|nd|rd|th)?[ \-](?:of[ ])?(?-i:{_ABBREVIATED})\b(?![a-z])(?:[ \-]'?\d\d\b)?"),
    ("gone", rf"(?i)\b(?:early|mid|late|end of|beginning of|middle of)[ \-]{{1,2}}(?-i:{_CAPITAL})\b"),
    ("gone", r"(?i)\b(?:on|since|until|by|from|for)[ ]the[ ]\d{1,2}(?:st|nd|rd|th)(?=[.,;)\n]|$|[ ]of[ ](?:this|last|next)[ ]month)"),
    ("gone", r"(?i)\b(?:mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)(?:day|sday|nesday|rsday|urday)?,?[ ](?:the[ ])?\d{1,2}(?:st|nd|rd|th)\b"),
    ("gone", r"(?i)\b(?:christmas(?:[ ](?:eve|day))?|boxing[ ]day|new[ ]year'?s?(?:[ ](?:eve|day))|thanksgiving(?:[ ]day)?|easter(?:[ ](?:sunday|monday|weekend))?|good[ ]friday|(?:4th|fourth)[ ]of[ ]july|independence[ ]day|labou?r[ ]day|memorial[ ]day|" r"halloween|valentine'?s[ ]day|mother'?s[ ]day|father'?s[ ]day|st\.?[ ]patrick'?s[ ]day|martin[ ]luther[ ]king[ ]day|presidents'?[ ]day|columbus[ ]day|veterans[ ]day|bank[ ]holiday[ ]monday|eid(?:[ ]al-\w+)?|yom[ ]kippur|rosh[ ]hashanah|hanukkah|diwali)" r"(?:,?[ ](?:of[ ])?(?:19|20)\d\d)?\b(?![ ](?:disease|tree|eye|factor))"),
    ("md_cue", r"(?i)(?:\b(?:d/c|rtc|f/u|adm|lmp|lnmp|edd|edc|dob|doa|dos|menstrual period|menses|period|admitted|admission|discharged?|seen|reviewed|operated|surgery|scan(?:ned)?|echo|x-?ray|mri|ct|delivered|injury|accident|onset|started|stopped|last seen|follow[ -]?up|appointment|appt|clinic|due|fell|visit|vaccin\w+|given|drawn|taken|removed|inserted|placed|extubated|intubated|transferred|arrived|presented|dated?|w/c|w/e|week of|ended|began|resulted|cultures?|labs)" r"[ ](?:was[ ]|were[ ]|is[ ]|on[ ]|for[ ]|of[ ]|from[ ]|in[ ]|back[ ]|home[ ]|again[ ]|:[ ]?){0,2}|(?:^|\n)[ ]?(?=\d{1,2}/\d{1,2}[ ]?(?::[ ]|-[ ]|—|[ ](?:am|pm)\b)))(?P<v>(?:(?:0?[1-9]|1[0-2])/(?:3[01]|[12]\d|0?[1-9])|(?:3[01]|[12]\d|0?[1-9])/(?:0?[1-9]|1[0-2])))(?![\d/%]|[ ]?(?:nodes?|lymph|positive|points?|strength|power|in[ ]|mm|cm|murmur|left|right|bilateral|throughout))"),
    ("gone", rf"(?:农历|阴历|旧历|夏历)?[ ]?(?:[{_HAN_NUM}]{{4}}年)?(?:正月|腊月|冬月|闰[{_HAN_NUM}]月)(?:初[一二三四五六七八九十]|十[一二三四五六七八九]?|廿[一二三四五六七八九]?|二十[一二三四五六七八九]?|三十)?"),
    ("gone", rf"(?:农历|阴历|旧历)[ ]?(?:[{_HAN_NUM}\d]{{1,4}}年)?[ ]?[{_HAN_NUM}\d]{{1,3}}月(?:初?[{_HAN_NUM}廿\d]{{1,3}}[日号]?)?"),
    ("gone", rf"(?:民国|光绪|宣统)[ ]?(?:[{_HAN_NUM}]{{1,4}}|\d{{1,3}})年(?:[{_HAN_NUM}\d]{{1,3}}月(?:[{_HAN_NUM}\d]{{1,3}}[日号])?)?"),
    ("gone", r"(?:除夕夜?|大年(?:三十|初[一二三四五六七八九十])|元宵节|端午节?(?=[，。当前后期假晚早\d])|中秋节?(?=[，。当前后期假晚早\d])|重阳节|国庆节?(?=[，。当前后期假晚早\d])|元旦(?!达)|春节|圣诞节?(?=[，。当前后期假晚早\d])|清明节|七夕|腊八节?|五一(?=节|假|期间|前|后)节?|十一(?=黄金周|假期|长假|期间))"),
    ("gone", r"(?:(?:本|上|下|当|次)月|(?<![\d年月第后前前共约近余病程治疗住院连续用药服术疗至到-]))(?P<v>(?:[12]\d|3[01]|[1-9])[日号])(?=上午|下午|晚上?|凌晨|清晨|中午|入院|出院|转[入出院]|行(?!走)|手术|就诊|来[院诊]|复[查诊]|再次|夜间|早[上晨]|死亡|起[，始])"),
    ("gone", r"(?<![\d年病程史约近达已经余历共])(?P<y>[0-4]\d|[5-9]\d)年[ ]?(?:1[0-2]|0?[1-9])月(?![龄经余])(?=份|初|底|末|中旬|上旬|下旬|查|行|因|在|于|开始|起|出现|确诊|诊断|发现|[住入出来]院|手术|体检|曾|无|突|外院|当地|出生|生(?!长)|被|患|再|又|至|到|-|$|[，。；、,;）)至])"),
    ("gone", rf"(?<![{_HAN_NUM}年个])[{_HAN_NUM}]{{1,3}}月(?:[{_HAN_NUM}]{{1,3}}[日号]|初[{_HAN_NUM}]|廿[{_HAN_NUM}]?)"),
    ("gone", r"(?:(?<=[，。；于,;（(\s])|(?<=^)|(?<=\n))(?:1[0-2]|0?[1-9])[./\-](?:3[01]|[12]\d|0?[1-9])(?=日|[入出来转]院|复[诊查]|住院|手术|拆线|拔[管除]|换药|就诊(?!者|率|人)|[来出]诊|转科|化疗)"),
    ("gone", r"(?i)(?:(?<=\bon )|(?<=appointment )|(?<=\bsince )|(?<=\buntil )|(?<=\bseen )|(?<=\bdated )|(?<=\bdue ))(?:3[01]|[12]\d|0?[1-9])\.(?:1[0-2]|0?[1-9])\.(?![\d%]|\s?[A-Za-z]{1,3}(?:/|\b(?<!at)))"),
]
# fmt: on

_COMPILED = [(name, re.compile(pattern)) for name, pattern in _PATTERNS]
_BIRTH = re.compile(
    r"(?i)(?:\bd\.?o\.?b\b\.?|date of birth|birth ?date|birthday|\bborn(?: on)?(?: the)?|出生日期|出生年月|生日|出生于|出生|生于)[\s:：是为]*$"
)


_WEEKDAY = re.compile(r"\b(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?,?\s(?:the\s)?$")
"""Before a date that moves: beside the new date it would tell by how much."""
_BORN = re.compile(r"\s?出?生(?![长产化殖])")
_ANY_MONTH = re.compile("(?i)" + "|".join(month[:3] for month in _MONTHS))
_CHINESE = re.compile("年|月|春节")


def find_dates(text: str, shift: Callable[[date], date] | None) -> Iterator[Span]:
    """Dates in folded text with their shifted form; without `shift` (no key) they go altogether."""
    months, han = bool(_ANY_MONTH.search(text)), has_han(text)
    for layout, pattern in _COMPILED:
        if ("january" in pattern.pattern and not months) or (_CHINESE.search(pattern.pattern) and not han):
            continue
        for match in pattern.finditer(text):
            start = (
                match.start("v")
                if match.groupdict().get("v")
                else match.start("m")
                if layout == "md_num"
                else match.start()
            )
            if _is_reading(layout, match, text):
                continue
            birth = bool(_BIRTH.search(text[max(0, start - 20) : start]) or _BORN.match(text[match.end() :][:3]))
            if layout in ("md_num", "md_cue", "md_word", "dm_word"):
                yield from _series(text, match.end(), shift)
            moved = "" if birth or shift is None or layout in ("gone", "md_cue") else _moved(layout, match, shift)
            weekday = _WEEKDAY.search(text[max(0, start - 16) : start]) if moved else None
            start -= len(weekday.group()) if weekday else 0
            yield Span(start, match.end("v") if match.groupdict().get("v") else match.end(), Kind.DATE, text=moved)


_NEXT = re.compile(
    r"(?:,|;|,?[ ](?:and|then|or|&))[ ](?:(?P<again>again|on)[ ](?:on[ ])?)?(?:(?P<m>1[0-2]|0?[1-9])/(?P<d>3[01]|[12]\d|0?[1-9])|(?P<dm>(?:3[01]|2\d|1[3-9])/(?:1[0-2]|0?[1-9])))(?![\d/%]|[ ]?(?:nodes?|lymph|positive|points?|strength|power|in[ ]|mm|cm|murmur|at[ ]rest))"
)


def _series(text: str, position: int, shift: Callable[[date], date] | None) -> Iterator[Span]:
    """`3/14 and again 3/21`: what follows a date in a list of dates. Where it may as well be a grade (4/5), it is none."""
    while match := _NEXT.match(text, position):
        if match["d"] and int(match["d"]) <= 12 and not match["again"]:
            return
        moved = "" if shift is None or match["dm"] else _moved("md_num", match, shift)
        yield Span(match.start("dm" if match["dm"] else "m"), match.end(), Kind.DATE, text=moved)
        position = match.end()


_GRADE_BEFORE = re.compile(r"(?i)(?:increas|improv|decreas|reduc|strength|grad|scor|power|pain|reflex)\w*[^.;]{0,24}$")


_SCORED = re.compile(
    r"(?i)(?:apgar|评分|scores?|grades?|muscle|肌力|respectively)[^.;。；\n\d]{0,16}$|(?:\b[CTLS]|ribs?|ratio|vertebra\w*|levels?|teeth|第)\s?$"
)
_COUNTED = re.compile(
    r"\s?(?:[分椎肋周天岁次级度]|小时|个月|(?:mm|cm|months?|weeks?|days?|years?|hours?|mg|mcg|ml|nodes?|vertebra\w*|ribs?|discs?|cycles?|beats|fractions|suture|schedule|points?)\b)"
)


def _is_reading(layout: str, match: re.Match[str], text: str) -> bool:
    """`3.9 0.28` is two values of a table, `strength increases to 5/5` a grade: neither is a date."""
    if layout == "xy_sep":
        before, after = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 3]
        if re.search(r"[/\-] ?$", before) or re.match(r" ?/ ?\d", after):
            return True  # `3.1 / 99 / 27 / 12`: a panel of values
        if _COUNTED.match(text[match.end() : match.end() + 12]) or _SCORED.search(
            text[max(0, match.start() - 24) : match.start()]
        ):
            return True  # `Apgar评分9-10-10分`, `C 5-6-7 discs`
        day_or_month = [int(re.sub(r"\s", "", match[part])) for part in "ab"]
        if len(match["y"].replace(" ", "")) == 2 and not 1 <= min(day_or_month) <= 12:
            return True  # `3-0-10 Vicryl`
        return match["sep"] == "." and bool(re.search(r"\d\s\d", match["b"])) and not re.search(r"\s", match["a"])
    if layout == "md_num":
        return match["d"] in ("5", "10") and bool(
            _GRADE_BEFORE.search(text[max(0, match.start() - 32) : match.start()])
        )
    return False


def _moved(layout: str, match: re.Match[str], shift: Callable[[date], date]) -> str:
    """The shifted date in the layout of the match, "" where it is no date."""
    part = {key: re.sub(r"\s", "", value) for key, value in match.groupdict().items() if value}
    try:
        if layout == "xy_sep":
            return _moved_slashes(part, shift)
        month = int(part["m"]) if "m" in part else _month_number(part["mon"])
        year = int(part.get("y", "2001"))
        new = shift(date(year + (0 if year > 99 else 2000 if year < 40 else 1900), month, int(part.get("d", "15"))))
    except (ValueError, KeyError, OverflowError):
        return ""
    word = _MONTHS[new.month - 1].capitalize()
    layouts = {
        "ymd_sep": f"{new.year}{part.get('sep')}{new.month:02d}{part.get('sep')}{new.day:02d}",
        "ym_sep": f"{new.year}{part.get('sep')}{new.month:02d}",
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


def _moved_slashes(part: dict[str, str], shift: Callable[[date], date]) -> str:
    """`3/14/2021`: month first as in the US, unless the first number cannot be a month."""
    first, second, year = int(part["a"]), int(part["b"]), int(part["y"])
    day_first = first > 12
    month, day = (second, first) if day_first else (first, second)
    full = year if year > 99 else year + (1900 if year > 40 else 2000)
    new = shift(date(full, month, day))
    pair = (new.day, new.month) if day_first else (new.month, new.day)
    sep = part["sep"]
    return f"{pair[0]:02d}{sep}{pair[1]:02d}{sep}{new.year if year > 99 else f'{new.year % 100:02d}'}"


def _month_number(word: str) -> int:
    return [month[:3] for month in _MONTHS].index(word.casefold()[:3]) + 1


Shift = Callable[[date], date]
"""Moves a date."""


def shifter(days: int) -> Shift:
    """Move dates `days` back."""
    return lambda day: day - timedelta(days=days)


def shift_iso(text: str, days: int) -> str:
    """A shifted ISO date (of an ISO date or date-time), "" for anything else."""
    try:
        return (date.fromisoformat(text[:10]) - timedelta(days=days)).isoformat()
    except ValueError:
        return ""
