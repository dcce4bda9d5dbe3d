"""Evaluate one model on one set of cases: answer, judge twice, measure.

Writes into `out_dir`: predictions.jsonl (schema.Prediction), cases.jsonl (what was asked), metrics.json
(metrics.Metrics), config.json (how), evaluation.html, and reasoning_baseline.json (what serving compares live traffic
with). Each file appears whole or not at all; what was answered and judged before an interruption is in `state_dir` and
is not asked again.
"""

import json
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.baseline import make_baseline, write_baseline
from clinical_r1.evaluation.answer import answer_by_endpoint, answer_locally
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import CASES, METRICS, PREDICTIONS, read_cases
from clinical_r1.evaluation.journal import fingerprint
from clinical_r1.evaluation.judge import judge_predictions
from clinical_r1.evaluation.metrics import Metrics, measure
from clinical_r1.evaluation.results import write_evaluation
from clinical_r1.folders import check_model_folder, identity
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.objectstore.binding import folder_weights
from clinical_r1.privacy.crossing import check_crossing, check_gate
from clinical_r1.schema import Case, Prediction, write_jsonl
from clinical_r1.verifier.config import tell_of_rules_alone


def evaluate(
    config: EvaluationConfig, model: Path | EndpointConfig, cases: Path, out_dir: Path, state_dir: Path
) -> dict[str, Any]:
    """Evaluate a model folder or an endpoint on a file of cases; returns metrics.json as a dict.

    Raises:
        UserError: no cases, no such model, a dead endpoint, or one that may not have these cases.
    """
    config = config.model_copy(update={"benchmark": config.benchmark or Path(cases).stem})
    return evaluate_cases(config, model, read_cases(cases), Path(cases), out_dir, state_dir)


def evaluate_cases(
    config: EvaluationConfig,
    model: Path | EndpointConfig,
    rows: list[Case],
    source: Path,
    out_dir: Path,
    state_dir: Path,
) -> dict[str, Any]:
    """As `evaluate`, for cases that were read from `source` (a benchmark's own file), all of them or some."""
    check_privacy(config, model, source)
    default = model.name if isinstance(model, EndpointConfig) else Path(model).name
    config = config.model_copy(update={"model_name": config.model_name or default, "identity": identity_of(model)})
    if not all(case.options for case in rows):  # choices are read by rules whoever judges
        tell_of_rules_alone(config.reward_judge.verifier, "the result is a lower bound; name a model in reward_judge")
    config = config.model_copy(update={"weights": "" if isinstance(model, EndpointConfig) else folder_weights(model)})
    notes: list[str] = []
    if isinstance(model, EndpointConfig):
        predictions, failed, notes = answer_by_endpoint(config, model, rows, Path(state_dir))
        if failed:
            notes.append(f"{failed} of {len(predictions)} calls failed for good and count as wrong")
    else:
        predictions, too_long = answer_locally(config, Path(model), rows, Path(state_dir))
        if too_long:
            notes.append(f"{too_long} of {len(predictions)} prompts did not fit the model's window and count as wrong")
    predictions = judge_twice(config, rows, predictions, Path(state_dir))
    metrics = measure(rows, predictions, config.model_name, config.benchmark)
    metrics.notes += notes
    metrics.decoding = config.decoding
    metrics.weights = config.weights
    _write(config, rows, predictions, metrics, Path(out_dir))
    return metrics.model_dump(mode="json")


def identity_of(model: Path | EndpointConfig) -> str:
    """The same for the same model under any name."""
    if isinstance(model, EndpointConfig):
        return fingerprint(model.base_url, model.model)
    return identity(check_model_folder(model).path)


def check_privacy(config: EvaluationConfig, model: Path | EndpointConfig, cases: Path) -> None:
    """Raise UserError where the model or a judge would be sent cases that its endpoint may not have."""
    if isinstance(model, EndpointConfig):
        check_crossing(model, config.crossing)
        check_gate(model, config.crossing, cases)
    for judge in (config.reward_judge, config.independent_judge):
        if judge is not None:
            judge.check_privacy(cases)


def judge_twice(
    config: EvaluationConfig, cases: list[Case], predictions: list[Prediction], state_dir: Path
) -> list[Prediction]:
    """The predictions with the verdict of the reward judge and, where another one is configured, of the independent.

    The same judge twice would agree with itself, so it is not asked twice and does not count as independent.
    """

    def verdicts(judge, label):
        return judge_predictions(judge, cases, predictions, state_dir, config.judge_concurrency, label)

    rewards = verdicts(config.reward_judge, "verdicts of the reward judge")
    predictions = [p.model_copy(update={"verdict": v}) for p, v in zip(predictions, rewards, strict=True)]
    if config.independent_judge is not None and config.independent_judge != config.reward_judge:
        others = verdicts(config.independent_judge, "verdicts of the independent judge")
        predictions = [p.model_copy(update={"independent": v}) for p, v in zip(predictions, others, strict=True)]
    return predictions


def _write(
    config: EvaluationConfig,
    cases: list[Case],
    predictions: list[Prediction],
    metrics: Metrics,
    out_dir: Path,
) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text(out_dir / "config.json", config.model_dump_json(indent=1) + "\n")
    write_jsonl(out_dir / CASES, cases)
    write_jsonl(out_dir / PREDICTIONS, predictions)
    baseline = make_baseline(predictions, cases, config.model_name, config.benchmark, config.weights, config.decoding)
    write_baseline(baseline, out_dir)
    write_evaluation(metrics, out_dir)
    write_text(out_dir / METRICS, json.dumps(metrics.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n")
