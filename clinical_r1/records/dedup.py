"""Near-duplicates and benchmark contamination, both by containment of shingles.

Containment = shared shingles / shingles of the shorter text. Boilerplate (shingles that many texts share, such as a
form's headings) does not count: two short charts on one template are not duplicates. Any-shared-n-gram tests flag far
too much (notes: 137 of 308 items by "any 13-gram", 4 by containment of one half).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from clinical_r1.records.text import normal_form, shingles, tokens

BOILERPLATE_SHARE = 0.02
BOILERPLATE_MIN = 20


def boilerplate(sets: Iterable[set[int]], count: int) -> set[int]:
    """Shingles in more than 2% of `count` texts and in more than 20 of them."""
    limit = max(BOILERPLATE_MIN, int(BOILERPLATE_SHARE * count))
    frequency: Counter[int] = Counter()
    for found in sets:
        frequency.update(found)
    return {shingle for shingle, times in frequency.items() if times > limit}


def near_duplicates(
    texts: Sequence[str], blocks: Sequence[Hashable], threshold: float, min_shingles: int, size: int = 4
) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of indices within one block whose containment reaches `threshold`.

    Each text is named at most once as the later one, with the earliest text it repeats.
    """
    sets = [shingles(tokens(text), size) for text in texts]
    common = boilerplate(sets, len(sets))
    postings: dict[tuple[Hashable, int], list[int]] = defaultdict(list)
    kept: list[int] = []
    pairs: list[tuple[int, int]] = []
    for index, found in enumerate(sets):
        found = found - common
        kept.append(len(found))
        if len(found) < min_shingles:
            continue
        shared: Counter[int] = Counter()
        for shingle in found:
            shared.update(postings[blocks[index], shingle])
        hits = [other for other, times in shared.items() if times >= threshold * min(len(found), kept[other])]
        if hits:
            pairs.append((index, min(hits)))
            continue  # its original stands for it
        for shingle in found:
            postings[blocks[index], shingle].append(index)
    return pairs


class BenchmarkIndex:
    """Shingles of benchmark items; asks of a case how much of an item it contains (or the other way round)."""

    def __init__(self, texts: Sequence[str], ngram: int, min_shingles: int) -> None:
        self._ngram, self._min = ngram, min_shingles
        sets = [shingles(tokens(text), ngram) for text in texts]
        common = boilerplate(sets, len(sets))
        self._sizes = [len(found - common) for found in sets]
        self._exact = {normal_form(text) for text in texts}
        self._postings: dict[int, list[int]] = defaultdict(list)
        for index, found in enumerate(sets):
            if self._sizes[index] >= min_shingles:
                for shingle in found - common:
                    self._postings[shingle].append(index)

    def containment(self, text: str) -> float:
        """Highest containment of `text` with one item, 0..1; 1 for an identical normal form."""
        if normal_form(text) in self._exact:
            return 1.0
        found = shingles(tokens(text), self._ngram)
        if len(found) < self._min:
            return 0.0
        shared: Counter[int] = Counter()
        for shingle in found:
            shared.update(self._postings.get(shingle, ()))
        return max((times / min(self._sizes[i], len(found)) for i, times in shared.items()), default=0.0)
