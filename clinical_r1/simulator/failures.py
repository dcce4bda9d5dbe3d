"""Failure injection that a rerun meets again: decided by (seed, request, attempt number), never by time or order."""

import hashlib
from enum import StrEnum

from clinical_r1.simulator.config import Failures


class Fault(StrEnum):
    """What can be made to go wrong."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    HANG = "hang"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"


def draw_fault(failures: Failures, seed: int, request: bytes, attempt: int) -> Fault | None:
    """The fault of one attempt, or None. `attempt` is what the client states in `x-stainless-retry-count`."""
    digest = hashlib.blake2b(request, digest_size=8, person=b"sim-fault", salt=attempt.to_bytes(4, "big"))
    digest.update(seed.to_bytes(8, "big", signed=True))
    draw = int.from_bytes(digest.digest(), "big") / 2**64
    for fault in Fault:
        draw -= getattr(failures, fault.value)
        if draw < 0:
            return fault
    return None


def spoil(content: str, fault: Fault) -> str:
    """A reply as a faulty model would leave it: without its end (truncated) or with its quotes lost (malformed)."""
    if fault is Fault.TRUNCATED:
        return content[: max(1, len(content) // 2)]
    return content.replace('"', "", 3) if '"' in content else content[: len(content) // 3]
