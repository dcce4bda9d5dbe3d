"""Step 5: PPO with the verifier's reward (paper section 2.2.2)."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def reinforce(
    config: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    sft_model: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Our own PPO on two DeepSpeed engines; sees `rl` and `validation`, never `test`."""
    from pathlib import Path

    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.ppo.run import train_ppo

    with record_step("ppo", model.path) as record:
        data = Path(splits.path)
        state = Path(state_dir) / f"ppo-{code_version}"
        start = Path(sft_model.path) / "model"
        settings = load_settings(PPOConfig, config)
        record.update(train_ppo(settings, start, data / "rl.jsonl", data / "validation.jsonl", Path(model.path), state))
    publish_metrics(record, metrics)
