"""Names and numbers that structured fields gave away, found wherever and however they stand in the text.

A name is looked for folded: without case, accents, apostrophes and width, ß as ss and ü as u or ue, in any order, whole
and in parts (half of a hyphenated surname, one part of a name with `·`), with whatever is put between its letters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from clinical_r1.privacy.lexicon import chinese, english, is_word, plain, rules
from clinical_r1.privacy.numbers import Values
from clinical_r1.privacy.spans import Kind, Span, fold
from clinical_r1.text import HAN, has_han

WORDS = rules("known").words
_GAP = r"[\s.\-_*·'’‘`´/]{0,3}"
_BETWEEN = r"[\s,.\-_*·'’/]{0,3}"
_PARTICLE = r"(?:(?:d[aeiou]s?|del|der|den|v[ao]n|l[ae]|[ae]l)\s?){0,2}"
_HONORIFIC = r"(?=\s?(?:某|先生|女士|小姐|医生|医师|主任|老师|氏|阿姨|师傅|大爷|大妈|奶奶|爷爷|教授))"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


@dataclass
class Known:
    """Identifiers that structured fields gave away: the gate removes them wherever they stand in the text."""

    names: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    """MRN, phone, e-mail, address lines: anything to be removed literally."""


@dataclass(frozen=True)
class _Wanted:
    bare: str
    """Must occur in the text's letters and digits, or the pattern need not be tried."""
    pattern: str
    kind: Kind = Kind.NAME
    capital: bool = False
    """An everyday word: only where it is written with a capital."""


class KnownFinder:
    """Finds one patient's known identifiers in folded text."""

    def __init__(self, known: Known) -> None:
        wanted = [one for name in known.names for one in _name(fold(name).text.strip())]
        wanted += [one for number in known.numbers for one in _number(fold(number).text)]
        self._wanted = list(dict.fromkeys(wanted))

    def find(self, text: str) -> Iterator[Span]:
        """Every occurrence, certain by construction."""
        if not self._wanted:
            return
        skeleton, origin = _skeleton(text)
        letters = "".join(char for char in skeleton if char.isalnum())
        values: Values | None = None
        for one in self._wanted:
            for match in re.finditer(one.pattern, skeleton) if one.bare in letters else ():
                start, end = origin[match.start()], origin[match.end() - 1] + 1
                if one.capital and not any(char.isupper() for char in text[start:end]):
                    continue
                if one.kind is Kind.OTHER and len(one.bare) <= 5 and one.bare.isdigit():
                    values = values or Values(text)
                    if values.touches(start, end):
                        continue
                yield Span(start, end, one.kind)


def _skeleton(text: str) -> tuple[str, list[int]]:
    """Text without case and accents, and for each character the index it came from."""
    pieces = [char.lower() if char.isascii() else plain(char) for char in text]
    return "".join(pieces), [index for index, piece in enumerate(pieces) for _ in piece]


def _bare(text: str) -> str:
    """Letters and digits of the skeleton alone."""
    return "".join(char for char in _skeleton(text)[0] if char.isalnum())


def _letters(word: str) -> str:
    return _GAP.join(re.escape(char) for char in word)


def _edges(pattern: str) -> str:
    return rf"(?<![^\W\d_{HAN}]){pattern}(?![^\W\d_{HAN}])"


def _name(name: str) -> Iterator[_Wanted]:
    """Patterns for a whole name and for its parts; none for a placeholder."""
    if _placeholder(name):
        return
    if has_han(name):
        for one in re.split(r"[()（）/,，、;；|]+", name):  # `王芳（王小芳）`
            yield from _han_name(re.sub(rf"[^{HAN}A-Za-z·\s]", "", one))
        return
    words = _words(name)
    if len(words) > 1:
        for order in {tuple(words), tuple(words[::-1]), (words[-1], *words[:-1])}:
            parts = [_bare(word) for word in order]
            yield _Wanted("".join(parts), _edges(_BETWEEN.join(_letters(part) for part in parts)))
        ahead, _, behind = map(_words, name.partition(","))
        last, given = (ahead[-1], behind) if ahead and behind else (words[-1], words[:-1])
        surname, called = _bare(last), {_bare(word) for word in given}
        for login in (_bare(given[0])[0] + surname, surname + _bare(given[0])[0]):
            if not is_word(login):
                yield _Wanted(login, _edges(_letters(login)))
        for short in {one for names in english().short if names & called for one in names} - called:
            yield _Wanted(short, _edges(short), capital=True)
            yield _Wanted(short + surname, _edges(_BETWEEN.join((short, _letters(surname)))))
    for word in words:
        for part in dict.fromkeys((word, *re.split(r"[\-/]", word))):
            yield from _part(part)


def _words(name: str) -> list[str]:
    """The words of a name in Latin letters, without titles."""
    words = re.split(r"[\s,.;()\[\]\"]+", name)
    return [word for word in words if _bare(word) and _bare(word) not in WORDS["titles"]]


def _part(part: str) -> Iterator[_Wanted]:
    for bare in dict.fromkeys((_bare(part), _bare(part.casefold().translate(_UMLAUTS)))):  # Müller: Muller and Mueller
        if len(bare) < 2 or bare in WORDS["titles"] or _placeholder(bare):
            continue
        if len(bare) == 2:  # Li and Na alone are lithium and sodium, and stay
            if bare not in WORDS["elements"]:
                yield _Wanted(bare, _edges(re.escape(bare)), capital=True)
            continue
        everyday = len(bare) == 3 or (len(bare) <= 6 and is_word(bare))
        letters = _letters(bare) + ("" if everyday else r"(?:['’]?e?s)?")
        yield _Wanted(bare, _edges(_PARTICLE + letters), capital=everyday)


def _han_name(name: str) -> Iterator[_Wanted]:
    pieces = name.replace("·", " ").split()
    whole = "".join(pieces)
    if len(whole) < 2:
        return
    yield _Wanted(_bare(whole), _letters(whole.lower()))
    if "·" in name or not has_han(whole[0]):
        for piece in pieces:
            if len(piece) >= 2 and not _placeholder(piece):
                yield _Wanted(_bare(piece), _letters(piece.lower()))
        return
    if len(pieces) > 1 and has_han(pieces[0]) and len(pieces[0]) > 1:
        for piece in pieces:
            yield from _han_name(piece)
    length = 2 if whole[:2] in chinese().compound else 1
    surname, given = whole[:length], whole[length:]
    if len(given) >= 2 and given not in WORDS["plain_given"]:
        yield _Wanted(_bare(given), _letters(given))
    yield _Wanted(surname, surname + _HONORIFIC)


def _number(number: str) -> Iterator[_Wanted]:
    bare = _bare(number)
    yield from _places(number)
    if not re.search(r"[\d@]", number) or re.fullmatch(r"(?:19|20)\d\d", bare):
        return
    if len(bare) < 4 or _placeholder(number) or len(set(bare)) == 1:
        return
    short = bare.lstrip("0") if re.fullmatch(r"0\d{5,8}", bare) else ""  # the number without its leading zeros
    for one in (bare, short) if len(short) >= 5 else (bare,):
        yield _Wanted(one, rf"(?<![a-z0-9]){_letters(one)}(?![a-z0-9])", Kind.OTHER)


def _places(address: str) -> Iterator[_Wanted]:
    """Of a known address also the street, and in Chinese each named part, stand alone in the text."""
    for street in re.findall(r"[A-Z][^\W\d_]+(?:\s[A-Z][^\W\d_]+)+", address):
        parts = [_bare(part) for part in street.split()]
        if not all(is_word(part) or part in english().clinical for part in parts) or re.search(r"\d", address):
            yield _Wanted("".join(parts), _edges(r"[\s,.]{1,3}".join(map(re.escape, parts))), Kind.ADDRESS)
    for place in re.split(rf"[^{HAN}]+|(?<=[省市区县州镇乡村路街号弄栋])", address):
        name = re.sub(r"[一二三四五六七八九十]?[省市区县州镇乡路街号弄栋]?$", "", place)
        if len(name) >= 3 and not _placeholder(name):
            yield _Wanted(name, re.escape(name), Kind.ADDRESS)


def _placeholder(text: str) -> bool:
    """`N/A`, `unknown`, `Test Patient`, `待查`: nobody."""
    words = [word for word in re.split(r"[\s,;:._\-]+", text.strip().casefold()) if word]
    return all(word in WORDS["placeholders"] or not re.search(r"\w", word) for word in words)
