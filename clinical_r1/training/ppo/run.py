"""The PPO step: what the pipeline and the command line call."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.store import open_store
from clinical_r1.training.base import check_rates
from clinical_r1.training.deepspeed import check_attention, check_requirements
from clinical_r1.training.launcher import launch_job, node_count
from clinical_r1.training.metrics import check_trackers
from clinical_r1.training.ppo.config import PPOConfig, PPOJob
from clinical_r1.training.vllm_server import memory_for, vllm_server
from clinical_r1.verifier.config import tell_of_rules_alone


def train_ppo(
    config: PPOConfig, model: Path, cases: Path, validation: Path, out_dir: Path, state_dir: Path
) -> dict[str, Any]:
    """Reinforce an SFT model with the verifier's reward (paper section 2.2.2).

    Writes out_dir/{model/, config.json, metrics.jsonl, curves.svg}. The same call with the same `state_dir` goes on
    from the last checkpoint.

    Returns:
        First and last reward, KL, length, ..., validation accuracy before and after, steps, seconds, stop_reason.

    Raises:
        UserError: wrong input, a judge that may not have these cases, out of memory, or a broken run (the sentence
            names the log).
        Stopped: by SIGTERM after writing a checkpoint.
    """
    check_rates(config, check_model_folder(model).parameters)
    check_attention(config.attention, config.dtype)
    check_requirements(config.deepspeed)
    check_trackers(config.tracking)
    if config.checkpoints:
        open_store(config.checkpoints)
    for path in (cases, validation):
        if not path.is_file():
            raise UserError(f"{path}: no such file; RL needs the rl and validation splits of the records step")
        config.judge.check_privacy(path)
    undecided = "an undecided answer earns nothing and teaches nothing; name a model in ppo.judge"
    tell_of_rules_alone(config.judge.verifier, undecided)
    paths = {"model": model, "cases": cases, "validation": validation, "out_dir": out_dir, "state_dir": state_dir}
    job = PPOJob(config=config, **{name: path.resolve() for name, path in paths.items()})
    config.accumulation(config.processes * node_count())
    with _rollout_server(job) as ready:
        return launch_job(
            "clinical_r1.training.ppo.main", ready, job.state_dir, config.processes, label=config.algorithm
        )


@contextmanager
def _rollout_server(job: PPOJob) -> Iterator[PPOJob]:
    """The job with the address of a server that is started for it, if it wants one."""
    told = job.config.rollout
    if told.engine != "vllm" or told.vllm_url:
        yield job
        return
    if node_count() > 1:
        raise UserError("ppo.rollout.vllm_python starts a server on one node; for several nodes give vllm_url")
    log_path = job.state_dir.with_name(f"{job.state_dir.name}.vllm.log")
    server = vllm_server(told.vllm_python, told.vllm_arguments, job.model, log_path)
    with memory_for(job.model, job.state_dir), server as url:
        ready = told.model_copy(update={"vllm_url": url})
        yield job.model_copy(update={"config": job.config.model_copy(update={"rollout": ready})})
