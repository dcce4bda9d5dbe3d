"""Every metric of the gateway, created at start with all its labels, so that a rate is never missing its zero.

Labels come from closed sets only: `model_version` (one a process), `language` (en, zh, other), `outcome`
(`clinical_r1.reasoning.Outcome`) and reasons out of constants. No text of requests or answers can become a label.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from clinical_r1.baseline import EDGES, Baseline
from clinical_r1.reasoning import Outcome
from serving.gateway.counting import METHODS, Method
from serving.gateway.errors import REASONS
from serving.gateway.request import LANGUAGES

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900)
"""Latency edges; SLO_FIRST_ANSWER and SLO_LATENCY are among them, so that burn rates are exact."""
SLO_FIRST_ANSWER = 30.0
SLO_LATENCY = 60.0
INTER_TOKEN = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
UPSTREAM_KINDS = (
    "connect",
    "http_4xx",
    "http_429",
    "http_5xx",
    "bad_answer",
    "died",
    "timeout",
    "redirect",
    "absurd_usage",
    "late_text",
)
"""`absurd_usage` and `late_text` lose no answer: a count that cannot be, and text after the end, were dropped."""
CHECKS = ("exact", "near", "off", "unchecked")
"""Tokens counted against the engine's usage: equal, at most 2 apart, further apart, no usage given."""
MODES = ("unary", "stream")
BUDGETS = ("request", "default")
"""Whose thinking budget it was: the client's, or the configured one."""
ABORTED_BY = ("client", "engine", "timeout", "shutdown", "gateway")
"""Who cut an answer off."""
LENGTH_BUCKETS = (*(f"{edge:04d}" for edge in EDGES), "inf")
"""Padded, so that they sort by length wherever they are listed."""
NAMESPACE = "clinical_r1"
_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


@dataclass
class Finished:
    """One ended answer, as metrics see it; times in seconds, 0 where a thing did not happen."""

    language: str
    outcome: Outcome
    reasoning_tokens: int | None = None
    answer_tokens: int | None = None
    truncated: bool = False
    to_first_thought: float = 0.0
    to_first_answer: float = 0.0
    thinking: float = 0.0
    to_first_token: float = 0.0
    """Of thought or answer, whichever came first."""
    per_output_token: float = 0.0
    """Mean time between two tokens after the first."""
    cut: str = ""
    """Whose budget closed the thought: one of BUDGETS."""


class _OfLanguage(NamedTuple):
    """The children that belong to one language."""

    started: Counter
    truncated: Counter
    reasoning: Histogram
    answer: Histogram
    first_thought: Histogram
    first_answer: Histogram
    think: Histogram
    latency: Histogram
    outcomes: dict[Outcome, Counter]


class GatewayMetrics:
    """The gateway's registry and the only places that write to it."""

    def __init__(self, model_version: str, method: Method = "unavailable", gateway_version: str = "0") -> None:
        disable_created_metrics()  # one more series for each of ours, and nobody asks for it
        self.registry = CollectorRegistry()
        self.model_version = model_version
        version, language = ("model_version",), ("model_version", "language")

        def made(kind: type[_Metric], name: str, text: str, labels: tuple[str, ...], **more: Any) -> _Metric:
            return kind(name, text, labels, registry=self.registry, **{"namespace": NAMESPACE} | more)

        def histogram(
            name: str, text: str, labels: tuple[str, ...], buckets: Sequence[float], **more: str
        ) -> Histogram:
            return made(Histogram, name, text, labels, buckets=buckets, **more)

        def gen_ai(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            """OpenTelemetry's names for the same things; reasoning is a part of output there, never a third type."""
            return histogram(f"gen_ai_{name}", text, (*version, *labels), buckets, namespace="")

        self.started = made(Counter, "answers_started", "Answers asked of the engine (n of a request)", language)
        self.answers = made(Counter, "answers", "Ended answers by reasoning outcome", (*language, "outcome"))
        self.truncated = made(
            Counter, "truncated_thoughts", "Answers whose token limit fell into the thought", language
        )
        cuts = "Thoughts closed at their budget, by whose budget it was"
        self.cuts = made(Counter, "cut_thoughts", cuts, (*version, "budget"))
        self.aborts = made(Counter, "aborts", "Answers cut off, by whom", (*version, "by"))
        self.requests = made(Counter, "requests", "Requests by mode", (*version, "mode"))
        self.rejections = made(Counter, "rejections", "Requests answered with an error, by reason", ("reason",))
        self.upstream_errors = made(Counter, "upstream_errors", "Failures of the engine by kind", (*version, "kind"))
        checks = "Own token count against the engine's usage, by result"
        self.checks = made(Counter, "token_checks", checks, (*version, "result"))
        lengths = "Answers by bucket of reasoning length, not cumulative"
        self.lengths = made(Counter, "reasoning_length", lengths, (*version, "bucket"))
        self.sampled = made(Counter, "audit_samples", "Answers kept for out-of-band judging", version)
        self.samples_lost = made(Counter, "audit_samples_lost", "Kept answers that could not be stored", version)
        self.audit_lost = made(Counter, "audit_lines_lost", "Audit lines that could not be written", version)
        self.keys_reloads = made(Counter, "api_key_reloads", "Reloads of the API key file by result", ("result",))

        self.reasoning = histogram("reasoning_tokens", "Tokens inside of the thought", language, EDGES)
        self.answer = histogram("answer_tokens", "Tokens outside of the thought", language, EDGES)
        thought, answer = (
            "Request to first token of thought (streams)",
            "Request to first token of the answer (streams)",
        )
        self.first_thought = histogram("time_to_first_thought_seconds", thought, language, SECONDS)
        self.first_answer = histogram("time_to_first_answer_seconds", answer, language, SECONDS)
        self.think = histogram("think_seconds", "First token of thought to its end (streams)", language, SECONDS)
        self.latency = histogram("request_seconds", "Request to last byte", language, SECONDS)
        self.inter_token = histogram("inter_token_seconds", "Mean gap of a stream's pieces", version, INTER_TOKEN)

        budget = "Thinking budget of requests that name none; 0: none"
        self.budget = made(Gauge, "thinking_budget_tokens", budget, version)
        self.audit_failing = made(Gauge, "audit_failing", "1 while no audit line can be written", version)
        self.in_flight = made(Gauge, "in_flight", "Requests being answered", version)
        self.ready = made(Gauge, "upstream_ready", "1 while the engine answers its health check", version)
        info = "Constant 1: how tokens are counted"
        self.info = made(Gauge, "gateway_info", info, (*version, "token_method", "gateway_version"))
        shares = "Share of each reasoning-length bucket at evaluation"
        self.baseline_share = made(Gauge, "baseline_length_share", shares, (*version, "bucket"))
        self.baseline_answers = made(Gauge, "baseline_answers", "Answers behind the baseline, 0 without one", version)
        outcomes = "Share of each outcome at evaluation"
        self.baseline_outcome = made(Gauge, "baseline_outcome_share", outcomes, (*version, "outcome"))

        types = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
        self.gen_ai_tokens = gen_ai(
            "client_token_usage", "Tokens by type (OpenTelemetry name)", types, "gen_ai_token_type"
        )
        first, each = "Request to first token (streams)", "Mean time a token after the first (streams)"
        self.gen_ai_first = gen_ai("server_time_to_first_token_seconds", first, SECONDS)
        self.gen_ai_each = gen_ai("server_time_per_output_token_seconds", each, INTER_TOKEN)
        whole = "Request to last byte (OpenTelemetry name)"
        self.gen_ai_duration = gen_ai("server_request_duration_seconds", whole, SECONDS)
        self._create(method, gateway_version)

    def _create(self, method: Method, gateway_version: str) -> None:
        """Every series, at zero."""
        v = self.model_version
        # Looking a child up by its labels costs as much as counting in it, so those of every request are kept.
        own = [name for name in _OfLanguage._fields if name != "outcomes"]
        self._of = {
            language: _OfLanguage(
                **{name: getattr(self, name).labels(v, language) for name in own},
                outcomes={outcome: self.answers.labels(v, language, outcome.value) for outcome in Outcome},
            )
            for language in LANGUAGES
        }
        self._modes = {mode: self.requests.labels(v, mode) for mode in MODES}
        self._cuts = {budget: self.cuts.labels(v, budget) for budget in BUDGETS}
        self._checks = {result: self.checks.labels(v, result) for result in CHECKS}
        self._lengths = {bucket: self.lengths.labels(v, bucket) for bucket in LENGTH_BUCKETS}
        for metric, values in (
            (self.upstream_errors, UPSTREAM_KINDS),
            (self.aborts, ABORTED_BY),
            (self.baseline_share, LENGTH_BUCKETS),
            (self.baseline_outcome, [outcome.value for outcome in Outcome]),
        ):
            for value in values:
                metric.labels(v, value)
        for reason in REASONS:
            self.rejections.labels(reason)
        for result in ("ok", "failed"):
            self.keys_reloads.labels(result)
        for metric in (self.budget, self.sampled, self.samples_lost, self.baseline_answers):
            metric.labels(v)
        self.audit_lost_child, self.audit_failing_child = self.audit_lost.labels(v), self.audit_failing.labels(v)
        self.inter_token_child = self.inter_token.labels(v)
        self.in_flight_child, self.ready_child = self.in_flight.labels(v), self.ready.labels(v)
        self._gen_ai_in, self._gen_ai_out = (self.gen_ai_tokens.labels(v, kind) for kind in ("input", "output"))
        self._gen_ai_duration = self.gen_ai_duration.labels(v)
        self._gen_ai_first, self._gen_ai_each = self.gen_ai_first.labels(v), self.gen_ai_each.labels(v)
        self._gateway_version = gateway_version
        self.set_method(method)

    def set_method(self, method: Method) -> None:
        """Say how tokens are counted: 1 on one method, 0 on the others."""
        for known in METHODS:
            self.info.labels(self.model_version, known, self._gateway_version).set(int(known == method))

    def set_baseline(self, baseline: Baseline, budget: int | None = None) -> None:
        """Publish what the model's thinking looked like when it was evaluated, and how many of those thoughts `budget`
        would have cut (of those in its own bucket: none)."""
        total = max(baseline.lengths.n, 1)
        self.baseline_answers.labels(self.model_version).set(baseline.lengths.n)
        # A baseline with other edges is laid onto ours by the upper edge of each of its buckets.
        shares = dict.fromkeys(LENGTH_BUCKETS, 0.0)
        edges = [*baseline.lengths.edges, float("inf")]
        for edge, count in zip(edges, baseline.lengths.counts, strict=True):
            shares[length_bucket(edge)] += count / total
        for bucket, share in shares.items():
            self.baseline_share.labels(self.model_version, bucket).set(share)
        outcomes = baseline.shares()
        if budget is not None:
            starts = (-1, *baseline.lengths.edges)
            longer = sum(n for start, n in zip(starts, baseline.lengths.counts, strict=True) if start >= budget)
            cut = outcomes.get(Outcome.CUT_THOUGHT, 0.0)
            outcomes[Outcome.CUT_THOUGHT] = max(cut, longer / total)
        for outcome, share in outcomes.items():
            self.baseline_outcome.labels(self.model_version, outcome).set(share)

    def set_budget(self, budget: int | None) -> None:
        """Say what thoughts may have where a request does not."""
        self.budget.labels(self.model_version).set(budget or 0)

    def opened(self, language: str, mode: str, answers: int) -> None:
        """Count one request that is sent to the engine, and the answers asked of it."""
        self._of[language].started.inc(answers)
        self._modes[mode].inc()
        self.in_flight_child.inc()

    def upstream_failed(self, kind: str) -> None:
        """Count one failure of the engine; `kind` out of UPSTREAM_KINDS."""
        self.upstream_errors.labels(self.model_version, kind).inc()

    def answered(self, done: Finished, request_id: str) -> None:
        """Count one ended answer."""
        of = self._of[done.language]
        of.outcomes[done.outcome].inc()
        if done.truncated:
            of.truncated.inc()
        if done.cut:
            self._cuts[done.cut].inc()
        exemplar = {"request_id": request_id}
        # What was cut off from outside says nothing about how long the model would have thought.
        if done.outcome is not Outcome.ABORTED and done.reasoning_tokens is not None:
            of.reasoning.observe(done.reasoning_tokens, exemplar)
            self._lengths[length_bucket(done.reasoning_tokens)].inc()
            of.answer.observe(done.answer_tokens or 0)
        if done.to_first_thought:
            of.first_thought.observe(done.to_first_thought)
        if done.to_first_answer:
            of.first_answer.observe(done.to_first_answer, exemplar)
        if done.thinking:
            of.think.observe(done.thinking)
        if done.to_first_token:
            self._gen_ai_first.observe(done.to_first_token)
        if done.per_output_token:
            self._gen_ai_each.observe(done.per_output_token)

    def request_done(self, language: str, seconds: float, tokens_in: int, tokens_out: int, request_id: str) -> None:
        """Count one ended request."""
        self._of[language].latency.observe(seconds, {"request_id": request_id})
        self._gen_ai_duration.observe(seconds)
        if tokens_in:
            self._gen_ai_in.observe(tokens_in)
        if tokens_out:
            self._gen_ai_out.observe(tokens_out)

    def checked(self, counted: int | None, usage: int | None) -> None:
        """Compare the own count with the engine's."""
        if counted is None or usage is None:
            result = "unchecked"
        else:
            gap = abs(counted - usage)
            result = "exact" if gap == 0 else "near" if gap <= 2 else "off"
        self._checks[result].inc()


def length_bucket(tokens: float) -> str:
    """Label of the (not cumulative) bucket that a reasoning length falls into."""
    return LENGTH_BUCKETS[bisect.bisect_left(EDGES, tokens)]
