"""What experiments add to the steps of `train`: the arms' data, training and evaluation of one arm, the report.

Each takes its settings as JSON (clinical_r1/runs/arms.py); empty ones are those of an experiment without this step.
"""

from typing import List  # noqa: UP035  (kfp reads List, not list, in an artifact annotation)

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def prepare_arms_data(
    settings: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    arms_splits: dsl.Output[dsl.Dataset],
    arms_traces: dsl.Output[dsl.Dataset],
    simulator: str = "",
):
    """Splits and traces of the arms: those of the reference, or with a leak, other records, another synthesizer."""
    from pathlib import Path

    from clinical_r1.runs.arms import ArmsData, prepare_data
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, record_step

    with record_step("arms_data", arms_splits.path) as record, simulated(simulator):
        told = load_settings(ArmsData, settings or "{}")
        made = (Path(splits.path), Path(traces.path))
        record.update(
            prepare_data(told, made, (Path(arms_splits.path), Path(arms_traces.path)), Path(state_dir), bool(simulator))
        )


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def train_arm(
    settings: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    reference: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    trained_on: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    simulator: str = "",
):
    """SFT on a selection of the traces, or RL, from the base model or from the reference.

    Models come as artifacts: in a loop kfp.local 2.17 hands over the loop item in place of an output parameter.
    """
    from pathlib import Path

    from clinical_r1.evaluation.experiments.selection import select_traces
    from clinical_r1.runs.arms import Training
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.base import model_of
    from clinical_r1.training.checkpoints import release

    data, chosen, out = Path(splits.path), Path(trained_on.path), Path(model.path)
    with record_step("train", out) as record, simulated(simulator):
        told = load_settings(Training, settings or "{}")
        state = Path(state_dir) / f"{'ppo' if told.ppo else 'sft'}-{code_version}"
        chosen.mkdir(parents=True, exist_ok=True)
        if told.sft or told.ppo:
            start = model_of(Path((base if told.start == "base" else reference).path))
        if told.sft:
            from clinical_r1.training.sft.run import train_sft

            record["selection"] = select_traces(told.select, data, Path(traces.path), chosen)
            record.update(train_sft(told.sft, chosen / "traces.jsonl", start, out, state))
        elif told.ppo:
            from clinical_r1.training.ppo.run import train_ppo

            record.update(train_ppo(told.ppo, start, data / "rl.jsonl", data / "validation.jsonl", out, state))
    publish_metrics(record, metrics)
    trained = told.sft or told.ppo
    release(state, trained.checkpoints if trained else "")


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def evaluate_arm(
    name: str,
    settings: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    predictions: dsl.Output[dsl.Dataset],
    judges: dsl.Output[dsl.ClassificationMetrics],
    metrics: dsl.Output[dsl.Metrics],
    simulator: str = "",
):
    """The trained model, or one behind an endpoint, answers the `test` split and is judged; where the arm is a judge,
    it is audited on labelled answers too.

    `judges` is the dashboard's picture: the audit's confusion, else how the two judges agree.
    """
    from pathlib import Path

    from clinical_r1.evaluation.judging.audit import audit_judge, of_audit, of_judges, show
    from clinical_r1.evaluation.run import evaluate
    from clinical_r1.runs.arms import Trial
    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.base import model_of

    out, matrix = Path(predictions.path), None
    with record_step(f"evaluate_{name}", out) as record, simulated(simulator):
        told, state = load_settings(Trial, settings or "{}"), Path(state_dir)
        if told.judge:
            audit = audit_judge(told.judge, Path(told.labelled), out / "audit", state / f"audit-{code_version}")
            record["audit"] = audit.model_dump(mode="json", include={"n", "kappa", "sensitivity", "specificity"})
            matrix = of_audit(audit)
        if told.evaluation:
            asked = told.endpoint or model_of(Path(model.path))
            folder = state / f"evaluate-{'endpoint' if told.endpoint else name}-{code_version}"
            record.update(evaluate(told.evaluation, asked, Path(splits.path) / "test.jsonl", out, folder))
            matrix = matrix or of_judges(out)
    show(matrix, judges)
    publish_metrics(record, metrics)


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def write_experiment_report(
    experiment: str,
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    arms_traces: dsl.Input[dsl.Dataset],
    reference_trained_on: dsl.Input[dsl.Dataset],
    reference: dsl.Input[dsl.Dataset],
    trained_on: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    runs: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    report: dsl.Output[dsl.Dataset],
    experiment_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """result.json and report.html: the report of that name in clinical_r1/evaluation/experiments compares the arms."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.finding import Evidence, publish
    from clinical_r1.evaluation.experiments.reports import REPORTS
    from clinical_r1.step import load_settings, record_step

    with record_step("report", report.path) as record:
        told, write = REPORTS[experiment]
        evidence = Evidence(
            splits=Path(splits.path),
            traces=(Path(traces.path), Path(arms_traces.path)),
            reference=Path(reference.path),
            runs=[Path(run.path) for run in runs],
            trained_on=[Path(one.path) for one in [reference_trained_on, *trained_on]],
        )
        finding = write(load_settings(told, config), evidence, Path(report.path))
        record.update(publish(finding, Path(report.path), experiment_report, metrics))
