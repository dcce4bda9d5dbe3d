"""Every choice of the search is a hash of who asks: (seed, case id, sample, attempt). Timing and order never matter."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from clinical_r1.schema import Strategy

Policy = Literal["random", "round_robin"]


def draw(*parts: object) -> int:
    """A 31-bit number that depends on the parts and on nothing else (31 bits: what every endpoint takes as a seed)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def shard_of(case_id: str, count: int) -> int:
    """The shard that a case belongs to: by its id, so neither file order nor the other cases move it."""
    return draw("shard", case_id) % count


def choose_strategy(
    policy: Policy, strategies: Sequence[Strategy], attempts_so_far: int, seed: int, case_id: str, sample: int
) -> Strategy | None:
    """The strategy of the next retry, or None where none is open.

    Backtracking is open only with a step to return to: an attempt before the one that just failed (paper 2.1.2).
    `random` draws anew each time; `round_robin` walks through the configured order, each case starting elsewhere.
    """
    allowed = [s for s in strategies if s is not Strategy.BACKTRACKING or attempts_so_far >= 2]
    if not allowed:
        return None
    if policy == "random":
        return allowed[draw("strategy", seed, case_id, sample, attempts_so_far) % len(allowed)]
    start = draw("start", seed, case_id, sample) + attempts_so_far - 1
    turn = (strategies[(start + step) % len(strategies)] for step in range(len(strategies)))
    return next(strategy for strategy in turn if strategy in allowed)
