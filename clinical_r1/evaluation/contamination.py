"""How much of a benchmark the training data already hold: containment of shingles (`clinical_r1.containment`)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clinical_r1.containment import ContainmentIndex
from clinical_r1.schema import Case

WORDS = 8
"""Words of a shingle."""
MIN_SHINGLES = 8
"""Shorter questions are compared as a whole only."""


class Overlap(NamedTuple):
    """A benchmark case and the training case that holds most of it."""

    case_id: str
    training_id: str
    containment: float


def overlaps(benchmark: Sequence[Case], training: Iterable[Case], threshold: float = 0.5) -> list[Overlap]:
    """Benchmark cases whose containment with one training case is at least `threshold`, with that case."""
    index = ContainmentIndex([case.question for case in benchmark], WORDS, MIN_SHINGLES)
    best: dict[int, tuple[float, str]] = {}
    for case in training:
        for number, share in index.shares(case.question).items():
            best[number] = max(best.get(number, (0.0, "")), (share, case.id))
    return [
        Overlap(benchmark[number].id, training_id, share)
        for number, (share, training_id) in sorted(best.items())
        if share >= threshold
    ]
