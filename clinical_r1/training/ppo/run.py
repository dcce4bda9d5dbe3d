"""The PPO step: what the pipeline and the command line call."""

from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.training.base import check_rates
from clinical_r1.training.deepspeed import check_attention, check_requirements
from clinical_r1.training.launcher import launch_job, node_count
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.job import PPOJob
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
        Preempted: stopped by SIGTERM after writing a checkpoint.
    """
    check_rates(config, check_model_folder(model).parameters)
    check_attention(config.attention, config.dtype)
    check_requirements(config.deepspeed)
    for path in (cases, validation):
        if not path.is_file():
            raise UserError(f"{path}: no such file; PPO needs the rl and validation splits of the records step")
        config.judge.check_privacy(path)
    undecided = "an undecided answer earns nothing and teaches nothing; name a model in ppo.judge"
    tell_of_rules_alone(config.judge.verifier, undecided)
    paths = {"model": model, "cases": cases, "validation": validation, "out_dir": out_dir, "state_dir": state_dir}
    job = PPOJob(config=config, **{name: path.resolve() for name, path in paths.items()})
    config.accumulation(config.processes * node_count())
    return launch_job("clinical_r1.training.ppo.main", job, job.state_dir, config.processes, label="ppo")
