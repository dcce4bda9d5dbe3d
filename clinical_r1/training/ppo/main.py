"""A training process of PPO, started by torchrun: `python -m clinical_r1.training.ppo.main --config job.json`.

Under several nodes every process runs the same command; the rendezvous comes from the environment.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.training import checkpoints
from clinical_r1.training.deepspeed import check_attention, check_requirements, init_process_group, prepare_environment
from clinical_r1.training.launcher import RESULT_FILE
from clinical_r1.training.ppo.job import PPOJob
from clinical_r1.training.trainee import StopRequest, trainee


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="One training process of PPO (start it with torchrun).")
    parser.add_argument("--config", type=Path, required=True, help="a PPOJob as JSON")
    arguments = parser.parse_args()
    with trainee() as stop:
        job = PPOJob.model_validate_json(arguments.config.read_text(encoding="utf-8"))
        check_attention(job.config.attention, job.config.dtype)
        check_requirements(job.config.deepspeed)
        prepare_environment()
        init_process_group()
        train(job, stop)


def train(job: PPOJob, stop: StopRequest) -> None:
    """The whole job in this process group: claim the state folder, train, export, leave `result.json`."""
    from clinical_r1.generation.decoder import build_decoder
    from clinical_r1.training.ppo.data import PromptSet, load_prompts
    from clinical_r1.training.ppo.engines import build_engines, rank, world_size
    from clinical_r1.training.ppo.saving import export
    from clinical_r1.training.ppo.scoring import JudgeThread
    from clinical_r1.training.ppo.summary import publish
    from clinical_r1.training.ppo.trainer import Trainer
    from clinical_r1.training.preflight import check_here, gpu_peak

    _claim(job)
    config = job.config
    check_here(config, job.model, world_size())
    engines = build_engines(config, job.model)
    if config.rollout.engine == "vllm":
        from clinical_r1.training.ppo.vllm_rollout import VLLMSampler

        sampler: Any = VLLMSampler(config.rollout, engines, job.state_dir)
    else:
        sampler = build_decoder(engines.policy.model, config.rollout.batch_tokens)
    window = engines.policy.causal.config.max_position_embeddings

    def load(path: Path, limit: int | None = None) -> PromptSet:
        return load_prompts(path, engines.tokenizer, window, config.rollout.max_new_tokens, limit)

    prompts, validation = load(job.cases), load(job.validation, config.probe.cases)
    forgetting = None
    if config.probe.forgetting_cases:
        forgetting = load(Path(config.probe.forgetting_cases), config.probe.forgetting_limit)
    # beside the state folder, which a changed setting empties; a journal belongs to one process
    calls_dir = job.state_dir.with_name(f"{job.state_dir.name}.calls") / f"rank-{rank()}"
    with JudgeThread(config.judge, calls_dir) as judge:
        trainer = Trainer(config, engines, sampler, judge, prompts, validation, forgetting, job.state_dir, stop)
        trainer.run()
    best = trainer.watch.best_step if config.keep == "best" else None
    export(engines, job.model, job.state_dir, job.out_dir / "model", best)
    if rank() == 0:
        assert trainer.metrics is not None
        trainer.metrics.publish(job.out_dir)
        metrics = publish(job, trainer.watch, prompts.too_long) | gpu_peak(config, job.model, world_size())
        write_text(job.state_dir / RESULT_FILE, json.dumps(metrics, indent=1) + "\n")


def _claim(job: PPOJob) -> None:
    """Rank 0 makes the state folder this run's own; the others wait."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_rank() == 0:
        if job.state_dir.resolve() == job.out_dir.resolve():
            raise UserError(f"{job.out_dir}: state and output folder are the same; give two folders")
        world = dist.get_world_size() if dist.is_initialized() else 1
        checkpoints.claim(
            job.state_dir, job.identity(), {"processes": world, "deepspeed.stage": job.config.deepspeed.stage}
        )
    if dist.is_initialized():
        dist.barrier()


if __name__ == "__main__":
    main()
