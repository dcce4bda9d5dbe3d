"""Steps 3 to 5: where SFT starts, supervised fine-tuning (paper section 2.2.1), PPO by the verifier (2.2.2)."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def base_model(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    state_dir: str = "",
) -> NamedTuple("Outputs", [("folder", str)]):  # type: ignore[valid-type]
    """Check the configured folder, or make the tiny model (its tokenizer learns from the `sft` split).

    An empty `config` is that of an experiment that trains nothing.
    """
    import hashlib
    from pathlib import Path

    from clinical_r1.atomic import file_sha256
    from clinical_r1.step import load_settings, record_step
    from clinical_r1.training.base import BaseModelConfig, resolve_base_model

    with record_step("base_model", model.path) as record:
        if not config:
            return ("",)
        texts = [Path(splits.path) / "sft.jsonl", Path(traces.path) / "traces.jsonl"]
        settings = load_settings(BaseModelConfig, config)
        # By its path: every step that takes an artifact downloads it. All steps of a run see `state_dir`, and so may
        # those of another run, whose traces give a tiny model another tokenizer.
        made_of = [config, *([] if settings.folder else map(file_sha256, texts))]
        version = f"{code_version}-{hashlib.sha256(''.join(made_of).encode()).hexdigest()[:8]}"
        shared = Path(state_dir) / "base-model" if state_dir else Path(model.path)
        folder = resolve_base_model(settings, texts, shared / version)
        record["folder"] = str(folder)
    return (str(folder),)


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

    With a `job` (`plan_nodes`) a TrainJob runs it, whose first node sends the model to the output's URI.
    """
    from pathlib import Path

    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.checkpoints import release
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

    With a `job` (`plan_nodes`) a TrainJob runs it, whose first node sends the model to the output's URI.
    """
    from pathlib import Path

    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, publish_metrics, record_step
    from clinical_r1.training.checkpoints import release
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.ppo.run import train_ppo

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
