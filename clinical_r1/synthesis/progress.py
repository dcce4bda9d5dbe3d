"""Live progress of a run: rate, time left, cost and outcomes; a bar on a terminal, sparse lines elsewhere."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clinical_r1.llm.client import LLMClient
from clinical_r1.schema import Trace, TraceOutcome

LINE_EVERY = 30.0
"""Seconds between lines where there is no terminal."""
FIRST_LINE = 5.0
"""Seconds before the first one: a slow model has finished no trace by then, and the calls show that it works."""


class SynthesisProgress:
    """Counts finished traces and shows how the run stands."""

    def __init__(self, total: int, clients: Sequence[LLMClient], console: Console | None = None) -> None:
        self._total = total
        self._clients = clients
        self._console = console or Console(file=sys.stderr)
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._done = 0
        self._started = self._shown = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("synthesis"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[state]}"),
                console=self._console, refresh_per_second=4,
            )  # fmt: skip
            self._bar.add_task("synthesis", total=self._total, state="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._update_bar()
            self._bar.stop()
        else:
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def finished(self, trace: Trace) -> None:
        """Count one trace."""
        self._done += 1
        self._counts[trace.outcome.value] += 1
        if not trace.accepted:
            self._reasons[trace.reason] += 1
        self._show(time.monotonic())

    async def tick(self) -> None:
        """Show how the run stands every so often, also while nothing finishes; cancel it to end it."""
        while True:
            await asyncio.sleep(FIRST_LINE if self._shown == self._started else 1.0)
            self._show(time.monotonic())

    def _show(self, now: float) -> None:
        if self._bar is not None:
            if now - self._shown >= 0.25:
                self._shown = now
                self._update_bar()
        elif now - self._shown >= (FIRST_LINE if self._shown == self._started else LINE_EVERY):
            self._shown = now
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def state(self) -> str:
        """Rates, cost, outcomes and what went wrong, in one short text."""
        seconds = max(1e-9, time.monotonic() - self._started)
        told = [client.statistics for client in self._clients]
        calls, journaled = sum(one.attempts for one in told), sum(one.cached for one in told)
        in_flight = sum(client.gate.in_flight for client in self._clients)
        cost = sum(one.usage.cost for one in told)
        retries: Counter[str] = sum((one.retries for one in told), Counter())
        outcomes = " ".join(f"{outcome.value} {self._counts[outcome.value]}" for outcome in TraceOutcome)
        extra = f", {journaled} from the journal" if journaled else ""
        again = f" | asked again: {_most(retries)}" if retries else ""
        rejects = f" ({_most(self._reasons)})" if self._reasons else ""
        return f"{_rate(calls, seconds)}, {in_flight} in flight{extra}, cost {cost:.4f} | {outcomes}{rejects}{again}"

    def line(self) -> str:
        """The line for logs."""
        seconds = max(1e-9, time.monotonic() - self._started)
        left = (self._total - self._done) * seconds / self._done if self._done else float("inf")
        ahead = "" if self._done >= self._total else f", about {left:.0f} s left" if self._done else ", no trace yet"
        return f"synthesis {self._done}/{self._total}{ahead}: {self.state()}"

    def _update_bar(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, state=self.state())


def _rate(calls: int, seconds: float) -> str:
    """A rate in the unit that fits."""
    return f"{calls} calls, {calls / seconds:.0f} a second" if calls > 5 * seconds else (
        f"{calls} calls, {60 * calls / seconds:.1f} a minute")  # fmt: skip


def _most(reasons: Counter[str], most: int = 3) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(most))
