"""Structured identifiers that their shape or a label gives away: numbers, mail, web, vehicles, images. And clinical
values, which no recogniser of bare numbers may touch. The patterns are in `numbers.yaml`.

Adversarial spacing is met in two ways: patterns allow separators between digits, and a find with odd separators must
still make sense (a checksum, a birth date inside, a grouping that people write), so that a row of laboratory values is
not taken for a telephone number.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import date

from clinical_r1.privacy.lexicon import rules
from clinical_r1.privacy.spans import Kind, Span
from clinical_r1.text import HAN

RULE, EACH, _ = rules("numbers")
_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_WRITTEN = {(3, 4, 4), (3, 3, 5), (4, 4, 3), (3, 8), (4, 7), (2, 3, 4, 4), (2, 11), (3, 3, 3, 2), (7, 4), (5, 6)}


class Values:
    """The stretches of one folded text that are clinical values."""

    def __init__(self, text: str) -> None:
        found = sorted(match.span() for _, pattern in EACH["protected"] for match in pattern.finditer(text))
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in found:
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touches(self, start: int, end: int) -> bool:
        """Does a value lie in or across `text[start:end]`?"""
        return self.first(start, end) < end

    def first(self, start: int, end: int) -> int:
        """Where the first value in `text[start:end]` begins; `end` where there is none."""
        index = bisect_right(self._ends, start)
        return max(start, self._starts[index]) if index < len(self._starts) and self._starts[index] < end else end


def digits_of(text: str) -> str:
    """The ASCII digits of folded text."""
    return "".join(char for char in text if char.isdigit())


def resident_id_ok(text: str) -> bool:
    """A Chinese resident ID: 17 digits with a possible birth date, then the ISO 7064 MOD 11-2 check character.

    A wrong check character with a right date still counts: a mistyped ID identifies too.
    """
    body = re.sub(r"[^0-9Xx]", "", text).upper()
    if len(body) != 18 or not body[:17].isdigit() or body[0] == "0":
        return False
    try:
        dated = 1850 <= date(int(body[6:10]), int(body[10:12]), int(body[12:14])).year <= 2100
    except ValueError:
        dated = False
    return dated or resident_check(body[:17]) == body[17]


def resident_check(body: str) -> str:
    """Check character of the first 17 digits (GB 11643-1999)."""
    return "10X98765432"[sum(int(d) * w for d, w in zip(body, _RESIDENT_WEIGHTS, strict=True)) % 11]


def _groups(text: str) -> tuple[int, ...]:
    return tuple(len(group) for group in re.findall(r"\d+", text))


def _mobile_ok(text: str) -> bool:
    """Digits in one block, one by one, in equal groups, or grouped as mobile numbers are: no decimals."""
    groups = _groups(re.sub(r"^\s*(?:\+|00)?86", "", text))
    return len(set(groups[:-1])) <= 1 or groups in _WRITTEN


def _card_ok(text: str) -> bool:
    """The check digit of bank cards (Luhn), in a few groups or one by one."""
    numbers, groups = [int(d) for d in digits_of(text)][::-1], _groups(text)
    check = sum(n if i % 2 == 0 else sum(divmod(2 * n, 10)) for i, n in enumerate(numbers)) % 10
    return check == 0 and (len(groups) <= 5 or set(groups) == {1})


def _vin_ok(text: str) -> bool:
    body = re.sub(r"[\s\-]", "", text)
    return sum(char.isdigit() for char in body) >= 4 and sum(char.isalpha() for char in body) >= 2


def _email_ok(text: str) -> bool:
    """The word "at" makes an address only before a name that ends in a usual top-level domain, written without gaps."""
    return bool(re.search(r"@|\(at\)|\[at\]|dot\s|\S\.(?:com|org|net|edu|gov|cn)$", text))


_CHECKS: dict[str, Callable[[re.Match[str]], bool]] = {
    "": lambda match: True,
    "resident_id": lambda match: resident_id_ok(match.group()),
    "card": lambda match: _card_ok(match.group()),
    "vin": lambda match: _vin_ok(match.group()),
    "mobile": lambda match: _mobile_ok(match.group()),
    "email": lambda match: _email_ok(match.group()),
    "path": lambda match: len(re.findall(r"[A-Za-z_]{2,}", match.group())) >= 2,
    "six digits": lambda match: len(digits_of(match.group())) >= 6,
    "nine digits": lambda match: len(digits_of(match.group())) >= 9,
    "five characters": lambda match: len(match["v"]) >= 5,
}


def _stems(label: str) -> tuple[str, ...]:
    """The literal beginnings of a label's alternatives: where a text has none of them, the pattern need not be tried
    (a search for a substring is a hundred times as fast). Empty where an alternative begins with no letters."""
    found = []
    for part in re.sub(r"\[[^\]]*\]", ".", label).casefold().split("|"):
        literal = re.match(rf"(?:\\b|\(\?:)*([a-z{HAN} ]+)", part)
        kept = literal[1] if literal else ""
        kept = kept[:-1] if literal and part[literal.end() :][:1] in ("?", "*", "{") else kept
        if not kept.strip():
            return ()
        found.append(kept)
    return tuple(found)


_VALUE = RULE["labelled"].pattern
_LABELLED = [
    (Kind[kind.upper()], re.compile(rf"(?i)(?:{label.pattern}){_VALUE}"), _stems(label.pattern))
    for kind, label in EACH["labels"]
]


def find_numbers(text: str) -> Iterator[Span]:
    """Structured identifiers in folded text; overlaps are resolved later. What is a clinical value and has no label
    that makes it an identifier is left alone."""
    values, lowered = Values(text), text.casefold()
    yield from _shaped(text, "shapes")
    for kind, pattern, stems in _LABELLED:
        for match in pattern.finditer(text) if not stems or any(stem in lowered for stem in stems) else ():
            if len(digits_of(match["value"])) >= 3 and not _measured(match, values):
                yield Span(match.start("value"), match.end("value"), kind)
    yield from _shaped(text, "handles")
    for match in RULE["cluster"].finditer(text):
        digits = len(digits_of(match.group()))
        unspaced = digits >= 12 and " " not in match.group()
        odd = unspaced or (digits >= 9 and re.search(r"\d [.\-]\d", match.group()))
        piece = match.group() if odd else text[match.start() : values.first(*match.span())].rstrip(" \t.,-(")
        if _spelled_out(piece):
            yield Span(match.start(), match.start() + len(piece), Kind.OTHER)
    for _, pattern in EACH["bare"]:
        for match in pattern.finditer(text):
            if not values.touches(*match.span()):
                yield Span(match.start(), match.end(), Kind.OTHER)


def _shaped(text: str, shapes: str) -> Iterator[Span]:
    """What has one of the shapes, and holds where that wants a check."""
    for label, pattern in EACH[shapes]:
        kind, _, check = label.partition(" if ")
        for match in pattern.finditer(text):
            group = next((name for name in pattern.groupindex if name in "vw" and match[name]), 0)
            if _CHECKS[check](match):
                yield Span(match.start(group), match.end(group), Kind[kind.upper()])


def _measured(match: re.Match[str], values: Values) -> bool:
    """Is the labelled value a measurement (`实验室检查：WBC 12.4`, `pump 125 mL/h`)?"""
    value = match["value"]
    if re.fullmatch(r"(?:[A-Za-z]{1,6} ?)?(?!0\d)\d{1,4}\.\d{1,3}|[A-Za-z]{1,6} \d{1,3}", value.strip()):
        return True
    return len(digits_of(value)) <= 5 and values.touches(match.start("value"), match.end("value"))


def _spelled_out(text: str) -> bool:
    """An identifier written in pieces: equal pieces, or separators that no list of measurements has.

    `138 4.2 101 24` is no identifier; `23 18 77 98 20`, `353.854.634.2`, `350--74--24-05`, `W.U.H.9.2.4` are.
    """
    digits, lettered = len(digits_of(text)), bool(re.search("[A-Z]", text))
    pieces = re.findall(r"[A-Z0-9]+", text.split("x")[0])
    gaps = re.findall(r"(?<=[A-Z0-9])[^A-Z0-9x]+(?=[A-Z0-9])", text.split("x")[0])
    if digits < 5 or digits + sum(char.isalpha() for char in text) < 6:
        return False
    if not lettered and set(gaps) == {"."}:
        return len(gaps) > 1
    equal = len({len(piece) for piece in pieces[:-1]}) == 1 and len(pieces[-1]) <= len(pieces[0])
    if equal and (len(pieces[0]) == 1 or len(pieces) >= 4 or len(pieces[0]) == 4):
        return len(pieces) >= 4 or digits >= 8
    odd = [gap for gap in gaps if len(gap) > 1 and gap.strip()]
    return (
        bool(odd and (digits >= 7 or len(odd) >= 2))
        or (digits >= 10 and {"-", " "} <= set(gaps))
        or (not any(" " in gap for gap in gaps) and len(gaps) >= 2 and (lettered or digits >= 7))
    )


def residue(text: str) -> bool:
    """After scrubbing: is something identifier-shaped left that is not a measurement? Then the record is in doubt."""
    values = Values(text)
    return any(not values.touches(*match.span()) for match in RULE["residue"].finditer(text))
