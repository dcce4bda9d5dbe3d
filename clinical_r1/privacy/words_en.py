# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Words in Latin letters as the recogniser of names sees them: listed names, words of prose and of the clinic, and what is
neither; runs of capitalised words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clinical_r1.privacy.cues_en import DEMOGRAPHIC, LEFT_FIELD, PARTICLES, SHORT_TITLES, SURE_VERB, TITLES, WEAK_VERB
from clinical_r1.privacy.lexicon import english, is_word, plain
from clinical_r1.text import HAN

LETTER = rf"[^\W\d_{HAN}]"
_TOKEN = re.compile(rf"{LETTER}+(?:['’‘`´\-]{LETTER}+)*")
_ARTICLE = re.compile(r"(?:a[ldnrst]|a[sz]h?|e[ls]|ul|ur|bin|ben)-[A-Z]")
"""`al-Tamimi`."""


@dataclass(frozen=True)
class Word:
    start: int
    end: int
    text: str
    plain: str
    capital: bool
    letters: int


def words_of(text: str) -> list[Word]:
    found = []
    for match in _TOKEN.finditer(text):
        word = match.group()
        bare = re.sub(r"['’]s$", "", word)
        capital = bare[0].isupper() or bool(_ARTICLE.match(bare))
        found.append(Word(match.start(), match.start() + len(bare), bare, plain(bare), capital, len(bare)))
    return found


def is_clinical(word: Word) -> bool:
    lists = english()
    if word.plain in lists.clinical:
        return True
    parts = re.split(r"['’\-]", word.plain)
    return (
        len(parts) > 1
        and any(part in lists.clinical for part in parts)
        and parts[0] not in lists.first
        and all(part in lists.clinical or is_word(part) or len(part) < 3 for part in parts)
    )


_ACCENTED = frozenset("cafe resume naive fiance fiancee facade debris premiere cliche role regime protege oedema oesophagus anaemia diarrhoea haemorrhage foetal foetus oestrogen aetiology paediatric orthopaedic".split())  # fmt: skip


def is_everyday(word: Word) -> bool:
    """A word of prose or of the clinic, whatever else it may be."""
    if word.capital and not word.text.isascii() and plain(word.text) not in _ACCENTED and not is_clinical(word):
        return False  # `Ångström`: English has no such word, accent and capital together
    parts = [part for part in re.split(r"['’\-]", word.plain) if part]
    return is_clinical(word) or all(is_word(part) or len(part) < 3 or part in english().common for part in parts)


def is_first(word: Word) -> bool:
    return word.plain in english().first or word.plain.split("-")[0] in english().first


def is_last(word: Word) -> bool:
    lists = english()
    return any(
        part in lists.last
        for part in (word.plain, word.plain.replace("'", "").replace("’", ""), *word.plain.split("-"))
    )


def is_abbreviation(word: Word) -> bool:
    return word.text.isupper() and word.letters <= 5 and not (is_first(word) or is_last(word))


def is_unknown(word: Word) -> bool:
    """Capitalised, and neither a word nor anything of the clinic."""
    mixed = not word.text.isupper() and word.text[1:].lower() != word.text[1:] and "-" not in word.text
    camel = mixed and not re.match(r"(?:Mc|Mac|O['’]|D['’]|De|Di|La|Le|Van|Fitz|[A-Z][a-z]+['’])", word.text)
    return word.letters > 2 and not is_everyday(word) and not is_abbreviation(word) and not camel


_OF_FAMILY = PARTICLES - frozenset("de du le al st y el ap ul ur av".split())


def of_family(run: list[Word]) -> bool:
    """`Johannes van der Berg`: only names have such words between capitals, but for what the clinic calls by one."""
    inner = [word for word in run[1:-1] if not word.capital]
    return (
        any(word.plain in _OF_FAMILY for word in inner)
        and all(word.plain in PARTICLES for word in inner)
        and run[0].capital
        and run[0].letters > 1
        and run[0].plain not in PARTICLES
        and not is_clinical(run[-1])
        and not is_abbreviation(run[0])
        and not (run[0].plain in english().words and not is_first(run[0]) and is_everyday(run[-1]))
    )


_JOIN = re.compile(r"(?:[ \t]{1,2}|\.[ \t]{0,2}|,[ \t]{1,2}|[ \t]?[·•/_\-][ \t]?)")


def runs_of(text: str, words: list[Word]) -> Iterator[list[Word]]:
    """Capitalised words that follow one another, with initials and particles between them."""
    run: list[Word] = []
    for index, word in enumerate(words):
        gap = text[run[-1].end : word.start] if run else ""
        dotted = gap.startswith(".") and not (run[-1].letters == 1 or run[-1].plain in SHORT_TITLES) if run else False
        joined = bool(run) and len(gap) <= 3 and bool(_JOIN.fullmatch(gap)) and not dotted
        following = words[index + 1] if index + 1 < len(words) else None
        particle = (
            joined
            and word.plain in PARTICLES
            and following is not None
            and (following.capital or following.plain in PARTICLES)
        )
        if word.capital or particle:
            if run and not joined:
                yield run
                run = []
            run = [*run, word]
            if len(run) > 12:
                yield run
                run = []
        elif run:
            yield run
            run = []
    if run:
        yield run


_PINYIN = re.compile(
    r"^(?:(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|iong|uang|ang|eng|ing|ong|ian|iao|uai|uan|van|ai|an|ao|ei|en|er|ia|ie|in|iu|"
    r"ou|ua|ue|ui|un|uo|a|e|i|o|u|v)'?-?){1,3}$"
)
_PINYIN_SURNAMES = frozenset(
    """wang li zhang liu chen yang huang zhao wu zhou xu sun ma zhu hu guo he gao lin luo zheng liang xie song tang deng han feng
    cao peng zeng xiao tian dong pan yuan cai jiang yu du ye cheng wei su lu ding ren shen yao lv cui zhong tan fan jin shi
    liao jia xia fu fang bai zou meng xiong qin qiu yin xue yan duan lei hou long tao gu mao hao gong shao wan qian dai mo kong
    xiang chang wen kang zuo ouyang sima zhuge""".split()
)


def is_pinyin_name(one: str, two: str) -> bool:
    """Is one of the two a Chinese surname and the other Chinese syllables?"""
    return any(
        surname in _PINYIN_SURNAMES
        and 2 < len(given) < 16
        and given.replace("-", "").isalpha()
        and bool(_PINYIN.match(given))
        for surname, given in ((one, two), (two, one))
    )


def pieces_of(text: str, run: list[Word]) -> Iterator[list[Word]]:
    """A run cut at commas, but for `SURNAME, Given`."""
    piece: list[Word] = []
    for word in run:
        if piece and word.plain in TITLES and piece[-1].plain not in TITLES and piece[-1].letters > 1:
            yield piece  # `Informed Mr. Kowalczuk`
            piece = []
        if piece and "," in text[piece[-1].end : word.start]:
            listed = len(piece) <= 2 and word.letters > 1 and _listed(text, piece, word)
            if not listed:
                yield piece
                piece = []
        piece = [*piece, word]
    if piece:
        yield piece


_COLUMN = re.compile(r"\s{0,3}\||\s?\t|\s{2}")
"""A column of a slip or of a letter's head ends."""


def _listed(text: str, piece: list[Word], given: Word) -> bool:
    """`Crohn, Peter attended`, `HENDRICKS, LORRAINE M 67F`, `ZHANG, Xiaoming was`: surname, comma, given name."""
    surname = piece[-1]
    before, after = text[max(0, piece[0].start - 60) : piece[0].start], text[given.end : given.end + 40]
    if not (is_last(surname) or is_unknown(surname) or (surname.plain in english().clinical and is_first(given))):
        return False
    if not (
        is_first(given)
        or (given.text.isupper() and given.letters > 3 and not is_everyday(given))
        or (is_unknown(given) and (surname.text.isupper() or is_pinyin_name(surname.plain, given.plain)))
        or (is_unknown(given) and bool(DEMOGRAPHIC.match(after) or _COLUMN.match(after) or LEFT_FIELD.search(before)))
    ):
        return False
    person = bool(
        SURE_VERB.match(after) or WEAK_VERB.match(after) or DEMOGRAPHIC.match(re.sub(r"^\s[A-Z]\b\.?", "", after))
    )
    if is_everyday(surname) and is_everyday(given) and not surname.text.isupper():
        return person or bool(LEFT_FIELD.search(before))
    ends = bool(_COLUMN.match(after) or re.match(r"\s{0,2}(?:[A-Z]\.?\s{0,2})?(?:$|[\n;(\[]|\d)", after))
    return person or ends or bool(LEFT_FIELD.search(before)) or (surname.text.isupper() and not given.text.isupper())
