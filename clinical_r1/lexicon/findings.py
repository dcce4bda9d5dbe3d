"""Clinical findings by name, English and Chinese: find them in a text; tell asserted from denied or supposed ones."""

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from clinical_r1.text import has_han

TABLE = Path(__file__).parent / "findings.tsv"

_SENTENCE = re.compile(r"[^.;!?\n。；！？]+(?:\.(?=\d)[^.;!?\n。；！？]+)*")
_DENIED = re.compile(
    r"\b(no|not|without|den(?:y|ies|ied|ying)|absen(?:t|ce of)|negative for|lacks?|lacking|nor|neither|never|"
    r"free of|isn't|doesn't|does not|hasn't)\b|无|没有|否认|未见|未诉|未|不伴|不是|并非|缺乏|缺少"
)
_SUPPOSED = re.compile(
    r"\b(would|should|expect\w*|typical\w*|usual\w*|common\w*|classic\w*|often|sometimes|caus(?:e|es|ed|ing)|"
    r"presents?|presenting with|characteri[sz]ed|may|might|could|can|if|unless|whether|features?|includes?|including|"
    r"such as|symptoms? of|signs? of|e\.g|look for|check|ask|assess|rule out|excluded?|risk|chance|associated|"
    r"generally|seen in|consider\w*|lead\w* to|due to|secondary to|leading|response to|known|conditions? like|"
    r"potential\w*|possible|link\w*|related|like|maybe|perhaps|means?|worsening|controlling|preventing)\b|"
    r"通常|常见|典型|可有|可能有|会有|会出现|可出现|常有|应有|若|如果|假如|排除|需要|询问|特点|表现为|常表现|一般|"
    r"多见|引起|导致|常伴|可伴|是否|往往|多伴|可表现"
)
_DENIED_AFTER = re.compile(
    r"^\s*(?:(?:is|are|was|were|has been)\s+)?(?:absent|denied|negative|not\b|unlikely|never|missing)|"
    r"^(?:阴性|不明显|未出现|缺如|不存在)"
)
_SUPPOSED_AFTER = re.compile(
    r"^\s*(?:(?:is|are)\s+)?(?:would|may|might|could|can|typical|common|often|expected|usual)|"
    r"^\s+(?:control|management|prophylaxis|prevention)\b"  # what a treatment is for, not what the patient has
)
_TURN_EN = re.compile(
    r"\b(but|however|although|though|yet|whereas|while|who has|also has|has|reports?|complains? of)\b"
)
_TURN_ZH = re.compile(r"[，,]|但|却")


_MEASURED = (
    (re.compile(r"temperature|°\s?[CF]|体温|℃", re.I), ("fever",)),
    (re.compile(r"pulse|heart rate|beats|bpm|脉搏|心率", re.I), ("tachycardia", "bradycardia", "palpitation")),
    (re.compile(r"blood pressure|mm\s?Hg|血压", re.I), ("hypotension",)),
)


class Finding(NamedTuple):
    """One group of names for the same finding."""

    key: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]
    broader: tuple[str, ...]


class Mention(NamedTuple):
    """A finding named in a text."""

    key: str
    text: str
    start: int
    stance: str
    """asserted | denied | supposed."""


@cache
def _rows() -> list[list[str]]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [[*line.split("\t"), "", ""][:3] for line in lines if line and not line.startswith("#")]


@cache
def findings() -> dict[str, Finding]:
    """The shipped lexicon by first English name."""
    table = {}
    for english, chinese, broader in _rows():
        if english != "!":
            names = english.split("|")
            implied = tuple(name for name in broader.split("|") if name)
            table[names[0]] = Finding(names[0], tuple(names), tuple(chinese.split("|")), implied)
    return table


@cache
def _pattern() -> tuple[re.Pattern[str], dict[str, str]]:
    names = {}
    for row in _rows():
        if row[0] == "!":
            names.update(dict.fromkeys((name.casefold() for name in "|".join(row[1:]).split("|") if name), ""))
    for key, finding in findings().items():
        for name in (*finding.english, *finding.chinese):
            names.setdefault(name.casefold(), key)
    ordered = sorted(names, key=len, reverse=True)
    english = "|".join(re.escape(name) for name in ordered if name.isascii()).replace("'", "['’]")
    chinese = "|".join(re.escape(name) for name in ordered if not name.isascii())
    return re.compile(rf"(?<![\w-])(?:{english})(?:s|es)?(?![\w])|(?:{chinese})", re.IGNORECASE), names


def mentions(text: str) -> list[Mention]:
    """All findings that a text names, in order, longest names first where they overlap."""
    pattern, names = _pattern()
    found = []
    for sentence in _SENTENCE.finditer(text):
        for match in pattern.finditer(sentence[0]):
            name = match[0].casefold().replace("’", "'")
            key = next((names[form] for form in (name, name[:-1], name[:-2]) if form in names), "")
            if key:
                before, after = sentence[0][: match.start()], sentence[0][match.end() :]
                found.append(Mention(key, match[0], sentence.start() + match.start(), stance(before, after)))
    return found


def stance(before: str, after: str) -> str:
    """asserted, denied or supposed, from the words of the sentence around a mention."""
    if _DENIED_AFTER.search(after):
        return "denied"
    if _SUPPOSED_AFTER.search(after):
        return "supposed"
    lowered = before.casefold()
    turns = [match.end() for match in (_TURN_ZH if has_han(before) else _TURN_EN).finditer(lowered)]
    near = lowered[turns[-1] :] if turns else lowered
    if _DENIED.search(near):
        return "denied"
    return "supposed" if _SUPPOSED.search(near) else "asserted"


@lru_cache(maxsize=4096)
def supported(case_text: str) -> tuple[set[str], set[str]]:
    """Findings that a case has (with the broader ones they imply), and those that it only denies.

    A measured temperature, pulse or blood pressure lets the thought name fever, tachycardia and the like.
    """
    present: set[str] = set()
    denied: set[str] = set()
    for mention in mentions(case_text):
        (denied if mention.stance == "denied" else present).add(mention.key)
    present |= {key for pattern, keys in _MEASURED for key in keys if pattern.search(case_text)}
    implied = {broader for key in present for broader in findings()[key].broader}
    narrower = {key for key, finding in findings().items() if present & set(finding.broader)}
    return present | implied, denied - present - implied - narrower
