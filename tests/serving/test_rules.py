"""The alerts against promtool: each fires, stays silent, ignores low traffic and survives a counter reset."""

import math
import re
import shutil
import subprocess
from pathlib import Path
from textwrap import indent

import pytest
import yaml

from clinical_r1.baseline import EDGES, Baseline, LengthHistogram
from clinical_r1.reasoning import Outcome
from serving.metrics import LENGTH_BUCKETS, SECONDS, SLO_FIRST_ANSWER, SLO_LATENCY, GatewayMetrics
from serving.monitoring.rules import MIN_DRIFT, RULES_FILE, render, rule_file

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="no promtool on this machine")
V = 'model_version="v1"'
LANG = f'{V},language="en"'
ROOT = Path(__file__).parents[2]

Series = dict[str, str]
"""Series in promtool's notation, one value a step."""


def run(rate: float, minutes: int, before: float = 0, reset: bool = False) -> str:
    """A counter that grows by `rate` a minute; with a reset (restart of a pod) in the middle."""
    if not reset:
        return f"{before}+{rate}x{minutes}"
    half = minutes // 2
    return f"{before}+{rate}x{half} 0+{rate}x{minutes - half - 1}"


def answers(rates: dict[str, float], minutes: int, reset: bool = False) -> Series:
    return {
        f'clinical_r1_answers_total{{{LANG},outcome="{o.value}"}}': run(rates.get(o.value, 0), minutes, reset=reset)
        for o in Outcome
    }


def baseline(shares: dict[str, float]) -> Series:
    return {
        f'clinical_r1_baseline_outcome_share{{{V},outcome="{name}"}}': f"{share}x600" for name, share in shares.items()
    }


def lengths(rates: dict[str, float], minutes: int, reset: bool = False) -> Series:
    """Live lengths by bucket, against a baseline that is all in bucket 64 and 128."""
    base = {"0064": 0.5, "0128": 0.5}
    return {
        **{
            f'clinical_r1_reasoning_length_total{{{V},bucket="{b}"}}': run(rates.get(b, 0), minutes, reset=reset)
            for b in LENGTH_BUCKETS
        },
        **{f'clinical_r1_baseline_length_share{{{V},bucket="{b}"}}': f"{base.get(b, 0)}x600" for b in LENGTH_BUCKETS},
        f"clinical_r1_baseline_answers{{{V}}}": "1000x600",
    }


def slow(name: str, limit: float, good: float, bad: float, minutes: int, reset: bool = False) -> Series:
    return {
        f'{name}_bucket{{{LANG},le="{limit}"}}': run(good, minutes, reset=reset),
        f'{name}_bucket{{{LANG},le="+Inf"}}': run(good + bad, minutes, reset=reset),
        f"{name}_count{{{LANG}}}": run(good + bad, minutes, reset=reset),
    }


def first(good: float, bad: float, minutes: int, reset: bool = False) -> Series:
    return slow("clinical_r1_time_to_first_answer_seconds", SLO_FIRST_ANSWER, good, bad, minutes, reset)


def latency(good: float, bad: float, minutes: int, reset: bool = False) -> Series:
    return slow("clinical_r1_request_seconds", SLO_LATENCY, good, bad, minutes, reset)


def aborts(good: float, bad: float, minutes: int, reset: bool = False, by: str = "engine") -> Series:
    return {
        f'clinical_r1_aborts_total{{{V},by="{by}"}}': run(bad, minutes, reset=reset),
        **answers({"ok": good, "aborted": bad}, minutes, reset),
    }


def checks(exact: float, off: float, minutes: int, reset: bool = False) -> Series:
    return {
        f'clinical_r1_token_checks_total{{{V},result="exact"}}': run(exact, minutes, reset=reset),
        f'clinical_r1_token_checks_total{{{V},result="off"}}': run(off, minutes, reset=reset),
        f'clinical_r1_token_checks_total{{{V},result="unchecked"}}': run(9, minutes, reset=reset),
    }


def ready(*pods: str) -> Series:
    return {f'clinical_r1_upstream_ready{{{V},pod="{number}"}}': values for number, values in enumerate(pods)}


def cuts(default: float, request: float, minutes: int, reset: bool = False) -> Series:
    return {
        f'clinical_r1_cut_thoughts_total{{{V},budget="{budget}"}}': run(rate, minutes, reset=reset)
        for budget, rate in (("default", default), ("request", request))
    }


def reloads(values: str) -> Series:
    return {'clinical_r1_api_key_reloads_total{result="failed"}': values}


def lost(values: str, failing: str = "0x30") -> Series:
    return {f"clinical_r1_audit_lines_lost_total{{{V}}}": values, f"clinical_r1_audit_failing{{{V}}}": failing}


SAME, LONGER = {"0064": 5.0, "0128": 5.0}, {"0256": 5.0, "0512": 5.0}
CASES: list[tuple[str, str, Series, str, bool]] = [
    # alert, scenario, series, when, fires
    ("AnswersWithoutThinking", "fires", answers({"ok": 8, "no_think": 2}, 100), "90m", True),
    ("AnswersWithoutThinking", "silent", answers({"ok": 10}, 100), "90m", False),
    ("AnswersWithoutThinking", "low traffic", answers({"ok": 0.4, "no_think": 0.3}, 100), "90m", False),
    ("AnswersWithoutThinking", "reset", answers({"ok": 10}, 100, reset=True), "90m", False),
    ("AnswersWithoutThinking", "fires over a reset", answers({"ok": 8, "no_think": 2}, 100, reset=True), "90m", True),
    (
        "AnswersWithoutThinking",
        "as at evaluation",
        answers({"ok": 8, "no_think": 2}, 100) | baseline({"no_think": 0.2, "ok": 0.8}),
        "90m",
        False,
    ),
    ("UnclosedThoughts", "fires", answers({"ok": 8, "unclosed": 1, "no_answer": 1}, 100), "90m", True),
    ("UnclosedThoughts", "silent", answers({"ok": 10}, 100), "90m", False),
    ("CutThoughts", "fires", answers({"ok": 8, "cut_thought": 2}, 100) | cuts(2, 0, 100), "90m", True),
    ("CutThoughts", "silent", answers({"ok": 10}, 100) | cuts(0, 0, 100), "90m", False),
    ("CutThoughts", "reset", answers({"ok": 10}, 100, reset=True) | cuts(0.1, 0, 100, reset=True), "90m", False),
    ("CutThoughts", "fires over a reset", answers({"ok": 10}, 100, True) | cuts(2, 0, 100, True), "90m", True),
    ("CutThoughts", "asked for by clients", answers({"ok": 8, "cut_thought": 2}, 100) | cuts(0, 2, 100), "90m", False),
    ("CutThoughts", "low traffic", answers({"ok": 0.4, "cut_thought": 0.2}, 100) | cuts(0.2, 0, 100), "90m", False),
    (
        "CutThoughts",
        "as its lengths at evaluation say",
        answers({"ok": 8, "cut_thought": 2}, 100) | cuts(2, 0, 100) | baseline({"cut_thought": 0.2}),
        "90m",
        False,
    ),
    ("UnclosedThoughts", "low traffic", answers({"unclosed": 0.5}, 100), "90m", False),
    ("UnclosedThoughts", "reset", answers({"ok": 10, "unclosed": 0.2}, 100, reset=True), "90m", False),
    ("UnclosedThoughts", "fires over a reset", answers({"ok": 8, "unclosed": 2}, 100, reset=True), "90m", True),
    ("ReasoningLengthDrift", "fires", lengths(LONGER, 500), "480m", True),
    ("ReasoningLengthDrift", "silent", lengths(SAME, 500), "480m", False),
    ("ReasoningLengthDrift", "low traffic", lengths({"0512": 1.0}, 500), "480m", False),
    ("ReasoningLengthDrift", "reset", lengths(SAME, 500, reset=True), "480m", False),
    ("ReasoningLengthDrift", "fires over a reset", lengths(LONGER, 500, reset=True), "480m", True),
    ("TokenCountOff", "fires", checks(9, 1, 100), "95m", True),
    ("TokenCountOff", "silent", checks(10, 0, 100), "95m", False),
    ("TokenCountOff", "low traffic", checks(0.3, 0.3, 100), "95m", False),
    ("TokenCountOff", "reset", checks(10, 0, 100, reset=True), "95m", False),
    ("TokenCountOff", "fires over a reset", checks(9, 1, 100, reset=True), "95m", True),
    ("EngineDown", "fires", ready("1x10 0x20", "1x10 0x20"), "20m", True),
    ("EngineDown", "silent with one left", ready("1x30", "0x30"), "20m", False),
    ("EngineDown", "short", ready("1x18 0x1 1x20"), "20m", False),
    ("EngineDegraded", "fires", ready("1x30", "0x30"), "20m", True),
    ("EngineDegraded", "silent", ready("1x30", "1x30"), "20m", False),
    ("GatewayAbsent", "fires", {"up": "1x30"}, "20m", True),
    ("GatewayAbsent", "silent", ready("0x30"), "20m", False),
    ("ApiKeysNotReloaded", "fires", reloads("0x10 1x20"), "12m", True),
    ("ApiKeysNotReloaded", "silent", reloads("0x30"), "12m", False),
    ("ApiKeysNotReloaded", "reset", reloads("3x20 0x20"), "30m", False),
    ("ApiKeysNotReloaded", "fires over a reset", reloads("3x20 0x5 1x20"), "30m", True),
    ("AuditLinesLost", "fires", lost("0x10 1x20"), "12m", True),
    ("AuditLinesLost", "fires without traffic", lost("0x30", "1x30"), "12m", True),
    ("AuditLinesLost", "silent", lost("0x30"), "12m", False),
    ("AuditLinesLost", "reset", lost("3x20 0x20"), "30m", False),
    ("AuditLinesLost", "fires over a reset", lost("3x20 0x5 1x20"), "30m", True),
]
STEPS = {"Slow": "5m", "Ticket": "30m"}
"""Distance of the samples where it is not a minute: long windows of minutes only cost time."""
BAD_OF_100 = {
    # speed: samples, when to look, bad answers that fire for SLOs of 95% and of 99.5%, and too few answers a sample
    "Fast": (100, "90m", 90, 10, 0.2),
    "Slow": (100, "480m", 50, 5, 0.5),
    "Ticket": (170, "4500m", 10, 1, 0.9),
}
SLOS = {"FirstAnswer": (first, 0), "Latency": (latency, 0), "ErrorBudget": (aborts, 1)}


def burn_cases() -> list[tuple[str, str, Series, str, bool]]:
    """Every burn-rate alert in every scenario; a reset changes nothing, neither for the silent nor for the firing."""
    cases = []
    for slo, (series, kind) in SLOS.items():
        for speed, (samples, when, *bad, few) in BAD_OF_100.items():
            name, many, fine = f"{slo}Burn{speed}", bad[kind], (2, 0.1)[kind]
            for reset, suffix in ((False, ""), (True, " over a reset")):
                cases += [
                    (name, "fires" + suffix, series(100 - many, many, samples, reset), when, True),
                    (name, "reset" if reset else "silent", series(100 - fine, fine, samples, reset), when, False),
                ]
            cases.append((name, "low traffic", series(0, few, samples), when, False))
    gone = aborts(90, 10, 100, by="client")
    return [*cases, ("ErrorBudgetBurnFast", "clients who leave are no errors", gone, "90m", False)]


CASES += burn_cases()
GAUGES = ("EngineDown", "EngineDegraded", "GatewayAbsent")
"""No counters, hence no resets; they must fire without any traffic."""


def promtool(tmp_path: Path, tests: list[dict[str, object]], interval: str) -> subprocess.CompletedProcess[str]:
    rules = rule_file()
    for group in rules["groups"]:
        group.pop("interval", None)  # the tests choose the step: finer ones only cost time
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    content = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": interval,
        "group_eval_order": [group["name"] for group in rules["groups"]],
        "tests": tests,
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
    command = [PROMTOOL or "promtool", "test", "rules", "test.yaml"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)


@needs_promtool
def test_alerts(tmp_path: Path) -> None:
    """All cases, the longer the coarser."""
    for shortest, longest, interval in ((0, 60, "1m"), (60, 600, "5m"), (600, 9999, "30m")):
        tests = [
            {
                "name": f"{name}: {scenario}",
                "interval": next((step for speed, step in STEPS.items() if name.endswith(speed)), "1m"),
                "input_series": [{"series": key, "values": value} for key, value in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="ClinicalR1{name}",alertstate="firing"}}) or vector(0)',
                        "eval_time": when,
                        "exp_samples": [{"labels": "{}", "value": int(fires)}],
                    }
                ],
            }
            for name, scenario, series, when, fires in CASES
            if shortest <= int(when[:-1]) < longest
        ]
        done = promtool(tmp_path, tests, interval)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_in_every_scenario() -> None:
    alerts = {r["alert"].removeprefix("ClinicalR1") for g in rule_file()["groups"] for r in g["rules"] if "alert" in r}
    assert alerts == {name for name, *_ in CASES}
    for name in alerts:
        scenarios = {scenario for other, scenario, *_ in CASES if other == name}
        assert {fires for other, *_, fires in CASES if other == name} == {True, False}
        if name not in GAUGES:
            assert {"fires", "silent", "reset", "fires over a reset"} <= scenarios, name
            assert "low traffic" in scenarios or name in ("ApiKeysNotReloaded", "AuditLinesLost"), name


def population_stability(expected: list[int], observed: list[int]) -> float:
    """Population stability index of two aligned histograms (counts); both smoothed by half a count a bucket. Below 0.1
    is usually read as stable, above 0.25 as a shift. 0.0 where either side is empty."""
    if not sum(expected) or not sum(observed):
        return 0.0
    size = len(expected)
    total_expected, total_observed = sum(expected) + size / 2, sum(observed) + size / 2
    psi = 0.0
    for before, after in zip(expected, observed, strict=True):
        p, q = (before + 0.5) / total_expected, (after + 0.5) / total_observed
        psi += (q - p) * math.log(q / p)
    return psi


def test_drift_numbers() -> None:
    same = [10, 30, 40, 20]
    assert population_stability(same, [2 * x for x in same]) == pytest.approx(0, abs=1e-3)
    assert population_stability(same, [40, 30, 20, 10]) > 0.25
    assert population_stability(same, [0, 0, 0, 0]) == 0


@needs_promtool
def test_psi_is_that_of_the_definition(tmp_path: Path) -> None:
    live = {"0048": 2.0, "0064": 4.0, "0128": 3.0, "0256": 1.0}
    expected = [500 if b in ("0064", "0128") else 0 for b in LENGTH_BUCKETS]
    observed = [int(live.get(b, 0) * 360) for b in LENGTH_BUCKETS]
    value = population_stability(expected, observed)
    series = [{"series": k, "values": v} for k, v in lengths(live, 500).items()]
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": f"abs(clinical_r1:reasoning_length:psi6h - {value}) < bool 1e-3",
                "eval_time": "480m",
                "exp_samples": [{"labels": f"{{{V}}}", "value": 1}],
            }
        ],
    }
    done = promtool(tmp_path, [test], "60m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(observed) > MIN_DRIFT


@needs_promtool
def test_rules_are_valid() -> None:
    done = subprocess.run(
        [PROMTOOL or "", "check", "rules", str(RULES_FILE)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_committed_rules_are_the_generated_ones() -> None:
    assert RULES_FILE.read_text() == render(), "run `python -m serving.monitoring.rules`"
    for name in ("one-gpu", "production"):
        rendered = (ROOT / "manifests" / "rendered" / f"{name}.yaml").read_text()
        assert indent(render(), "  ") in rendered, "run `make manifests`"


def test_two_namespaces_that_serve_one_version_are_never_added_up() -> None:
    for group in rule_file()["groups"]:
        for rule in group["rules"]:
            for kept in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"]):
                assert kept.startswith("namespace, model_version"), rule


def test_thresholds_are_bucket_edges() -> None:
    assert SLO_FIRST_ANSWER in SECONDS
    assert SLO_LATENCY in SECONDS


def test_every_alert_has_its_runbook_section() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = {line[3:].strip().lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    for group in rule_file()["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["annotations"]["runbook"].split("#")[1] in sections, rule["alert"]


def test_baseline_gauges_are_its_shares() -> None:
    counts = [0] * (len(EDGES) + 1)
    counts[5], counts[-1] = 3, 1
    outcomes = {o.value: 0 for o in Outcome} | {"ok": 3, "no_think": 1}
    metrics = GatewayMetrics("v1")
    metrics.set_baseline(Baseline(n=4, lengths=LengthHistogram(counts=counts), outcomes=outcomes))
    value = metrics.registry.get_sample_value
    assert value("clinical_r1_baseline_length_share", {"model_version": "v1", "bucket": "0064"}) == 0.75
    assert value("clinical_r1_baseline_length_share", {"model_version": "v1", "bucket": "inf"}) == 0.25
    assert value("clinical_r1_baseline_outcome_share", {"model_version": "v1", "outcome": "no_think"}) == 0.25
    assert value("clinical_r1_baseline_answers", {"model_version": "v1"}) == 4
