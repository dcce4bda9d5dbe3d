"""The panels of the dashboard as plain data, so that tests can run every query against a real Prometheus."""

from dataclasses import dataclass
from typing import Literal

from clinical_r1.reasoning import Outcome
from serving.metrics import SLO_FIRST_ANSWER, SLO_LATENCY
from serving.monitoring.rules import PSI_LIMIT

V = 'model_version=~"$model_version"'
VL = f'{V},language=~"$language"'
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """One panel: a title, what it tells, and its queries as (expression, legend)."""

    title: str
    tells: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["lines", "stack", "stat", "bars"] = "lines"
    unit: str = "short"
    span: int = 8
    limit: float | None = None
    """A threshold to draw."""


def quantiles(metric: str, *wanted: float, labels: str = VL, by: str = "") -> tuple[tuple[str, str], ...]:
    """Quantiles of a histogram."""
    extra = f", {by}" if by else ""
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by (le{extra}) (rate(clinical_r1_{metric}_bucket{{{labels}}}[{RATE}])))",
            f"p{q * 100:g}{legend}",
        )
        for q in wanted
    )


def per_second(metric: str, by: str, labels: str = V) -> tuple[str, str]:
    """Rate of a counter by a label."""
    return (f"sum by ({by}) (rate(clinical_r1_{metric}_total{{{labels}}}[{RATE}]))", f"{{{{{by}}}}}")


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Does it think?",
        (
            Panel(
                "Well-formed answers, 1 h",
                "Share of answers with one closed thought and an answer, beside the share at evaluation.",
                (
                    (f'clinical_r1:outcome_share:ratio1h{{{V},outcome="{Outcome.OK.value}"}}', "{{model_version}} now"),
                    (
                        f'clinical_r1:baseline_outcome_share{{{V},outcome="{Outcome.OK.value}"}}',
                        "{{model_version}} evaluation",
                    ),
                ),
                kind="stat",
                unit="percentunit",
                span=6,
            ),
            Panel(
                "Answers in 1 h",
                "The number behind the shares.",
                ((f"clinical_r1:answers:increase1h{{{V}}}", "{{model_version}}"),),
                kind="stat",
                span=6,
            ),
            Panel(
                "Drift of reasoning length, 6 h",
                f"PSI against the evaluation; above {PSI_LIMIT} it has shifted. Empty below 500 answers.",
                ((f"clinical_r1:reasoning_length:psi6h{{{V}}}", "{{model_version}}"),),
                kind="stat",
                span=6,
                limit=PSI_LIMIT,
            ),
            Panel(
                "Token counting",
                "How tokens are counted; token_ids is exact.",
                ((f"max by (token_method) (clinical_r1_gateway_info{{{V}}} == 1)", "{{token_method}}"),),
                kind="stat",
                span=6,
            ),
            Panel(
                "Outcomes",
                "Ended answers a second by reasoning outcome.",
                (per_second("answers", "outcome", VL),),
                kind="stack",
                unit="cps",
                span=12,
            ),
            Panel(
                "Reasoning tokens",
                "Length of the thought by language.",
                quantiles("reasoning_tokens", 0.5, 0.95, by="language"),
                span=12,
            ),
            Panel(
                "Reasoning length, now and at evaluation",
                "Share of answers in each bucket (upper edge in tokens).",
                (
                    (f"clinical_r1:reasoning_length:share6h{{{V}}}", "{{bucket}} {{model_version}} now"),
                    (
                        f"max by (model_version, bucket) (clinical_r1_baseline_length_share{{{V}}})",
                        "{{bucket}} {{model_version}} evaluation",
                    ),
                ),
                kind="bars",
                unit="percentunit",
                span=12,
            ),
            Panel(
                "Thoughts cut at the token limit",
                "A second, by language; every one is a lost answer.",
                (per_second("truncated_thoughts", "language", VL),),
                unit="cps",
                span=6,
            ),
            Panel(
                "Answer tokens", "Length of what follows the thought.", quantiles("answer_tokens", 0.5, 0.95), span=6
            ),
        ),
    ),
    (
        "How long does one wait?",
        (
            Panel(
                "Time to first answer",
                f"Streams. Objective: 95% within {SLO_FIRST_ANSWER:g} s.",
                quantiles("time_to_first_answer_seconds", 0.5, 0.95, 0.99),
                unit="s",
                limit=SLO_FIRST_ANSWER,
            ),
            Panel(
                "Time to first thought",
                "Queueing and prefill, as the user feels it.",
                quantiles("time_to_first_thought_seconds", 0.5, 0.95, 0.99),
                unit="s",
            ),
            Panel(
                "Thinking time",
                "First token of the thought to its end.",
                quantiles("think_seconds", 0.5, 0.95),
                unit="s",
            ),
            Panel(
                "Whole request",
                f"Objective: 95% within {SLO_LATENCY:g} s.",
                quantiles("request_seconds", 0.5, 0.95, 0.99),
                unit="s",
                limit=SLO_LATENCY,
            ),
            Panel(
                "Gap between pieces",
                "Inter-token latency of streams.",
                quantiles("inter_token_seconds", 0.5, 0.99, labels=V),
                unit="s",
            ),
            Panel(
                "Missed objectives, 1 h",
                "Share of requests beyond the objective (first answer, latency) or cut off (availability).",
                tuple(
                    (f"clinical_r1:{slo}:errors_1h{{{V}}}", f"{slo} {{{{model_version}}}}")
                    for slo in ("first_answer", "latency", "availability")
                ),
                unit="percentunit",
            ),
        ),
    ),
    (
        "Is it there?",
        (
            Panel("Requests", "A second, by mode.", (per_second("requests", "mode"),), kind="stack", unit="reqps"),
            Panel(
                "In flight",
                "Requests being answered, by version.",
                ((f"sum by (model_version) (clinical_r1_in_flight{{{V}}})", "{{model_version}}"),),
            ),
            Panel(
                "Engines ready",
                "Replicas whose engine answers.",
                ((f"sum by (model_version) (clinical_r1_upstream_ready{{{V}}})", "{{model_version}}"),),
            ),
            Panel(
                "Refused requests",
                "A second, by reason.",
                (per_second("rejections", "reason", ""),),
                unit="cps",
                kind="stack",
            ),
            Panel("Answers cut off", "A second, by whom.", (per_second("aborts", "by"),), unit="cps", kind="stack"),
            Panel(
                "Engine errors",
                "A second, by kind.",
                (per_second("upstream_errors", "kind"),),
                unit="cps",
                kind="stack",
            ),
            Panel(
                "Token counts against the engine's",
                "`off` by more than two tokens means that the panels above are not to be trusted.",
                (per_second("token_checks", "result"),),
                unit="cps",
                kind="stack",
            ),
            Panel(
                "Tokens by OpenTelemetry's names",
                "Prompt and completion tokens a second; reasoning is a part of output.",
                (
                    (
                        f"sum by (gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{{{V}}}[{RATE}]))",
                        "{{gen_ai_token_type}}",
                    ),
                ),
            ),
            Panel(
                "Kept for audit",
                "Answers a second that are sampled for out-of-band judging (off by default).",
                ((f"sum(rate(clinical_r1_audit_samples_total{{{V}}}[{RATE}]))", "samples"),),
                unit="cps",
            ),
        ),
    ),
)
PANELS: tuple[Panel, ...] = tuple(panel for _, panels in ROWS for panel in panels)
