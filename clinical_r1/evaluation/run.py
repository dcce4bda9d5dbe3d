"""Evaluate one model on one set of cases: answer, judge twice, measure.

Writes into `out_dir`: predictions.jsonl (schema.Prediction), cases.jsonl (what was asked), metrics.json
(metrics.Metrics), config.json (how), evaluation.html, reasoning_baseline.json (what serving compares live traffic
with) and thinking.json (thinking.Curve: accuracy against the thinking budget). Each file appears whole or not at all;
what was answered and judged before an interruption is in `state_dir` and is not asked again.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.baseline import make_baseline, write_baseline
from clinical_r1.evaluation.answer import answer_by_endpoint, answer_locally, told_of_words
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.inputs import CASES, METRICS, PREDICTIONS, THINKING, read_cases
from clinical_r1.evaluation.judging.judge import grade_rubrics, judge_predictions
from clinical_r1.evaluation.measure.metrics import measure
from clinical_r1.evaluation.pages.report import write_evaluation
from clinical_r1.evaluation.thinking import thinking_curve
from clinical_r1.folders import check_model_folder, identity
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.objectstore.manifest import folder_weights
from clinical_r1.privacy.crossing import check_crossing, check_gate
from clinical_r1.reasoning import UNREADABLE
from clinical_r1.sampling import Sampling
from clinical_r1.schema import Case, Prediction, write_jsonl
from clinical_r1.verifier.config import JudgeConfig, tell_of_rules_alone
from clinical_r1.verifier.rule import ranked_diagnoses
from clinical_r1.verifier.verifier import build_rubric_judge


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
    told: Sequence[str] = (),
) -> dict[str, Any]:
    """As `evaluate`, for cases that were read from `source` (a benchmark's own file), all of them or some; `told` is
    what the figures have to say of them."""
    check_privacy(config, model, source)
    if any(case.rubric for case in rows) and config.reward_judge.verifier.kind == "rule":
        build_rubric_judge(config.reward_judge.verifier, None)  # says what is missing before anything is asked
    if not all(case.options or case.rubric for case in rows):  # choices are read by rules whoever judges
        tell_of_rules_alone(config.reward_judge.verifier, "the result is a lower bound; name a model in reward_judge")
    if isinstance(model, EndpointConfig):
        default, weights = model.name, ""
        address = json.dumps([model.base_url, model.model], ensure_ascii=False)
        same = hashlib.sha256(address.encode()).hexdigest()[:16]  # the same for the same model under any name
    else:
        default, same = Path(model).name, identity(check_model_folder(model).path)
        weights = folder_weights(model)
    config = config.model_copy(
        update={"model_name": config.model_name or default, "identity": same, "weights": weights}
    )
    notes = [*told, *told_of_words(config.prompt, [] if config.ranked else rows)]
    decoding: Sampling | None = config.decoding
    if isinstance(model, EndpointConfig):
        predictions, failed, said, decoding = answer_by_endpoint(config, model, rows, Path(state_dir))
        notes += said
        if failed:
            notes.append(f"{failed} of {len(predictions)} calls failed for good and count as wrong")
    else:
        predictions, too_long = answer_locally(config, Path(model), rows, Path(state_dir))
        if too_long:
            notes.append(f"{too_long} of {len(predictions)} prompts did not fit the model's window and count as wrong")
    predictions = judge_twice(config, rows, predictions, Path(state_dir))
    metrics = measure(rows, predictions, config.model_name, config.benchmark)
    metrics.notes += notes
    metrics.decoding, metrics.weights = decoding, config.weights
    curve = None
    if config.budget_cases and not isinstance(model, EndpointConfig):
        curve = thinking_curve(config, Path(model), rows, predictions, Path(state_dir))
    out_dir = Path(out_dir)
    write_text(out_dir / "config.json", config.model_dump_json(indent=1) + "\n")
    write_jsonl(out_dir / CASES, rows)
    write_jsonl(out_dir / PREDICTIONS, predictions)
    baseline = make_baseline(predictions, rows, config.model_name, config.benchmark, config.weights, decoding)
    if curve is not None:
        baseline.thinking_budget = curve.recommended
        write_text(out_dir / THINKING, curve.model_dump_json(indent=1) + "\n")
    write_baseline(baseline, out_dir)
    write_evaluation(metrics, out_dir, curve)
    found = metrics.model_dump(mode="json")
    write_text(out_dir / METRICS, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    return found


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

    The same judge twice would agree with itself, so it is not asked twice and does not count as independent. Rubrics
    are graded by the reward judge alone. Where several diagnoses were asked for, the reward judge judges each of those
    listed, and the first one's verdict is the prediction's; an answer without such a list is judged as a whole.
    """
    by_id, concurrency = {case.id: case for case in cases}, config.judge_concurrency
    found = {(p.case_id, p.sample): p for p in predictions}

    def add(judge: JudgeConfig, label: str, field: str, rows: list[Prediction]) -> None:
        verdicts = judge_predictions(judge, cases, rows, state_dir, concurrency, label)
        for p, verdict in zip(rows, verdicts, strict=True):
            found[p.case_id, p.sample] = found[p.case_id, p.sample].model_copy(update={field: verdict})

    listed: dict[tuple[str, int], list[str]] = {}
    if config.ranked:
        for p in predictions:
            asked = by_id[p.case_id].references and not by_id[p.case_id].options
            if asked and p.outcome not in UNREADABLE and (texts := ranked_diagnoses(p.response, config.ranked)):
                listed[p.case_id, p.sample] = texts
        each = [
            found[key].model_copy(update={"sample": key[1] * config.ranked + place, "response": text})
            for key, texts in listed.items()
            for place, text in enumerate(texts)
        ]
        label = "verdicts of the listed diagnoses"
        judged = iter(judge_predictions(config.reward_judge, cases, each, state_dir, concurrency, label))
        for key, texts in listed.items():
            own = [next(judged) for _ in texts]
            found[key] = found[key].model_copy(update={"ranked": own, "verdict": own[0]})
    open_ = [p for p in predictions if by_id[p.case_id].references]
    if open_:
        whole = [p for p in open_ if (p.case_id, p.sample) not in listed]
        add(config.reward_judge, "verdicts of the reward judge", "verdict", whole)
        if config.independent_judge is not None and config.independent_judge != config.reward_judge:
            firsts = [p.model_copy(update={"response": listed.get((p.case_id, p.sample), [p.response])[0]})
                      for p in open_]  # fmt: skip
            add(config.independent_judge, "verdicts of the independent judge", "independent", firsts)
    graded = [p for p in predictions if by_id[p.case_id].rubric]
    scores = grade_rubrics(config.reward_judge, cases, graded, state_dir, concurrency)
    for p, rubric in zip(graded, scores, strict=True):
        found[p.case_id, p.sample] = found[p.case_id, p.sample].model_copy(update={"rubric": rubric})
    return [found[p.case_id, p.sample] for p in predictions]
