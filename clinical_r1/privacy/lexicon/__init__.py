"""Words and names as data: what a recogniser must know before it calls something a name. Read once, on first use."""

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml

from clinical_r1.lexicon import simplified
from clinical_r1.text import without_accents

_FOLDER = Path(__file__).parent


def plain(word: str) -> str:
    """Lower case without accents: the form in which the lists are looked up."""
    return without_accents(word.casefold().replace("ß", "ss")).translate(_STROKES)


_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})


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
    common = frozenset(name[:-1] for name in (*first, *last) if name.endswith("*"))
    clinical = frozenset(plain(word) for line in _lines("clinical_en.txt") for word in line.split())
    return English(
        frozenset(name.rstrip("*") for name in first),
        frozenset(name.rstrip("*") for name in last),
        common,
        frozenset(_lines("words_en.txt")),
        clinical,
        tuple(frozenset(line.split()) for line in short),
    )


_DRUG = re.compile(
    r"(?:mab|nib|pril|prilat|olol|statin|cillin|azole|mycin|micin|floxacin|oxacin|sartan|dipine|gliptin|gliflozin|"
    r"glutide|tidine|prazole|setron|triptan|barbital|azepam|zolam|caine|curium|curonium|cycline|penem|cef\w*|vir|"
    r"parin|xaban|gatran|fibrate|thiazide|semide|lukast|terol|sone|solone|onide|dronate|ciclovir|platin|rubicin|"
    r"taxel|bicin|trexate|tinib|ciclib|parib|zomib|limus|cept|kinra|stim|poetin|relin|tide|trel|gestrel|estradiol|"
    r"zine|pine|done|peridol|oxetine|triptyline|pramine|zepine|profen|fenac|coxib|oxicam|dryl|phylline|tropium|"
    r"ase|emia|aemia|itis|osis|oma|pathy|uria|ectomy|otomy|plasty|scopy|graphy|gram|algia|plegia|paresis|oid)$"
)
_ENDINGS = (
    ("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ly", ""), ("ness", ""),
    ("er", ""), ("ers", ""), ("al", ""), ("ic", ""), ("ally", ""), ("ian", ""), ("ian", "ia"),
)  # fmt: skip


@lru_cache(maxsize=50_000)
def is_word(word: str) -> bool:
    """Is this (plain) word English, in any of its usual endings?"""
    lists = english()
    if word in lists.words or (len(word) > 6 and _DRUG.search(word)):
        return True
    for ending, base in _ENDINGS:
        stem = word[: -len(ending)] + base
        if word.endswith(ending) and len(stem) >= 3:
            if stem in lists.words:
                return True
            if len(stem) > 3 and stem[-1] == stem[-2] and stem[:-1] in lists.words:
                return True
    return False


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
    raw = yaml.safe_load((_FOLDER / "names_zh.yaml").read_text(encoding="utf-8"))
    surnames, rare, given = (frozenset("".join(raw[key].split())) for key in ("surnames", "rare_surnames", "given"))
    compound, wordlike, minority = (frozenset(raw[key].split()) for key in ("compound", "wordlike", "minority"))
    words = frozenset(word.translate(simplified()) for word in [*_lines("words_zh.txt"), *raw["not_names"].split()])
    return Chinese(surnames | rare, rare, compound, given, words, wordlike, minority)
