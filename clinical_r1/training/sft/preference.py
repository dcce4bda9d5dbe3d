"""Direct preference optimization after SFT: TRL's DPOTrainer on pairs that are tokenized already.

The reference is the SFT model: its log-probabilities are computed once, before the first step, so that no second model
is held (also where a run goes on from a checkpoint).
"""

import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import PrinterCallback
from trl import DPOConfig as TrlConfig
from trl import DPOTrainer

from clinical_r1.generation.chat import end_ids
from clinical_r1.generation.load import load_model
from clinical_r1.training.group import barrier, rank
from clinical_r1.training.lora import lora_config
from clinical_r1.training.metrics import MetricsWriter
from clinical_r1.training.sft.build import Found, common_arguments
from clinical_r1.training.sft.config import SFTJob
from clinical_r1.training.sft.data import EpochOrder, Example
from clinical_r1.training.sft.pairs import Pair
from clinical_r1.training.sft.trainer import Watch, WholeCheckpoints
from clinical_r1.training.trainee import StopRequest


class PairTrainer(WholeCheckpoints, DPOTrainer):
    """DPOTrainer with our data order and checkpoints."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def build_pair_trainer(
    job: SFTJob, tokenizer: Any, train_set: list[Example], eval_set: list[Example], world: int, stop: StopRequest,
    writer: MetricsWriter | None, found: Found,
) -> tuple[Any, Any]:  # fmt: skip
    """(trainer, its Watch callback), ready to train."""
    config = job.config
    assert config.dpo is not None
    lengths = [len(pair.input_ids) for pair in train_set]
    shared = common_arguments(config, job, world, 2 * sum(lengths) / len(lengths), bool(eval_set), found)
    # Length was checked before.
    arguments = TrlConfig(**shared, beta=config.dpo.beta, max_length=None, precompute_ref_log_probs=True)
    model = load_model(job.base_model, dtype=config.dtype, attn_implementation=config.attention)[0].train()
    ends = end_ids(tokenizer, model)
    for settings in (model.config.get_text_config(), model.generation_config):
        settings.pad_token_id, settings.eos_token_id = tokenizer.pad_token_id, list(ends)
    order = EpochOrder(lengths, config.batch_size, config.group_by_length, config.seed)
    trainer = PairTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(train_set, job.state_dir / "pairs" / "train"),
        eval_dataset=_dataset(eval_set, job.state_dir / "pairs" / "eval") if eval_set else None,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, model, []) if config.lora else None,
        order=order,
        keep=config.keep_checkpoints,
    )
    shown = eval_set[: config.samples]
    watch = Watch(stop, writer, order, lambda: trainer._total_train_tokens, tokenizer, shown, config.sample_texts)
    watch.label = "dpo"
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    return trainer, watch


def _dataset(examples: list[Example], folder: Path) -> Any:
    """On the disk that all processes see, where TRL keeps the reference's log-probabilities beside it."""
    if rank() == 0:
        pairs = [example for example in examples if isinstance(example, Pair)]
        rows = {"prompt_ids": [pair.input_ids[: pair.prompt_length] for pair in pairs]}
        rows |= {"chosen_ids": [pair.chosen for pair in pairs], "rejected_ids": [pair.rejected for pair in pairs]}
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_dict(rows).save_to_disk(folder)
    barrier()
    return load_from_disk(folder)
