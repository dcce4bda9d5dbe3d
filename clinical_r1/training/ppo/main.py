"""A training process of PPO, started by launcher.py: `python -m clinical_r1.training.ppo.main --config job.json`.

Under several nodes every process runs the same command; the rendezvous comes from the environment.
"""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinical_r1.atomic import write_text
from clinical_r1.charts import Panel, read_metrics, series, write_curves
from clinical_r1.errors import UserError
from clinical_r1.rewards import reward_table
from clinical_r1.training.checkpoints import claim_state
from clinical_r1.training.deepspeed import check_attention, check_requirements, join_group
from clinical_r1.training.group import StopRequest, rank, trainee, world_size
from clinical_r1.training.launcher import RESULT_FILE
from clinical_r1.training.metrics import METRICS_FILE
from clinical_r1.training.ppo.config import PPOJob

if TYPE_CHECKING:  # what it imports has to wait for join_group
    from clinical_r1.training.ppo.probe import Watch

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


def publish(job: PPOJob, watch: "Watch", too_long: int) -> dict[str, Any]:
    """Write config.json and curves.svg into the output folder (metrics are there); returns the run's numbers."""
    rows = read_metrics(job.state_dir / METRICS_FILE)
    job.out_dir.mkdir(parents=True, exist_ok=True)
    write_text(job.out_dir / "config.json", job.config.model_dump_json(indent=1) + "\n")
    write_curves(rows, PANELS, job.out_dir / "curves.svg")
    summary = summarize(rows, watch)
    return summary | {
        "algorithm": job.config.algorithm,
        "steps_planned": job.config.steps,
        "kept_step": watch.best_step if job.config.keep == "best" else summary["steps"],
        "prompts_too_long": too_long,
    }


def summarize(rows: list[dict[str, Any]], watch: "Watch") -> dict[str, Any]:
    """First and last values of what matters, the probes before and after, and why the run ended."""
    summary: dict[str, Any] = {
        "steps": max((row["step"] for row in rows), default=0),
        "steps_updated": int(sum(series(rows, "train/updated")[1])),
        "stop_reason": watch.stop_reason,
        "best_step": watch.best_step,
        "best_validation_accuracy": watch.best_accuracy,
    }
    ends = {
        "reward": "train/reward", "kl": "train/kl", "length": "train/length", "entropy": "train/entropy",
        "reasoning_rate": "train/reasoning_rate", "explained_variance": "critic/explained_variance",
    }  # fmt: skip
    for name, key in ends.items():
        values = series(rows, key)[1]
        if values:
            first, last = values[:ENDS], values[-ENDS:]
            summary[f"{name}_first"], summary[f"{name}_last"] = sum(first) / len(first), sum(last) / len(last)
    for name in ("validation", "forgetting"):
        values = series(rows, f"{name}/accuracy")[1]
        if values:
            summary[f"{name}_accuracy_before"], summary[f"{name}_accuracy_after"] = values[0], values[-1]
    for name in ("validation", "forgetting"):
        values = series(rows, f"{name}/undecided_share")[1]
        if any(values):
            summary[f"{name}_undecided_before"], summary[f"{name}_undecided_after"] = values[0], values[-1]
    summary["masked_judgements"] = sum(series(rows, "train/masked")[1])
    for phase in ("step", "rollout", "forward", "verify", "policy", "value", "probe"):
        summary[f"seconds_{phase}"] = sum(series(rows, f"time/{phase}")[1])
    return summary


def main() -> None:
    """Command line."""
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
    from clinical_r1.training.ppo.batch import PromptSet, load_prompts
    from clinical_r1.training.ppo.engines import build_engines
    from clinical_r1.training.ppo.probe import probe_judge
    from clinical_r1.training.ppo.saving import export, fit_newest
    from clinical_r1.training.ppo.scoring import JudgeThread
    from clinical_r1.training.ppo.trainer import Trainer
    from clinical_r1.training.preflight import check_here, gpu_peak

    remote = claim_state(job, job.state_dir)
    config = job.config
    check_here(config, job.model, world_size(), job.state_dir)
    engines = build_engines(config, job.model, fit_newest(job.state_dir))
    if config.rollout.engine == "vllm":
        from clinical_r1.training.ppo.vllm_rollout import VLLMSampler

        sampler: Any = VLLMSampler(config.rollout, engines, job.state_dir)
    else:
        sampler = Decoder(engines.policy.model, config.rollout.batch_tokens)
    window = engines.policy.causal.config.max_position_embeddings

    def load(path: Path, limit: int | None = None) -> PromptSet:
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
    forgetting = None
    if config.probe.forgetting_cases:
        forgetting = load(Path(config.probe.forgetting_cases), config.probe.forgetting_limit)
    # Beside the state folder, which a changed setting empties; a journal belongs to one machine.
    calls_dir = job.state_dir.with_name(f"{job.state_dir.name}.calls") / f"node-{os.environ.get('GROUP_RANK', '0')}"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    with JudgeThread(config.judge, calls_dir, world_size(), here) as judge:
        known = probe_judge(config, judge, prompts.cases) if rank() == 0 and config.steps else {}
        trainer = Trainer(config, engines, sampler, judge, prompts, validation, forgetting, job.state_dir, stop)
        trainer.remote = remote
        trainer.run()
    best = trainer.watch.best_step if config.keep == "best" else None
    export(engines, job.model, job.state_dir, job.out_dir / "model", best)
    if rank() == 0:
        assert trainer.metrics is not None
        trainer.metrics.publish(job.out_dir)
        metrics = publish(job, trainer.watch, prompts.too_long) | known | gpu_peak(config, job.model, world_size())
        write_text(job.state_dir / RESULT_FILE, json.dumps(metrics, indent=1) + "\n")


if __name__ == "__main__":
    main()
