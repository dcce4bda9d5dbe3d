"""What a client has done so far: for progress bars, reports and cost per accepted trace."""

import time
from collections import Counter

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
        self.models: Counter[str] = Counter()
        """Replies by the model id that the endpoint returned."""
        self.usage = Usage()
        """All that this process has paid, repeated attempts included."""
        self._completion_mean = 256.0

    def finished(self, cached: bool) -> None:
        """Count a call that ended well."""
        if cached:
            self.cached += 1
        else:
            self.calls += 1

    def charged(self, usage: Usage) -> None:
        """Count what an attempt consumed."""
        total = self.usage
        total.calls += usage.calls
        total.prompt_tokens += usage.prompt_tokens
        total.completion_tokens += usage.completion_tokens
        total.cost += usage.cost
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
            "calls_per_second": round(self.calls / seconds, 2),
            "retries": dict(sorted(self.retries.items())),
            "failures": dict(sorted(self.failures.items())),
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "cost": round(self.usage.cost, 6),
        }
