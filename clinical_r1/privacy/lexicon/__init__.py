"""What a recogniser must know before it calls something an identifier: names and words as data, patterns by kind. Read
once, on first use."""

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from clinical_r1.atomic import read_table
from clinical_r1.lexicon import held, simplified
from clinical_r1.text import HAN, HAN_CHARACTER, without_accents

_FOLDER = Path(__file__).parent
_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})


class Rules(NamedTuple):
    """Of one kind of identifier (`privacy/<kind>.yaml`)."""

    rule: dict[str, re.Pattern[str]]
    each: dict[str, list[tuple[str, re.Pattern[str]]]]
    """Lists of patterns that are tried one by one, each with its label ("" where it has none)."""
    words: dict[str, frozenset[str]]


@cache
def rules(kind: str) -> Rules:
    """A kind's patterns, compiled, and its words. `@name@` in a pattern is the part of that name further up."""
    table = read_table(_FOLDER.parent / f"{kind}.yaml")
    parts = {"HAN": HAN, "H": HAN_CHARACTER, "LETTER": rf"[^\W\d_{HAN}]"}

    def whole(pattern: str | list[str]) -> str:
        return held(pattern if isinstance(pattern, str) else "|".join(pattern), parts)

    for name, part in table.get("parts", {}).items():
        parts[name] = whole(part)
    each = {}
    for name, patterns in table.get("each", {}).items():
        rows = [next(iter(row.items())) if isinstance(row, dict) else ("", row) for row in patterns]
        each[name] = [(label, re.compile(whole(pattern))) for label, pattern in rows]
    rule = {name: re.compile(whole(pattern)) for name, pattern in table.get("rules", {}).items()}
    return Rules(rule, each, {name: frozenset(text.split()) for name, text in table.get("words", {}).items()})


def plain(word: str) -> str:
    """Lower case without accents: the form in which the lists are looked up."""
    return without_accents(word.casefold().replace("ß", "ss")).translate(_STROKES)


def _lines(name: str) -> list[str]:
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


class English(NamedTuple):
    """Lower-case names and words."""

    first: frozenset[str]
    last: frozenset[str]
    common: frozenset[str]
    """Names that are also English words."""
    words: frozenset[str]
    clinical: frozenset[str]
    """Eponyms, drugs, organisms, scores, places: capitalised, and nobody's name."""
    short: tuple[frozenset[str], ...]
    """Each set is one given name with its short forms."""


@lru_cache(maxsize=1)
def english() -> English:
    """The English lists."""
    names = "\n".join(_lines("names_en.txt"))
    first, last, short = (block.casefold().split("\n") for block in names.split("\n\n"))
    return English(
        first=frozenset(name.rstrip("*") for name in first),
        last=frozenset(name.rstrip("*") for name in last),
        common=frozenset(name[:-1] for name in (*first, *last) if name.endswith("*")),
        words=frozenset(_lines("words_en.txt")),
        clinical=frozenset(plain(word) for line in _lines("clinical_en.txt") for word in line.split()),
        short=tuple(frozenset(line.split()) for line in short),
    )


_ENDINGS = read_table(_FOLDER / "endings_en.yaml")
_DRUG = re.compile(rf"(?:{'|'.join(_ENDINGS['drug'].split())})$")


@lru_cache(maxsize=50_000)
def is_word(word: str) -> bool:
    """Is this (plain) word English, in any of its usual endings?"""
    words = english().words
    if word in words or (len(word) > 6 and _DRUG.search(word)):
        return True
    stems = [word.removesuffix(ending) + base for ending, base in _ENDINGS["word"] if word.endswith(ending)]
    return any(
        stem in words or (len(stem) > 3 and stem[-1] == stem[-2] and stem[:-1] in words)
        for stem in stems
        if len(stem) >= 3
    )


class Chinese(NamedTuple):
    """Characters and words."""

    surnames: frozenset[str]
    rare: frozenset[str]
    """Characters that are surnames, and words far more often."""
    compound: frozenset[str]
    given: frozenset[str]
    """Characters that are frequent in given names."""
    words: frozenset[str]
    """Two and three characters of prose and of clinical language, beginning with a surname's character."""
    wordlike: frozenset[str]
    """Words that people bear as names."""
    minority: frozenset[str]
    """Pieces of Uyghur, Kazakh, Mongolian and Tibetan names in Chinese characters."""


@lru_cache(maxsize=1)
def chinese() -> Chinese:
    """The Chinese lists."""
    raw = read_table(_FOLDER / "names_zh.yaml")
    surnames, rare, given = (frozenset("".join(raw[key].split())) for key in ("surnames", "rare_surnames", "given"))
    compound, wordlike, minority = (frozenset(raw[key].split()) for key in ("compound", "wordlike", "minority"))
    words = frozenset(word.translate(simplified()) for word in [*_lines("words_zh.txt"), *raw["not_names"].split()])
    return Chinese(surnames | rare, rare, compound, given, words, wordlike, minority)
