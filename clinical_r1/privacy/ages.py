# ruff: noqa: E501  (a pattern or a word list reads best as one piece)
"""Age bands, and ages over 89, which fold into "90+" only where the words say that the number is an age.

`fever of 102 F`, `Tc-99m`, `HR 98` and `G2P1 29-year-old` hold numbers that no age is meant by.
"""

import re
from collections.abc import Iterator

from clinical_r1.privacy.spans import Kind, Span

_OLD = r"(?P<age>9 ?\d|1[0-2]\d|1 [0-2] \d)"
_WORDS = r"(?P<age>ninety(?:[ \-](?:one|two|three|four|five|six|seven|eight|nine))?|(?:one|a) hundred(?: and (?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve))?)"
_WHO = r"(?:he|she|who|patient|pt|mother|father|mum|dad|mom|husband|wife|grand(?:mother|father|ma|pa)|aunt|uncle|sister|brother|lady|gentleman|man|woman|resident|widow|widower|centenarian|great-grandmother|great-grandfather|mrs?\.? \w+|ms\.? \w+)"
_NO_UNIT = r"(?!\d|[.,]\d|\s?(?:%|/|°|kg|lbs?|pounds|cm|mm|mg|ml|bpm|beats|percent|days|weeks|months|hours|minutes|min|degrees|[CF]\b(?! \w)|on (?:room|RA|O2|\d)|to \d|over|systolic|diastolic|mmHg|x\s?10))"
_HAN = "[零〇一二三四五六七八九十两]"
_OLD_AGE = [
    re.compile(pattern)
    for pattern in (
        rf"(?i)(?<![\w.]){_OLD}(?=[ \t]{{0,2}}-?[ \t]{{0,2}}(?:years?|yrs?|y)\b\.?[ \t\-]{{0,2}}(?:old|of age|/?\s?o\b|young))",
        rf"(?i)(?<![\w.]){_OLD}(?=\s?(?:y/?o(?:[MF]\b|\b)|y\.\s?o\.))",
        # `98 F admitted`, `101F with`, but no temperature
        rf"(?:(?:^|[\n.;(]|\b[Aa]n?|\b[Aa]ged?|[A-Z][a-z]+,)\s{{0,2}})(?<![\w.\-]){_OLD}(?=\s?(?:[MF]|male|female|man|woman|lady|gentleman)\b(?!\s?[(°/\d]|\s?C\b|\.\d))",
        rf"(?i)\b(?:aged|age of|age is|age was|age|at the age of|years of age)\s{{0,2}}[:：=]?\s{{0,2}}(?:of\s|is\s|about\s|approximately\s|around\s)?{_OLD}{_NO_UNIT}",
        rf"(?i)\b{_WHO}(?:,)?\s(?:is|was|turned|turns|has turned|just turned|recently turned|turning|will be|will turn|is now|is almost|is nearly|being|celebrated (?:his|her)|reached|lived to|lived to be)\s{_OLD}{_NO_UNIT}",
        rf"(?i)\b(?:turned|turning|celebrated (?:his|her)|died at|dies at|died aged|passed away at|passed at|dead at|death at|lived to(?: be)?|survived to|until|reached|at age|by age|over age)\s(?:the age of\s|age\s|about\s)?{_OLD}(?=\s?(?:years|from|of|with|in\b|and|after|due|last|this|next|$|[.,;)\n]|birthday|th birthday)){_NO_UNIT}",
        rf"(?i)\b(?:mrs?|ms|miss|dr)\.?\s[^\W\d_]+(?:\s[^\W\d_]+)?,\s{_OLD}(?=[,;.]|\s(?:and|who|was|is|with|from)\b)",
        rf"(?i)\b(?:mother|father|wife|husband|brother|sister|aunt|uncle|widow|patient|grandmother|grandfather)\s?[,(]\s?(?:aged\s|age\s)?{_OLD}(?=[,;)])",
        rf"(?i){_WORDS}(?=[\s\-]year)",
        rf"(?i)\b(?:aged|age of|at|is|was|turned|turning|to be|now|almost|nearly|over)\s{_WORDS}(?=\s?(?:$|[.,;)\n]|and\b|years?|last|when|from|of|with))",
        rf"(?<![\d.\-/~～至]){_OLD}(?=\s{{0,2}}(?:周|余|多)?岁)",
        rf"(?:年龄|现年|享年|终年|高寿|年已|年届|年过|年逾|年近|寿)\s?[:：为是约已]?\s?{_OLD}(?!\d|[.%])",
        rf"[男女][，,、]\s?{_OLD}(?=[，,。；;]|\s?岁)",
        rf"(?P<age>(?:九十|一百|百){_HAN}{{0,3}})(?=\s?(?:周|余|多)?岁)",
        rf"(?:年龄|现年|享年|终年|高寿|年已|年届|年过|年逾|年近|寿)\s?[:：为是约已]?\s?(?P<age>(?:九十|一百|百){_HAN}{{0,3}}|九旬|百岁|期颐)",
        r"(?P<age>九旬)(?=老|高龄|患者|有余|，)",
    )
]
_HEAT = re.compile(
    r"(?i)(?:fever|febrile|temp|tmax|°|\bt\b|\btm\b|celsius|fahrenheit|heart|pulse|rate|\bhr\b|\bbp\b|sat|spo2|weight|glucose|sugar)[^.;\n]{0,18}$"
)


def find_old_ages(text: str) -> Iterator[Span]:
    """Ages over 89 in folded text, replaced by 90+."""
    for pattern in _OLD_AGE:
        for match in pattern.finditer(text):
            start, end = match.span("age")
            if not _HEAT.search(text[max(0, match.start() - 24) : start]):
                yield Span(start, end, Kind.AGE, text="90+")


def age_band(age: int) -> str:
    """Ten-year band; 90 and over is one band (Safe Harbor)."""
    return "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"


def safe_age_band(text: str) -> str:
    """A band as given; a bare age becomes its band; anything that starts at 90 or more is folded."""
    match = re.match(r"\s*(\d{1,3})", text)
    if not match:
        return ""
    return age_band(int(match.group(1))) if text.strip().isdigit() or int(match.group(1)) >= 90 else text.strip()[:8]
