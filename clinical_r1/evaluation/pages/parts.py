"""What the report of a training shows besides figures: traces with their strategy path, rollouts, predictions; curves
and hyperparameters of the steps; and the outcomes of the reasoning."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from markupsafe import Markup

from clinical_r1.atomic import read_table
from clinical_r1.charts import Series, line_chart, read_metrics, series
from clinical_r1.evaluation.measure.metrics import Metrics, is_right
from clinical_r1.schema import Case, Prediction, Trace, TraceOutcome, iter_jsonl

T = TypeVar("T")
TABLES: dict[str, Any] = read_table(Path(__file__).with_name("tables.yaml"))
PREFERENCE = "preference"
"""Folder of the preference pairs in the SFT step's."""


class OutcomeRow(NamedTuple):
    """The outcomes of one model as shares of a whole."""

    name: str
    shares: list[tuple[str, float, str]]
    tokens: float


def outcome_rows(*metrics: Metrics) -> list[OutcomeRow]:
    """One stacked bar a model."""
    rows = []
    for one in metrics:
        total = sum(one.outcomes.values()) or 1
        shares = [(words, one.outcomes.get(name, 0) / total, css) for name, (words, css) in TABLES["outcomes"].items()]
        rows.append(OutcomeRow(one.model, shares, one.overall.mean_reasoning_tokens))
    return rows


def sample_traces(path: Path, count: int) -> list[Trace]:
    """A few accepted traces: both languages and all ways of getting there, those with retries first."""
    if count == 0 or not path.is_file():
        return []
    best: dict[tuple[str, str, tuple[str, ...]], Trace] = {}
    for trace in iter_jsonl(path, Trace):
        if trace.accepted:
            key = (trace.language, trace.outcome.value, tuple(attempt.strategy.value for attempt in trace.attempts))
            best.setdefault(key, trace)
    order = [TraceOutcome.RECOVERED, TraceOutcome.GUIDED, TraceOutcome.DIRECT]

    def interest(trace: Trace) -> tuple[int, int, str]:
        rank = order.index(trace.outcome) if trace.outcome in order else len(order)
        return rank, abs(len(trace.attempts) - 3), trace.case_id

    return _alternate(sorted(best.values(), key=interest), lambda trace: (trace.outcome.value, trace.language))[:count]


def _alternate(items: Iterable[T], kind: Callable[[T], object]) -> list[T]:
    """The first item of each kind in turn, then the second of each, and so on."""
    queues: dict[object, list[T]] = {}
    for item in items:
        queues.setdefault(kind(item), []).append(item)
    return [item for item in chain.from_iterable(zip_longest(*queues.values())) if item is not None]


def sample_rollouts(ppo: Path | None, count: int) -> list[dict[str, Any]]:
    """Completions that the RL step kept of its first and last steps, `count` in all; none where it kept no text."""
    path = ppo / "samples.jsonl" if ppo else None
    if not count or path is None or not path.is_file():
        return []
    rows = [row for row in read_metrics(path) if "response" in row]
    return rows if len(rows) <= count else rows[: count // 2] + rows[count // 2 - count :]


class Shown(NamedTuple):
    """One case with what both models said."""

    case: Case
    first: Prediction
    second: Prediction
    kind: str


def sample_predictions(
    cases: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction], count: int, name: str
) -> list[Shown]:
    """A few test cases that the second model, `name`, won or lost, or both got right or wrong: drawn by hash."""
    if count == 0:
        return []
    left, right = ({row.case_id: row for row in rows if row.sample == 0} for rows in (first, second))
    kinds = {
        (False, True): f"only {name} is right",
        (True, False): "only SFT is right",
        (True, True): "both are right",
        (False, False): "both are wrong",
    }
    order = list(kinds.values())
    shown = []
    for case in sorted(cases, key=lambda case: hashlib.sha256(case.id.encode()).digest()):
        a, b = left[case.id], right[case.id]
        if (hit := is_right(a)) is not None and (other := is_right(b)) is not None:
            shown.append(Shown(case, a, b, kinds[hit, other]))
    shown.sort(key=lambda item: order.index(item.kind))
    chosen = _alternate(shown, lambda item: (item.kind, item.case.language))[:count]
    return sorted(chosen, key=lambda item: order.index(item.kind))


class Figure(NamedTuple):
    """One small chart."""

    caption: str
    hint: str
    chart: Markup


def read_curves(sft: Path | None, ppo: Path | None) -> list[Figure]:
    """The figures that the two steps' files can fill; a curve that nobody recorded is left out."""
    figures = []
    places = {"sft": (sft, "sft"), "pairs": (sft / PREFERENCE if sft else None, "sft"), "ppo": (ppo, "ppo")}
    for stage, (folder, css) in places.items():
        rows = read_metrics(folder / "metrics.jsonl") if folder and (folder / "metrics.jsonl").is_file() else []
        for caption, hint, key in TABLES["figures"][stage]:
            steps, values = series(rows, key)
            if steps:
                chart = line_chart([Series(caption, steps, values, css)], percent=key.endswith("/accuracy"))
                figures.append(Figure(caption.replace("PPO", algorithm_of(ppo)), hint, chart))
    return figures


def hyperparameters(sft: Path | None, ppo: Path | None) -> list[dict[str, str]]:
    """The table for the configs in two step folders: stage, name, paper, run (empty where a run does not say)."""
    tuned, reinforced = _read(sft), _read(ppo)
    configs = {"SFT": tuned, "DPO": tuned.get("dpo") or {}, "PPO": reinforced}
    return [
        {
            "stage": algorithm_of(ppo) if stage == "PPO" else stage,
            "name": name,
            "paper": paper,
            "run": _format(key, configs[stage].get(key)),
        }
        for stage, name, paper, key in TABLES["hyperparameters"]
        if stage != "DPO" or key in configs[stage]
    ]


def tuned_name(sft: Path | None) -> str:
    """What the model before RL is called: preference pairs after the traces are told."""
    return "SFT + DPO" if _read(sft).get("dpo") else "SFT"


def algorithm_of(ppo: Path | None) -> str:
    """PPO, GRPO or RLOO: what the reinforcement step's config.json says; PPO, the paper's, where it says nothing."""
    return str(_read(ppo).get("algorithm", "ppo")).upper()


def _read(folder: Path | None) -> dict[str, Any]:
    """The settings of a step's config.json, which holds them directly or under `config`."""
    path = folder / "config.json" if folder else None
    if path is None or not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return data.get("config", data)


def _format(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.upper() if key == "algorithm" else f"table “{value}”"
    if isinstance(value, float):
        return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:g}"
    return json.dumps(value) if isinstance(value, dict) else str(value)
