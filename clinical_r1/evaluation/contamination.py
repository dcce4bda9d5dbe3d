"""How much of a benchmark the training data already hold: containment of word n-grams (characters in Chinese).

"Any shared 13-gram" flags 137 of 308 MedBullets items against MedQA, containment of at least one half flags 4: stock
phrases are shared by all clinical text, so the share of an item that occurs in one training case is what counts.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clinical_r1.schema import Case

WORDS, CHARACTERS = 8, 13
"""Length of an n-gram: words in English, characters in Chinese."""


class Overlap(NamedTuple):
    """A benchmark case and the training case that holds most of it."""

    case_id: str
    training_id: str
    containment: float


def grams(text: str) -> frozenset[str]:
    """n-grams of a text, folded; a text shorter than one is one gram."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if sum("\u4e00" <= char <= "\u9fff" for char in folded) > len(folded) / 4:
        units, size, glue = re.findall(r"\w", folded), CHARACTERS, ""
    else:
        units, size, glue = re.findall(r"\w+", folded), WORDS, " "
    count = max(1, len(units) - size + 1)
    return frozenset(glue.join(units[i : i + size]) for i in range(count))


def overlaps(benchmark: Sequence[Case], training: Iterable[Case], threshold: float = 0.5) -> list[Overlap]:
    """Benchmark cases of which at least `threshold` is contained in one training case."""
    index: dict[str, list[int]] = defaultdict(list)
    own = [grams(case.question) for case in benchmark]
    for number, parts in enumerate(own):
        for part in parts:
            index[part].append(number)
    best: dict[int, tuple[float, str]] = {}
    for case in training:
        shared: dict[int, int] = defaultdict(int)
        for part in grams(case.question):
            for number in index.get(part, ()):
                shared[number] += 1
        for number, count in shared.items():
            best[number] = max(best.get(number, (0.0, "")), (count / len(own[number]), case.id))
    return [
        Overlap(benchmark[number].id, training_id, share)
        for number, (share, training_id) in sorted(best.items())
        if share >= threshold
    ]
