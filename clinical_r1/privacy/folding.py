"""Text as recognizers see it: one width, one script, no invisible characters, and the way back to the original.

Adversarial or sloppy typing (full-width digits, Cyrillic look-alikes, zero-width joiners, exotic dashes) must not hide
an identifier, nor must the script (陳曉明 is 陈晓明), and what is not one must come out as it went in. So recognizers
match on the folded text, in simplified characters, and their spans are mapped back.
"""

import re
import unicodedata
from dataclasses import dataclass

from clinical_r1.lexicon import simplified
from clinical_r1.text import one_width

# Cyrillic and Greek letters that look like Latin ones.
_LOOKALIKES = str.maketrans(
    "АВЕКМНОРСТУХІЈЅаеорсухіјѕԁɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρτυ",
    "ABEKMHOPCTYXIJSaeopcyxijsdgABEZHIKMNOPTYXovptu",
)
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－ー"), "-")
_DOTS = {ord("。"): "。", ord("·"): "·", ord("•"): "·", ord("‧"): "·", ord("・"): "·"}


@dataclass(frozen=True)
class Folded:
    """Folded text and, for each of its characters, the index of the original one."""

    text: str
    origin: tuple[int, ...]
    length: int
    """Length of the original."""

    def back(self, start: int, end: int) -> tuple[int, int]:
        """Original span of a non-empty folded span (end exclusive)."""
        # what was dropped behind the last character (a combining accent) belongs to it
        last = self.origin[end] if end < len(self.origin) else self.length
        return self.origin[start], last


_WORD = re.compile(r"[\u0370-\u03ff\u0400-\u052f]{2,}")


def _own_script(text: str) -> set[int]:
    """Where a whole word is Greek or Cyrillic in earnest: not all of its letters look like Latin ones."""
    own: set[int] = set()
    for match in _WORD.finditer(text):
        latin = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
        if not re.search(r"[A-Za-z\u200b-\u200f]", latin) and any(
            ord(char) not in _LOOKALIKES for char in match.group()
        ):
            own |= set(range(*match.span()))
    return own


def fold(text: str) -> Folded:
    """Fold character by character, so that spans map back."""
    own, han = _own_script(text), simplified()
    out: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        if char.isascii():
            out.append(char)
            origin.append(index)
            continue
        if unicodedata.category(char) in ("Cf", "Mn", "Me"):  # zero-width, marks laid over letters
            continue
        digit = unicodedata.digit(char, None) if not "\u2070" <= char <= "\u209f" and char not in "¹²³" else None
        plain = str(digit) if digit is not None else one_width(char)
        plain = plain.translate(_DASHES).translate(_DOTS).translate(han)
        plain = plain if index in own else plain.translate(_LOOKALIKES)
        for piece in plain:
            out.append(" " if piece.isspace() and piece != "\n" else piece)
            origin.append(index)
    return Folded("".join(out), tuple(origin), len(text))
