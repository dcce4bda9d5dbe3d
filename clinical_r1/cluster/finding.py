"""One answer of `clinical-r1 doctor`."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """What was looked at, how it is, and what mends it."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""
