"""Reading a chain of thought, English or Chinese: units of length, numbers, sentences, the small words of thinking."""

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from clinical_r1.atomic import read_table
from clinical_r1.schema import Language
from clinical_r1.text import HAN_CHARACTER, han_of, one_width

_UNIT = re.compile(rf"{HAN_CHARACTER}|[A-Za-z]+(?:['’-][A-Za-z]+)*|\d+(?:[.,]\d+)*")
_LATIN_WORD = re.compile(r"[A-Za-z]{2,}")
_SENTENCE = re.compile(r"[^.!?。！？；;\n]+[.!?。！？；;]?")
_NUMBER = re.compile(r"(?<![A-Za-z\d.])\d+(?:,\d{3})*(?:\.\d+)?(?![A-Za-z]*\d)")

_WORDS = read_table(Path(__file__).with_name("words.yaml"))
_SMALL_WORDS = frozenset(_WORDS["small"].split())
_PREFIX = 7
"""Letters that count two words as one."""


def fold(text: str) -> str:
    """One spelling for comparison: full-width forms to half-width, lower case."""
    return one_width(text).lower()


def units(text: str) -> list[str]:
    """Length units that are comparable across languages: an English word or number, or one Chinese character."""
    return _UNIT.findall(text)


def sentences(text: str) -> list[str]:
    """Sentences, stripped; a decimal point may cut one in two, which changes no count that we take."""
    return [sentence for part in _SENTENCE.findall(text) if (sentence := part.strip())]


def cjk_share(text: str) -> float:
    """Share of Chinese characters among letters (Latin letters counted by word, as a Chinese character is one)."""
    chinese, latin = len(han_of(text)), len(_LATIN_WORD.findall(text))
    return chinese / (chinese + latin) if chinese + latin else 0.0


@lru_cache(maxsize=8)
def _phrases(language: Language, kind: str) -> re.Pattern[str]:
    pattern = "|".join(re.escape(word) for word in sorted(_WORDS[kind][language], key=len, reverse=True))
    return re.compile(rf"\b(?:{pattern})\b" if language == "en" else f"(?:{pattern})")


def transitions(text: str, language: Language) -> Counter[str]:
    """How often each small word of thinking occurs."""
    return Counter(_phrases(language, "transitions").findall(fold(text).replace("’", "'")))


def self_corrections(text: str, language: Language) -> int:
    """How often the thought turns back on itself."""
    return len(_phrases(language, "corrections").findall(fold(text).replace("’", "'")))


def numbers(text: str) -> list[str]:
    """Numbers in one spelling: `1,200` -> `1200`, `37.80` -> `37.8`; digits inside of names (B12, CD4, T3) are none."""
    found = (number.replace(",", "") for number in _NUMBER.findall(fold(text)))
    return [number.rstrip("0").rstrip(".") if "." in number else (number.lstrip("0") or "0") for number in found]


_KNOWLEDGE_BEFORE = re.compile(
    r"(normal|reference|range|usually|typical\w*|cut-?off|threshold|above|below|over|under|at least|more than|less than"
    r"|greater than|up to|about|around|approximately|criteria|score|stage|grade|type|class|[<>≥≤~±]"
    r"|正常|参考|范围|一般|通常|多为|大于|小于|超过|低于|高于|不足|至少|约|大约|左右|评分|标准|型|级|期)[^.。;；]{0,24}$"
)
_KNOWLEDGE_AFTER = re.compile(r"^\s*(%|percent|[-–~至到]\s*\d|/|(?:to|and)\s+\d|types?|stages?|grades?|型|级|期)")


def ungrounded_numbers(thinking: str, case: str) -> list[str]:
    """Numbers that the thinking brings in and the case nowhere has.

    Passed over, because they are counting or textbook knowledge and not findings: whole numbers up to 10, percentages,
    ranges and what is introduced as a norm, threshold, score or stage. Differences and sums of two numbers of the case
    (three days after day 4) are arithmetic, not invention.
    """
    known = numbers(case)
    grounded = set(known)
    values = [float(number) for number in known][:60]
    derived = {round(abs(a - b), 3) for a in values for b in values} | {round(a + b, 3) for a in values for b in values}
    folded, foreign, end_of_last = fold(thinking), [], -10
    for match in _NUMBER.finditer(folded):
        number = numbers(match.group())[0]
        value = float(number)
        chained = match.start() - end_of_last <= 5 and re.fullmatch(
            r"\s*(?:[-–~/]|to|and|or|至|到|和|或)\s*", folded[end_of_last : match.start()]
        )
        if number in grounded or (value <= 10 and value == int(value)) or round(value, 3) in derived:
            continue
        before, after = folded[max(0, match.start() - 48) : match.start()], folded[match.end() : match.end() + 12]
        if chained or _KNOWLEDGE_BEFORE.search(before) or _KNOWLEDGE_AFTER.match(after):
            end_of_last = match.end()
            continue
        foreign.append(number)
    return foreign


def content_units(text: str, language: Language) -> set[str]:
    """What carries meaning in a short answer: words without the small ones; in Chinese pairs of characters."""
    folded = fold(text)
    if language == "zh":
        characters = han_of(folded)
        pairs = {characters[i : i + 2] for i in range(len(characters) - 1)} or set(characters)
        return pairs | set(re.findall(r"[a-z0-9]{2,}", folded))
    return {_stem(word) for word in re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", folded) if word not in _SMALL_WORDS}


def _stem(word: str) -> str:
    for ending in ("ies", "es", "s"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            return word[: -len(ending)]
    return word


def coverage(answer: str, text: str, language: Language) -> float:
    """Share of the answer's content that the text mentions (nitroglycerin for nitroglycerine); 1.0 without content."""
    wanted, said = content_units(answer, language), content_units(text, language)
    if not wanted:
        return 1.0
    beginnings = {unit[:_PREFIX] for unit in said if len(unit) >= _PREFIX}
    return sum(unit in said or unit[:_PREFIX] in beginnings for unit in wanted) / len(wanted)
