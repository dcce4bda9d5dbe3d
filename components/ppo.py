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
    job: str = "",
    simulator: str = "",
):
    """Our own PPO on two DeepSpeed engines; sees `rl` and `validation`, never `test`.

    With a `job` (components/nodes.py) a TrainJob runs it, whose first node sends the model to the output's URI.
    """
    from pathlib import Path

    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.ppo.run import train_ppo
    from clinical_r1.training.remote import release

    with record_step("ppo", model.path) as record, simulated(simulator):
        state = Path(state_dir) / f"ppo-{code_version}"
        settings = load_settings(PPOConfig, config)
        if job:
            from clinical_r1.cluster.nodes import run_on_nodes
            from clinical_r1.training.launcher import read_result
            from clinical_r1.training.nodes import NodesWork

            files = {"cases": "rl.jsonl", "validation": "validation.jsonl"}
            inputs = {name: f"{splits.uri}/{file}" for name, file in files.items()}
            inputs["model"] = f"{sft_model.uri}/model"
            work = NodesWork(step="ppo", config=config, inputs=inputs, out=model.uri, state_dir=str(state))
            run_on_nodes("ppo", job, work.command(), settings.processes, model.uri)
            record.update(read_result(state))
        else:
            data, start = Path(splits.path), Path(sft_model.path) / "model"
            cases, validation = data / "rl.jsonl", data / "validation.jsonl"
            record.update(train_ppo(settings, start, cases, validation, Path(model.path), state))
    publish_metrics(record, metrics)
    release(state, settings.checkpoints)
