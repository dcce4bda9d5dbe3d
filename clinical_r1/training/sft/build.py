"""Put the pieces of an SFT run together: arguments, model, data sets, trainer. Heavy imports live here."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clinical_r1.errors import UserError
from clinical_r1.training.checkpoints import processes_of
from clinical_r1.training.deepspeed import build_config, shards
from clinical_r1.training.lora import lora_config
from clinical_r1.training.metrics import MetricsWriter
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.data import EpochOrder, Example
from clinical_r1.training.trainee import StopRequest

SHARDS = "global_step*[0-9]"
"""DeepSpeed's folder in a checkpoint of transformers."""


@dataclass(frozen=True)
class Found:
    """What a run goes on from: it stays as it was begun, under DeepSpeed or in plain torch (one process needs none)."""

    sharded: bool | None
    """Whether DeepSpeed wrote the checkpoint; None where there is none."""
    resharded: bool = False
    """Its shards are of another number of processes."""

    @classmethod
    def of(cls, checkpoint: Path | None, world: int) -> Self:
        """Look at a checkpoint."""
        if checkpoint is None:
            return cls(None)
        folder = next(checkpoint.glob(SHARDS), None)
        cut = folder is not None and any(folder.glob("*_optim_states.pt"))
        return cls(folder is not None, cut and processes_of(checkpoint) != world)


def build_trainer(
    job: SFTJob,
    tokenizer: Any,
    new_tokens: list[int],
    train_set: list[Example],
    eval_set: list[Example],
    world: int,
    stop: StopRequest,
    writer: MetricsWriter | None,
    found: Found = Found(None),
) -> tuple[Any, Any]:
    """(trainer, its Watch callback), ready to train; `new_tokens` are ids that the base model has never seen."""
    from transformers import PrinterCallback

    from clinical_r1.training.sft.trainer import TraceTrainer, Watch

    config = job.config
    lengths = [len(example.input_ids) for example in train_set]
    arguments = training_arguments(config, job, world, sum(lengths) / len(lengths), bool(eval_set), found)
    model = load_trainable(job, tokenizer, new_tokens)
    completion = sum(example.completion_length for example in train_set) / len(train_set)
    order = EpochOrder(lengths, config.batch_size, config.group_by_length, config.seed)
    trainer = TraceTrainer(
        model=model,
        args=arguments,
        train_dataset=to_dataset(train_set),
        eval_dataset=to_dataset(eval_set) if eval_set else None,
        processing_class=tokenizer,
        peft_config=_lora(config, model, new_tokens),
        optimizer_cls_and_kwargs=_cpu_adam(config),
        order=order,
        loss_tokens=config.batch_size * completion if config.loss_norm == "constant" else None,
        keep=config.keep_checkpoints,
    )
    shown = eval_set[: config.samples]
    watch = Watch(stop, writer, order, lambda: trainer._total_train_tokens, tokenizer, shown, config.sample_texts)
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    return trainer, watch


CPU_TOKENS = 8_192
"""Tokens that a CPU takes at once: fewer, and every pass costs more than it does; more gains nothing, and a short
example waits for a long one (docs/log.md, "Training on a CPU")."""


CPU_ACTIVATIONS = 2 * 2**30
"""Bytes of activations kept for one micro-batch's backward pass on a CPU: 135M weights make 1.4 MB a token."""


def cpu_tokens(config: SFTConfig, base_model: Path) -> int:
    """Tokens that a CPU takes at once, by the base model's activations."""
    from clinical_r1.training.preflight import Geometry, activations

    one = activations(Geometry.of(base_model), 1, 4, config.activation_checkpointing)
    return max(1, min(CPU_TOKENS, int(CPU_ACTIVATIONS / one)))


def micro_batch(config: SFTConfig, world: int, tokens: float, use_cpu: bool, most: int = CPU_TOKENS) -> tuple[int, int]:
    """(examples a process takes at once, accumulation steps) that make up batch_size.

    `tokens`: an example's mean; `most`: tokens that a CPU takes at once.
    """
    micro = config.micro_batch_size or config.batch_size // world
    if use_cpu and not config.micro_batch_size and not config.packing:
        sizes = (size for size in range(micro, 0, -1) if micro % size == 0 and size * tokens <= most)
        micro = next(sizes, 1) if micro else 0
    if not micro or config.batch_size % (micro * world):
        raise UserError(
            f"sft.batch_size {config.batch_size} is no multiple of micro_batch_size {micro} x {world} processes; "
            "change one of them"
        )
    return micro, config.batch_size // (micro * world)


def training_arguments(config: SFTConfig, job: SFTJob, world: int, tokens: float, evaluate: bool, found: Found) -> Any:
    """TRL's SFTConfig; every option that has a surprising default is spelt out."""
    from trl import SFTConfig as TrlConfig

    return TrlConfig(
        **common_arguments(config, job, world, tokens, evaluate, found),
        # Length was checked before; TRL would cut silently. Its packing would make a batch of filled sequences: batches
        # of whole examples without padding have as many examples as the recipe says.
        max_length=None,
        packing=False,
        padding_free=config.packing,
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        average_tokens_across_devices=True,
        prediction_loss_only=True,
    )


def common_arguments(
    config: SFTConfig, job: SFTJob, world: int, tokens: float, evaluate: bool, found: Found
) -> dict[str, Any]:
    """What training on traces and on pairs has in common; `tokens`: of an example, as it is trained on."""
    import torch

    use_cpu = not torch.cuda.is_available()
    most = cpu_tokens(config, job.base_model) if use_cpu else CPU_TOKENS
    micro, accumulation = micro_batch(config, world, tokens, use_cpu, most)
    sharding = None
    begun = found.sharded if found.sharded is not None else shards(config.deepspeed, config.dtype, world)
    if begun and config.deepspeed is not None:
        clip = config.gradient_clipping
        sharding = build_config(config.deepspeed, micro, accumulation, clip, world, config.dtype, found.resharded)
    cosine = config.schedule == "cosine"
    return {
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
    }


def load_trainable(job: SFTJob, tokenizer: Any, new_tokens: list[int]) -> Any:
    """The base model in the training dtype, with rows for new tokens; under ZeRO-3 it is loaded sharded."""
    from clinical_r1.generation.chat import end_ids
    from clinical_r1.generation.load import load_model
    from clinical_r1.training.varlen import register

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
    import torch

    from clinical_r1.generation.weights import gathered

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


def to_dataset(examples: list[Example]) -> Any:
    """A datasets.Dataset of input_ids and labels."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [example.input_ids for example in examples], "labels": [example.labels for example in examples]}
    )


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
