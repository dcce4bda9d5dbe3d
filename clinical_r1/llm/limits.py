"""What all calls to one endpoint share while they are made: connection, limits, budget, counters, what was learnt.

How hard it is pushed: a concurrency limit that finds its level, pacing by requests and tokens a minute, and a limit on
money or tokens that stops a run cleanly and lets it go on later.
"""

import asyncio
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Self

from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.llm.quirks import ADVICE, Quirks
from clinical_r1.llm.reply import WORDS, AttemptError, BudgetExhausted, EndpointUnusable, estimate_tokens
from clinical_r1.recognise import Reader
from clinical_r1.schema import Usage

if TYPE_CHECKING:
    from clinical_r1.llm.journal import Journal
    from clinical_r1.llm.transport import Transport

FIRST_CALLS = 50  # a probe of the endpoint: where all of them fail, the step ends with the reason


class Concurrency:
    """Adaptive concurrency: additive increase, multiplicative decrease (as TCP does) on a window of replies.

    After each window of `limit` replies the limit grows by a tenth, or falls by 30% where more than a tenth of
    the window was throttled (429, 503). Judging by share and not by single replies keeps a few stray 429s from
    starving a fast endpoint.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._replies = 0
        self._throttled = 0

    async def __aenter__(self) -> None:
        if self.in_flight < int(self.limit) and not self._waiting:
            self.in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def report(self, throttled: bool) -> None:
        self._replies += 1
        self._throttled += throttled
        if self._replies < max(8, int(self.limit)):
            return
        if self._throttled > 0.1 * self._replies:
            self.limit = max(1.0, 0.7 * self.limit)
        else:
            self.limit = min(float(self.most), self.limit + max(1.0, 0.1 * self.limit))
        self._replies = self._throttled = 0

    def _release(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)


class Pacer:
    """At most `per_minute` units in any 60 seconds: a bucket with a tenth of a minute's worth, refilled at 90% of the
    rate."""

    def __init__(self, per_minute: float) -> None:
        self._burst = max(1.0, 0.1 * per_minute)
        self._rate = max((per_minute - self._burst) / 60.0, per_minute / 120.0)
        self._level = self._burst
        self._at = time.monotonic()

    def reserve(self, amount: float) -> float:
        """Take `amount` units; returns the seconds to wait before using them (the level may go below zero)."""
        now = time.monotonic()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._level / self._rate)

    def refund(self, amount: float) -> None:
        """Give back what a reservation took too much (negative: take what it took too little)."""
        self._level = min(self._burst, self._level + amount)


def backoff(attempt: int, first: float, most: float, asked: float | None, rng: random.Random) -> float:
    """Seconds before the attempt after `attempt` (0-based): what was asked plus up to a quarter, else exponential
    half-jitter."""
    if asked is not None:
        return min(asked, most) * (1 + 0.25 * rng.random())
    step = min(most, first * 2.0**attempt)
    return step * (0.5 + 0.5 * rng.random())


class Budget:
    """Shared by any number of clients. What the journal already holds counts: a resumed run goes on from there.

    The check comes before a call, so the overshoot is at most what is in flight at that moment.
    """

    def __init__(self, limits: BudgetConfig, sharers: int = 1) -> None:
        """`sharers` processes with a part of the budget each write one journal."""
        self.limits = limits
        self.spent = Usage()
        self._sharers = sharers
        self._adopted: set[str] = set()

    def adopt(self, journal: "Journal") -> None:
        """Count what a journal's earlier calls have cost, once a journal."""
        if str(journal.path) not in self._adopted:
            self._adopted.add(str(journal.path))
            counts, parts = journal.usage.model_dump(), self._sharers
            cost = counts.pop("cost") / parts
            self.charge(Usage(**{name: count // parts for name, count in counts.items()}, cost=cost))

    def charge(self, usage: Usage) -> None:
        self.spent = self.spent + usage

    def check(self) -> None:
        tokens, limits = self.spent.prompt_tokens + self.spent.completion_tokens, self.limits
        if limits.max_cost is not None and self.spent.cost >= limits.max_cost:
            name, state = "max_cost", f"{self.spent.cost:.4f} of max_cost {limits.max_cost:g} is spent"
        elif limits.max_tokens is not None and tokens >= limits.max_tokens:
            name, state = "max_tokens", f"{tokens} of max_tokens {limits.max_tokens} are used"
        else:
            return
        raise BudgetExhausted(f"budget: {state}; finished calls are kept: raise {name} and run the same command again")


class Statistics:
    """What a client has done so far: for progress bars, reports and cost per accepted trace; read it at any time."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.started = time.monotonic()
        self.failing_since: float | None = None  # of the current run of attempts without a good reply
        self.calls = self.cached = 0  # that gave something usable: from the endpoint, from the journal
        self.attempts = self.replies = 0  # what it was asked, repeated and failed ones too; what it replied to
        self.useless = 0
        """Calls given up and replies that did not parse: with nothing usable beside them, the endpoint is no use."""
        self.retries, self.failures = Counter[str](), Counter[str]()  # repeated attempts, calls given up, by reason
        self.said: dict[str, str] = {}
        """The endpoint's own words on each kind of failure, the last ones; nothing of what was sent."""
        self.cut: Counter[int] = Counter()  # replies that reached their bound, by the bound
        self.models: Counter[str] = Counter()  # replies by the model id that the endpoint returned
        self.usage = Usage()  # all that this process has paid, repeated attempts included
        self.usual_completion = 256.0
        """Running mean of reply lengths: what the token pacing reserves for a reply that is not there yet."""

    def charged(self, usage: Usage) -> None:
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
        self.gate = Concurrency(endpoint.max_concurrency)
        self.requests = Pacer(endpoint.requests_per_minute) if endpoint.requests_per_minute else None
        self.tokens = Pacer(endpoint.tokens_per_minute) if endpoint.tokens_per_minute else None
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        from clinical_r1.llm.transport import Transport

        self._transport = Transport(self.endpoint)
        self.gate = Concurrency(self.endpoint.max_concurrency)
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
                raise self.unusable("no_answer", reason=error.reason) from None
            if error.status in (401, 403):
                raise self.unusable(error.reason, status=error.status) from None
            return []

    def unusable(self, why: str, **said: object) -> EndpointUnusable:
        """The error that ends the run; `why` is a key of `unusable` in providers.yaml."""
        place = self.endpoint.api_key_env or "api_key_env (none is set)"
        told = WORDS["unusable"][why].format(at=self.endpoint, key=place, **said)
        return EndpointUnusable(f"endpoint {self.endpoint.name}: {told}")

    def check_spending(self) -> None:
        """Raise EndpointUnusable where none of the first calls gave anything, BudgetExhausted where nothing is left."""
        done = self.statistics
        if done.useless >= FIRST_CALLS and not done.calls + done.cached:
            raise self.unusable("first_calls", calls=FIRST_CALLS, told=done.told())
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
