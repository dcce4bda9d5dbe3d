"""Every metric that dashboards and alerts may count on exists from the start with all its labels and has exemplars."""

import re

import pytest
from prometheus_client.openmetrics.exposition import generate_latest

from clinical_r1.baseline import EDGES
from clinical_r1.reasoning import Outcome
from serving.gateway.counting import METHODS
from serving.gateway.errors import REASONS
from serving.gateway.request import LANGUAGES
from serving.metrics import (
    ABORTED_BY,
    BUDGETS,
    CHECKS,
    LENGTH_BUCKETS,
    MODES,
    SECONDS,
    UPSTREAM_KINDS,
    Finished,
    GatewayMetrics,
)

VERSION = {"model_version": ["v1"]}
LANGUAGE = VERSION | {"language": list(LANGUAGES)}
OUTCOMES = [outcome.value for outcome in Outcome]
PROMISED: dict[str, dict[str, list[str]]] = {
    # what the gateway is for: metric -> labels with every value, all created at zero
    "clinical_r1_answers_total": LANGUAGE | {"outcome": OUTCOMES},
    "clinical_r1_answers_started_total": LANGUAGE,
    "clinical_r1_reasoning_tokens_count": LANGUAGE,
    "clinical_r1_answer_tokens_count": LANGUAGE,
    "clinical_r1_time_to_first_thought_seconds_count": LANGUAGE,
    "clinical_r1_time_to_first_answer_seconds_count": LANGUAGE,
    "clinical_r1_think_seconds_count": LANGUAGE,
    "clinical_r1_request_seconds_count": LANGUAGE,
    "clinical_r1_inter_token_seconds_count": VERSION,
    "clinical_r1_in_flight": VERSION,
    "clinical_r1_requests_total": VERSION | {"mode": list(MODES)},
    "clinical_r1_upstream_ready": VERSION,
    "clinical_r1_upstream_errors_total": VERSION | {"kind": list(UPSTREAM_KINDS)},
    "clinical_r1_rejections_total": {"reason": list(REASONS)},
    "clinical_r1_cut_thoughts_total": VERSION | {"budget": list(BUDGETS)},
    "clinical_r1_thinking_budget_tokens": VERSION,
    "clinical_r1_aborts_total": VERSION | {"by": list(ABORTED_BY)},
    "clinical_r1_token_checks_total": VERSION | {"result": list(CHECKS)},
    "clinical_r1_truncated_thoughts_total": LANGUAGE,
    "clinical_r1_reasoning_length_total": VERSION | {"bucket": list(LENGTH_BUCKETS)},
    "clinical_r1_baseline_length_share": VERSION | {"bucket": list(LENGTH_BUCKETS)},
    "clinical_r1_baseline_outcome_share": VERSION | {"outcome": OUTCOMES},
    "clinical_r1_baseline_answers": VERSION,
    "clinical_r1_audit_samples_total": VERSION,
    "clinical_r1_audit_samples_lost_total": VERSION,
    "clinical_r1_audit_lines_lost_total": VERSION,
    "clinical_r1_audit_failing": VERSION,
    "clinical_r1_api_key_reloads_total": {"result": ["ok", "failed"]},
    "clinical_r1_gateway_info": VERSION | {"token_method": list(METHODS), "gateway_version": ["0"]},
    "gen_ai_client_token_usage_count": VERSION | {"gen_ai_token_type": ["input", "output"]},
    "gen_ai_server_request_duration_seconds_count": VERSION,
    "gen_ai_server_time_to_first_token_seconds_count": VERSION,
    "gen_ai_server_time_per_output_token_seconds_count": VERSION,
}


@pytest.mark.parametrize("name", PROMISED)
def test_every_series_exists_from_the_start(name: str) -> None:
    samples = [s for family in GatewayMetrics("v1").registry.collect() for s in family.samples if s.name == name]
    expected = 1
    for values in PROMISED[name].values():
        expected *= len(values)
    assert len(samples) == expected
    for label, values in PROMISED[name].items():
        assert {sample.labels[label] for sample in samples} == set(values)
    assert name == "clinical_r1_gateway_info" or all(sample.value == 0 for sample in samples)


def test_nothing_else_is_exported() -> None:
    families = {family.name for family in GatewayMetrics("v1").registry.collect()}
    assert families == {re.sub(r"_(total|count)$", "", name) for name in PROMISED}


def test_no_series_is_made_later_and_exemplars_are_in_open_metrics() -> None:
    metrics = GatewayMetrics("v1")
    before = {(s.name, *sorted(s.labels.items())) for f in metrics.registry.collect() for s in f.samples}
    for outcome in Outcome:
        metrics.answered(Finished("zh", outcome, 70, 5, True, 0.1, 0.2, 0.1), "req-1")
    metrics.request_done("zh", 1.0, 10, 20, "req-1")
    for counted, stated in ((1, 1), (1, 2), (1, 9), (None, 1)):
        metrics.checked(counted, stated)
    after = {(s.name, *sorted(s.labels.items())) for f in metrics.registry.collect() for s in f.samples}
    assert after == before
    text = generate_latest(metrics.registry).decode()
    for name in ("reasoning_tokens", "time_to_first_answer_seconds", "request_seconds"):
        assert re.search(rf'clinical_r1_{name}_bucket{{.*}} \S+ # {{request_id="req-1"}}', text), name
    assert len(SECONDS) > 10
    assert len(LENGTH_BUCKETS) == len(EDGES) + 1
