"""Words in Latin letters as the recogniser of names sees them: names, words of prose or the clinic, what is neither;
capitalised words in a row."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from clinical_r1.privacy.lexicon import english, is_word, plain, rules

RULE, _, WORDS = rules("names_en")
_OF_FAMILY = WORDS["particles"] - {"de", "du", "le", "al", "st", "y", "el", "ap", "ul", "ur", "av"}


@dataclass(frozen=True)
class Word:
    start: int
    end: int
    text: str
    plain: str
    capital: bool
    letters: int


def words_of(text: str, offset: int = 0) -> list[Word]:
    """The words of a text that begins at `offset` of the whole, without a possessive's ending."""
    found = []
    for match in RULE["token"].finditer(text):
        bare = re.sub(r"['’]s$", "", match.group())
        start = match.start() + offset
        capital = bare[0].isupper() or bool(RULE["article"].match(bare))
        found.append(Word(start, start + len(bare), bare, plain(bare), capital, len(bare)))
    return found


def is_clinical(word: Word) -> bool:
    lists, parts = english(), re.split(r"['’\-]", word.plain)
    return word.plain in lists.clinical or (
        len(parts) > 1
        and any(part in lists.clinical for part in parts)
        and parts[0] not in lists.first
        and all(part in lists.clinical or is_word(part) or len(part) < 3 for part in parts)
    )


def is_everyday(word: Word) -> bool:
    """A word of prose or of the clinic, whatever else it may be."""
    if is_clinical(word):
        return True
    if word.capital and not word.text.isascii() and word.plain not in WORDS["accented"]:
        return False  # `Ångström`: English has no such word, accent and capital together
    parts = [part for part in re.split(r"['’\-]", word.plain) if part]
    return all(is_word(part) or len(part) < 3 or part in english().common for part in parts)


def is_first(word: Word) -> bool:
    return word.plain in english().first or word.plain.split("-")[0] in english().first


def is_last(word: Word) -> bool:
    spellings = (word.plain, word.plain.replace("'", "").replace("’", ""), *word.plain.split("-"))
    return any(part in english().last for part in spellings)


def is_abbreviation(word: Word) -> bool:
    return word.text.isupper() and word.letters <= 5 and not (is_first(word) or is_last(word))


def is_unknown(word: Word) -> bool:
    """Capitalised, and neither a word nor anything of the clinic."""
    mixed = not word.text.isupper() and word.text[1:].lower() != word.text[1:] and "-" not in word.text
    camel = mixed and not re.match(r"(?:Mc|Mac|O['’]|D['’]|De|Di|La|Le|Van|Fitz|[A-Z][a-z]+['’])", word.text)
    return word.letters > 2 and not is_everyday(word) and not is_abbreviation(word) and not camel


def is_pinyin_name(one: str, two: str) -> bool:
    """Is one of the two a Chinese surname and the other Chinese syllables?"""
    return any(
        surname in WORDS["pinyin_surnames"]
        and 2 < len(given) < 16
        and given.replace("-", "").isalpha()
        and RULE["pinyin"].match(given) is not None
        for surname, given in ((one, two), (two, one))
    )


def of_family(run: list[Word]) -> bool:
    """`Johannes van der Berg`: only names have such words between capitals, but for what the clinic calls by one."""
    inner = [word.plain for word in run[1:-1] if not word.capital]
    return (
        any(word in _OF_FAMILY for word in inner)
        and all(word in WORDS["particles"] for word in inner)
        and run[0].capital
        and run[0].letters > 1
        and run[0].plain not in WORDS["particles"]
        and not is_clinical(run[-1])
        and not is_abbreviation(run[0])
        and not (run[0].plain in english().words and not is_first(run[0]) and is_everyday(run[-1]))
    )


def runs_of(text: str, words: list[Word]) -> Iterator[list[Word]]:
    """Capitalised words that follow one another, with initials and particles between them."""
    run: list[Word] = []
    for word, following in zip_longest(words, words[1:]):
        gap = text[run[-1].end : word.start] if run else ""
        dotted = gap.startswith(".") and run[-1].letters > 1 and run[-1].plain not in WORDS["short_titles"]
        joined = len(gap) <= 3 and RULE["join"].fullmatch(gap) is not None and not dotted
        goes_on = following and (following.capital or following.plain in WORDS["particles"])
        belongs = word.capital or (joined and word.plain in WORDS["particles"] and goes_on)
        if run and not (joined and belongs):
            yield run
            run = []
        if belongs:
            run.append(word)
        if len(run) > 12:
            yield run
            run = []
    if run:
        yield run


def pieces_of(text: str, run: list[Word]) -> Iterator[list[Word]]:
    """A run cut at commas, but for `SURNAME, Given`, and before titles (`Informed Mr. Kowalczuk`)."""
    piece: list[Word] = []
    for word in run:
        if piece:
            before = piece[-1]
            titled = word.plain in WORDS["titles"] and before.plain not in WORDS["titles"] and before.letters > 1
            if titled or ("," in text[before.end : word.start] and not _listed(text, piece, word)):
                yield piece
                piece = []
        piece = [*piece, word]
    if piece:
        yield piece


def _listed(text: str, piece: list[Word], given: Word) -> bool:
    """`Crohn, Peter attended`, `HENDRICKS, LORRAINE M 67F`, `ZHANG, Xiaoming was`: surname, comma, given name."""
    surname = piece[-1]
    if len(piece) > 2 or given.letters == 1:
        return False
    if not (is_last(surname) or is_unknown(surname) or (surname.plain in english().clinical and is_first(given))):
        return False
    before, after = text[max(0, piece[0].start - 60) : piece[0].start], text[given.end : given.end + 40]
    field, column = bool(RULE["left_field"].search(before)), bool(RULE["column"].match(after))
    shouted = surname.text.isupper()
    strange = shouted or is_pinyin_name(surname.plain, given.plain) or RULE["demographic"].match(after)
    if not (
        is_first(given)
        or (given.text.isupper() and given.letters > 3 and not is_everyday(given))
        or (is_unknown(given) and (strange or column or field))
    ):
        return False
    person = (
        RULE["sure_verb"].match(after)
        or RULE["weak_verb"].match(after)
        or RULE["demographic"].match(re.sub(r"^\s[A-Z]\b\.?", "", after))
    )
    if person or field or (is_everyday(surname) and is_everyday(given) and not shouted):
        return bool(person or field)
    ends = column or re.match(r"\s{0,2}(?:[A-Z]\.?\s{0,2})?(?:$|[\n;(\[]|\d)", after)
    return bool(ends) or (shouted and not given.text.isupper())
