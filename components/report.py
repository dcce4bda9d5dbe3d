"""Step 8: one page that a clinician can read, one summary for machines, the model card."""

from kfp import dsl


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
