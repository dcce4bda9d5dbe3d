"""The SFT step: check, launch under torchrun, hand back the numbers."""

from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.training.base import SFT_RATES, check_learning_rate
from clinical_r1.training.launcher import launch_job
from clinical_r1.training.sft.config import SFTConfig, SFTJob


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
    if not traces.is_file():
        raise UserError(f"{traces}: no such file; expected the traces.jsonl of the synthesis step")
    job = SFTJob(
        config=config,
        traces=traces.resolve(),
        base_model=base_model.resolve(),
        out_dir=out_dir.resolve(),
        state_dir=state_dir.resolve(),
    )
    return launch_job("clinical_r1.training.sft.main", job, job.state_dir, config.processes, label="sft")
