"""How hard an endpoint is pushed: a concurrency limit that finds its level, pacing by requests and tokens a minute,
and a limit on money or tokens that stops a run cleanly and lets it go on later."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from clinical_r1.llm.config import BudgetConfig
from clinical_r1.llm.reply import BudgetExhausted
from clinical_r1.schema import Usage

if TYPE_CHECKING:
    from clinical_r1.llm.journal import Journal


class Gate:
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
        """Count one reply of the endpoint."""
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


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an endpoint asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date; None if
    neither."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


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
        """Count a call."""
        self.spent = self.spent + usage

    def check(self) -> None:
        """Raise BudgetExhausted where nothing is left."""
        tokens, limits = self.spent.prompt_tokens + self.spent.completion_tokens, self.limits
        if limits.max_cost is not None and self.spent.cost >= limits.max_cost:
            name, state = "max_cost", f"{self.spent.cost:.4f} of max_cost {limits.max_cost:g} is spent"
        elif limits.max_tokens is not None and tokens >= limits.max_tokens:
            name, state = "max_tokens", f"{tokens} of max_tokens {limits.max_tokens} are used"
        else:
            return
        raise BudgetExhausted(f"budget: {state}; finished calls are kept: raise {name} and run the same command again")
