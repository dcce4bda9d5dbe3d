"""Containment of one text in another: shared shingles over those of the shorter text.

What finds near-duplicates, training data that hold a benchmark's items, and benchmark items that training data hold:
one measure, whichever side is then dropped. Stock phrases are shared by all clinical text, so "any shared 13-gram"
flags far too much (137 of 308 MedBullets items against MedQA; containment of at least one half flags 4), and
boilerplate (shingles that many texts share, such as a form's headings) does not count.
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from clinical_r1.text import HAN, one_width

CHARACTERS_A_WORD = 1.6
"""Of Chinese: eight of its characters are a stock phrase, eight English words rarely are."""
BOILERPLATE_SHARE = 0.02
BOILERPLATE_MIN = 20
"""Shingles in more than 2% of the texts, and in more than 20 of them, are boilerplate."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_TOKEN = re.compile(rf"[a-z0-9]+|[{HAN}]")


def tokens(text: str) -> list[str]:
    """Latin words and single Han characters, NFKC and case-folded; punctuation and spacing do not count."""
    return _TOKEN.findall(one_width(text).casefold())


def normal_form(text: str) -> str:
    """The text as its tokens joined by spaces: equal for texts that differ in case, width and punctuation only."""
    return " ".join(tokens(text))


def shingle_array(words: list[str], size: int) -> np.ndarray:
    """Sorted distinct 64-bit hashes of all runs of `size` tokens, the same in every process; uint64, 1-d."""
    if not words:
        return np.empty(0, np.uint64)
    code = {word: zlib.crc32(word.encode()) for word in set(words)}
    codes = np.fromiter(map(code.__getitem__, words), np.uint64, len(words))
    size = min(size, len(words))
    mixed = np.zeros(len(words) - size + 1, np.uint64)
    for offset in range(size):  # multiplication wraps around: a polynomial hash modulo 2**64
        mixed = mixed * _MULTIPLIER + codes[offset : offset + len(mixed)]
    mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed * _MULTIPLIER)


class ContainmentIndex:
    """Items by their shingles: how much of each does a text contain, or the item of the text?"""

    def __init__(self, texts: Sequence[str], ngram: int, min_shingles: int) -> None:
        """`ngram` words a shingle; texts with fewer than `min_shingles` are compared as a whole only."""
        self._ngram, self._min = ngram, min_shingles
        sets = [self._shingles(text) for text in texts]
        frequency = Counter(shingle for found in sets for shingle in found)
        limit = max(BOILERPLATE_MIN, int(BOILERPLATE_SHARE * len(sets)))
        self._common = {shingle for shingle, times in frequency.items() if times > limit}
        self._sizes = [len(found - self._common) for found in sets]
        self._whole: dict[str, list[int]] = defaultdict(list)
        self._postings: dict[int, list[int]] = defaultdict(list)
        for index, (text, found) in enumerate(zip(texts, sets, strict=True)):
            self._whole[normal_form(text)].append(index)
            if self._sizes[index] >= min_shingles:
                for shingle in found - self._common:
                    self._postings[shingle].append(index)

    def _shingles(self, text: str) -> set[int]:
        """Hashes of all runs of `ngram` words, in Chinese of as many words' worth of characters; of a shorter text as
        a whole."""
        found = tokens(text)
        chinese = 2 * sum(token >= "\u3400" for token in found) > len(found)
        size = round(CHARACTERS_A_WORD * self._ngram) if chinese else self._ngram
        return {hash(tuple(found[i : i + size])) for i in range(max(1, len(found) - size + 1))} if found else set()

    def shares(self, text: str) -> dict[int, float]:
        """Item -> containment, of every item that shares a shingle with `text`; 1 for an identical normal form."""
        equal = dict.fromkeys(self._whole.get(normal_form(text), ()), 1.0)
        found = self._shingles(text) - self._common
        if len(found) < self._min:
            return equal
        shared: Counter[int] = Counter()
        for shingle in found:
            shared.update(self._postings.get(shingle, ()))
        return {index: times / min(self._sizes[index], len(found)) for index, times in shared.items()} | equal

    def highest(self, text: str) -> float:
        """Highest containment of `text` with one item, 0..1."""
        return max(self.shares(text).values(), default=0.0)
