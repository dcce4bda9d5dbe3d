"""Recording rules and alerts over the gateway's metrics: `python -m serving.monitoring.rules` writes rules.yaml.

Every alert has a floor of traffic, compares with the model's own baseline where there is one, and names its runbook
section. SLOs burn over two windows at a time (Google SRE workbook, chapter 5): 14.4x over 1h/5m and 6x over 6h/30m
page, 1x over 3d/6h makes a ticket.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.atomic import write_text
from serving.metrics import LENGTH_BUCKETS, SLO_FIRST_ANSWER, SLO_LATENCY

RULES_FILE = Path(__file__).parent / "rules.yaml"
RUNBOOK = "docs/runbook.md"
MIN_ANSWERS = 50
"""Answers in an hour below which shares say nothing."""
MIN_DRIFT = 500
"""Answers in six hours below which a PSI is mostly noise: its expectation is (buckets - 1)(1/live + 1/baseline)."""
SHARE_OVER_BASELINE = 0.05
PSI_LIMIT = 0.25
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
BURNS = (
    # name, factor, long window, short window, answers in the long window, severity
    ("Fast", 14.4, "1h", "5m", 20, "page"),
    ("Slow", 6.0, "6h", "30m", 60, "page"),
    ("Ticket", 1.0, "3d", "6h", 200, "ticket"),
)
SLOS: tuple[tuple[str, str, float, str], ...] = (
    ("first_answer", "FirstAnswer", 0.95, f"first answer token within {SLO_FIRST_ANSWER:g} s"),
    ("latency", "Latency", 0.95, f"whole answer within {SLO_LATENCY:g} s"),
    ("availability", "ErrorBudget", 0.995, "answers not cut off by the engine, a time-out or the gateway"),
)
BY = "namespace, model_version"
"""Two installations may serve one version: their answers are never added up."""


def recorded(record: str, expr: str) -> dict[str, Any]:
    """One recording rule."""
    return {"record": f"clinical_r1:{record}", "expr": expr}


def recording_rules() -> list[dict[str, Any]]:
    """Shares of outcomes, drift of the reasoning length, error ratios of the SLOs; over all pods of a version."""
    answers = "clinical_r1_answers_total"
    live = "clinical_r1:reasoning_length:increase6h"
    size = len(LENGTH_BUCKETS)
    rules = [
        recorded("answers:increase1h", f"sum by ({BY}) (increase({answers}[1h]))"),
        recorded(
            "outcome_share:ratio1h",
            f"sum by ({BY}, outcome) (increase({answers}[1h])) / on ({BY}) group_left clinical_r1:answers:increase1h",
        ),
        recorded(
            "default_cuts:ratio1h",
            f'sum by ({BY}) (increase(clinical_r1_cut_thoughts_total{{budget="default"}}[1h])) '
            f"/ on ({BY}) clinical_r1:answers:increase1h",
        ),
        recorded("baseline_outcome_share", f"max by ({BY}, outcome) (clinical_r1_baseline_outcome_share)"),
        recorded(
            "reasoning_length:increase6h", f"sum by ({BY}, bucket) (increase(clinical_r1_reasoning_length_total[6h]))"
        ),
        # Half a count a bucket on both sides, as clinical_r1.baseline.population_stability.
        recorded(
            "reasoning_length:share6h",
            f"({live} + 0.5) / on ({BY}) group_left () (sum by ({BY}) ({live}) + {size / 2})",
        ),
        recorded(
            "reasoning_length:baseline_share",
            f"(max by ({BY}, bucket) (clinical_r1_baseline_length_share) * on ({BY}) group_left "
            f"max by ({BY}) (clinical_r1_baseline_answers > 0) + 0.5) / on ({BY}) group_left () "
            f"(max by ({BY}) (clinical_r1_baseline_answers > 0) + {size / 2})",
        ),
        recorded(
            "reasoning_length:psi6h",
            f"sum by ({BY}) ((clinical_r1:reasoning_length:share6h - clinical_r1:reasoning_length:baseline_share) "
            "* ln(clinical_r1:reasoning_length:share6h / clinical_r1:reasoning_length:baseline_share)) "
            f"and on ({BY}) sum by ({BY}) ({live}) >= {MIN_DRIFT}",
        ),
        recorded(
            "token_checks_off:ratio1h",
            f'sum by ({BY}) (increase(clinical_r1_token_checks_total{{result="off"}}[1h])) / '
            f'sum by ({BY}) (increase(clinical_r1_token_checks_total{{result!="unchecked"}}[1h]))',
        ),
    ]
    for window in WINDOWS:
        rules += [
            recorded(f"first_answer:errors_{window}", _too_slow("time_to_first_answer", SLO_FIRST_ANSWER, window)),
            recorded(f"latency:errors_{window}", _too_slow("request", SLO_LATENCY, window)),
            recorded(
                f"availability:errors_{window}",
                f'sum by ({BY}) (rate(clinical_r1_aborts_total{{by!="client"}}[{window}])) / '
                f"sum by ({BY}) (rate({answers}[{window}]))",
            ),
        ]
    return rules


def _too_slow(metric: str, limit: float, window: str) -> str:
    name = f"clinical_r1_{metric}_seconds"
    return (
        f'1 - sum by ({BY}) (rate({name}_bucket{{le="{limit}"}}[{window}])) / '
        f"sum by ({BY}) (rate({name}_count[{window}]))"
    )


def alert(name: str, expr: str, wait: str, severity: str, summary: str, section: str) -> dict[str, Any]:
    """One alert, with its runbook section."""
    return {
        "alert": f"ClinicalR1{name}",
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "runbook": f"{RUNBOOK}#{section}"},
    }


def _share_alert(
    name: str, outcomes: str, summary: str, section: str, live: str = "", severity: str = "page"
) -> dict[str, Any]:
    """Share of some outcomes, above the share that the model had at its evaluation."""
    live = live or f'sum by ({BY}) (clinical_r1:outcome_share:ratio1h{{outcome=~"{outcomes}"}})'
    base = f'sum by ({BY}) (clinical_r1:baseline_outcome_share{{outcome=~"{outcomes}"}})'
    expr = f"({live} - ({base} or {live} * 0) > {SHARE_OVER_BASELINE}) and on ({BY}) "
    return alert(name, expr + f"clinical_r1:answers:increase1h >= {MIN_ANSWERS}", "10m", severity, summary, section)


def thinking_alerts() -> list[dict[str, Any]]:
    """Does it still think, as it did when it was evaluated?"""
    checked = f'sum by ({BY}) (increase(clinical_r1_token_checks_total{{result!="unchecked"}}[1h]))'
    version = "{{ $labels.model_version }}"
    return [
        _share_alert(
            "AnswersWithoutThinking",
            "no_think|empty_think",
            f"{version}: {{{{ $value | humanizePercentage }}}} more answers without thinking than at evaluation",
            "answers-without-thinking",
        ),
        _share_alert(
            "UnclosedThoughts",
            "unclosed|no_answer",
            f"{version}: {{{{ $value | humanizePercentage }}}} more thoughts without an end or an answer",
            "unclosed-thoughts",
        ),
        # Cuts that clients ask for say nothing about the model.
        _share_alert(
            "CutThoughts",
            "cut_thought",
            f"{version}: {{{{ $value | humanizePercentage }}}} more thoughts cut at the default budget than expected",
            "cut-thoughts",
            live="clinical_r1:default_cuts:ratio1h",
            severity="ticket",
        ),
        alert(
            "ReasoningLengthDrift",
            f"clinical_r1:reasoning_length:psi6h > {PSI_LIMIT}",
            "30m",
            "ticket",
            f"{version}: reasoning length has drifted from the evaluation, PSI {{{{ $value }}}}",
            "reasoning-length-drift",
        ),
        alert(
            "TokenCountOff",
            f"clinical_r1:token_checks_off:ratio1h > 0.01 and on ({BY}) {checked} >= {MIN_ANSWERS}",
            "15m",
            "ticket",
            f"{version}: token counts differ from the engine's in {{{{ $value | humanizePercentage }}}} of requests",
            "token-count-off",
        ),
    ]


def service_alerts() -> list[dict[str, Any]]:
    """Is it there?"""
    version = "{{ $labels.model_version }}"
    return [
        alert(
            "EngineDown",
            f"max by ({BY}) (clinical_r1_upstream_ready) == 0",
            "2m",
            "page",
            f"{version}: no replica's engine answers",
            "engine-down",
        ),
        alert(
            "EngineDegraded",
            f"min by ({BY}) (clinical_r1_upstream_ready) == 0 and on ({BY}) "
            f"max by ({BY}) (clinical_r1_upstream_ready) == 1",
            "10m",
            "ticket",
            f"{version}: the engine of some replicas does not answer",
            "engine-down",
        ),
        alert(
            "GatewayAbsent",
            "absent(clinical_r1_upstream_ready)",
            "10m",
            "page",
            "no gateway is scraped: serving is unwatched",
            "gateway-absent",
        ),
        alert(
            "ApiKeysNotReloaded",
            f'sum by ({BY}) (increase(clinical_r1_api_key_reloads_total{{result="failed"}}[15m])) > 0',
            "0m",
            "ticket",
            "a changed API key file could not be read; the old keys stay valid",
            "api-keys-not-reloaded",
        ),
        alert(
            "AuditLinesLost",
            f"sum by ({BY}) (increase(clinical_r1_audit_lines_lost_total[15m])) > 0 "
            f"or max by ({BY}) (clinical_r1_audit_failing) == 1",
            "0m",
            "page",
            f"{version}: audit lines cannot be written",
            "audit-lines-lost",
        ),
    ]


def burn_alerts() -> list[dict[str, Any]]:
    """Multi-window burn rates of each SLO."""
    rules = []
    for slo, title, target, meaning in SLOS:
        budget = round(1 - target, 6)
        counted = {
            "first_answer": "clinical_r1_time_to_first_answer_seconds_count",
            "latency": "clinical_r1_request_seconds_count",
            "availability": "clinical_r1_answers_total",
        }[slo]
        for speed, factor, long, short, least, severity in BURNS:
            limit = round(factor * budget, 6)
            expr = (
                f"clinical_r1:{slo}:errors_{long} > {limit} and on ({BY}) clinical_r1:{slo}:errors_{short} > {limit} "
                f"and on ({BY}) sum by ({BY}) (increase({counted}[{long}])) >= {least}"
            )
            summary = (
                f"{{{{ $labels.model_version }}}}: {meaning}: "
                f"{{{{ $value | humanizePercentage }}}} missed over {long}, "
                f"{factor:g} times the budget of {budget:.1%}"
            )
            section = {"first_answer": "first-answer-slo", "latency": "latency-slo", "availability": "error-budget"}[
                slo
            ]
            rules.append(alert(f"{title}Burn{speed}", expr, "2m", severity, summary, section))
    return rules


def rule_file() -> dict[str, Any]:
    """The whole file, as Prometheus reads it and as a PrometheusRule's spec."""
    return {
        "groups": [
            {"name": "clinical-r1-recording", "interval": "30s", "rules": recording_rules()},
            {"name": "clinical-r1-thinking", "rules": thinking_alerts()},
            {"name": "clinical-r1-service", "rules": service_alerts()},
            {"name": "clinical-r1-slo", "rules": burn_alerts()},
        ]
    }


def render() -> str:
    """The YAML text."""
    head = "# Generated by `python -m serving.monitoring.rules`; edit serving/monitoring/rules.py instead.\n"
    return head + yaml.safe_dump(rule_file(), sort_keys=False, width=1000)


if __name__ == "__main__":
    write_text(RULES_FILE, render())
    print(RULES_FILE, file=sys.stderr)
