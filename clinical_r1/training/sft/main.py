"""One SFT process, started by launcher.py: `python -m clinical_r1.training.sft.main --config job.json`.

Loads the base model and the accepted traces, trains with TRL under DeepSpeed, writes the model folder, the metrics and
the curves. Checkpoints go to state_dir: the same command goes on from the newest whole one.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.charts import Panel, read_metrics, write_curves
from clinical_r1.errors import UserError
from clinical_r1.generation.chat import prepare_tokenizer
from clinical_r1.generation.load import load_config, load_tokenizer, save_model
from clinical_r1.training.checkpoints import claim_state, latest, prune, step_of
from clinical_r1.training.deepspeed import check_attention, check_requirements, join_group, reshard
from clinical_r1.training.group import StopRequest, barrier, rank, trainee, world_size
from clinical_r1.training.launcher import RESULT_FILE, Stopped, report_progress
from clinical_r1.training.lora import save_adapters
from clinical_r1.training.metrics import METRICS_FILE, MetricsWriter, open_trackers
from clinical_r1.training.sft.config import SFTJob
from clinical_r1.training.sft.data import Example, hold_out, read_examples, read_pairs

PANELS = [
    Panel("Loss", ("train/loss", "eval/loss"), ("training", "held out")),
    Panel("Token accuracy", ("train/token_accuracy", "eval/token_accuracy"), ("training", "held out")),
    Panel("Chosen before rejected, nats x beta", ("train/margin", "eval/margin"), ("training", "held out")),
    Panel("Answers to held-out questions", ("eval/thinking_form", "eval/finished"), ("thinks in form", "ends")),
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
    tokenizer = load_tokenizer(job.base_model)
    new_tokens = prepare_tokenizer(tokenizer)
    most = int(getattr(load_config(job.base_model), "max_position_embeddings", None) or config.max_length)
    if config.max_length > most:
        raise UserError(f"sft.max_length is {config.max_length} and {job.base_model} has a window of {most}; lower it")
    window = config.max_length or most
    if config.dpo is not None:  # before SFT as well: too few of them are refused before it is paid
        examples, dropped = read_pairs(job.traces, config.dpo, tokenizer, window)
    if not job.preferences:
        examples, dropped = read_examples(job.traces, tokenizer, window, config.unusable)
    if len(examples) < config.min_examples:
        raise UserError(
            f"{job.traces}: {len(examples)} usable traces and sft.min_examples is {config.min_examples}; make more, or "
            "lower it"
        )
    check_attention(config.attention, config.dtype)
    if config.deepspeed is not None:
        check_requirements(config.deepspeed)
    if config.deepspeed is not None or "RANK" in os.environ:
        join_group()
    from clinical_r1.training.preflight import check_here
    from clinical_r1.training.sft.build import build_trainer, recut
    from clinical_r1.training.sft.trainer import SFTCallback

    world, first = world_size(), rank() == 0
    check_here(config, job.base_model, world, job.state_dir)
    checkpoints = job.state_dir / "checkpoints"
    remote = claim_state(job, checkpoints)
    newest = latest(checkpoints, "checkpoint-*")
    if first:
        prune(checkpoints, config.keep_checkpoints, "checkpoint-*")
        if cut := recut(newest, world):
            reshard(cut)
    barrier()
    writer = None
    if first:
        done, folder = step_of(newest) if newest else 0, job.state_dir / "metrics"
        trackers = open_trackers(config.tracking, folder, config.model_dump(mode="json"))
        writer = MetricsWriter(folder, done, config.tensorboard, trackers)
    train_set, eval_set = hold_out(examples, config.eval_share, config.eval_examples)
    trainer = build_trainer(job, tokenizer, new_tokens, train_set, eval_set, newest)
    watch = SFTCallback(job, trainer, stop, writer, tokenizer, eval_set[: config.samples])
    trainer.add_callback(watch)
    trainer.remote = remote
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if writer is not None:
        writer.close()
    if watch.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise Stopped
    result = _result(job, trainer, watch, train_set, time.monotonic() - started) | dropped
    _finish(job, trainer, tokenizer, writer, result)


def _result(job: SFTJob, trainer: Any, watch: Any, examples: list[Example], seconds: float) -> dict[str, float]:
    """Numbers of the run; losses from the metrics file, so that a resumed run reports the whole. Of pairs: by how much
    the chosen answers' gain in log-probability is ahead at the end, and in how many."""
    from clinical_r1.training.preflight import gpu_peak

    history = trainer.state.log_history

    def last(name: str, rows: list[dict[str, Any]]) -> float:
        values = [row[name] for row in rows][-max(1, len(rows) // 10) :]
        return sum(values) / len(values) if values else float("nan")

    losses = [row | {"loss": row.get("token_loss", row["loss"])} for row in history if "loss" in row]
    pairs = [row for row in history if "rewards/margins" in row]
    evaluation = [row["eval_loss"] for row in history if "eval_loss" in row]
    result = {"train_loss": last("loss", losses), "eval_loss": evaluation[-1] if evaluation else float("nan")}
    if pairs:
        result |= {"margin": last("rewards/margins", pairs), "preferred": last("rewards/accuracies", pairs)}
    if watch.thinking_form is not None:
        result["thinking_form"] = watch.thinking_form
    processes = trainer.accelerator.num_processes
    result |= {"tokens_per_s": watch.rate(), "steps": trainer.state.global_step, "examples": len(examples)}
    return result | {"seconds": seconds, "processes": processes} | gpu_peak(job.config, job.base_model, processes)


def _finish(job: SFTJob, trainer: Any, tokenizer: Any, writer: MetricsWriter | None, result: dict[str, float]) -> None:
    """Write the artifact; collective, because ZeRO-3 gathers the weights."""
    sharded = job.config.deepspeed is not None and job.config.deepspeed.stage == 3
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if writer is None:
        barrier()
        return
    label, steps = "dpo" if job.preferences else "sft", int(result["steps"])
    report_progress(f"{label}: writing the model", steps, steps)
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
    barrier()


if __name__ == "__main__":
    main()
