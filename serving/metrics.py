"""Every metric of the gateway, created at start with all its labels, so that a rate is never missing its zero.

Labels come from closed sets only: `model_version` (one a process), `language` (en, zh, other), `outcome`
(`clinical_r1.reasoning.Outcome`) and reasons out of constants. No text of requests or answers can become a label.
"""

import bisect
from dataclasses import dataclass
from typing import NamedTuple

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
        counter, histogram, gauge = self._counter, self._histogram, self._gauge

        self.started = counter("answers_started", "Answers asked of the engine (n of a request)", language)
        self.answers = counter("answers", "Ended answers by reasoning outcome", (*language, "outcome"))
        self.truncated = counter("truncated_thoughts", "Answers whose token limit fell into the thought", language)
        self.cuts = counter(
            "cut_thoughts", "Thoughts closed at their budget, by whose budget it was", (*version, "budget")
        )
        self.aborts = counter("aborts", "Answers cut off, by whom", (*version, "by"))
        self.requests = counter("requests", "Requests by mode", ("model_version", "mode"))
        self.rejections = counter("rejections", "Requests answered with an error, by reason", ("reason",))
        self.upstream_errors = counter("upstream_errors", "Failures of the engine by kind", (*version, "kind"))
        self.checks = counter(
            "token_checks", "Own token count against the engine's usage, by result", (*version, "result")
        )
        self.lengths = counter(
            "reasoning_length", "Answers by bucket of reasoning length, not cumulative", (*version, "bucket")
        )
        self.sampled = counter("audit_samples", "Answers kept for out-of-band judging", version)
        self.samples_lost = counter("audit_samples_lost", "Kept answers that could not be stored", version)
        self.audit_lost = counter("audit_lines_lost", "Audit lines that could not be written", version)
        self.keys_reloads = counter("api_key_reloads", "Reloads of the API key file by result", ("result",))

        self.reasoning = histogram("reasoning_tokens", "Tokens inside of the thought", language, EDGES)
        self.answer = histogram("answer_tokens", "Tokens outside of the thought", language, EDGES)
        self.first_thought = histogram(
            "time_to_first_thought_seconds", "Request to first token of thought (streams)", language, SECONDS
        )
        self.first_answer = histogram(
            "time_to_first_answer_seconds", "Request to first token of the answer (streams)", language, SECONDS
        )
        self.think = histogram("think_seconds", "First token of thought to its end (streams)", language, SECONDS)
        self.latency = histogram("request_seconds", "Request to last byte", language, SECONDS)
        self.inter_token = histogram("inter_token_seconds", "Mean gap of a stream's pieces", version, INTER_TOKEN)

        self.budget = gauge("thinking_budget_tokens", "Thinking budget of requests that name none; 0: none", version)
        self.audit_failing = gauge("audit_failing", "1 while no audit line can be written", version)
        self.in_flight = gauge("in_flight", "Requests being answered", version)
        self.ready = gauge("upstream_ready", "1 while the engine answers its health check", version)
        self.info = gauge(
            "gateway_info", "Constant 1: how tokens are counted", (*version, "token_method", "gateway_version")
        )
        self.baseline_share = gauge(
            "baseline_length_share", "Share of each reasoning-length bucket at evaluation", (*version, "bucket")
        )
        self.baseline_answers = gauge("baseline_answers", "Answers behind the baseline, 0 without one", version)
        self.baseline_outcome = gauge(
            "baseline_outcome_share", "Share of each outcome at evaluation", (*version, "outcome")
        )
        self._gen_ai(version)
        self._create(method, gateway_version)

    def _gen_ai(self, version: tuple[str, ...]) -> None:
        """OpenTelemetry's names for the same things; reasoning is a part of output there, never a third type."""
        self.gen_ai_tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens by type (OpenTelemetry name)",
            (*version, "gen_ai_token_type"),
            buckets=(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536),
            registry=self.registry,
        )
        self.gen_ai_first = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Request to first token (streams)",
            version,
            buckets=SECONDS,
            registry=self.registry,
        )
        self.gen_ai_each = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time a token after the first (streams)",
            version,
            buckets=INTER_TOKEN,
            registry=self.registry,
        )
        self.gen_ai_duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Request to last byte (OpenTelemetry name)",
            version,
            buckets=SECONDS,
            registry=self.registry,
        )

    def _create(self, method: Method, gateway_version: str) -> None:
        """Every series, at zero."""
        v = self.model_version
        # Looking a child up by its labels costs as much as counting in it, so those of every request are kept.
        self._of = {
            language: _OfLanguage(
                started=self.started.labels(v, language),
                truncated=self.truncated.labels(v, language),
                reasoning=self.reasoning.labels(v, language),
                answer=self.answer.labels(v, language),
                first_thought=self.first_thought.labels(v, language),
                first_answer=self.first_answer.labels(v, language),
                think=self.think.labels(v, language),
                latency=self.latency.labels(v, language),
                outcomes={outcome: self.answers.labels(v, language, outcome.value) for outcome in Outcome},
            )
            for language in LANGUAGES
        }
        self._modes = {mode: self.requests.labels(v, mode) for mode in MODES}
        for reason in REASONS:
            self.rejections.labels(reason)
        for kind in UPSTREAM_KINDS:
            self.upstream_errors.labels(v, kind)
        self._cuts = {budget: self.cuts.labels(v, budget) for budget in BUDGETS}
        self.budget.labels(v)
        for by in ABORTED_BY:
            self.aborts.labels(v, by)
        self._checks = {result: self.checks.labels(v, result) for result in CHECKS}
        self._lengths = {bucket: self.lengths.labels(v, bucket) for bucket in LENGTH_BUCKETS}
        for bucket in LENGTH_BUCKETS:
            self.baseline_share.labels(v, bucket)
        for outcome in Outcome:
            self.baseline_outcome.labels(v, outcome.value)
        for result in ("ok", "failed"):
            self.keys_reloads.labels(result)
        self.audit_lost_child = self.audit_lost.labels(v)
        self.audit_failing_child = self.audit_failing.labels(v)
        self.sampled.labels(v)
        self.samples_lost.labels(v)
        self.baseline_answers.labels(v)
        self.inter_token_child = self.inter_token.labels(v)
        self.in_flight_child = self.in_flight.labels(v)
        self.ready_child = self.ready.labels(v)
        self._gen_ai_in, self._gen_ai_out = (self.gen_ai_tokens.labels(v, kind) for kind in ("input", "output"))
        self._gen_ai_duration = self.gen_ai_duration.labels(v)
        self._gen_ai_first, self._gen_ai_each = self.gen_ai_first.labels(v), self.gen_ai_each.labels(v)
        self._gateway_version = gateway_version
        self.set_method(method)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, namespace=NAMESPACE, buckets=buckets, registry=self.registry)

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
