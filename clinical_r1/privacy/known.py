# ruff: noqa: E501, SIM905  (a pattern or a word list reads best as one piece)
"""Names and numbers that structured fields gave away, found wherever and however they stand in the text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from clinical_r1.privacy.folding import fold
from clinical_r1.privacy.spans import Kind, Span

_HAN = re.compile(r"[\u3400-\u9fff]")
_GAP = r"[\s.\-_*·'/]{0,3}"
_BETWEEN = r"[\s,.\-_*·/]{0,3}"
_EVERYDAY = frozenset("will may mark hope grace rose art bill young long white brown green black king love day best good "
                      "small short hand foot head bone wells grant rich gray grey hill wood woods stone field price chase "
                      "drew pat sue ray gene dean dale guy max miles page park pope reed sage snow swan van see so an do "
                      "he ha an in on to you we man ho le la de".split())  # fmt: skip
_COMPOUND = (
    "欧阳",
    "司马",
    "上官",
    "诸葛",
    "东方",
    "皇甫",
    "尉迟",
    "公孙",
    "慕容",
    "令狐",
    "宇文",
    "长孙",
    "司徒",
    "夏侯",
)


@dataclass
class Known:
    """Identifiers that structured fields gave away: the gate removes them wherever they stand in the text."""

    names: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    """MRN, phone, e-mail, address lines: anything to be removed literally."""


class KnownFinder:
    """Finds one patient's known identifiers in folded text."""

    def __init__(self, known: Known) -> None:
        patterns = [(Kind.NAME, pattern) for name in known.names for pattern in _name_patterns(name)]
        patterns += [(Kind.OTHER, pattern) for number in known.numbers for pattern in _number_patterns(number)]
        self._patterns = [(kind, re.compile(pattern, flags)) for kind, (pattern, flags) in patterns]

    def find(self, text: str) -> Iterator[Span]:
        """Every occurrence, certain by construction."""
        for kind, pattern in self._patterns:
            for match in pattern.finditer(text):
                yield Span(match.start(), match.end(), kind)


def _letters(word: str) -> str:
    return _GAP.join(re.escape(char) for char in word)


def _name_patterns(name: str) -> Iterator[tuple[str, int]]:
    plain = fold(name).text.strip()
    if _HAN.search(plain):
        whole = re.sub(r"[^\u3400-\u9fffA-Za-z]", "", plain)
        if len(whole) >= 2:
            yield _letters(whole), re.IGNORECASE
            given = whole[2:] if whole.startswith(_COMPOUND) else whole[1:]
            if len(given) >= 2 and "·" not in plain:
                yield _letters(given), re.IGNORECASE
            surname = whole[: len(whole) - len(given)]
            yield rf"{surname}(?=\s?(?:某|先生|女士|小姐|医生|老师|氏|阿姨|师傅|大爷|大妈|奶奶|爷爷))", 0
        return
    parts = [part for part in re.split(r"[\s,.]+", plain) if part]
    if len(parts) > 1:
        for order in (parts, parts[::-1]):
            yield rf"(?<![A-Za-z]){_BETWEEN.join(_letters(part) for part in order)}(?![A-Za-z])", re.IGNORECASE
    for part in parts:
        everyday = part.casefold() in _EVERYDAY or len(part) <= 3
        if len(part) < 2:
            continue
        if everyday:
            shapes = (
                {part.capitalize(), part.upper()}
                if part.casefold() not in ("an", "in", "on", "to", "do", "so")
                else set()
            )
            for shape in sorted(shapes):
                yield rf"(?<![A-Za-z]){re.escape(shape)}(?![A-Za-z])", 0
        else:
            yield rf"(?<![A-Za-z]){_letters(part)}(?![A-Za-z])", re.IGNORECASE


def _number_patterns(number: str) -> Iterator[tuple[str, int]]:
    plain = re.sub(r"[^\w\u3400-\u9fff@]", "", fold(number).text)
    if len(plain) >= 4:
        yield rf"(?<![A-Za-z0-9]){_letters(plain)}(?![A-Za-z0-9])", re.IGNORECASE
