"""What a report shows of single cases: traces with their strategy path, predictions; and outcomes and lengths."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from clinical_r1.charts import Series, histogram, line_chart, read_metrics, series
from clinical_r1.errors import Strict
from clinical_r1.evaluation.measure.metrics import Metrics, is_right
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


def length_chart(first: Sequence[Prediction], second: Sequence[Prediction], name: str) -> Markup:
    """Distribution of reasoning lengths of the two models; `name` is the second's."""
    return histogram(
        [
            ("SFT", [prediction.reasoning_tokens for prediction in first], "sft"),
            (name, [prediction.reasoning_tokens for prediction in second], "ppo"),
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


def sample_rollouts(ppo: Path | None, count: int) -> list[dict[str, Any]]:
    """Completions that the RL step kept of its first and last steps, `count` in all; none where it kept no text."""
    path = ppo / "samples.jsonl" if ppo else None
    if not count or path is None or not path.is_file():
        return []
    rows = [row for row in read_metrics(path) if "response" in row]
    return rows if len(rows) <= count else rows[: count // 2] + rows[count // 2 - count :]


def sample_predictions(
    cases: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction], count: int, name: str
) -> list[Shown]:
    """A few test cases that the second model, `name`, won or lost, or both got right or wrong: drawn by hash."""
    if count == 0:
        return []
    left = {prediction.case_id: prediction for prediction in first if prediction.sample == 0}
    right = {prediction.case_id: prediction for prediction in second if prediction.sample == 0}
    kinds = {
        (False, True): f"only {name} is right",
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


PREFERENCE = "preference"
"""Folder of the preference pairs in the SFT step's."""


class Figure(NamedTuple):
    """One small chart."""

    caption: str
    hint: str
    key: str
    """Name in metrics.jsonl."""
    chart: Markup = Markup("")


CURVES = (
    (
        Figure("SFT loss", "per target token", "train/loss"),
        Figure("SFT loss on held-out traces", "per target token", "eval/loss"),
    ),
    (
        Figure("DPO loss", "mean of the pairs", "train/loss"),
        Figure("DPO margin", "chosen before rejected, nats x beta", "train/margin"),
    ),
    (
        Figure("PPO reward", "mean of the batch", "train/reward"),
        Figure("KL to the SFT model", "nats per answer", "train/kl"),
        Figure("Reasoning length", "tokens, mean of the batch", "train/reasoning_tokens"),
        Figure("PPO validation accuracy", "greedy, held-out cases", "validation/accuracy"),
        Figure("Forgetting probe", "multiple choice, not trained on", "forgetting/accuracy"),
    ),
)
"""Of SFT, of the preference pairs after it, and of RL."""


def read_curves(sft: Path | None, ppo: Path | None) -> list[Figure]:
    """The figures that the two steps' files can fill; a curve that nobody recorded is left out."""
    figures = []
    folders = (sft, sft / PREFERENCE if sft else None, ppo)
    for known, folder, css in zip(CURVES, folders, ("sft", "sft", "ppo"), strict=True):
        rows = read_metrics(folder / "metrics.jsonl") if folder and (folder / "metrics.jsonl").is_file() else []
        for figure in known:
            steps, values = series(rows, figure.key)
            if steps:
                curve = Series(figure.caption, steps, values, css)
                chart = line_chart([curve], percent=figure.key.endswith("/accuracy"))
                figures.append(figure._replace(caption=figure.caption.replace("PPO", algorithm_of(ppo)), chart=chart))
    return figures


class Hyperparameter(Strict):
    """One row of the table; empty where a run does not say."""

    stage: str
    name: str
    paper: str
    run: str


_TABLE = (
    ("SFT", "epochs", "3", "epochs"),
    ("SFT", "learning rate", "5e-6", "learning_rate"),
    ("SFT", "batch", "not stated", "batch_size"),
    ("PPO", "algorithm", "PPO", "algorithm"),
    ("PPO", "learning rate", "5e-7", "learning_rate"),
    ("PPO", "batch", "16", "batch_size"),
    ("PPO", "KL coefficient", "0.03", "kl_beta"),
    ("PPO", "clip range", "0.2", "clip"),
    ("PPO", "reward", "correct and reasoned 1, correct only 0.1", "reward_table"),
)
"""Stage, name, the paper's value (sections 2.2.1 and 2.2.2), and its key in the step's config."""


def hyperparameters(sft: Path | None, ppo: Path | None) -> list[Hyperparameter]:
    """The table for the configs in two step folders."""
    configs = {"SFT": _read(sft), "PPO": _read(ppo)}
    names = {"SFT": "SFT", "PPO": algorithm_of(ppo)}
    rows = [
        Hyperparameter(stage=names[stage], name=name, paper=paper, run=_format(key, configs[stage].get(key)))
        for stage, name, paper, key in _TABLE
    ]
    pairs = configs["SFT"].get("dpo") or {}
    told = [
        Hyperparameter(stage="DPO", name=name, paper="not used", run=_format(key, pairs[key]))
        for name, key in (("epochs", "epochs"), ("learning rate", "learning_rate"), ("beta", "beta"))
        if key in pairs
    ]
    after = sum(row.stage == "SFT" for row in rows)
    return rows[:after] + told + rows[after:]


def tuned_name(sft: Path | None) -> str:
    """What the model before RL is called: preference pairs after the traces are told."""
    return "SFT + DPO" if _read(sft).get("dpo") else "SFT"


def algorithm_of(ppo: Path | None) -> str:
    """PPO, GRPO or RLOO: what the reinforcement step's config.json says; PPO, the paper's, where it says nothing."""
    return str(_read(ppo).get("algorithm", "ppo")).upper()


def learning_sentence(algorithm: str, told: Mapping[str, Any]) -> str:
    """Where RL changed nothing, little, or stopped early, and whose weights are kept; empty where all went as planned.

    `told` are the numbers of the step (`clinical_r1.training.ppo.main.publish`).
    """
    if "steps_updated" not in told:
        return ""
    steps, updated, planned = told["steps"], told["steps_updated"], told["steps_planned"]
    reason = "no answer earned more than one that it was compared with"
    said = []
    if not planned:
        said.append(f"No step of {algorithm} was asked for")
    elif not updated:
        which = "its only step" if steps == 1 else f"any of its {steps:,} steps"
        said.append(f"{algorithm} has learnt nothing: no weight was updated in {which}, since {reason}")
    elif updated < steps:
        said.append(
            f"{algorithm} has updated the weights in {updated:,} of its {steps:,} steps; in the others {reason}"
        )
    if told["stop_reason"]:
        said.append(f"It stopped by itself after {steps:,} of {planned:,} steps: {told['stop_reason']}")
    if not updated:
        said.append(f"The model after {algorithm} is the model before it, and so are its figures")
    elif not told["kept_step"]:
        said.append(
            "The weights that are kept are those before the first step, since none later was better on validation"
        )
    return "".join(f"{sentence}. " for sentence in said).rstrip()


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
