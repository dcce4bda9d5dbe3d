"""How a call can end other than well. No message carries text of a request or a reply."""

from clinical_r1.errors import UserError
from clinical_r1.schema import Usage

REFUSALS = ("content_filter", "refused")
"""Reasons of calls that the endpoint would not answer: outcomes of their own, asked once."""


class CallFailed(Exception):  # noqa: N818
    """One call could not be completed, after all retries that make sense.

    `reason` is a short code for counters and reject files: timeout, connection, rate_limited, http_<status>,
    bad_reply (not the protocol), oversized, unparseable (not the schema), truncated, and the REFUSALS. `usage` is what
    the attempts cost all the same; `shape` is the structure of the last reply that was no use (llm.parse), without its
    text.
    """

    def __init__(self, reason: str, attempts: int, usage: Usage | None = None, shape: str = "") -> None:
        super().__init__(f"call failed after {attempts} attempt(s): {reason}")
        self.reason = reason
        self.attempts = attempts
        self.usage = usage or Usage()
        self.shape = shape


class BudgetExhausted(UserError):  # noqa: N818
    """The budget is spent: no new call begins; what was in flight is journaled. Raise the budget and run again."""


class EndpointUnusable(UserError):  # noqa: N818
    """The endpoint as a whole does not work (dead, wrong key, unknown model, no quota): the run stops and can be
    resumed."""
