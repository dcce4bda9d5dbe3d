"""The SFT step: check, launch under torchrun, hand back the numbers."""

import json
from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.generation.load import check_model_folder
from clinical_r1.training.launcher import launch
from clinical_r1.training.sft.config import SFTConfig, SFTJob

RESULT_FILE = "result.json"


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
    check_model_folder(base_model)
    if not traces.is_file():
        raise UserError(f"{traces}: no such file; expected the traces.jsonl of the synthesis step")
    job = SFTJob(
        config=config,
        traces=traces.resolve(),
        base_model=base_model.resolve(),
        out_dir=out_dir.resolve(),
        state_dir=state_dir.resolve(),
    )
    job_path = job.state_dir.with_name(job.state_dir.name + ".job.json")
    write_text(job_path, job.model_dump_json(indent=1) + "\n")
    launch(
        "clinical_r1.training.sft.main",
        job_path,
        processes=config.processes,
        log_path=job_path.with_suffix(".log"),
        label="sft",
    )
    result: dict[str, float] = json.loads((job.state_dir / RESULT_FILE).read_text(encoding="utf-8"))
    return result
