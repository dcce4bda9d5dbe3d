"""One SFT process. Launch: torchrun --nproc-per-node N -m clinical_r1.training.sft.main --config job.json

Loads the base model and the accepted traces, trains with TRL under DeepSpeed, writes the model folder, the metrics and
the curves. Checkpoints go to state_dir: the same command goes on from the newest whole one.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from clinical_r1.atomic import file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder, identity
from clinical_r1.generation.load import load_config, load_tokenizer, save_model
from clinical_r1.training.checkpoints import claim, latest, prune, step_of
from clinical_r1.training.curves import Panel, write_curves
from clinical_r1.training.deepspeed import check_attention, check_requirements, init_process_group, prepare_environment
from clinical_r1.training.launcher import RESULT_FILE, report_progress
from clinical_r1.training.lora import save_adapters
from clinical_r1.training.metrics import METRICS_FILE, MetricsWriter, read_metrics
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.data import Example, hold_out, read_examples
from clinical_r1.training.trainee import Stopped, StopRequest, trainee

PANELS = [
    Panel("Loss", ("train/loss", "eval/loss"), ("training", "held out")),
    Panel("Token accuracy", ("train/token_accuracy", "eval/token_accuracy"), ("training", "held out")),
    Panel("Learning rate", ("train/learning_rate",)),
    Panel("Gradient norm", ("train/gradient_norm",)),
    Panel("Tokens per second", ("train/tokens_per_s",)),
]


def main() -> None:
    """Parse the job and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="an SFTJob as JSON")
    job = SFTJob.model_validate_json(parser.parse_args().config.read_text(encoding="utf-8"))
    with trainee() as stop:
        train(job, stop)


def train(job: SFTJob, stop: StopRequest) -> None:
    """Train in this process of the group.

    Raises:
        UserError: a setting, the base model or the traces are unfit.
        Stopped: SIGTERM came and a checkpoint was written.
    """
    started = time.monotonic()
    config = job.config
    check_model_folder(job.base_model)
    tokenizer = load_tokenizer(job.base_model)
    from clinical_r1.generation.chat import prepare_tokenizer

    new_tokens = prepare_tokenizer(tokenizer)
    examples, dropped = read_examples(job.traces, tokenizer, _window(config, job.base_model), config.unusable)
    check_attention(config.attention, config.dtype)
    if config.deepspeed is not None:
        check_requirements(config.deepspeed)
    if config.deepspeed is not None or "RANK" in os.environ:
        prepare_environment()
        init_process_group()
    from clinical_r1.training.preflight import check_here

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    check_here(config, job.base_model, world)
    if rank == 0:
        _claim(job, world)
    _barrier()
    checkpoints = job.state_dir / "checkpoints"
    newest = latest(checkpoints, "checkpoint-*")
    if rank == 0:
        prune(checkpoints, config.keep_checkpoints, "checkpoint-*")
    writer = (
        MetricsWriter(job.state_dir / "metrics", step_of(newest) if newest else 0, config.tensorboard)
        if rank == 0
        else None
    )
    train_set, eval_set = hold_out(examples, config.eval_share, config.eval_examples)

    from clinical_r1.training.sft.build import build_trainer

    trainer, watch = build_trainer(job, tokenizer, new_tokens, train_set, eval_set, world, stop, writer)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if writer is not None:
        writer.close()
    if watch.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    result = _result(job, trainer, watch, train_set, time.monotonic() - started) | dropped
    _finish(job, trainer, tokenizer, writer, result)


def _window(config: SFTConfig, base_model: Path) -> int:
    """Longest example: the configured one, or the model's window."""
    window = int(getattr(load_config(base_model), "max_position_embeddings", None) or config.max_length)
    if config.max_length > window:
        raise UserError(f"sft.max_length is {config.max_length} and {base_model} has a window of {window}; lower it")
    return config.max_length or window


LAYOUT = {
    "micro_batch_size", "log_steps", "checkpoint_steps", "keep_checkpoints", "tensorboard", "processes", "deepspeed",
    "activation_checkpointing", "attention",
}  # fmt: skip
"""Settings that change how a run is computed and not what: they may change when it goes on."""


def _claim(job: SFTJob, world: int) -> None:
    """The state directory is this run's: the same mathematics, data and base model."""
    job.state_dir.parent.mkdir(parents=True, exist_ok=True)
    known = {
        "config": job.config.model_dump(mode="json", exclude=LAYOUT),
        "traces": file_sha256(job.traces),
        "base_model": identity(job.base_model),
    }
    sharding = job.config.deepspeed.stage if job.config.deepspeed else None
    claim(job.state_dir, known, {"processes": world, "deepspeed.stage": sharding})


def _result(job: SFTJob, trainer: Any, watch: Any, examples: list[Example], seconds: float) -> dict[str, float]:
    """Numbers of the run; losses from the metrics file, so that a resumed run reports the whole."""
    from clinical_r1.training.preflight import gpu_peak

    evaluation = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    losses = [row.get("token_loss", row["loss"]) for row in trainer.state.log_history if "loss" in row]
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "train_loss": sum(last) / len(last) if last else float("nan"),
        "eval_loss": evaluation[-1] if evaluation else float("nan"),
        "tokens_per_s": watch.rate(),
        "steps": trainer.state.global_step,
        "examples": len(examples),
        "seconds": seconds,
        "processes": trainer.accelerator.num_processes,
        **gpu_peak(job.config, job.base_model, trainer.accelerator.num_processes),
    }


def _finish(job: SFTJob, trainer: Any, tokenizer: Any, writer: MetricsWriter | None, result: dict[str, float]) -> None:
    """Write the artifact; collective, because ZeRO-3 gathers the weights."""
    sharded = job.config.deepspeed is not None and job.config.deepspeed.stage == 3
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if writer is None:
        _barrier()
        return
    report_progress("sft: writing the model", result["steps"], result["steps"])  # type: ignore[arg-type]
    job.out_dir.mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if job.config.lora is not None:
        save_adapters(model, job.out_dir / "adapters", job.base_model.name)
        model = model.merge_and_unload()
    save_model(model, tokenizer, job.out_dir / "model", state)
    write_text(job.out_dir / "config.json", job.config.model_dump_json(indent=1) + "\n")
    writer.publish(job.out_dir)
    write_curves(read_metrics(job.out_dir / METRICS_FILE), PANELS, job.out_dir / "curves.svg")
    finite = {key: value for key, value in result.items() if value == value}
    write_text(job.state_dir / RESULT_FILE, json.dumps(finite) + "\n")
    _barrier()


def _barrier() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


if __name__ == "__main__":
    main()
