"""The reference diagnosis stated in the question: a model could copy it, so the case teaches and tests nothing.

Known by the names room (`clinical_r1.verifier.names`): any synonym, abbreviation or translation, of any of the
references, denied or not; and by the same words in another order (`diabetes mellitus type 2`), in another spelling or
script (`lung carcinoma`, 心肌梗塞, 糖尿病視網膜病變).
"""

import re
from collections import Counter
from collections.abc import Sequence

from clinical_r1.lexicon import simplified
from clinical_r1.text import has_han, one_width
from clinical_r1.verifier.names import names_in
from clinical_r1.verifier.normalise import normalise

MASK = {"en": "[withheld]", "zh": "【略】"}
_WORD = re.compile(r"[A-Za-z0-9]+(?:'s)?")
_LINKING = frozenset(("of", "the", "with", "and", "in", "to", "due", "a", "an", "type", "by", "for", "on"))


def leaks(question: str, references: Sequence[str]) -> list[tuple[int, int]]:
    """Where the question (NFKC) names one of the references, as [start, end), in order; "no pneumonia" names it too."""
    text = _one_spelling(question)
    found = [span for reference in references if _long_enough(reference) for span in _spans(text, reference)]
    return sorted(set(found))


def mask(question: str, references: Sequence[str], language: str) -> str:
    """The question with the diagnoses blanked, and else as it was (where NFKC keeps its length; else in NFKC)."""
    text = one_width(question)
    text = question if len(question) == len(text) else text
    end, parts = 0, []
    for start, stop in leaks(question, references):
        if stop > end:
            parts += [text[end : max(start, end)], MASK[language] if start >= end else ""]
            end = stop
    return "".join((*parts, text[end:]))


def _spans(text: str, reference: str) -> list[tuple[int, int]]:
    plain = _one_spelling(reference).strip(" .。")
    return [*names_in(text, plain), *_reordered(text, plain)]


def _reordered(text: str, reference: str) -> list[tuple[int, int]]:
    """The words of a Latin name in another order, with linking words between them."""
    wanted = Counter(word for word in _words(reference) if word not in _LINKING)
    if not 2 <= sum(wanted.values()) <= 6 or has_han(reference):
        return []
    if not wanted.keys() <= set(map(_word, set(_WORD.findall(text)))):  # most texts are done here
        return []
    words = [(_word(match[0]), *match.span()) for match in _WORD.finditer(text)]
    words = [word for word in words if word[0] not in _LINKING]
    size = sum(wanted.values())
    found = []
    for start in range(len(words) - size + 1):
        window = words[start : start + size]
        near = window[-1][2] - window[0][1] <= len(reference) + 12
        if near and window[0][0] in wanted and Counter(word for word, *_ in window) == wanted:
            found.append((window[0][1], window[-1][2]))
    return found


def _words(text: str) -> list[str]:
    return [_word(match[0]) for match in _WORD.finditer(text)]


def _word(word: str) -> str:
    plain = word.casefold().removesuffix("'s")
    return normalise(plain) or plain


_SPELLINGS = (("梗塞", "梗死"), ("综合症", "综合征"), ("粘膜", "黏膜"), ("食道", "食管"), ("机能", "功能"))


def _one_spelling(text: str) -> str:
    """NFKC, simplified characters, and one of two spellings of a length, so that places stay."""
    text = one_width(text).translate(simplified())
    for one, other in _SPELLINGS:
        text = text.replace(one, other)
    return text


def _long_enough(name: str) -> bool:
    """Two Han characters or three Latin letters (two in an abbreviation): shorter words match by accident."""
    letters = sum(char.isalpha() for char in name)
    return letters >= (2 if has_han(name) or name.isupper() else 3)
