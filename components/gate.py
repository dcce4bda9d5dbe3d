"""Step 7: promote, hold or refuse, by a policy file; and the reasoning baseline that travels with the model."""

from kfp import dsl


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
