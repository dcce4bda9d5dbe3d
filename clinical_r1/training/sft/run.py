"""The SFT step: check, launch, hand back the numbers."""

import shutil
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.store import open_store
from clinical_r1.training.base import SFT_RATES, check_learning_rate
from clinical_r1.training.launcher import launch_job, node_count
from clinical_r1.training.sft.config import DPOConfig, SFTConfig, SFTJob
from clinical_r1.training.tracking import check_trackers


def train_sft(config: SFTConfig, traces: Path, base_model: Path, out_dir: Path, state_dir: Path) -> dict[str, float]:
    """Fine-tune `base_model` on the accepted traces; the same call goes on where a previous one was stopped.

    Writes out_dir/{model/, config.json, metrics.jsonl, tensorboard/, curves.svg}; checkpoints, log and metrics of the
    running job are in state_dir.

    Returns:
        {"train_loss", "eval_loss", "tokens_per_s", "steps", "examples", "seconds", "processes"}.

    Raises:
        UserError: unfit settings, traces or model; out of memory; a crash (with the log's path).
        Preempted: stopped by a signal after writing a checkpoint.
    """
    parameters = check_model_folder(base_model).parameters
    check_learning_rate("sft.learning_rate", config.learning_rate, SFT_RATES, parameters, config.lora is not None)
    check_trackers(config.tracking)
    if config.checkpoints:
        open_store(config.checkpoints)
    if not traces.is_file():
        raise UserError(f"{traces}: no such file; expected the traces.jsonl of the synthesis step")
    job = SFTJob(
        config=config,
        traces=traces.resolve(),
        base_model=base_model.resolve(),
        out_dir=out_dir.resolve(),
        state_dir=state_dir.resolve(),
    )
    if config.dpo is None:
        return _launch(job, "sft")
    if node_count() > 1:
        raise UserError("sft.dpo runs on one node: each node has its own SFT model; leave it out, or set nodes to 1")
    return _launch(job, "sft") | {f"dpo_{name}": value for name, value in _prefer(job, config.dpo).items()}


def _launch(job: SFTJob, label: str) -> dict[str, float]:
    return launch_job("clinical_r1.training.sft.main", job, job.state_dir, job.config.processes, label)


def _prefer(job: SFTJob, dpo: DPOConfig) -> dict[str, float]:
    """Go on from the SFT model with preference pairs: out_dir/preference, whose model takes the place of model/."""
    told: dict[str, Any] = {"epochs": dpo.epochs, "learning_rate": dpo.learning_rate, "batch_size": dpo.batch_size}
    told |= {"max_steps": 0, "micro_batch_size": 0, "packing": False, "loss_norm": "batch", "min_examples": 1}
    if job.config.attention == "varlen":
        told["attention"] = "sdpa"
    model, out = job.out_dir / "model", job.out_dir / "preference"
    places = {"base_model": model, "out_dir": out, "state_dir": job.state_dir / "dpo"}
    config = job.config.model_copy(update=told)
    result = _launch(job.model_copy(update=places | {"config": config, "preferences": True}), "dpo")
    shutil.rmtree(model)
    (out / "model").rename(model)
    shutil.rmtree(job.out_dir / "adapters", ignore_errors=True)  # of the model before: what was learnt is merged
    return result
