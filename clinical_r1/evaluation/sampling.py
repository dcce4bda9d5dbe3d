"""A reproducible part of a set of cases."""

import hashlib
from collections.abc import Sequence

from clinical_r1.schema import Case


def rank(seed: int, case_id: str) -> str:
    """Where a case stands in the order of a seed; independent of the order in which the cases come."""
    return hashlib.sha256(f"{seed}:{case_id}".encode()).hexdigest()


def sample_of(cases: Sequence[Case], limit: int, seed: int = 0) -> list[Case]:
    """At most `limit` cases (0: all), drawn by a hash of seed and id, in their own order."""
    if limit <= 0 or len(cases) <= limit:
        return list(cases)
    chosen = {case.id for case in sorted(cases, key=lambda case: rank(seed, case.id))[:limit]}
    return [case for case in cases if case.id in chosen]
