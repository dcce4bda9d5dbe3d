"""Put the pieces of an SFT run together: arguments, model, data sets, trainer. Heavy imports live here."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from transformers import PrinterCallback
from trl import DPOConfig as PairArguments
from trl import SFTConfig as TraceArguments

from clinical_r1.errors import UserError
from clinical_r1.generation.chat import end_ids
from clinical_r1.generation.decoder import gathered
from clinical_r1.generation.load import load_model
from clinical_r1.training.checkpoints import processes_of
from clinical_r1.training.deepspeed import build_config, shards
from clinical_r1.training.group import barrier, rank, world_size
from clinical_r1.training.lora import expose_bias, lora_config
from clinical_r1.training.preflight import micro_batch
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.data import EpochOrder, Examples, Pair
from clinical_r1.training.sft.trainer import PairTrainer, TraceTrainer
from clinical_r1.training.varlen import register

SHARDS = "global_step*[0-9]"
"""DeepSpeed's folder in a checkpoint of transformers."""


def recut(checkpoint: Path | None, world: int) -> Path | None:
    """The shards in a checkpoint where another number of processes cut them."""
    folder = next(checkpoint.glob(SHARDS), None) if checkpoint else None
    cut = folder and checkpoint and any(folder.glob("*_optim_states.pt")) and processes_of(checkpoint) != world
    return folder if cut else None


def build_trainer(
    job: SFTJob, tokenizer: Any, new_tokens: list[int], train_set: Examples, eval_set: Examples, newest: Path | None
) -> Any:
    """TRL's trainer, ready to train on traces, or on pairs (`job.preferences`), and to go on from a checkpoint;
    `new_tokens` are ids that the base model has never seen.

    The reference of pairs is the SFT model: its log-probabilities are computed once, before the first step, so that no
    second model is held (also where a run goes on from a checkpoint).
    """
    config = job.config
    lengths = [len(example.input_ids) for example in train_set]
    # Before the model, which is loaded sharded where they say so (ZeRO-3).
    arguments = training_arguments(job, sum(lengths) / len(lengths), bool(eval_set), newest)
    model = load_trainable(job, tokenizer, new_tokens)
    shared = {"model": model, "args": arguments, "processing_class": tokenizer}
    shared["peft_config"] = _lora(config, model, new_tokens)
    sets = (("train", train_set), ("eval", eval_set))
    trainer: Any
    if job.preferences:
        data = {f"{name}_dataset": pairs_on_disk(rows, job.state_dir / "pairs" / name) for name, rows in sets if rows}
        trainer = PairTrainer(**shared, **data)
    else:
        data = {f"{name}_dataset": to_dataset(rows) for name, rows in sets if rows}
        trainer = TraceTrainer(**shared, **data, optimizer_cls_and_kwargs=_cpu_adam(config))
        expose_bias(trainer.model)
        if config.loss_norm == "constant":
            completion = sum(example.completion_length for example in train_set) / len(train_set)
            trainer.loss_tokens = config.batch_size * completion
    trainer.order = EpochOrder(lengths, config.batch_size, config.group_by_length, config.seed)
    trainer.keep = config.keep_checkpoints
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(job: SFTJob, tokens: float, evaluate: bool, newest: Path | None) -> Any:
    """TRL's own; every option that has a surprising default is spelt out. `tokens`: an example's mean."""
    config, use_cpu, world = job.config, not torch.cuda.is_available(), world_size()
    sides = 2 if job.preferences else 1
    micro, accumulation = micro_batch(config, world, sides * tokens, job.base_model if use_cpu else None)
    sharding = None
    # A run stays as it was begun, under DeepSpeed or in plain torch (one process needs none).
    begun = any(newest.glob(SHARDS)) if newest else shards(config.deepspeed, config.dtype, world)
    if begun and config.deepspeed is not None:
        clip, resharded = config.gradient_clipping, recut(newest, world) is not None
        sharding = build_config(config.deepspeed, micro, accumulation, clip, world, config.dtype, resharded)
    cosine = config.schedule == "cosine"
    told: dict[str, Any] = {
        "output_dir": str(job.state_dir / "checkpoints"),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr" if cosine else config.schedule,
        "lr_scheduler_kwargs": {"min_lr_rate": config.final_learning_rate_share} if cosine else {},
        "warmup_steps": config.warmup_share,
        "optim": "adamw_torch_fused",
        "adam_beta2": config.beta2,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.gradient_clipping,
        "deepspeed": sharding,
        "ddp_find_unused_parameters": False,
        "use_cpu": use_cpu,
        "bf16": config.dtype == "bfloat16",
        "gradient_checkpointing": config.activation_checkpointing,
        "remove_unused_columns": True,
        "dataloader_pin_memory": not use_cpu,
        "eval_strategy": "epoch" if evaluate else "no",
        "save_strategy": "steps",
        "save_steps": config.checkpoint_steps,
        "save_total_limit": None,
        "logging_steps": config.log_steps,
        "logging_first_step": True,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "seed": config.seed,
        "data_seed": config.seed,
        "local_rank": int(os.environ.get("LOCAL_RANK", "0")),
        "max_length": None,  # length was checked before; TRL would cut silently
    }
    if job.preferences and config.dpo is not None:
        return PairArguments(**told, beta=config.dpo.beta, precompute_ref_log_probs=True)
    return TraceArguments(
        **told,
        # TRL's packing would make a batch of filled sequences: batches of whole examples without padding have as many
        # examples as the recipe says.
        packing=False,
        padding_free=config.packing,
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        average_tokens_across_devices=True,
        prediction_loss_only=True,
    )


def load_trainable(job: SFTJob, tokenizer: Any, new_tokens: list[int]) -> Any:
    """The base model in the training dtype, with rows for new tokens; under ZeRO-3 it is loaded sharded."""
    config = job.config
    register()
    model = load_model(job.base_model, dtype=config.dtype, attn_implementation=config.attention)[0]
    rows = model.get_input_embeddings().weight
    if len(tokenizer) > getattr(rows, "ds_shape", rows.shape)[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    initialise_rows(model, tokenizer, new_tokens)
    ends = end_ids(tokenizer, model)
    for settings in (model.config.get_text_config(), model.generation_config):
        settings.pad_token_id = tokenizer.pad_token_id
        settings.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    return model.train()


def initialise_rows(model: Any, tokenizer: Any, new_tokens: list[int]) -> None:
    """Start a new token's embedding and output rows from the mean of the tokens that spelt it before.

    Qwen2.5 keeps unused rows for such tokens; whatever stands there, a mean of real rows is nearer to where they go.
    """
    if not new_tokens:
        return
    tables = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    spelling = tokenizer.backend_tokenizer.model
    with gathered(tables.values(), writer=0), torch.no_grad():
        for weight in tables.values():
            if weight.numel() == 0:  # not this process's turn to write
                continue
            for token in new_tokens:
                pieces = [piece.id for piece in spelling.tokenize(tokenizer.convert_ids_to_tokens(token))]
                if pieces:
                    weight[token] = weight[pieces].mean(dim=0)


def to_dataset(examples: Examples) -> Dataset:
    """Of input_ids and labels."""
    return Dataset.from_dict({name: [getattr(one, name) for one in examples] for name in ("input_ids", "labels")})


def pairs_on_disk(examples: Examples, folder: Path) -> Any:
    """On the disk that all processes see, where TRL keeps the reference's log-probabilities beside it."""
    if rank() == 0:
        pairs = [example for example in examples if isinstance(example, Pair)]
        rows = {"prompt_ids": [pair.input_ids[: pair.prompt_length] for pair in pairs]}
        rows |= {"chosen_ids": [pair.chosen for pair in pairs], "rejected_ids": [pair.rejected for pair in pairs]}
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_dict(rows).save_to_disk(folder)
    barrier()
    return load_from_disk(folder)


def _cpu_adam(config: SFTConfig) -> Any:
    """DeepSpeed's compiled CPU Adam where it is asked for; None = torch's AdamW."""
    if config.deepspeed is None or not config.deepspeed.cpu_adam:
        return None
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    settings = {"lr": config.learning_rate, "betas": (0.9, config.beta2), "weight_decay": config.weight_decay}
    return DeepSpeedCPUAdam, settings


def _lora(config: SFTConfig, model: Any, new_tokens: list[int]) -> Any:
    if config.lora is None:
        return None
    if config.deepspeed is not None and config.deepspeed.stage == 3:
        raise UserError("sft.lora merges whole weights at the end; set deepspeed.stage to 2 or less")
    return lora_config(config.lora, model, new_tokens)
