"""Near-duplicates within one set of records, by containment (`clinical_r1.containment`), in bounded memory.

Texts are compared within blocks (one language and reference); a block's shingles are read from disk when its turn
comes.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from clinical_r1.containment import BOILERPLATE_MIN, BOILERPLATE_SHARE

_BUCKETS = 1 << 22
_MOST = 3_000_000
"""Shingles of one block held at a time; a larger block is compared on a sample of them (those of low hashes)."""
_ROWS = 256


class Boilerplate:
    """Counts in how many texts a shingle stands, in a table of fixed size: a rare shingle that shares its place with
    many others is taken for a stock phrase, which at most hides a duplicate's shingle."""

    def __init__(self) -> None:
        self._times = np.zeros(_BUCKETS, np.uint32)
        self._texts = 0

    def add(self, shingles: np.ndarray) -> None:
        """Count one text's distinct shingles."""
        self._texts += 1
        np.add.at(self._times, (shingles & np.uint64(_BUCKETS - 1)).astype(np.int64), 1)

    def without(self, shingles: np.ndarray) -> np.ndarray:
        """The shingles that are not in more than 2% of the texts and in more than 20 of them."""
        limit = max(BOILERPLATE_MIN, int(BOILERPLATE_SHARE * self._texts))
        return shingles[self._times[(shingles & np.uint64(_BUCKETS - 1)).astype(np.int64)] <= limit]


def near_duplicates(
    shingles_of: Callable[[int], np.ndarray],
    blocks: Sequence[Hashable],
    common: Boilerplate,
    threshold: float,
    min_shingles: int,
) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of indices within one block whose containment reaches `threshold`.

    `shingles_of(i)` are the distinct shingles of text i (uint64). Each text is named at most once as the later one,
    with
    the earliest text that it repeats.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, block in enumerate(blocks):
        members[block].append(index)
    pairs = []
    for found in members.values():
        if len(found) > 1:
            pairs += _in_block(found, shingles_of, common, threshold, min_shingles)
    return sorted(pairs)


def _in_block(
    members: list[int],
    shingles_of: Callable[[int], np.ndarray],
    common: Boilerplate,
    threshold: float,
    min_shingles: int,
) -> list[tuple[int, int]]:
    from scipy.sparse import csr_array

    arrays: list[np.ndarray] = []
    keep = int(np.iinfo(np.uint64).max)
    held = 0
    for index in members:
        own = common.without(shingles_of(index))
        arrays.append(own[own <= np.uint64(keep)] if len(own) >= min_shingles else own[:0])
        held += len(arrays[-1])
        while held > _MOST:  # of every text the same part of the hashes
            keep //= 2
            arrays = [array[array <= np.uint64(keep)] for array in arrays]
            held = sum(map(len, arrays))
    sizes = np.array([len(array) for array in arrays])
    if not held:
        return []
    _, columns = np.unique(np.concatenate(arrays), return_inverse=True)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    matrix = csr_array((np.ones(held, np.int32), columns, starts), shape=(len(members), int(columns.max()) + 1))
    later: set[int] = set()
    pairs = []
    for start in range(0, len(members), _ROWS):
        shared = (matrix[start : start + _ROWS] @ matrix.T).tocsr()
        for offset in range(shared.shape[0]):
            row = start + offset
            others = shared.indices[shared.indptr[offset] : shared.indptr[offset + 1]]
            times = shared.data[shared.indptr[offset] : shared.indptr[offset + 1]]
            enough = (others < row) & (times >= threshold * np.minimum(sizes[others], sizes[row]))
            hits = [int(other) for other in others[enough] if int(other) not in later]
            if hits:
                later.add(row)
                pairs.append((members[row], members[min(hits)]))
    return pairs
