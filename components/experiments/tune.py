"""Fine-tuning that starts from a model of an earlier step (components/sft.py starts from a folder).

In a loop kfp.local 2.17 hands over the loop item in place of an upstream step's output parameter; artifacts pass.
"""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def fine_tune_further(
    config: str,
    state_dir: str,
    code_version: str,
    traces: dsl.Input[dsl.Dataset],
    start: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """TRL SFTTrainer as in `fine_tune`, from the model in `start`, or the one that its step names."""
    from pathlib import Path

    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.base import model_of
    from clinical_r1.training.checkpoints import release
    from clinical_r1.training.sft.config import SFTConfig
    from clinical_r1.training.sft.run import train_sft

    with record_step("sft_further", model.path) as record:
        state = Path(state_dir) / f"sft-{code_version}"
        source = Path(traces.path) / "traces.jsonl"
        settings = load_settings(SFTConfig, config)
        folder = model_of(Path(start.path))
        record.update(train_sft(settings, source, folder, Path(model.path), state))
    publish_metrics(record, metrics)
    release(state)
