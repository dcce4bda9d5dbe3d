"""Step 4: supervised fine-tuning on verified traces (paper section 2.2.1)."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def fine_tune(
    config: str,
    state_dir: str,
    code_version: str,
    traces: dsl.Input[dsl.Dataset],
    base_model_folder: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    job: str = "",
):
    """TRL SFTTrainer under DeepSpeed; checkpoints live in `state_dir` and outlive the step.

    With a `job` (components/nodes.py) a TrainJob runs it, whose first node sends the model to the output's URI.
    """
    from pathlib import Path

    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.remote import release
    from clinical_r1.training.sft.config import SFTConfig
    from clinical_r1.training.sft.run import train_sft

    with record_step("sft", model.path) as record:
        state = Path(state_dir) / f"sft-{code_version}"
        settings = load_settings(SFTConfig, config)
        if job:
            from clinical_r1.cluster.nodes import run_on_nodes
            from clinical_r1.training.launcher import read_result
            from clinical_r1.training.nodes import NodesWork

            inputs = {"traces": f"{traces.uri}/traces.jsonl", "base_model": base_model_folder}
            work = NodesWork(step="sft", config=config, inputs=inputs, out=model.uri, state_dir=str(state))
            run_on_nodes("sft", job, work.command(), settings.processes, model.uri)
            record.update(read_result(state))
        else:
            source = Path(traces.path) / "traces.jsonl"
            record.update(train_sft(settings, source, Path(base_model_folder), Path(model.path), state))
    publish_metrics(record, metrics)
    release(state, settings.checkpoints)
