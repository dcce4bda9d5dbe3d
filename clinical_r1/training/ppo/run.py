"""The PPO step, which the pipeline and the command line call, and the training processes that it starts by launcher.py:
`python -m clinical_r1.training.ppo.run --config job.json`.

Under several nodes every process runs the same command; the rendezvous comes from the environment.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinical_r1.atomic import write_text
from clinical_r1.charts import Panel, read_metrics, series, write_curves
from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.store import open_store
from clinical_r1.rewards import reward_table
from clinical_r1.training.base import check_rates
from clinical_r1.training.checkpoints import claim_state
from clinical_r1.training.deepspeed import check_attention, check_requirements, join_group
from clinical_r1.training.group import StopRequest, rank, trainee, world_size
from clinical_r1.training.launcher import RESULT_FILE, launch_job, node_count
from clinical_r1.training.metrics import METRICS_FILE, check_trackers
from clinical_r1.training.ppo.config import PPOConfig, PPOJob
from clinical_r1.training.vllm_server import memory_for, vllm_server
from clinical_r1.verifier.config import tell_of_rules_alone

if TYPE_CHECKING:  # what it imports has to wait for join_group
    from clinical_r1.training.ppo.batch import PromptSet
    from clinical_r1.training.ppo.probe import CollapseWatch

PANELS = [
    Panel("reward", ("train/reward", "train/accuracy"), ("reward", "correct")),
    Panel("validation accuracy (greedy)", ("validation/accuracy",)),
    Panel("KL from the SFT model, nats an episode", ("train/kl",)),
    Panel("tokens", ("train/length", "train/reasoning_tokens"), ("completion", "reasoning")),
    Panel("share with reasoning", ("train/reasoning_rate",)),
    Panel("entropy, nats a token", ("train/entropy",)),
    Panel("explained variance of the critic", ("critic/explained_variance",)),
    Panel("clipped share", ("train/clip_fraction",)),
    Panel("gradient norm", ("train/grad_norm", "critic/grad_norm"), ("actor", "critic")),
    Panel("forgetting probe (multiple choice)", ("forgetting/accuracy",)),
]
ENDS = 10
"""First and last values are means over so many steps: single steps are noisy."""


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
            "clinical_r1.training.ppo.run", ready, job.state_dir, config.processes, label=config.algorithm
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


def main() -> None:
    """Command line of a training process."""
    parser = argparse.ArgumentParser(description="One training process of PPO (several: start them with torchrun).")
    parser.add_argument("--config", type=Path, required=True, help="a PPOJob as JSON")
    arguments = parser.parse_args()
    with trainee() as stop:
        job = PPOJob.model_validate_json(arguments.config.read_text(encoding="utf-8"))
        check_attention(job.config.attention, job.config.dtype)
        check_requirements(job.config.deepspeed)
        join_group()
        train(job, stop)


def train(job: PPOJob, stop: StopRequest) -> None:
    """The whole job in this process group: claim the state folder, train, export, leave `result.json`."""
    from clinical_r1.generation.decoder import Decoder
    from clinical_r1.training.ppo.engines import Engines, export, fit_newest
    from clinical_r1.training.ppo.probe import probe_judge
    from clinical_r1.training.ppo.scoring import JudgeThread
    from clinical_r1.training.ppo.trainer import Trainer
    from clinical_r1.training.ppo.vllm_rollout import VLLMSampler
    from clinical_r1.training.preflight import check_here, gpu_peak

    remote = claim_state(job, job.state_dir)
    config, rollout = job.config, job.config.rollout
    check_here(config, job.model, world_size(), job.state_dir)
    engines = Engines(config, job.model, fit_newest(job.state_dir))
    served = rollout.engine == "vllm"
    sampler: Any = VLLMSampler(rollout, engines, job.state_dir) if served else None
    sampler = sampler or Decoder(engines.policy.model, rollout.batch_tokens)
    prompts, validation, forgetting = _read_cases(job, engines)
    # Beside the state folder, which a changed setting empties; a journal belongs to one machine.
    calls_dir = job.state_dir.with_name(f"{job.state_dir.name}.calls") / f"node-{os.environ.get('GROUP_RANK', '0')}"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    with JudgeThread(config.judge, calls_dir, world_size(), here) as judge:
        known = probe_judge(config, judge, prompts.cases) if rank() == 0 and config.steps else {}
        trainer = Trainer(config, engines, sampler, judge, prompts, validation, forgetting, job.state_dir, stop, remote)
        trainer.run()
    best = trainer.watch.best_step if config.keep == "best" else None
    export(engines, job.model, job.state_dir, job.out_dir / "model", best)
    if rank() == 0:
        assert trainer.metrics is not None
        trainer.metrics.publish(job.out_dir)
        metrics = publish(job, trainer.watch, prompts.too_long) | known | gpu_peak(config, job.model, world_size())
        write_text(job.state_dir / RESULT_FILE, json.dumps(metrics, indent=1) + "\n")


def _read_cases(job: PPOJob, engines: Any) -> "tuple[PromptSet, PromptSet, PromptSet | None]":
    """Those that are trained on, those of validation and those of the forgetting probe; each says what it must."""
    from clinical_r1.training.ppo.batch import load_prompts

    config, window = job.config, engines.policy.causal.config.max_position_embeddings

    def load(path: Path, limit: int | None = None) -> "PromptSet":
        return load_prompts(path, engines.tokenizer, window, config.rollout.max_new_tokens, limit)

    prompts, validation = load(job.cases), load(job.validation, config.probe.cases)
    table = reward_table(config.reward_table)
    if lacking := table.without(prompts.cases):
        raise UserError(
            f"{job.cases}: case {lacking} has none of what the reward table pays ({', '.join(table.mix)}): give it a "
            "reference, options or a rubric, or take another reward_table"
        )
    if lacking := next((case.id for case in validation.cases if not case.references), ""):
        raise UserError(
            f"{job.validation}: case {lacking} has no reference, by which validation measures; leave it out"
        )
    probed = config.probe.forgetting_cases
    return prompts, validation, load(Path(probed), config.probe.forgetting_limit) if probed else None


def publish(job: PPOJob, watch: "CollapseWatch", too_long: int) -> dict[str, Any]:
    """Write config.json and curves.svg into the output folder (metrics are there); returns the run's numbers: first
    and last values of what matters, the probes before and after, and why the run ended."""
    rows = read_metrics(job.state_dir / METRICS_FILE)
    job.out_dir.mkdir(parents=True, exist_ok=True)
    write_text(job.out_dir / "config.json", job.config.model_dump_json(indent=1) + "\n")
    write_curves(rows, PANELS, job.out_dir / "curves.svg")
    steps = max((row["step"] for row in rows), default=0)
    summary: dict[str, Any] = {
        "steps": steps,
        "steps_updated": int(sum(series(rows, "train/updated")[1])),
        "stop_reason": watch.stop_reason,
        "best_step": watch.best_step,
        "best_validation_accuracy": watch.best_accuracy,
    }
    trained = [f"train/{name}" for name in ("reward", "kl", "length", "entropy", "reasoning_rate")]
    for key in (*trained, "critic/explained_variance"):
        name, values = key.split("/")[1], series(rows, key)[1]
        if values:
            first, last = values[:ENDS], values[-ENDS:]
            summary[f"{name}_first"], summary[f"{name}_last"] = sum(first) / len(first), sum(last) / len(last)
    for measure, word in (("accuracy", "accuracy"), ("undecided_share", "undecided")):
        for name in ("validation", "forgetting"):
            values = series(rows, f"{name}/{measure}")[1]
            if any(values) or (values and measure == "accuracy"):
                summary[f"{name}_{word}_before"], summary[f"{name}_{word}_after"] = values[0], values[-1]
    summary["masked_judgements"] = sum(series(rows, "train/masked")[1])
    for phase in ("step", "rollout", "forward", "verify", "policy", "value", "probe"):
        summary[f"seconds_{phase}"] = sum(series(rows, f"time/{phase}")[1])
    return summary | {
        "algorithm": job.config.algorithm,
        "steps_planned": job.config.steps,
        "kept_step": watch.best_step if job.config.keep == "best" else steps,
        "prompts_too_long": too_long,
    }


if __name__ == "__main__":
    main()
