"""The characters of English and Chinese text: which are Chinese, one width for all, accents laid aside.

When two words or two names count as one is for the room that compares them to say.
"""

import re
import unicodedata
from typing import Literal

Language = Literal["en", "zh"]
HAN = r"\u3400-\u9fff"
"""The Chinese characters, as they stand within a pattern's brackets."""
HAN_CHARACTER = f"[{HAN}]"
_HAN_CHARACTER = re.compile(HAN_CHARACTER)
_LATIN_LETTER = re.compile("[A-Za-z]")


def has_han(text: str) -> bool:
    return _HAN_CHARACTER.search(text) is not None


def han_of(text: str) -> str:
    return "".join(_HAN_CHARACTER.findall(text))


def latin_of(text: str) -> str:
    return "".join(_LATIN_LETTER.findall(text))


def main_language(text: str) -> Language:
    """Chinese where Han characters outweigh Latin words (of about five letters): charts mix in Latin abbreviations."""
    return "zh" if len(han_of(text)) * 5 > len(latin_of(text)) else "en"


def one_width(text: str) -> str:
    """Full-width forms as half-width ones, ligatures as their letters (Unicode's NFKC)."""
    return unicodedata.normalize("NFKC", text)


def without_accents(text: str) -> str:
    """`Sjogren` of `Sjögren`."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
