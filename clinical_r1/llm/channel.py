"""What all calls to one endpoint share while they are made: connection, limits, budget, counters, what was learnt."""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.limits import Budget, Gate, Pacer
from clinical_r1.llm.quirks import ADVICE, Quirks
from clinical_r1.llm.reply import AttemptError, EndpointUnusable, estimate_tokens
from clinical_r1.recognise import Reader
from clinical_r1.schema import Usage

if TYPE_CHECKING:
    from clinical_r1.llm.transport import Transport

FIRST_CALLS = 50
"""Calls that are a probe of the endpoint: where all of them fail, the step ends with the reason."""


class Statistics:
    """What a client has done so far: for progress bars, reports and cost per accepted trace; read it at any time."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.started = time.monotonic()
        self.failing_since: float | None = None
        """When the current run of attempts without a good reply began."""
        self.calls = self.cached = 0
        """Calls that gave something usable: from the endpoint, from the journal."""
        self.attempts = self.replies = 0
        """What the endpoint was asked, repeated and failed attempts included; and what it replied to."""
        self.useless = 0
        """Calls given up and replies that did not parse: with nothing usable beside them, the endpoint is no use."""
        self.retries, self.failures = Counter[str](), Counter[str]()
        """Repeated attempts, and calls given up, by reason."""
        self.said: dict[str, str] = {}
        """The endpoint's own words on each kind of failure, the last ones; nothing of what was sent."""
        self.cut: Counter[int] = Counter()
        """Replies that reached their bound, by the bound."""
        self.models: Counter[str] = Counter()
        """Replies by the model id that the endpoint returned."""
        self.usage = Usage()
        """All that this process has paid, repeated attempts included."""
        self.usual_completion = 256.0
        """Running mean of reply lengths: what the token pacing reserves for a reply that is not there yet."""

    def charged(self, usage: Usage) -> None:
        """Count a reply and what it consumed."""
        self.failing_since = None
        self.replies += 1
        self.usage = self.usage + usage
        self.usual_completion += 0.05 * (usage.completion_tokens - self.usual_completion)

    def failed(self) -> float:
        """Note a failed attempt; returns for how many seconds nothing good has come back."""
        now = time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
        return now - self.failing_since

    def gave_up(self, reason: str) -> None:
        """Count a call that came to nothing."""
        self.failures[reason] += 1
        self.useless += 1

    def told(self) -> str:
        """What went wrong most often, in the endpoint's words where there are any, and what mends it."""
        wrong = self.failures or self.retries
        if not wrong:
            return ""
        reason = wrong.most_common(1)[0][0]
        words = f': "{self.said[reason]}"' if self.said.get(reason) else ""
        return f"{reason}{words}" + (f"; {ADVICE[reason]}" if reason in ADVICE else "")

    def summary(self) -> dict[str, object]:
        """For reports: counters, cost and rate."""
        seconds = max(1e-9, time.monotonic() - self.started)
        return {
            "endpoint": self.endpoint,
            "models": sorted(self.models),
            "calls": self.calls,
            "from_journal": self.cached,
            "attempts": self.attempts,
            "calls_per_minute": round(60 * self.attempts / seconds, 1),
            "retries": dict(sorted(self.retries.items())),
            "failures": dict(sorted(self.failures.items())),
            "said": dict(sorted(self.said.items())),
            "replies": self.replies,
            "cut": self.cut.total(),
            "cut_at": max(self.cut, key=self.cut.__getitem__, default=0),
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "cost": round(self.usage.cost, 6),
        }


class Channel:
    """One endpoint, for use within one event loop (several in sequence are fine, each with its own `async with`)."""

    def __init__(self, endpoint: EndpointConfig, budget: Budget | None = None) -> None:
        self.endpoint = endpoint
        self.budget = budget
        self.statistics = Statistics(endpoint.name)
        self.reader = Reader(f"endpoint {endpoint.name}", endpoint.thinking)
        self.quirks = Quirks(endpoint)
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
                why = f"no answer from {self.endpoint.base_url} ({error.reason}); start the server, or correct base_url"
                raise self.unusable(why) from None
            self.check_key(error)
            return []

    def check_key(self, error: AttemptError) -> None:
        """Raise EndpointUnusable for a key that is not accepted."""
        if error.status in (401, 403):
            place = self.endpoint.api_key_env or "api_key_env (none is set)"
            raise self.unusable(f"HTTP {error.status}, the key is not accepted; check {place}") from None

    def unusable(self, why: str) -> EndpointUnusable:
        """The error that ends the run."""
        return EndpointUnusable(f"endpoint {self.endpoint.name}: {why}")

    def check_spending(self) -> None:
        """Raise EndpointUnusable where none of the first calls gave anything, BudgetExhausted where nothing is left."""
        done = self.statistics
        if done.useless >= FIRST_CALLS and not done.calls + done.cached:
            raise self.unusable(
                f"none of the first {FIRST_CALLS} calls gave anything usable; most often {self.statistics.told()}"
            )
        if self.budget is not None:
            self.budget.check()

    def pace(self, body: dict[str, Any]) -> tuple[float, int]:
        """Reserve one request and its tokens; returns (seconds to wait, tokens reserved)."""
        wait = self.requests.reserve(1) if self.requests else 0.0
        if self.tokens is None:
            return wait, 0
        expected = sum(estimate_tokens(message["content"]) for message in body["messages"])
        expected += min(int(body["max_tokens"]), int(self.statistics.usual_completion))
        return max(wait, self.tokens.reserve(expected)), expected
