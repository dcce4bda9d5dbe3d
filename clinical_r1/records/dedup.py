"""Near-duplicates within one set of records, by containment (`clinical_r1.containment`)."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from clinical_r1.containment import boilerplate, shingles, tokens


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
