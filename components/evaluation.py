"""Steps 6 to 8: a checkpoint answers and is judged, the gate decides, a report says so; the audit of served answers."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def evaluate_model(
    name: str,
    config: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    predictions: dsl.Output[dsl.Dataset],
    judges: dsl.Output[dsl.ClassificationMetrics],
    metrics: dsl.Output[dsl.Metrics],
    simulator: str = "",
):
    """Predictions and their verdicts by the reward judge and by an independent one; `judges` is how the two agree."""
    from pathlib import Path

    from clinical_r1.evaluation.config import EvaluationConfig
    from clinical_r1.evaluation.judging.audit import of_judges, show
    from clinical_r1.evaluation.run import evaluate
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step

    with record_step(f"evaluate_{name}", predictions.path) as record, simulated(simulator):
        cases = Path(splits.path) / "test.jsonl"
        state = Path(state_dir) / f"evaluate-{name}-{code_version}"
        folder = Path(model.path) / "model"
        settings = load_settings(EvaluationConfig, config)
        record.update(evaluate(settings, folder, cases, Path(predictions.path), state))
    show(of_judges(Path(predictions.path)), judges)
    publish_metrics(record, metrics)


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def gate_model(
    config: str,
    evaluation: str,
    base_model_folder: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Dataset],
    decision: dsl.Output[dsl.Dataset],
    promotion_gate: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    simulator: str = "",
):
    """The model in use (or the base model) answers the test cases too; base and candidate answer a forgetting probe."""
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.evaluation.config import EvaluationConfig
    from clinical_r1.evaluation.promotion.gate import GATE_PAGE
    from clinical_r1.evaluation.promotion.policy import GateConfig
    from clinical_r1.evaluation.promotion.run import run_gate
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step

    with record_step("gate", decision.path) as record, simulated(simulator):
        settings, sampling = load_settings(GateConfig, config), load_settings(EvaluationConfig, evaluation)
        folder, state = Path(decision.path), Path(state_dir) / f"gate-{code_version}"
        models = (Path(base_model_folder), Path(model.path) / "model")
        cases = Path(splits.path) / "test.jsonl"
        result = run_gate(settings, sampling, models, Path(predictions.path), cases, folder, state)
        results = [rule.result for rule in result.rules]
        record.update({"decision": result.decision, "rules": {rule.rule: rule.result for rule in result.rules}})
        # The dashboard compares numbers only.
        record["promote"] = result.decision == "promote"
        record["rules_that"] = {what: results.count(what) for what in ("pass", "hold", "refuse")}
        write_text(promotion_gate.path, (folder / GATE_PAGE).read_text(encoding="utf-8"))
    publish_metrics(record, metrics)


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def write_train_report(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    sft_model: dsl.Input[dsl.Model],
    ppo_model: dsl.Input[dsl.Model],
    sft_predictions: dsl.Input[dsl.Dataset],
    ppo_predictions: dsl.Input[dsl.Dataset],
    decision: dsl.Input[dsl.Dataset],
    report: dsl.Output[dsl.Dataset],
    training_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """`report` holds page, summary.json and MODEL_CARD.md; `training_report` is for the dashboard."""
    import json
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.evaluation.pages.report import REPORT, ReportInputs, write_report
    from clinical_r1.step import publish_metrics, record_step

    with record_step("report", report.path) as record:
        inputs = ReportInputs(
            **json.loads(config),
            records=splits.path,
            traces=traces.path,
            sft=sft_model.path,
            ppo=ppo_model.path,
            sft_predictions=sft_predictions.path,
            ppo_predictions=ppo_predictions.path,
            gate=decision.path,
            code_version=code_version,
        )
        record.update(write_report(inputs, Path(report.path)))
        write_text(training_report.path, (Path(report.path) / REPORT).read_text(encoding="utf-8"))
    publish_metrics({name: record[name] for name in ("mcnemar_p", "sft", "ppo")}, metrics)


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def audit_answers(
    config: str,
    state_dir: str,
    code_version: str,
    report: dsl.Output[dsl.Dataset],
    audit_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """`report` holds audit.html and audit.json, without any text of a sample; `audit_report` is for the dashboard."""
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.evaluation.judging.online import REPORT, OnlineAuditConfig, audit_served
    from clinical_r1.step import load_settings, publish_metrics, record_step

    with record_step("audit", report.path) as record:
        state = Path(state_dir) / f"audit-{code_version}"
        record.update(audit_served(load_settings(OnlineAuditConfig, config), Path(report.path), state))
        write_text(audit_report.path, (Path(report.path) / REPORT).read_text(encoding="utf-8"))
    publish_metrics({name: record[name] for name in ("samples", "with_reference")}, metrics)
