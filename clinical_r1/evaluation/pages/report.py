"""The report of a training run: summary.json for machines, report.html for a clinician, from the steps' files.

Every input is a folder that a step wrote; what an optional step did not leave is said to be missing, never made up.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.atomic import write_text
from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.grounding.hallucination import hallucination_rate
from clinical_r1.evaluation.inputs import METRICS, PREDICTIONS, THINKING, read_cases
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult, compare
from clinical_r1.evaluation.measure.metrics import Accuracy, Metrics, measure
from clinical_r1.evaluation.pages.modelcard import CardInputs, write_model_card
from clinical_r1.evaluation.pages.parts import (
    algorithm_of,
    hyperparameters,
    learning_sentence,
    length_chart,
    outcome_rows,
    read_curves,
    sample_predictions,
    sample_rollouts,
    sample_traces,
    tuned_name,
)
from clinical_r1.evaluation.pages.results import (
    answer_sentence,
    answer_sentence_zh,
    reach_of,
    second_opinion,
    undecided_sentence,
)
from clinical_r1.evaluation.thinking import Curve
from clinical_r1.objectstore.manifest import GATE
from clinical_r1.page import render
from clinical_r1.schema import Case, Prediction, read_jsonl
from clinical_r1.step import STEP_FILE

REPORT, SUMMARY = "report.html", "summary.json"


class ReportInputs(Strict):
    """Where the earlier steps left their files, and what the page is to show."""

    title: str = "ClinicalGPT-R1: training report"
    """Heading of the page."""
    run_name: str = ""
    """Printed under the heading."""
    simulated: bool = False
    """Say at the top that the cases come from a simulated world."""
    simulated_teacher: bool = False
    """Say at the top that teacher and judge are the simulated endpoint, with an answer key where the cases are real."""
    samples: int = Field(6, ge=0)
    """Sample traces and predictions to print; 0 for a page without any record text."""
    ceiling: float | None = None
    """Best accuracy that anyone could reach on these cases, where it is known (a simulated world)."""
    records: Path
    """Folder of the records step: test.jsonl, report.json."""
    traces: Path | None = None
    """Folder of the synthesis step: report.json, traces.jsonl."""
    sft: Path | None = None
    """Folder of the SFT step: config.json, metrics.jsonl."""
    ppo: Path | None = None
    """Folder of the PPO step: config.json, metrics.jsonl."""
    sft_predictions: Path
    """Folder of the evaluation of the SFT model: predictions.jsonl, metrics.json."""
    ppo_predictions: Path
    """Folder of the evaluation of the PPO model."""
    gate: Path | None = None
    """Folder of the gate: gate.json."""
    base_model: str = ""
    """What SFT started from, for the model card."""
    licence: str = ""
    """Of the weights, for the model card."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds of each step; added to what the folders' step.json say."""
    code_version: str = ""
    """Printed at the end of the page."""


class _Loaded(BaseModel):
    """The inputs as objects."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    cases: list[Case]
    sft: list[Prediction]
    ppo: list[Prediction]
    sft_metrics: Metrics
    ppo_metrics: Metrics
    comparison: Comparison
    records: dict[str, Any]
    synthesis: dict[str, Any]
    gate: dict[str, Any]
    curves: dict[str, Curve]
    """Model -> accuracy against its thinking budget."""
    seconds: dict[str, float]


def write_report(inputs: ReportInputs, out_dir: Path) -> dict[str, Any]:
    """Write report.html, summary.json and the model card into `out_dir`; returns the summary."""
    data = _load(inputs)
    summary = _summary(inputs, data)
    page = _page(inputs, data, summary)
    out_dir = Path(out_dir)
    write_text(out_dir / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    write_text(out_dir / REPORT, page, private=True)
    write_model_card(_card(inputs, data, summary), [out_dir])
    return summary


def _card(inputs: ReportInputs, data: _Loaded, summary: dict[str, Any]) -> CardInputs:
    return CardInputs(
        name=inputs.run_name or "ClinicalGPT-R1",
        base_model=inputs.base_model,
        licence=inputs.licence,
        simulated=inputs.simulated,
        simulated_teacher=inputs.simulated_teacher,
        metrics=data.ppo_metrics,
        comparison=data.comparison,
        summary=summary,
        gate=data.gate,
        hallucinated=hallucination_rate(data.cases, data.ppo),
    )


def _load(inputs: ReportInputs) -> _Loaded:
    cases = read_cases(inputs.records / "test.jsonl")
    sft, ppo = (
        read_jsonl(folder / PREDICTIONS, Prediction) for folder in (inputs.sft_predictions, inputs.ppo_predictions)
    )
    tuned = tuned_name(inputs.sft)
    reinforced = f"{tuned} + {algorithm_of(inputs.ppo)}"
    return _Loaded(
        cases=cases,
        sft=sft,
        ppo=ppo,
        sft_metrics=_metrics(cases, sft, tuned, inputs.sft_predictions),
        ppo_metrics=_metrics(cases, ppo, reinforced, inputs.ppo_predictions),
        comparison=compare(cases, sft, ppo, (tuned, reinforced)),
        records=_read_json(inputs.records / "report.json"),
        synthesis=_read_json(inputs.traces / "report.json") if inputs.traces else {},
        gate=_read_json(inputs.gate / GATE) if inputs.gate else {},
        curves=_curves({tuned: inputs.sft_predictions, reinforced: inputs.ppo_predictions}),
        seconds=_seconds(inputs),
    )


def _curves(folders: dict[str, Path]) -> dict[str, Curve]:
    read = {name: _read_json(folder / THINKING) for name, folder in folders.items()}
    return {name: Curve.model_validate(row) for name, row in read.items() if row}


def _metrics(cases: list[Case], predictions: list[Prediction], name: str, folder: Path) -> Metrics:
    """Measured from the predictions, so that page and file cannot disagree; the evaluation's notes are kept."""
    metrics = measure(cases, predictions, name, "test")
    metrics.notes = [str(note) for note in _read_json(folder / METRICS).get("notes", [])]
    return metrics


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise UserError(f"{path}: not JSON; run the step that writes it again") from None


def _seconds(inputs: ReportInputs) -> dict[str, float]:
    steps = (inputs.records, inputs.traces, inputs.sft, inputs.ppo, inputs.sft_predictions, inputs.ppo_predictions)
    folders = (*steps, inputs.gate)
    found: dict[str, float] = {}
    for folder in folders:
        step = _read_json(folder / STEP_FILE) if folder else {}
        if step:
            found[str(step["step"])] = float(step["seconds"])
    return found | inputs.seconds


def _summary(inputs: ReportInputs, data: _Loaded) -> dict[str, Any]:
    overall = data.comparison.overall
    return {
        "cases": data.records.get("cases", len(data.cases)),
        "splits": data.records.get("splits", {"test": len(data.cases)}),
        "traces": data.synthesis.get("traces", 0),
        "outcomes": data.synthesis.get("outcomes", {}),
        "imported_traces": bool(data.synthesis.get("imported")),
        "sft": _model_summary(data.sft_metrics),
        "ppo": _model_summary(data.ppo_metrics),
        "mcnemar_p": overall.p_exact,
        "difference": {"points": 100 * overall.difference, "low": 100 * overall.low, "high": 100 * overall.high},
        "minimum_detectable_points": 100 * overall.minimum_detectable,
        "verdict": data.comparison.verdict,
        "independent_difference": _difference(data.comparison.independent),
        "by_specialty": _strata(data, "specialty"),
        "by_language": _strata(data, "language"),
        "thinking": {name: curve.summary() for name, curve in data.curves.items()},
        "gate": _gate(data.gate),
        "ceiling": inputs.ceiling,
        "simulated": inputs.simulated,
        "simulated_teacher": inputs.simulated_teacher,
        "phi_policy": data.records.get("phi", {}).get("policy", ""),
        "records": _accounts(data.records),
        "algorithm": algorithm_of(inputs.ppo),
        "learning": _learning(inputs.ppo),
        "hyperparameters": [row.model_dump() for row in hyperparameters(inputs.sft, inputs.ppo)],
        "seconds": data.seconds,
        "intended_use": "research and clinician decision support; not a medical device, no autonomous diagnosis",
    }


def _learning(ppo: Path | None) -> dict[str, Any]:
    """How much of RL changed the weights, and what has to be said of it."""
    found = _read_json(ppo / STEP_FILE).get("metrics", {}) if ppo else {}
    keys = ("steps", "steps_planned", "steps_updated", "kept_step", "stop_reason")
    known = {key: found[key] for key in keys if key in found}
    return {**known, "said": learning_sentence(algorithm_of(ppo), known)}


def _accounts(records: dict[str, Any]) -> dict[str, Any]:
    """What became of the rows: of all, and of each source."""
    keys = ("read", "malformed", "reject_reasons", "limited", "dropped", "leaks", "quarantined", "cases", "unused")
    return {key: records[key] for key in (*keys, "icd10", "lost", "phi", "sources") if key in records}


def _gate(gate: dict[str, Any]) -> dict[str, Any]:
    """The decision for machines: what, and each rule that did not pass with its reason."""
    failed = [rule for rule in gate.get("rules", []) if rule["result"] != "pass"]
    return {
        "decision": gate.get("decision", ""),
        "against": gate.get("against", ""),
        "reasons": [f"{rule['rule']}: {rule['reason']}" for rule in failed],
        "forgetting_unread": gate.get("unread", {}),
    }


def _difference(result: PairedResult | None) -> dict[str, float] | None:
    if result is None:
        return None
    return {"points": 100 * result.difference, "low": 100 * result.low, "high": 100 * result.high, "p": result.p_exact}


def _model_summary(metrics: Metrics) -> dict[str, Any]:
    overall = metrics.overall
    return {
        **_rate(overall),
        "low": overall.low,
        "high": overall.high,
        "n": overall.n,
        "unscored": overall.unscored,
        "bounds": overall.bounds,
        **(
            {f"independent_{key}": value for key, value in _rate(overall.independent).items()}
            if overall.independent
            else {"independent_accuracy": None}
        ),
        "partial_credit": overall.partial.mean if overall.partial else None,
        "list_f1": metrics.list_f1.mean if metrics.list_f1 else None,
        "reasoning_rate": overall.reasoning_rate,
        "mean_reasoning_tokens": overall.mean_reasoning_tokens,
        "outcomes": metrics.outcomes,
    }


def _rate(rate: Accuracy) -> dict[str, Any]:
    """An accuracy, or a lower bound with what is undecided; never the one under the name of the other."""
    if rate.accuracy is not None:
        return {"accuracy": rate.accuracy}
    return {"lower_bound": rate.lower_bound, "undecided": rate.undecided, "undecided_share": rate.undecided_share}


def _strata(data: _Loaded, axis: str) -> dict[str, Any]:
    return {
        name: {
            "n": result.n,
            "sft": result.first_accuracy,
            "ppo": result.second_accuracy,
            "difference": result.difference,
            "low": result.low,
            "high": result.high,
            "p_holm": result.p_holm,
            "minimum_detectable": result.minimum_detectable,
        }
        for name, result in data.comparison.by.get(axis, {}).items()
    }


def _page(inputs: ReportInputs, data: _Loaded, summary: dict[str, Any]) -> str:
    return render(
        "train.html.j2",
        title=inputs.title,
        inputs=inputs,
        summary=summary,
        comparison=data.comparison,
        gate=data.gate,
        sft=data.sft_metrics,
        ppo=data.ppo_metrics,
        answer=answer_sentence(data.comparison),
        answer_zh=answer_sentence_zh(data.comparison),
        second_opinion=second_opinion(data.comparison),
        flow=_flow(data, summary),
        hyperparameters=hyperparameters(inputs.sft, inputs.ppo),
        figures=read_curves(inputs.sft, inputs.ppo),
        lengths=length_chart(data.sft, data.ppo, data.ppo_metrics.model),
        outcomes=outcome_rows(data.sft_metrics, data.ppo_metrics),
        undecided=undecided_sentence(data.sft_metrics, data.ppo_metrics),
        traces=sample_traces(inputs.traces / "traces.jsonl", inputs.samples) if inputs.traces else [],
        predictions=sample_predictions(data.cases, data.sft, data.ppo, inputs.samples, data.ppo_metrics.model),
        rollouts=sample_rollouts(inputs.ppo, inputs.samples),
        reach=reach_of(data.comparison),
        curves=list(data.curves.items()),
    )


def _flow(data: _Loaded, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done, as (number, words)."""
    splits, outcomes = data.records.get("splits", {}), data.synthesis.get("outcomes", {})
    flow = [(f"{data.records.get('cases', len(data.cases)):,}", "cases, divided into four disjoint splits by patient")]
    if outcomes:
        first = outcomes.get("direct", 0)
        how = (
            f"verified reasoning traces ({first:,} right at first, {outcomes.get('recovered', 0):,} after a retry, "
            f"{outcomes.get('guided', 0):,} guided by the reference)"
        )
        if summary["imported_traces"]:
            others = outcomes.get("unverified", 0)
            how = f"reasoning traces of others ({first:,} found right by a verifier, {others:,} not verified)"
        flow.append((f"{data.synthesis.get('traces', 0):,}", f"{how}; {outcomes.get('rejected', 0):,} rejected"))
    if splits.get("rl"):
        flow.append(
            (
                f"{splits['rl']:,}",
                f"other cases for reinforcement learning ({summary['algorithm']}) with a verifier's reward",
            )
        )
    flow.append((f"{len(data.cases):,}", "test cases that no training step has seen, opened once"))
    return flow
