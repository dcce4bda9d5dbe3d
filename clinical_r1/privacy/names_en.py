# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""English names in running text: census lists, titles, labels, kinship, credentials; eponyms are not patients."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from clinical_r1.privacy.spans import Kind, Span

_TITLE = r"(?i:\b(?:(?:mr|mrs|ms|mx|dr|prof|rev|fr|sgt|capt)\b\.?|(?:miss|doctor|professor|nurse|reverend|judge|officer|sir|madam|attorney)\b))"
_LABEL = (
    r"(?i:\b(?:name|patient|pt|attending|provider|physician|surgeon|signed(?: by)?|dictated by|reviewed by|cc|next of kin|contact|"
    r"pcp|resident|interpreter|guardian|spouse|seen by|referred by|accompanied by|called|named|spoke (?:to|with)|per|known as|"
    r"evaluated by|assisted by|caregiver|roommate|neighbou?r|friend|colleague|wife|husband|son|daughter|mother|father|brother|sister|"
    r"see|saw|per|helped|asked|met|told|partner|fianc[eé]e?|aunt|uncle|grandmother|grandfather|niece|nephew|cousin|therapist|social worker|witness|author|"
    r"transcribed by|electronically signed by|regards|sincerely|hello|dear|hi|with|by|to|from|for)\b\s?(?:is\s|was\s)?[:,\-]?)"
)
_CREDENTIAL = r",?\s{0,2}(?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|L\.?P\.?N|PharmD|DDS|MBBS|FACP|FACS|LCSW|Jr|Sr|III?|IV)\b\.?"
_WORD = r"(?:[A-Z][a-z]+|[A-Z]{2,}|(?:O'|D'|Mc|Mac|De|La|Le|Van|St\.\s)[A-Z][a-z]+)(?:-[A-Z][a-z]+)?"
_INITIAL = r"[A-Z]\."
_PARTICLE = r"(?:de|del|la|van|von|der|den|di|da|bin|al|el|le)"
_RUN = re.compile(
    rf"(?<![\w@/])(?:{_WORD}|{_INITIAL}|[A-Z](?=\s[A-Z][a-z]))(?:(?:,\s{{0,2}}|[ \t._\-/]{{1,3}})(?:{_PARTICLE}\s)?(?:{_WORD}|{_INITIAL}|[A-Z](?![\w'])))*(?![\w])"
)
_TOKEN = re.compile(r"[A-Za-z][A-Za-z'\-]*")
_LOWER = re.compile(r"(?<![A-Za-z\-])([a-z]{2,})[ \t._\-]{1,2}(?:[a-z]\.? )?([a-z]{2,})(?![A-Za-z\-])")
_SPELLED = re.compile(r"(?<![A-Za-z\d])[A-Za-z](?:[ .\-_*·]{1,2}[A-Za-z](?![A-Za-z])){3,}")
_THING = (
    r"(?:'s?)?(?:[\s\-](?:[a-z]+|[A-Z][a-z]+))?[\s\-](?:diseases?|syndromes?|signs?|tests?|phenomen\w+|procedure|scores?|scale|criteria|lymphomas?|"
    r"tumou?rs?|sarcoma|thyroiditis|contracture|palsy|tetralogy|cells?|bod(?:y|ies)|stain|fractures?|ulcers?|esophagus|oesophagus|"
    r"an(?:a)?emia|disorder|dystrophy|neuropathy|catheter|tube|method|maneuver|manoeuvre|reflex|murmur|rash|nodes?|nodules?|lines?|"
    r"classification|staging|index|respirations?|spots?|chorea|ataxia|law|triad|pouch|duct|gland|node|loop|space|ring|point|angle|"
    r"encephalopathy|deformity|hernia|position|view|operation|repair|shunt|bypass|solution|agar|reaction|effect|virus|bacillus|"
    r"macroglobulinemia|granulomatosis|purpura|nephropathy|cardiomyopathy|arthropathy|amyloidosis|inclusions?|equation|curve|curves|granules?|"
    r"Disease|Syndrome|Hospital|Clinic|University|Medical|Center|Institute|Foundation|Score|Scale|Sign|Test)"
)
_EPONYM = re.compile(_THING)
_VERB = re.compile(
    r"\s(?:is|was|has|had|denies|denied|reports|reported|states|stated|presents|presented|complains|complained|says|said|notes|noted|"
    r"describes|described|admits|returned|returns|lives|works|came|called|will|underwent|developed|tolerated|remains|feels|felt|"
    r"refused|agreed|understands|wants|would|appears|appeared|needs|tells|told|asked|arrived|takes|took|drove|found|helps|and|who)\b"
)


class Census(NamedTuple):
    """Lower-case names of the US census."""

    first: frozenset[str]
    last: frozenset[str]
    every: frozenset[str]
    common: frozenset[str]
    """Names that are also English words."""
    plain: frozenset[str]
    """Words of clinical prose and eponyms, whatever the census says."""
    surnames: frozenset[str]
    """Surnames that are not plain."""
    trailing: frozenset[str]
    """Plain words that are no surname: cut off the end of a run."""


@lru_cache(maxsize=1)
def _census() -> Census:
    folder = Path(__file__).parent
    lines = [line for line in (folder / "names_en.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    blank = lines.index("")
    first, last = (
        frozenset(name.rstrip("*").casefold() for name in block) for block in (lines[:blank], lines[blank + 1 :])
    )
    common = frozenset(name[:-1].casefold() for name in lines if name.endswith("*"))
    plain = (folder / "prose_en.txt").read_text("utf-8").splitlines()
    words = frozenset(word.casefold() for line in plain if not line.startswith("#") for word in line.split())
    return Census(first, last, first | last, common, words, last - words, words - last)


_PINYIN = re.compile(
    r"^(?:(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|iong|uang|ang|eng|ing|ong|ian|iao|uai|uan|van|ai|an|ao|ei|en|er|ia|ie|in|iu|"
    r"ou|ua|ue|ui|un|uo|a|e|i|o|u|v)'?-?){1,3}$"
)
_PINYIN_SURNAMES = frozenset(
    """wang li zhang liu chen yang huang zhao wu zhou xu sun ma zhu hu guo he gao lin luo zheng liang xie song tang deng han feng
    cao peng zeng xiao tian dong pan yuan cai jiang yu du ye cheng wei su lu ding ren shen yao lv cui zhong tan fan wang jin shi
    liao jia xia fu fang bai zou meng xiong qin qiu yin xue yan duan lei hou long tao gu mao hao gong shao wan qian dai mo kong
    xiang chang wen kang zuo""".split()
)


def _pinyin_name(one: str, two: str) -> bool:
    pair = one.casefold(), two.casefold()
    return any(
        surname in _PINYIN_SURNAMES and len(given) > 2 and given.isalpha() and bool(_PINYIN.match(given))
        for surname, given in (pair, pair[::-1])
    )


def find_names_en(text: str) -> Iterator[Span]:
    """English (and pinyin) names in folded text, with a score that says how sure."""
    for match in _RUN.finditer(text):
        yield from _judge(text, match)
    census = _census()
    for match in _LOWER.finditer(text):
        one, two = match.groups()
        if (
            one in census.first
            and two in census.last
            and not {one, two} & census.common
            and not _EPONYM.match(text, match.end())
        ):
            yield Span(match.start(), match.end(), Kind.NAME, 0.8)
    for match in _SPELLED.finditer(text):
        word = re.sub(r"[^A-Za-z]", "", match.group()).casefold()
        known = (
            any(word[:i] in census.first and word[i:] in census.last for i in range(2, len(word) - 1))
            or word in census.every
        )
        if known or any(_pinyin_name(word[:i], word[i:]) for i in range(2, len(word) - 2)):
            yield Span(match.start(), match.end(), Kind.NAME, 0.8)


_TITLE_END = re.compile(rf"{_TITLE}\s{{0,2}}$")
_LABEL_END = re.compile(rf"{_LABEL}\s{{0,2}}$")
_CREDENTIAL_NEXT = re.compile(_CREDENTIAL)
_FIELD_END = re.compile(
    r"(?i)(?:name|patient|pt|signed(?: by)?|contact|cc|provider|attending|dictated by|next of kin|pcp|surgeon|physician)\s?:\s{0,2}$"
)


def _judge(text: str, run: re.Match[str]) -> Iterator[Span]:
    """One run of capitalised words: cut plain words off its ends, then weigh what is left."""
    tokens = [(run.start() + m.start(), run.start() + m.end(), m.group()) for m in _TOKEN.finditer(run.group())]
    titled = False
    # `Surgeon: Stone`: what fills a name field alone is a name, common word or not
    alone = len(tokens) == 1 and bool(_FIELD_END.search(text[max(0, run.start() - 28) : run.start()]))
    alone = alone and tokens[0][2].casefold() in _census().last
    while tokens and not titled and not alone and _droppable(text, tokens):
        titled = titled or tokens[0][2].casefold() in ("mr", "mrs", "ms", "miss", "dr", "doctor", "prof", "nurse")
        tokens = tokens[1:]
    while tokens and tokens[-1][2].upper().rstrip(".") in ("MD", "DO", "RN", "NP", "PHD", "JR", "SR", "III", "II"):
        tokens = tokens[:-1]
    while len(tokens) > 1 and tokens[-1][2].casefold() in _census().trailing:
        tokens = tokens[:-1]
    if not tokens:
        return
    start, end = tokens[0][0], tokens[-1][1]
    before = text[max(0, start - 28) : start]
    titled = titled or bool(_TITLE_END.search(before))
    if _EPONYM.match(text, end) and not titled:
        return
    words = [word.casefold().removesuffix("'s") for _, _, word in tokens if len(word) > 1]
    if not words:
        return
    score = _score(words, tokens, titled, before, text, end)
    if score:
        yield Span(start, end, Kind.NAME, score)


def _droppable(text: str, tokens: list[tuple[int, int, str]]) -> bool:
    """Leading words of prose; a plain word that is a given name stays where a surname follows it, and so do initials."""
    census, (_, end, word) = _census(), tokens[0]
    if len(word) == 1 and text[end : end + 1] == ".":
        return False
    if len(tokens) > 1 and word.casefold() in census.first and tokens[1][2].casefold() in census.surnames:
        return False
    listed = len(tokens) > 1 and text[end : end + 1] == "," and tokens[1][2].casefold() in census.first
    return word.casefold() in census.plain and not (listed and word.casefold() in census.last)


def _score(
    words: list[str], tokens: list[tuple[int, int, str]], titled: bool, before: str, text: str, end: int
) -> float:
    first, last, every, common, plain = _census()[:5]
    names = [word for word in words if any(part in every for part in (word, *word.split("-")))]
    sure = [word for word in names if word not in common and word not in plain]
    labelled, field = bool(_LABEL_END.search(before)), bool(_FIELD_END.search(before))
    credential = bool(_CREDENTIAL_NEXT.match(text, end))
    if titled:
        return 0.95
    if (field or credential) and len(words) <= 4 and (names or len(words) > 1) and not set(words) <= plain:
        return 0.9
    if field and names and len(words) <= 3 and re.match(r"\s{0,2}(?:$|[.,;)\n])", text[end:]):
        return 0.9  # `Surgeon: Stone.`: a value that is nothing but a name
    if len(words) > 1:
        if any(_pinyin_name(a, b) for a, b in pairwise(words)):
            return 0.85
        if len(words) <= 4 and len(names) > 1 and sure and not set(words) <= plain:
            return 0.9
        if len(words) == 2 and words[0] in last and words[1] in first and text[tokens[0][1]] == ",":
            return 0.75
        if len(words) == 2 and words[0] in first and words[0] not in plain and words[1] in last:
            return 0.75
        if sure and len(words) <= 3 and (words[0] in first or words[-1] in last) and not set(words) & plain:
            return 0.75
        return 0.7 if names and labelled and len(words) <= 3 and not set(words) & plain else 0.0
    initial = len(tokens) > len(words)
    if initial and words[0] in last and (words[0] not in plain or len(tokens[0][2]) == 1):
        return 0.75
    if words[0] in first and words[0] not in plain and len(words[0]) > 3 and re.search(r"[a-z,] $", before):
        return 0.7
    if sure and (labelled or _VERB.match(text, end) or text[end : end + 2] == "'s") and len(words[0]) > 2:
        return 0.75
    if sure and words[0] in first and words[0] not in last and len(words[0]) > 3:
        return 0.7
    # A lone surname in the middle of a sentence may be a person or an unlisted eponym: a doubt.
    return 0.5 if sure and len(words[0]) > 3 and re.search(r"[a-z,] $", before) else 0.0
