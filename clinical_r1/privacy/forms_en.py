# ruff: noqa: E501  (a pattern or a word list reads best as one piece)
"""Names that nobody capitalised, that are spelled letter by letter; log-in names and initials under a note; who speaks in
a dialogue; names in other scripts."""

import re
from collections.abc import Iterator

from clinical_r1.privacy.cues_en import LEFT_AGENT, LEFT_PERSON, NOT_AFTER_TITLE, SURE_VERB, THING
from clinical_r1.privacy.lexicon import english, is_word, plain
from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.privacy.words_en import (
    LETTER,
    Word,
    is_clinical,
    is_everyday,
    is_first,
    is_last,
    is_pinyin_name,
    is_unknown,
    words_of,
)
from clinical_r1.text import HAN_CHARACTER, main_language

_LOWER_CUE = re.compile(
    r"(?i)(?:\b(?:per|with|by|from|told|called|saw|mr|mrs|ms|dr|miss|son|daughter|wife|husband|mother|father|sister|brother|nurse|to|and|pt|patient|named|dtr|mom|dad|mum|friend|asked)\.?\s)$"
)
_KIN_NEXT = re.compile(
    r"\s?\((?:dtr|daughter|son|wife|husband|mom|mum|dad|mother|father|sister|brother|nurse|rn|partner|nok|friend|aunt|uncle)\b"
)
_LOWER_TITLE = re.compile(r"\b(?:mr|mrs|ms|miss|dr|prof)\.?\s$")


def lower_case(text: str, words: list[Word]) -> Iterator[Span]:
    """Names that nobody capitalised: a listed given name with a listed surname, or with a cue; anything behind mr or dr."""
    lists = english()
    for index, word in enumerate(words):
        if word.text[0].isupper() or word.letters < 3:
            continue
        listed = word.plain in lists.first and not is_everyday(word)
        following = words[index + 1] if index + 1 < len(words) else None
        before, after = text[max(0, word.start - 14) : word.start], text[word.end : word.end + 16]
        if _LOWER_TITLE.search(before) and not is_word(word.plain) and word.plain not in NOT_AFTER_TITLE:
            yield Span(word.start, word.end, Kind.NAME, 0.85)
        if not listed:
            continue
        gap = text[word.end : following.start] if following else ""
        if (
            following
            and following.plain in lists.last
            and not is_everyday(following)
            and re.fullmatch(r"[ \t._\-]{1,2}", gap)
            and not THING.match(text[following.end : following.end + 60])
        ):
            yield Span(word.start, following.end, Kind.NAME, 0.8)
        elif _LOWER_CUE.search(before) or _KIN_NEXT.match(after):
            yield Span(word.start, word.end, Kind.NAME, 0.75)


_SIGNATURE = re.compile(
    rf"(?im)(?:^\s{{0,4}}--?\s?(?P<a>{LETTER}{{3,20}}(?:[.\s]{LETTER}{{2,20}})?)\s{{0,2}}(?:\d{{3,4}}|$|/|,)|\b(?:dictated|typed|transcribed|signed|entered|charted|authored|e-?signed|verified)\s(?:by|:|-)\s?:?\s{{0,2}}(?P<b>{LETTER}{{3,24}})(?=\s?/|$|[.,;\n]|\s\d)|"
    rf"^\s{{0,4}}(?P<c>{LETTER}{{2,20}})/(?-i:[a-z]{{2,3}})\s?$)"
)


_LOGIN = re.compile(
    r"(?i)(?:\b(?:author|user(?: ?name| ?id)?|log-?in|operator|initials?)\s?[:=]\s{0,2}|\blog(?:ged)?[ -]?in as\s|\b(?:dictated|typed|transcribed|e-?signed|signed|entered|charted|authored|verified)(?:\s(?:by|off by))?\s?:?\s{1,2})"
    r"(?P<v>[a-z]{3,20}\d{1,5})\b"
)


def signatures(text: str) -> Iterator[Span]:
    """Log-in names under a note: `-- hmurphy 0715`, `Dictated by: SKowalczyk/tr`, `Author: jsmith42`."""
    for match in _LOGIN.finditer(text):
        yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.8)
    for match in _SIGNATURE.finditer(text):
        for group in () if _UNITS.match(match.group().strip()) else ("a", "b", "c"):
            if match.group(group) and not all(
                is_word(plain(word)) or plain(word) in english().clinical
                for word in re.split(r"[.\s]", match.group(group))
            ):
                yield Span(match.start(group), match.end(group), Kind.NAME, 0.8)


_STAMP = r"(?:DD?|TT?|D/?T|T/?D|Dict(?:ated)?|Trans(?:cribed)?|Typed)\s?[:.]\s?\d[\d/.\-]{5,9}(?:[ ,]{1,2}\d[\d:]{3,7}(?:\s?[AaPp][Mm])?)?"
_PAIR = r"(?:[A-Z]{2,4}\s?[:/]\s?[A-Za-z]{2,4}|[a-z]{2,4}[:/][a-z]{2,4})"
_INITIALS = [
    re.compile(pattern)
    for pattern in (
        # alone on a line, or beside the dates of dictation and typing
        rf"(?m)^[ \t]{{0,8}}(?P<v>{_PAIR})[ \t]{{0,4}}(?=$|[\d(]|{_STAMP})",
        rf"{_STAMP}[ \t,;]{{1,6}}(?:{_STAMP}[ \t,;]{{1,6}})?(?:[Jj]ob\s?#?:?\s?\d+[ \t,;]{{1,4}})?(?P<v>{_PAIR}|[A-Z]{{2,4}}|[a-z]{{2,3}})[ \t.]{{0,4}}(?=$|\n)",
        r"(?P<v>(?<![A-Za-z.])(?:[A-Z]\.){2,3})(?=,?\s(?:(?:is|was)\s)?an?\s(?:[a-z]{3,12}\s)?\d{1,3}[ \-]?(?:y/?o|year))|\b[Ii]nitials\s(?:are\s)?(?P<w>(?:[A-Z]\.?){2,3})(?![A-Za-z])",
        rf"(?i:\b(?:dict|trans|dictated|typed|transcribed|transcription|typist|transcriptionist|dictator|dictation|initial(?:s|ed)|ref(?:erence)? initials)(?:[ \t]?(?:initials|by|and typed by)){{0,2}})[ \t]?(?:[:=\-]|(?<=by)[ \t])[ \t]{{0,2}}(?P<v>{_PAIR}|[A-Z]{{2,4}}|(?:[A-Z]\.){{2,3}}|[a-z]{{2,3}})(?=[ \t]{{2}}|[ \t]{{0,2}}(?:$|[.,;)\n|]|[A-Z][a-z]+(?: by)?:|\d))",
    )
]
_UNITS = re.compile(
    r"(?i)^(?:[a-z]+/(?:mm|min|hr?s?|hpf|lpf|ml|dl|day|wk|mo|kg|sec|bpm|mmhg)|and/or|he/she|his/her|him/her|h/o|c/o|i/o|n/a|w/o|s/p|y/o|yes/no|or/and|am/pm|cc/kg|hr/rr|r/o|n/v)$"
)


def initials(text: str) -> Iterator[Span]:
    """Whose dictation it is and who typed it: `JMS/tkl`, `D: 3/4/21 T: 3/5/21 MTS`, `Typed by: kl`; `J.R. is a 55-year-old`."""
    for pattern in _INITIALS:
        for match in pattern.finditer(text):
            group = "v" if match["v"] else "w"
            if not _UNITS.match(re.sub(r"\s", "", match[group])):
                yield Span(match.start(group), match.end(group), Kind.NAME, 0.8)


_SPEAKER = re.compile(
    rf"(?m)^[ \t]{{0,4}}[\[(*]{{0,2}}(?:(?i:speaker|voice|patient|pt|doctor|nurse)[ \t]?\d{{0,2}}[ \t]?[(\-])?(?P<v>{LETTER}{{2,20}}(?:[ .'’\-]{{1,2}}{LETTER}{{1,20}}){{0,2}})\.?[)\]*]{{0,2}}[ \t]?(?:\([^)\n]{{1,20}}\))?[ \t]?:[\]*]{{0,2}}[ \t\"“]{{1,4}}"
    r"(?P<said>(?i:I|I['’](?:m|ve|d|ll)|my|you|your|we|me)\b|(?:Hi|Hello|Hey|Okay|OK|Yeah|Thanks|Thank you|Good morning|Good afternoon|Please|Sure|Um|Uh|Where|What|When|How|Why|Do|Did|Does|Have|Are|Can|Could|Would|Any|Well|So|And|It|That|Yes|No|Not|Maybe|Since)\b[^\n]{0,200})"
)


_PRONOUN = re.compile(r"(?i)(?:i|i['’]\w+|my|you|your|we|me)\b")
_DIALOGUE = re.compile(
    r"(?im)^[ \t\[*(]{0,4}(?:doctor|dr|patient|pt|clinician|physician|interviewer|nurse|provider|mother|father|student)[\])]?[ \t]?:"
)
_PERSONAL = re.compile(r"(?i)\b(?:i|you|my|your)\b|\?")


def speakers(text: str) -> Iterator[Span]:
    """Who speaks in a dialogue: `SMITH: I have pain`, `Anna: Where does it hurt?`. A word of the clinic before a colon is
    a heading, unless what follows is said by an I to a you."""
    for match in _SPEAKER.finditer(text):
        named = [word for word in words_of(match["v"]) if word.letters > 1 and word.capital]
        pronoun = bool(_PRONOUN.match(match["said"]))
        listed = [word for word in named if is_first(word) or (is_last(word) and not is_everyday(word))]
        strange = [word for word in named if word not in listed and is_unknown(word)]
        if (
            named
            and len(listed) + len(strange) == len(named)
            and (pronoun or (_PERSONAL.search(match["said"]) and not any(is_clinical(word) for word in named)))
            and (pronoun or listed or _DIALOGUE.search(text))
        ):
            yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.8)


_HAN_RUN = re.compile(
    rf"(?<!{HAN_CHARACTER}){HAN_CHARACTER}{{1,4}}(?:[ ·.]{{1,2}}{HAN_CHARACTER}{{1,4}})?(?!{HAN_CHARACTER})"
)
_NO_NAME = re.compile(r"[病炎症癌痛药痰咳热寒湿虚实气血阴阳证脉苔舌汤丸散疸肿疹肝肾肺脾胃心]")
_BEFORE_HAN = re.compile(r"(?i)\b(?:mr|mrs|ms|dr|prof|per|with|by|for|of|to|see|seen|as|named)\.?\s$")


def han_in_latin(text: str) -> Iterator[Span]:
    """`Dr. 太郎 鈴木`: in a note in Latin letters two Han words beside each other, or one with a person's cue, are a name;
    terms of Chinese medicine (气虚) stand there too."""
    if main_language(text) == "zh":
        return
    for match in _HAN_RUN.finditer(text):
        if _NO_NAME.search(match.group()):
            continue
        before = text[max(0, match.start() - 60) : match.start()]
        cue = _BEFORE_HAN.search(before) or LEFT_PERSON.search(before) or LEFT_AGENT.search(before)
        if re.search(r"[ ·.]", match.group()) or cue or SURE_VERB.match(text[match.end() :][:60]):
            yield Span(match.start(), match.end(), Kind.NAME, 0.8)


_SPELLED = re.compile(r"(?<![A-Za-z\d])[A-Za-z](?:[ .\-_*·]{1,2}[A-Za-z](?![A-Za-z])){3,30}")


def spelled(text: str) -> Iterator[Span]:
    """`T e m p e r a n c e`: a name letter by letter."""
    lists = english()
    for match in _SPELLED.finditer(text):
        word = re.sub(r"[^A-Za-z]", "", match.group()).casefold()
        known = (
            word in lists.first
            or word in lists.last
            or any(word[:i] in lists.first and word[i:] in lists.last for i in range(2, len(word) - 1))
        )
        if known or any(is_pinyin_name(word[:i], word[i:]) for i in range(2, len(word) - 2)):
            yield Span(match.start(), match.end(), Kind.NAME, 0.8)


_FOREIGN_LETTER = r"[\u0370-\u03ff\u0400-\u052f\u0530-\u06ff\u0750-\u1cff\u1f00-\u1fff\u3041-\u30ff\u3130-\u318f\uac00-\ud7af\ufb50-\ufdff\ufe70-\ufefc]"
_FOREIGN = re.compile(rf"{_FOREIGN_LETTER}{{2,40}}(?:[ \t.·\-'’ー・]{{1,2}}{_FOREIGN_LETTER}{{1,40}}){{0,6}}")


def find_foreign(text: str) -> Iterator[Span]:
    """Words in scripts that are neither Latin nor Han: in an English or Chinese note they name people and places."""
    for match in _FOREIGN.finditer(text):
        word = match.group()
        greek = bool(re.fullmatch(r"[\u0370-\u03ff\W]+", word))
        if not greek or (len(word) >= 4 and not word.isupper()):
            yield Span(match.start(), match.end(), Kind.NAME, 0.9)
