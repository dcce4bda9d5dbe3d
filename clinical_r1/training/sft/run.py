"""The SFT step: check, launch, hand back the numbers."""

import shutil
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.store import open_store
from clinical_r1.training.base import check_rates
from clinical_r1.training.launcher import launch_job, node_count
from clinical_r1.training.metrics import check_trackers
from clinical_r1.training.sft.config import SFTConfig, SFTJob


def train_sft(config: SFTConfig, traces: Path, base_model: Path, out_dir: Path, state_dir: Path) -> dict[str, float]:
    """Fine-tune `base_model` on the accepted traces; the same call goes on where a previous one was stopped.

    Writes out_dir/{model/, config.json, metrics.jsonl, tensorboard/, curves.svg}; checkpoints, log and metrics of the
    running job are in state_dir.

    Returns:
        {"train_loss", "eval_loss", "tokens_per_s", "steps", "examples", "seconds", "processes"}.

    Raises:
        UserError: unfit settings, traces or model; out of memory; a crash (with the log's path).
        Stopped: by a signal after writing a checkpoint.
    """
    check_rates(config, check_model_folder(base_model).parameters)
    check_trackers(config.tracking)
    if config.checkpoints:
        open_store(config.checkpoints)
    if not traces.is_file():
        raise UserError(f"{traces}: no such file; expected the traces.jsonl of the synthesis step")
    paths = {"traces": traces, "base_model": base_model, "out_dir": out_dir, "state_dir": state_dir}
    job = SFTJob.model_validate({"config": config} | {name: path.resolve() for name, path in paths.items()})
    if config.dpo is not None and node_count() > 1:
        raise UserError("sft.dpo runs on one node: each node has its own SFT model; leave it out, or set nodes to 1")
    result = _launch(job, "sft")
    return result if config.dpo is None else result | {f"dpo_{name}": value for name, value in _prefer(job).items()}


def _launch(job: SFTJob, label: str) -> dict[str, float]:
    return launch_job("clinical_r1.training.sft.main", job, job.state_dir, job.config.processes, label)


def _prefer(job: SFTJob) -> dict[str, float]:
    """Go on from the SFT model with preference pairs: out_dir/preference, whose model takes the place of model/."""
    dpo = job.config.dpo
    assert dpo is not None
    told: dict[str, Any] = dpo.model_dump(include={"epochs", "learning_rate", "batch_size"})
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
