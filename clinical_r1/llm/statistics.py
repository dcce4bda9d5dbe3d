"""What a client has done so far: for progress bars, reports and cost per accepted trace."""

import time
from collections import Counter

from clinical_r1.llm.quirks import ADVICE
from clinical_r1.schema import Usage


class Statistics:
    """Counters of one client; read them at any time."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.started = time.monotonic()
        self.failing_since: float | None = None
        """When the current run of attempts without a good reply began."""
        self.calls = 0
        """Finished calls that went to the endpoint."""
        self.cached = 0
        """Calls answered by the journal."""
        self.retries: Counter[str] = Counter()
        """Repeated attempts by reason."""
        self.failures: Counter[str] = Counter()
        """Calls given up by reason."""
        self.said: dict[str, str] = {}
        """The endpoint's own words on each kind of failure, the last ones; nothing of what was sent."""
        self.answered = 0
        """Calls that gave something usable, from the journal or not."""
        self.attempts = self.replies = 0
        """What the endpoint was asked, repeated and failed attempts included; and what it replied to."""
        self.cut: Counter[int] = Counter()
        """Replies that reached their bound, by the bound."""
        self.useless = 0
        """Calls given up and replies that did not parse: with nothing usable beside them, the endpoint is no use."""
        self.models: Counter[str] = Counter()
        """Replies by the model id that the endpoint returned."""
        self.usage = Usage()
        """All that this process has paid, repeated attempts included."""
        self._completion_mean = 256.0

    def finished(self, cached: bool) -> None:
        """Count a call that ended well."""
        self.answered += 1
        if cached:
            self.cached += 1
        else:
            self.calls += 1

    def charged(self, usage: Usage) -> None:
        """Count what an attempt consumed."""
        self.usage = self.usage + usage
        self._completion_mean += 0.05 * (usage.completion_tokens - self._completion_mean)

    def succeeded(self) -> None:
        """Note that the endpoint answered."""
        self.failing_since = None

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

    def usual_completion_tokens(self) -> int:
        """Running mean of reply lengths: what the token pacing reserves for a reply that is not there yet."""
        return int(self._completion_mean)

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
