# ruff: noqa: E501  (a pattern or a word list reads best as one piece)
"""Names that nobody capitalised, that are spelled letter by letter, and log-in names under a note."""

import re
from collections.abc import Iterator

from clinical_r1.privacy.cues_en import NOT_AFTER_TITLE, THING
from clinical_r1.privacy.lexicon import english, is_word, plain
from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.privacy.words_en import LETTER, Word, is_everyday, is_pinyin_name

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
    r"(?i)(?:\b(?:author|user(?: ?name| ?id)?|log-?in|operator|initials?)\s?[:=]\s{0,2}|\b(?:dictated|typed|transcribed|e-?signed|signed|entered|charted|authored|verified)(?:\s(?:by|off by))?\s?:?\s{1,2})"
    r"(?P<v>[a-z]{3,20}\d{1,5})\b"
)


def signatures(text: str) -> Iterator[Span]:
    """Log-in names under a note: `-- hmurphy 0715`, `Dictated by: SKowalczyk/tr`, `Author: jsmith42`."""
    for match in _LOGIN.finditer(text):
        yield Span(match.start("v"), match.end("v"), Kind.NAME, 0.8)
    for match in _SIGNATURE.finditer(text):
        for group in ("a", "b", "c"):
            if match.group(group) and not all(
                is_word(plain(word)) or plain(word) in english().clinical
                for word in re.split(r"[.\s]", match.group(group))
            ):
                yield Span(match.start(group), match.end(group), Kind.NAME, 0.8)


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
