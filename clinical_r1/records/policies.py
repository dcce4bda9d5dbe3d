"""What well-formed, gated cases are dropped for: no group, duplicate, near-duplicate, contamination, leakage.

Decided on facts, in this order; a case's text is not needed any more. Near-duplicates are found by containment
(`clinical_r1.containment`) within blocks (one language and reference), whose shingles are read from disk when their
turn comes.

Leakage is the reference diagnosis stated in the question: a model could copy it, so the case teaches and tests nothing.
It is known by the names room (`clinical_r1.verifier.names`): any synonym, abbreviation or translation, of any of the
references, denied or not; and by the same words in another order (`diabetes mellitus type 2`), in another spelling or
script (`lung carcinoma`, 心肌梗塞, 糖尿病視網膜病變).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from clinical_r1.containment import BOILERPLATE_MIN, BOILERPLATE_SHARE
from clinical_r1.lexicon import simplified
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.row import Facts, Kind, Reject, Spool
from clinical_r1.text import has_han, one_width
from clinical_r1.verifier.names import names_in
from clinical_r1.verifier.normalise import normalise

_REASONS: dict[Kind, str] = {
    "ungrouped": "patient: empty in a source whose other rows have one",
    "duplicate": "same question and reference as an earlier row",
    "near_duplicate": "near-duplicate of an earlier row",
    "contaminated": "contains an item of a benchmark",
    "leak": "the question names the reference",
}


def apply_policies(
    cases: list[Facts], spool: Spool, common: "Boilerplate", config: RecordsConfig
) -> tuple[list[Facts], list[tuple[int, Reject]], int]:
    """The gated cases that nothing speaks against, rejects with the number of their source, and how many leaked."""
    rejects: list[tuple[int, Reject]] = []
    dedup = config.dedup

    def without(why: Callable[[Facts], Kind | None]) -> list[Facts]:
        kinds = [why(facts) for facts in cases]
        for facts, kind in zip(cases, kinds, strict=True):
            if kind:
                reject = Reject(file=facts.file, line=facts.line, kind=kind, reason=_REASONS[kind])
                rejects.append((facts.source, reject))
        return [facts for facts, kind in zip(cases, kinds, strict=True) if not kind]

    if "patient" in config.group_by:
        # Without its patient a case of a source that knows patients cannot be kept apart from its siblings. One without
        # a site stays: it is grouped by its patient, and shares no stated site with any other.
        sources = {facts.source for facts in cases if facts.patient}
        cases = without(lambda one: "ungrouped" if one.source in sources and not one.patient else None)
    if dedup.exact:
        first: dict[int, Facts] = {}
        cases = without(lambda one: None if first.setdefault(one.case_key, one) is one else "duplicate")
    if dedup.near != "off":
        blocks, near = [facts.block for facts in cases], cases
        pairs = near_duplicates(lambda i: spool.shingles(near[i]), blocks, common, dedup.threshold, dedup.min_shingles)
        if dedup.near == "group":
            for pair in pairs:
                for index in pair:
                    cases[index].keys.append(("near", pair[1]))
        else:
            gone = {id(cases[later]) for later, _ in pairs}
            cases = without(lambda one: "near_duplicate" if id(one) in gone else None)
    leaked = sum(facts.leak and not facts.contaminated for facts in cases)
    drop = config.leakage == "drop"
    cases = without(lambda one: "contaminated" if one.contaminated else "leak" if one.leak and drop else None)
    times: Counter[str] = Counter()
    for facts in cases:
        times[facts.id] += 1
        if times[facts.id] > 1:  # an id names one case: the repeats of a source are numbered
            facts.id, facts.renamed = f"{facts.id}-{times[facts.id]}", True
    return cases, rejects, leaked


class Boilerplate:
    """Counts in how many texts a shingle stands, in a table of fixed size: a rare shingle that shares its place with
    many others is taken for a stock phrase, which at most hides a duplicate's shingle."""

    _BUCKETS = 1 << 22

    def __init__(self) -> None:
        self._times = np.zeros(self._BUCKETS, np.uint32)
        self._texts = 0

    def _places(self, shingles: np.ndarray) -> np.ndarray:
        return (shingles & np.uint64(self._BUCKETS - 1)).astype(np.int64)

    def add(self, shingles: np.ndarray) -> None:
        """Count one text's distinct shingles."""
        self._texts += 1
        np.add.at(self._times, self._places(shingles), 1)

    def without(self, shingles: np.ndarray) -> np.ndarray:
        """The shingles that are not in more than 2% of the texts and in more than 20 of them."""
        limit = max(BOILERPLATE_MIN, int(BOILERPLATE_SHARE * self._texts))
        return shingles[self._times[self._places(shingles)] <= limit]


_MOST = 3_000_000
"""Shingles of one block held at a time; a larger block is compared on a sample of them (those of low hashes)."""
_ROWS = 256


def near_duplicates(
    shingles_of: Callable[[int], np.ndarray],
    blocks: Sequence[Hashable],
    common: Boilerplate,
    threshold: float,
    min_shingles: int,
) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of indices within one block whose containment reaches `threshold`.

    `shingles_of(i)` are the distinct shingles of text i (uint64). Each text is named at most once as the later one,
    with the earliest text that it repeats.
    """
    from scipy.sparse import csr_array

    by_block: dict[Hashable, list[int]] = defaultdict(list)
    for index, block in enumerate(blocks):
        by_block[block].append(index)
    pairs = []
    for members in by_block.values():
        arrays = _held((common.without(shingles_of(i)) for i in members), min_shingles) if len(members) > 1 else []
        sizes = np.array([len(array) for array in arrays])
        if not sizes.any():
            continue
        _, columns = np.unique(np.concatenate(arrays), return_inverse=True)
        starts = np.concatenate(([0], np.cumsum(sizes)))
        ones = np.ones(len(columns), np.int32)
        matrix = csr_array((ones, columns, starts), shape=(len(members), int(columns.max()) + 1))
        later: set[int] = set()
        for start in range(0, len(members), _ROWS):
            shared = (matrix[start : start + _ROWS] @ matrix.T).tocsr()
            for row, (begin, end) in enumerate(pairwise(shared.indptr), start):
                others, times = shared.indices[begin:end], shared.data[begin:end]
                enough = (others < row) & (times >= threshold * np.minimum(sizes[others], sizes[row]))
                hits = [int(other) for other in others[enough] if int(other) not in later]
                if hits:
                    later.add(row)
                    pairs.append((members[row], members[min(hits)]))
    return sorted(pairs)


def _held(texts: Iterable[np.ndarray], min_shingles: int) -> list[np.ndarray]:
    """Each text's shingles: all of them, or of every text the same part of the hashes."""
    arrays: list[np.ndarray] = []
    keep, held = int(np.iinfo(np.uint64).max), 0
    for own in texts:
        arrays.append(own[own <= np.uint64(keep)] if len(own) >= min_shingles else own[:0])
        held += len(arrays[-1])
        while held > _MOST:
            keep //= 2
            arrays = [array[array <= np.uint64(keep)] for array in arrays]
            held = sum(map(len, arrays))
    return arrays


MASK = {"en": "[withheld]", "zh": "【略】"}
_WORD = re.compile(r"[A-Za-z0-9]+(?:'s)?")
_LINKING = frozenset(("of", "the", "with", "and", "in", "to", "due", "a", "an", "type", "by", "for", "on"))
_SPELLINGS = (("梗塞", "梗死"), ("综合症", "综合征"), ("粘膜", "黏膜"), ("食道", "食管"), ("机能", "功能"))


def leaks(question: str, references: Sequence[str]) -> list[tuple[int, int]]:
    """Where the question (NFKC) names one of the references, as [start, end), in order; "no pneumonia" names it too."""
    text = _one_spelling(question)
    found: set[tuple[int, int]] = set()
    for name in references:
        # Two Han characters or three Latin letters (two in an abbreviation): shorter words match by accident.
        if sum(map(str.isalpha, name)) >= (2 if has_han(name) or name.isupper() else 3):
            plain = _one_spelling(name).strip(" .。")
            found.update(names_in(text, plain), _reordered(text, plain))
    return sorted(found)


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


def _reordered(text: str, reference: str) -> list[tuple[int, int]]:
    """The words of a Latin name in another order, with linking words between them."""
    wanted = Counter(word for found in _WORD.findall(reference) if (word := _word(found)) not in _LINKING)
    if not 2 <= wanted.total() <= 6 or has_han(reference):
        return []
    if not wanted.keys() <= set(map(_word, set(_WORD.findall(text)))):  # most texts are done here
        return []
    words = [(word, match) for match in _WORD.finditer(text) if (word := _word(match[0])) not in _LINKING]
    found = []
    for first in range(len(words) - wanted.total() + 1):
        window = words[first : first + wanted.total()]
        start, end = window[0][1].start(), window[-1][1].end()
        near = end - start <= len(reference) + 12 and window[0][0] in wanted
        if near and Counter(word for word, _ in window) == wanted:
            found.append((start, end))
    return found


def _word(word: str) -> str:
    plain = word.casefold().removesuffix("'s")
    return normalise(plain) or plain


def _one_spelling(text: str) -> str:
    """NFKC, simplified characters, and one of two spellings of a length, so that places stay."""
    text = one_width(text).translate(simplified())
    for one, other in _SPELLINGS:
        text = text.replace(one, other)
    return text
