"""Step 6: a checkpoint answers the `test` split and is judged twice."""

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
    from clinical_r1.evaluation.judging.agreement import of_judges, show
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
