"""The books of one request: opened when it is forwarded, closed exactly once, whatever happens in between.

Closing gives every answer an outcome (those without an end are `aborted`), feeds the metrics, writes the audit line.
So the sum of outcomes equals the answers asked for, also on disconnect, engine death, time-out and shutdown.
"""

import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from clinical_r1.reasoning import Outcome
from serving.gateway.audit import AuditLog, Sampler
from serving.gateway.counting import Count
from serving.gateway.observer import AnswerObserver, Thinks
from serving.gateway.request import Asked
from serving.metrics import Finished, GatewayMetrics

ENGINE_SLACK = 64
"""Tokens beyond the budget after which a thought that the engine should have closed is closed by us."""


def new_request_id() -> str:
    """An id of our own making: a client's could carry text."""
    return "req-" + secrets.token_hex(12)


class Trace:
    """The trace of one request: the headers for the engine, and our span if there is one."""

    __slots__ = ("_span", "headers")

    def __init__(self, headers: dict[str, str], span: Any = None) -> None:
        self.headers, self._span = headers, span

    def end(self, exchange: "Exchange", tokens_in: int, tokens_out: int | None, reasoning: list[int | None]) -> None:
        """The request's books are closed."""
        if self._span is None:
            return
        span, answers = self._span, exchange.answers
        span.set_attribute("gen_ai.response.id", exchange.request_id)
        span.set_attribute("gen_ai.response.finish_reasons", [answer.finish_reason or "error" for answer in answers])
        span.set_attribute("clinical_r1.outcomes", [answer.outcome.value for answer in answers])
        if tokens_in:
            span.set_attribute("gen_ai.usage.input_tokens", tokens_in)
        if tokens_out is not None:
            span.set_attribute("gen_ai.usage.output_tokens", tokens_out)
        if None not in reasoning:
            span.set_attribute("gen_ai.usage.reasoning.output_tokens", sum(count or 0 for count in reasoning))
        first = min((at for a in answers for at in (a.first_thought, a.first_answer) if at), default=0.0)
        if exchange.asked.stream and first:
            span.set_attribute("gen_ai.response.time_to_first_chunk", first - exchange.arrived)
        if any(answer.outcome == "aborted" for answer in answers):
            from opentelemetry.trace import Status, StatusCode

            span.set_attribute("error.type", exchange.aborted_by)
            if exchange.aborted_by != "client":
                span.set_status(Status(StatusCode.ERROR))
        span.end()


@dataclass
class Exchange:
    """One forwarded request."""

    request_id: str
    key_id: str
    asked: Asked
    arrived: float
    """time.perf_counter() when the request came in."""
    metrics: GatewayMetrics
    audit: AuditLog
    sampler: Sampler
    thinks: Thinks
    engine_closes: bool = False
    """The engine closes thoughts at their budget."""
    trace: Trace = field(default_factory=lambda: Trace({}))
    status: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    aborted_by: str = "gateway"
    """Who is to blame if it is closed before the answers have ended."""
    closed: bool = False

    def __post_init__(self) -> None:
        thinks = replace(self.thinks, stops=True) if "stop" in self.asked.forward else self.thinks
        slack = ENGINE_SLACK if self.engine_closes else 0
        self.answers = [AnswerObserver(thinks, self.asked.budget, slack) for _ in range(self.asked.n)]
        self.metrics.opened(self.asked.language, "stream" if self.asked.stream else "unary", self.asked.n)

    def close(self) -> None:
        """Settle the books; further calls do nothing."""
        if self.closed:
            return
        self.closed = True
        m, now = self.metrics, time.perf_counter()
        m.in_flight_child.dec()
        counted: list[int | None] = []
        reasoning: list[int | None] = []
        for answer in self.answers:
            if not answer.ended:
                answer.finish(now, aborted=True)
                m.aborts.labels(m.model_version, self.aborted_by).inc()
            count = answer.count()
            counted.append(count.total if count else None)
            reasoning.append(count.reasoning if count else None)
            m.answered(self._finished(answer, count, now), self.request_id)
        usage_tokens = self.usage.get("completion_tokens")
        usage_tokens = usage_tokens if isinstance(usage_tokens, int) else None
        known = [tokens for tokens in counted if tokens is not None]
        total = sum(known) if len(known) == len(counted) else None
        whole = all(answer.outcome is not Outcome.ABORTED for answer in self.answers)
        if whole:  # of an answer in two parts the usage is our own count
            m.checked(total, None if any(answer.cut for answer in self.answers) else usage_tokens)
        tokens_in = self.usage.get("prompt_tokens")
        tokens_in = tokens_in if isinstance(tokens_in, int) else 0
        m.request_done(self.asked.language, now - self.arrived, tokens_in, usage_tokens or total or 0, self.request_id)
        self.trace.end(self, tokens_in, usage_tokens or total, reasoning)
        self.audit.write(self._line(now, tokens_in, usage_tokens or total, reasoning, whole))
        self.sampler.take(self.request_id, self.asked, self.answers)

    def _finished(self, answer: AnswerObserver, count: Count | None, now: float) -> Finished:
        stream = self.asked.stream
        began, thought, end = self.arrived, answer.first_thought, answer.thought_end
        first = min((at for at in (thought, answer.first_answer) if at), default=0.0)
        timed = stream and first and count and count.total > 1 and answer.outcome is not Outcome.ABORTED
        return Finished(
            language=self.asked.language,
            outcome=answer.outcome,
            reasoning_tokens=count.reasoning if count else None,
            answer_tokens=count.answer if count else None,
            truncated=answer.truncated_in_thought,
            cut=self.asked.budget_from if answer.cut else "",
            to_first_thought=thought - began if stream and thought else 0.0,
            to_first_answer=answer.first_answer - began if stream and answer.first_answer else 0.0,
            thinking=end - thought if stream and thought and end else 0.0,
            to_first_token=first - began if stream and first else 0.0,
            per_output_token=(now - first) / (count.total - 1) if timed and count else 0.0,
        )

    def _line(
        self, now: float, tokens_in: int, tokens_out: int | None, reasoning: list[int | None], whole: bool
    ) -> dict[str, Any]:
        """The audit line: who, when, what came of it; no text."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "key": self.key_id,
            "model_version": self.metrics.model_version,
            "language": self.asked.language,
            "stream": self.asked.stream,
            "status": self.status,
            "outcomes": [answer.outcome.value for answer in self.answers],
            "thinking_budget": self.asked.budget,
            "aborted_by": None if whole else self.aborted_by,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "reasoning_tokens": reasoning,
            "seconds": round(now - self.arrived, 4),
        }
