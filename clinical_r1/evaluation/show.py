"""What a report shows of single cases: traces with their strategy path, predictions; and outcomes and lengths."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from clinical_r1.evaluation.charts import histogram
from clinical_r1.evaluation.metrics import Metrics, is_right
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction, Trace, TraceOutcome, iter_jsonl

OUTCOME_WORDS = {
    Outcome.OK: ("reasons, then answers", "c1"),
    Outcome.NO_THINK: ("answers without reasoning", "c3"),
    Outcome.EMPTY_THINK: ("empty reasoning", "c5"),
    Outcome.UNCLOSED: ("cut off while reasoning", "c4"),
    Outcome.CUT_THOUGHT: ("reasoning cut at its budget", "c9"),
    Outcome.NO_ANSWER: ("no answer", "c7"),
    Outcome.MULTIPLE: ("malformed", "c6"),
    Outcome.UNKNOWN_FORM: ("form not known, not judged", "c8"),
    Outcome.REFUSED: ("refused by the endpoint", "c10"),
    Outcome.ABORTED: ("call failed", "c2"),
}
"""Outcome -> words for a clinician, colour."""


class OutcomeRow(NamedTuple):
    """The outcomes of one model as shares of a whole."""

    name: str
    shares: list[tuple[str, float, str]]
    tokens: float


class Shown(NamedTuple):
    """One case with what both models said."""

    case: Case
    first: Prediction
    second: Prediction
    kind: str


def outcome_rows(*metrics: Metrics) -> list[OutcomeRow]:
    """One stacked bar a model."""
    rows = []
    for one in metrics:
        total = sum(one.outcomes.values()) or 1
        shares = [(words, one.outcomes.get(outcome, 0) / total, css) for outcome, (words, css) in OUTCOME_WORDS.items()]
        rows.append(OutcomeRow(one.model, shares, one.overall.mean_reasoning_tokens))
    return rows


def length_chart(first: Sequence[Prediction], second: Sequence[Prediction]) -> Markup:
    """Distribution of reasoning lengths of the two models."""
    return histogram(
        [
            ("SFT", [prediction.reasoning_tokens for prediction in first], "sft"),
            ("SFT + PPO", [prediction.reasoning_tokens for prediction in second], "ppo"),
        ]
    )


def sample_traces(path: Path, count: int) -> list[Trace]:
    """A few accepted traces: both languages and all ways of getting there, those with retries first."""
    if count == 0 or not path.is_file():
        return []
    best: dict[tuple[str, str, tuple[str, ...]], Trace] = {}
    for trace in iter_jsonl(path, Trace):
        if trace.accepted:
            key = (trace.language, trace.outcome.value, tuple(attempt.strategy.value for attempt in trace.attempts))
            best.setdefault(key, trace)
    ranked = sorted(best.values(), key=_interest)
    return _alternate(ranked, count, lambda trace: (trace.outcome.value, trace.language))


def _interest(trace: Trace) -> tuple[int, int, str]:
    order = {TraceOutcome.RECOVERED: 0, TraceOutcome.GUIDED: 1, TraceOutcome.DIRECT: 2}
    return (order.get(trace.outcome, 3), abs(len(trace.attempts) - 3), trace.case_id)


def _alternate(items: Iterable, count: int, kind) -> list:
    """The first item of each kind in turn, then the second of each, until `count`."""
    queues: dict[object, list] = {}
    for item in items:
        queues.setdefault(kind(item), []).append(item)
    chosen: list = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def sample_predictions(
    cases: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction], count: int
) -> list[Shown]:
    """A few test cases that PPO won, lost, and that both got right or wrong: drawn by hash, not picked by hand."""
    if count == 0:
        return []
    left = {prediction.case_id: prediction for prediction in first if prediction.sample == 0}
    right = {prediction.case_id: prediction for prediction in second if prediction.sample == 0}
    kinds = {
        (False, True): "only SFT + PPO is right",
        (True, False): "only SFT is right",
        (True, True): "both are right",
        (False, False): "both are wrong",
    }
    shown = []
    for case in sorted(cases, key=lambda case: hashlib.sha256(case.id.encode()).digest()):
        pair = (is_right(left[case.id]), is_right(right[case.id]))
        if None not in pair:
            shown.append(Shown(case, left[case.id], right[case.id], kinds[bool(pair[0]), bool(pair[1])]))
    shown.sort(key=lambda item: list(kinds.values()).index(item.kind))
    by_language = _alternate(shown, len(shown), lambda item: (item.kind, item.case.language))
    return sorted(by_language[: max(count, 1)], key=lambda item: list(kinds.values()).index(item.kind))
