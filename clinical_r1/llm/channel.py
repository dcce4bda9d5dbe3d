"""What all calls to one endpoint share while they are made: connection, limits, budget, and what was found out."""

from typing import TYPE_CHECKING, Any, Self

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.failures import EndpointUnusable
from clinical_r1.llm.limits import Budget, Gate, Pacer
from clinical_r1.llm.quirks import Quirks
from clinical_r1.llm.reply import AttemptError, estimate_tokens
from clinical_r1.llm.statistics import Statistics
from clinical_r1.llm.structured import JsonMode
from clinical_r1.recognise import Reader
from clinical_r1.schema import Usage

if TYPE_CHECKING:
    from clinical_r1.llm.transport import Transport

FIRST_CALLS = 50
"""Calls that are a probe of the endpoint: where all of them fail, the step ends with the reason."""


class Channel:
    """One endpoint, for use within one event loop (several in sequence are fine, each with its own `async with`)."""

    def __init__(self, endpoint: EndpointConfig, budget: Budget | None = None) -> None:
        self.endpoint = endpoint
        self.budget = budget
        self.statistics = Statistics(endpoint.name)
        self.reader = Reader(f"endpoint {endpoint.name}", endpoint.thinking)
        self.quirks = Quirks(endpoint)
        self.json_mode = JsonMode(endpoint.json_mode)
        self.gate = Gate(endpoint.max_concurrency)
        self.requests = Pacer(endpoint.requests_per_minute) if endpoint.requests_per_minute else None
        self.tokens = Pacer(endpoint.tokens_per_minute) if endpoint.tokens_per_minute else None
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        from clinical_r1.llm.transport import Transport

        self._transport = Transport(self.endpoint)
        self.gate = Gate(self.endpoint.max_concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    @property
    def transport(self) -> "Transport":
        """The open connection; a RuntimeError outside of `async with`."""
        if self._transport is None:
            raise RuntimeError("use LLMClient within `async with`")
        return self._transport

    async def check(self) -> list[str]:
        """See that the endpoint lives; returns the models that it lists (none if it lists none).

        Raises EndpointUnusable where it cannot be reached, or refuses the key.
        """
        try:
            return await self.transport.models()
        except AttemptError as error:
            if error.reason in ("timeout", "connection"):
                raise EndpointUnusable(
                    f"endpoint {self.endpoint.name}: no answer from {self.endpoint.base_url} ({error.reason}); "
                    "start the server, or correct base_url"
                ) from None
            if error.status in (401, 403):
                raise self.refused(error.status) from None
            return []

    def refused(self, status: int) -> EndpointUnusable:
        """The error for a key that is not accepted."""
        place = self.endpoint.api_key_env or "api_key_env (none is set)"
        return EndpointUnusable(f"endpoint {self.endpoint.name}: HTTP {status}, the key is not accepted; check {place}")

    def check_first_calls(self) -> None:
        """Raise EndpointUnusable where none of the first calls gave anything."""
        if self.statistics.useless >= FIRST_CALLS and not self.statistics.answered:
            raise EndpointUnusable(
                f"endpoint {self.endpoint.name}: none of the first {FIRST_CALLS} calls gave anything usable; "
                f"most often {self.statistics.told()}"
            )

    def pace(self, body: dict[str, Any]) -> tuple[float, int]:
        """Reserve one request and its tokens; returns (seconds to wait, tokens reserved)."""
        wait = self.requests.reserve(1) if self.requests else 0.0
        if self.tokens is None:
            return wait, 0
        expected = sum(estimate_tokens(message["content"]) for message in body["messages"])
        expected += min(int(body["max_tokens"]), self.statistics.usual_completion_tokens())
        return max(wait, self.tokens.reserve(expected)), expected

    def charge(self, usage: Usage) -> None:
        """Count what one attempt consumed."""
        self.statistics.charged(usage)
        if self.budget is not None:
            self.budget.charge(usage)
