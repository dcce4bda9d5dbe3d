"""The reference diagnosis stated in the question: a model could copy it, so the case teaches and tests nothing."""

import re
import unicodedata
from functools import lru_cache

MASK = {"en": "[withheld]", "zh": "【略】"}
_PARENTHESES = re.compile(r"[（(]([^（）()]*)[）)]")
_HAN = re.compile(r"[\u3400-\u9fff]")


def names_of(reference: str) -> list[str]:
    """The reference as written, without its parenthesis, and the abbreviation in it ("... (PID)"); longest first."""
    text = unicodedata.normalize("NFKC", reference).strip(" .。")
    inside = [part.strip() for part in _PARENTHESES.findall(text)]
    outside = " ".join(_PARENTHESES.sub(" ", text).split())
    found = {text, outside, *(part for part in inside if part.isupper() and len(part) >= 2)}
    return sorted((name for name in found if _long_enough(name)), key=len, reverse=True)


def _long_enough(name: str) -> bool:
    """Two Han characters or three Latin letters (two in an abbreviation): shorter words match by accident."""
    letters = sum(char.isalpha() for char in name)
    return letters >= (2 if _HAN.search(name) or name.isupper() else 3)


@lru_cache(maxsize=8192)
def _pattern(reference: str) -> re.Pattern[str] | None:
    parts = []
    for name in names_of(reference):
        body = r"[\s-]*".join(re.escape(word) for word in re.split(r"[\s-]+", name))
        # Latin names end at a word's edge (with a plural s); Chinese has no edges.
        parts.append(body if _HAN.search(name) else rf"(?<![A-Za-z0-9]){body}(?:e?s)?(?![A-Za-z0-9])")
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def leaks(question: str, reference: str) -> bool:
    """Does the question name the reference (also negated: "no pneumonia" still names it)?"""
    pattern = _pattern(reference)
    return bool(pattern and pattern.search(unicodedata.normalize("NFKC", question)))


def mask(question: str, reference: str, language: str) -> str:
    """The question with the diagnosis blanked."""
    pattern = _pattern(reference)
    return pattern.sub(MASK[language], unicodedata.normalize("NFKC", question)) if pattern else question
