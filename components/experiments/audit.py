"""A judge against labelled answers, and a model behind an endpoint as that judge sees it."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def audit_one_judge(
    judge: str,
    labelled: str,
    labelled_sha256: str,
    state_dir: str,
    code_version: str,
    audit: dsl.Output[dsl.Dataset],
    judge_confusion: dsl.Output[dsl.ClassificationMetrics],
    simulator: str = "",
):
    """audit.json and audit.html; `labelled_sha256` keys the cache to the content of the labelled file.

    `judge_confusion` is the picture of the dashboard: what the answers are against what the judge says.
    """
    import json
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.evaluation.audit import audit_judge
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, record_step
    from clinical_r1.verifier.config import JudgeConfig

    with record_step("audit", audit.path) as record, simulated(simulator):
        settings, state = load_settings(JudgeConfig, judge), Path(state_dir) / f"audit-{code_version}"
        found = audit_judge(settings, Path(labelled), Path(audit.path), state)
        record.update(found.model_dump(mode="json", include={"n", "kappa", "sensitivity", "specificity"}))
        counts = found.confusion
        rows = [("true_accept", "false_reject"), ("false_accept", "true_reject")]
        matrix = [[counts[kind] for kind in row] for row in rows]
        judge_confusion.log_confusion_matrix(["right", "wrong"], matrix)
        write_text(judge_confusion.path, json.dumps(counts) + "\n")


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def evaluate_endpoint(
    endpoint: str,
    config: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    simulator: str = "",
):
    """A model behind an OpenAI-compatible endpoint answers the `test` split and is judged."""
    from pathlib import Path

    from clinical_r1.evaluation.config import EvaluationConfig
    from clinical_r1.evaluation.run import evaluate
    from clinical_r1.llm.config import EndpointConfig
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step

    with record_step("evaluate_endpoint", predictions.path) as record, simulated(simulator):
        settings = load_settings(EvaluationConfig, config)
        model = load_settings(EndpointConfig, endpoint)
        state = Path(state_dir) / f"evaluate-endpoint-{code_version}"
        record.update(evaluate(settings, model, Path(splits.path) / "test.jsonl", Path(predictions.path), state))
    publish_metrics(record, metrics)
