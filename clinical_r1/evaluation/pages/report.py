"""The pages of results: one model on one benchmark, two models side by side, and a training run, which also has
summary.json for machines and a model card.

The inputs of a run's report are folders that its steps wrote; what an optional step did not leave is said to be
missing, never made up.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from clinical_r1.atomic import write_text
from clinical_r1.charts import histogram, reach
from clinical_r1.errors import UserError
from clinical_r1.evaluation.grounding import hallucination_rate
from clinical_r1.evaluation.inputs import METRICS, PREDICTIONS, THINKING, read_cases
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult, compare
from clinical_r1.evaluation.measure.metrics import Accuracy, Metrics, measure
from clinical_r1.evaluation.pages import parts
from clinical_r1.evaluation.pages.modelcard import CardInputs, write_model_card
from clinical_r1.evaluation.thinking import Curve
from clinical_r1.objectstore.manifest import GATE
from clinical_r1.page import render, sentence
from clinical_r1.schema import Prediction, read_jsonl
from clinical_r1.step import STEP_FILE
from clinical_r1.strict import Strict

REPORT, SUMMARY = "report.html", "summary.json"
EVALUATION_PAGE, COMPARISON, COMPARISON_PAGE = "evaluation.html", "comparison.json", "comparison.html"


def write_evaluation(metrics: Metrics, out_dir: Path, curve: Curve | None = None) -> Path:
    """evaluation.html of one model; returns its path."""
    page = render(
        "evaluation.html.j2",
        title=metrics.model,
        metrics=metrics,
        answer=sentence("model", metrics=metrics),
        answer_zh=sentence("model_zh", metrics=metrics),
        outcomes=parts.outcome_rows(metrics)[0],
        curves=[(metrics.model, curve)] if curve else [],
    )
    write_text(Path(out_dir) / EVALUATION_PAGE, page, private=True)
    return Path(out_dir) / EVALUATION_PAGE


def write_comparison(
    comparison: Comparison, metrics: tuple[Metrics, Metrics], out_dir: Path, benchmark: str = "", biased: str = ""
) -> Path:
    """comparison.json and comparison.html; returns the page's path. `biased` says why the comparison would mislead."""
    page = render(
        "comparison.html.j2",
        title=f"{comparison.second} against {comparison.first}",
        comparison=comparison,
        benchmark=benchmark,
        biased=biased,
        answer=sentence("answer", comparison=comparison, act="is right"),
        answer_zh=sentence("answer_zh", comparison=comparison),
        second_opinion=sentence("second_opinion", comparison=comparison),
        reach=reach_of(comparison),
        outcomes=parts.outcome_rows(*metrics),
    )
    write_text(Path(out_dir) / COMPARISON, comparison.model_dump_json(indent=1) + "\n")
    write_text(Path(out_dir) / COMPARISON_PAGE, page, private=True)
    return Path(out_dir) / COMPARISON_PAGE


def reach_of(comparison: Comparison) -> float:
    """Half-width of the difference axis: the intervals of all larger strata fit."""
    rows = [result for strata in comparison.by.values() for result in strata.values() if result.n >= 20]
    return reach([(result.low, result.high) for result in [comparison.overall, *rows]])


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


class _Run:
    """What the steps left, as objects."""

    def __init__(self, inputs: ReportInputs) -> None:
        self.inputs = inputs
        self.cases = read_cases(inputs.records / "test.jsonl")
        self.algorithm = parts.algorithm_of(inputs.ppo)
        tuned = parts.tuned_name(inputs.sft)
        folders = {tuned: inputs.sft_predictions, f"{tuned} + {self.algorithm}": inputs.ppo_predictions}
        self.sft, self.ppo = (read_jsonl(folder / PREDICTIONS, Prediction) for folder in folders.values())
        self.sft_metrics, self.ppo_metrics = (
            self._metrics(rows, name, folder)
            for rows, (name, folder) in zip((self.sft, self.ppo), folders.items(), strict=True)
        )
        self.comparison = compare(self.cases, self.sft, self.ppo, (self.sft_metrics.model, self.ppo_metrics.model))
        self.records = _read_json(inputs.records / "report.json")
        self.synthesis = _read_json(inputs.traces / "report.json") if inputs.traces else {}
        self.gate = _read_json(inputs.gate / GATE) if inputs.gate else {}
        read = {name: _read_json(folder / THINKING) for name, folder in folders.items()}
        self.curves = {name: Curve.model_validate(row) for name, row in read.items() if row}
        """Model -> accuracy against its thinking budget."""

    def _metrics(self, predictions: list[Prediction], name: str, folder: Path) -> Metrics:
        """Measured from the predictions, so that page and file cannot disagree; the evaluation's notes are kept."""
        metrics = measure(self.cases, predictions, name, "test")
        metrics.notes = [str(note) for note in _read_json(folder / METRICS).get("notes", [])]
        return metrics

    def seconds(self) -> dict[str, float]:
        """Of each step that says so."""
        told = self.inputs
        steps = (told.records, told.traces, told.sft, told.ppo, told.sft_predictions, told.ppo_predictions, told.gate)
        rows = [_read_json(folder / STEP_FILE) for folder in steps if folder]
        return {str(row["step"]): float(row["seconds"]) for row in rows if row} | told.seconds


def write_report(inputs: ReportInputs, out_dir: Path) -> dict[str, Any]:
    """Write report.html, summary.json and the model card into `out_dir`; returns the summary."""
    run = _Run(inputs)
    summary = _summary(run)
    page = _page(run, summary)
    out_dir = Path(out_dir)
    write_text(out_dir / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    write_text(out_dir / REPORT, page, private=True)
    card = CardInputs(
        name=inputs.run_name or "ClinicalGPT-R1",
        **inputs.model_dump(include={"base_model", "licence", "simulated", "simulated_teacher"}),
        metrics=run.ppo_metrics,
        comparison=run.comparison,
        summary=summary,
        gate=run.gate,
        hallucinated=hallucination_rate(run.cases, run.ppo),
    )
    write_model_card(card, out_dir)
    return summary


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise UserError(f"{path}: not JSON; run the step that writes it again") from None


def _summary(run: _Run) -> dict[str, Any]:
    inputs, records, overall = run.inputs, run.records, run.comparison.overall
    told = ("read", "malformed", "reject_reasons", "limited", "dropped", "leaks", "quarantined", "cases", "unused")
    difference = _difference(overall)
    p = difference.pop("p")
    other = run.comparison.independent
    return {
        "cases": records.get("cases", len(run.cases)),
        "splits": records.get("splits", {"test": len(run.cases)}),
        "traces": run.synthesis.get("traces", 0),
        "outcomes": run.synthesis.get("outcomes", {}),
        "imported_traces": bool(run.synthesis.get("imported")),
        "sft": _model_summary(run.sft_metrics),
        "ppo": _model_summary(run.ppo_metrics),
        "mcnemar_p": p,
        "difference": difference,
        "minimum_detectable_points": 100 * overall.minimum_detectable,
        "verdict": run.comparison.verdict,
        "independent_difference": None if other is None else _difference(other),
        "by_specialty": _strata(run.comparison.by.get("specialty", {})),
        "by_language": _strata(run.comparison.by.get("language", {})),
        "thinking": {name: curve.summary() for name, curve in run.curves.items()},
        "gate": _gate(run.gate),
        "ceiling": inputs.ceiling,
        "simulated": inputs.simulated,
        "simulated_teacher": inputs.simulated_teacher,
        "phi_policy": records.get("phi", {}).get("policy", ""),
        "records": {key: records[key] for key in (*told, "icd10", "lost", "phi", "sources") if key in records},
        "algorithm": run.algorithm,
        "learning": _learning(run),
        "hyperparameters": parts.hyperparameters(inputs.sft, inputs.ppo),
        "seconds": run.seconds(),
        "intended_use": "research and clinician decision support; not a medical device, no autonomous diagnosis",
    }


def _learning(run: _Run) -> dict[str, Any]:
    """How much of RL changed the weights (as its step says), and what has to be said of it."""
    found = _read_json(run.inputs.ppo / STEP_FILE).get("metrics", {}) if run.inputs.ppo else {}
    keys = ("steps", "steps_planned", "steps_updated", "kept_step", "stop_reason")
    known = {key: found[key] for key in keys if key in found}
    told = known if "steps_updated" in known else None
    return {**known, "said": sentence("learning", algorithm=run.algorithm, told=told)}


def _gate(gate: dict[str, Any]) -> dict[str, Any]:
    """The decision for machines: what, and each rule that did not pass with its reason."""
    failed = [rule for rule in gate.get("rules", []) if rule["result"] != "pass"]
    return {
        "decision": gate.get("decision", ""),
        "against": gate.get("against", ""),
        "reasons": [f"{rule['rule']}: {rule['reason']}" for rule in failed],
        "forgetting_unread": gate.get("unread", {}),
    }


def _difference(result: PairedResult) -> dict[str, float]:
    return {"points": 100 * result.difference, "low": 100 * result.low, "high": 100 * result.high, "p": result.p_exact}


def _model_summary(metrics: Metrics) -> dict[str, Any]:
    overall, other = metrics.overall, metrics.overall.independent
    judged = {f"independent_{key}": value for key, value in _rate(other).items()} if other else {}
    return {
        **_rate(overall),
        **{name: getattr(overall, name) for name in ("low", "high", "n", "unscored", "bounds")},
        **(judged or {"independent_accuracy": None}),
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


def _strata(results: dict[str, PairedResult]) -> dict[str, Any]:
    names = {"n": "n", "sft": "first_accuracy", "ppo": "second_accuracy"}
    names |= {name: name for name in ("difference", "low", "high", "p_holm", "minimum_detectable")}
    return {stratum: {key: getattr(result, name) for key, name in names.items()} for stratum, result in results.items()}


def _page(run: _Run, summary: dict[str, Any]) -> str:
    inputs, comparison, reinforced = run.inputs, run.comparison, run.ppo_metrics.model
    models = (("SFT", run.sft, "sft"), (reinforced, run.ppo, "ppo"))
    return render(
        "train.html.j2",
        title=inputs.title,
        inputs=inputs,
        summary=summary,
        comparison=comparison,
        gate=run.gate,
        sft=run.sft_metrics,
        ppo=run.ppo_metrics,
        answer=sentence("answer", comparison=comparison),
        answer_zh=sentence("answer_zh", comparison=comparison),
        second_opinion=sentence("second_opinion", comparison=comparison),
        flow=_flow(run, summary),
        hyperparameters=summary["hyperparameters"],
        figures=parts.read_curves(inputs.sft, inputs.ppo),
        lengths=histogram([(name, [row.reasoning_tokens for row in rows], css) for name, rows, css in models]),
        outcomes=parts.outcome_rows(run.sft_metrics, run.ppo_metrics),
        undecided=sentence("undecided", models=[run.sft_metrics, run.ppo_metrics]),
        traces=parts.sample_traces(inputs.traces / "traces.jsonl", inputs.samples) if inputs.traces else [],
        predictions=parts.sample_predictions(run.cases, run.sft, run.ppo, inputs.samples, reinforced),
        rollouts=parts.sample_rollouts(inputs.ppo, inputs.samples),
        reach=reach_of(comparison),
        curves=list(run.curves.items()),
    )


def _flow(run: _Run, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done, as (number, words)."""
    outcomes = summary["outcomes"]
    flow = [(f"{summary['cases']:,}", "cases, divided into four disjoint splits by patient")]
    if outcomes:
        first = outcomes.get("direct", 0)
        how = (
            f"verified reasoning traces ({first:,} right at first, {outcomes.get('recovered', 0):,} after a retry, "
            f"{outcomes.get('guided', 0):,} guided by the reference)"
        )
        if summary["imported_traces"]:
            others = outcomes.get("unverified", 0)
            how = f"reasoning traces of others ({first:,} found right by a verifier, {others:,} not verified)"
        flow.append((f"{summary['traces']:,}", f"{how}; {outcomes.get('rejected', 0):,} rejected"))
    if trained := run.records.get("splits", {}).get("rl"):
        how = f"other cases for reinforcement learning ({run.algorithm}) with a verifier's reward"
        flow.append((f"{trained:,}", how))
    flow.append((f"{len(run.cases):,}", "test cases that no training step has seen, opened once"))
    return flow
