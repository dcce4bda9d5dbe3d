"""Actor, critic and reference model: loading them, putting them under DeepSpeed, forward passes and updates.

Two engines, because actor and critic have an optimizer each; OpenRLHF's layout. With adapters the reference model is
the actor with its adapters off, so one copy of the base weights serves both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clinical_r1.generation.chat import end_ids
from clinical_r1.generation.kernels import install
from clinical_r1.generation.load import load_model
from clinical_r1.generation.weights import is_sharded
from clinical_r1.training.deepspeed import DeepSpeedConfig, build_config
from clinical_r1.training.lora import LoraSettings, lora_config, merged_state
from clinical_r1.training.ppo.batch import MicroBatch
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.policy import Critic, Policy


@dataclass
class Engines:
    """Everything with weights."""

    actor: Any
    """DeepSpeed engine of a Policy."""
    critic: Any | None
    """DeepSpeed engine of a Critic; None for runs without one."""
    reference: Any | None
    """Frozen Policy (under ZeRO-3 an engine); None where the actor without its adapters is the reference."""
    tokenizer: Any
    device: torch.device
    ends: tuple[int, ...]
    """Every token that ends an answer."""

    @property
    def policy(self) -> Policy:
        """The actor without DeepSpeed around it."""
        return self.actor.module

    @contextmanager
    def as_reference(self) -> Iterator[Any]:
        """The reference model for forward passes without gradients."""
        with torch.no_grad():
            if self.reference is not None:
                yield self.reference
                return
            with self.policy.model.disable_adapter():
                yield self.actor

    def trained(self) -> list[tuple[str, Any]]:
        """The engines that have an optimizer, with the names that checkpoints know them by."""
        return [("actor", self.actor)] + ([("critic", self.critic)] if self.critic is not None else [])


def build_engines(config: PPOConfig, model_folder: Path) -> Engines:
    """Load the SFT model three times (actor, critic, reference) and start the engines."""
    device = local_device()
    model, tokenizer = _load(config, model_folder, device)
    accumulation = config.accumulation(world_size())
    actor = _engine(
        config, Policy(model, config.rollout.temperature, config.logits_chunk), config.learning_rate, accumulation
    )
    critic = None
    if config.critic.kind == "full":
        body = _load(config, model_folder, device)[0]
        body = body.get_base_model().base_model if config.lora else body.base_model
        value_model = Critic(body, config.critic.initial_value, config.deepspeed.stage == 3).to(device)
        critic = _engine(config, value_model, config.critic_rate, accumulation)
    reference = None
    if config.lora is None:
        frozen = load_model(model_folder, str(device), config.dtype, attn_implementation=config.attention)[0]
        reference = Policy(
            install(frozen).requires_grad_(False), config.rollout.temperature, config.logits_chunk
        ).eval()
        if config.deepspeed.stage == 3:
            reference = _frozen_engine(config, reference)
    return Engines(actor, critic, reference, tokenizer, device, end_ids(tokenizer, actor.module.causal))


def update(engine: Any, losses: Iterator[Tensor]) -> float | None:
    """One optimizer step over the losses of this process's micro-batches; returns the gradient norm before clipping.

    None where DeepSpeed does not tell the norm (float32 at stage 0).

    Losses are sums over tokens divided by the step's constant; processes add up (DeepSpeed averages, so the caller's
    constant leaves out the number of processes).
    """
    for loss in losses:
        engine.backward(loss * world_size(), scale_wrt_gas=False)
        engine.step()
    norm = engine.get_global_grad_norm()
    return None if norm is None else float(norm)


def set_learning_rate(engine: Any, rate: float) -> None:
    """Set the rate of the next optimizer steps."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def export_model(engines: Engines) -> Any | None:
    """The actor as a plain transformers model, whole also under ZeRO-3, adapters merged; None off rank 0."""
    model, causal = engines.policy.model, engines.policy.causal
    if causal is model and not is_sharded(model):
        return model
    import deepspeed

    with deepspeed.zero.GatheredParameters([p for p in model.parameters() if hasattr(p, "ds_id")]):
        if rank() != 0:
            return None
        weights = causal.state_dict() if causal is model else merged_state(model)
        weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
    # save_pretrained looks at the modules, not only at the weights it is given: fill a plain shell of the same shape.
    with torch.device("meta"):
        plain = type(causal)(causal.config)
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.generation_config = causal.generation_config
    return plain


def rank() -> int:
    """This process's number; 0 outside of a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Processes of the group; 1 outside of one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def summed(numbers: Tensor, device: torch.device) -> Tensor:
    """The sum of every process's numbers, on all of them; collective."""
    if world_size() == 1:
        return numbers
    total = numbers.to(device)
    dist.all_reduce(total)
    return total.cpu()


def local_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    import os

    index = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def shared(micro_batches: list[MicroBatch]) -> list[MicroBatch]:
    """This process's share: every n-th, so that lengths are spread evenly."""
    return micro_batches[rank() :: world_size()]


def _load(config: PPOConfig, folder: Path, device: torch.device) -> tuple[Any, Any]:
    model, tokenizer = load_model(folder, str(device), config.dtype, attn_implementation=config.attention)
    install(model)
    if config.lora is not None:
        model = _with_adapters(model, config.lora)
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model, tokenizer


def _with_adapters(model: Any, lora: LoraSettings) -> Any:
    import peft

    # without dropout: the first update's ratio is exactly 1
    return peft.get_peft_model(model, lora_config(lora, model, [], dropout=False))


def _engine(config: PPOConfig, module: torch.nn.Module, learning_rate: float, accumulation: int) -> Any:
    import deepspeed

    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    settings = build_config(
        config.deepspeed, config.micro_batch_size, accumulation, config.max_grad_norm, world_size(), config.dtype
    )
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=_optimizer(config, trainable, learning_rate), config=settings, dist_init_required=False
    )
    return engine


def _optimizer(config: PPOConfig, parameters: list[torch.nn.Parameter], learning_rate: float) -> Any:
    options: dict[str, Any] = {"lr": learning_rate, "betas": (0.9, 0.95), "weight_decay": config.weight_decay}
    if config.deepspeed.cpu_adam:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(parameters, **options)
    return torch.optim.AdamW(parameters, **options, fused=not config.deepspeed.offload_optimizer)


def _frozen_engine(config: PPOConfig, module: Policy) -> Any:
    import deepspeed

    sharding = DeepSpeedConfig(stage=3, offload_parameters=config.deepspeed.offload_parameters)
    settings = build_config(sharding, config.micro_batch_size, 1, 0.0, world_size(), config.dtype)
    engine = deepspeed.initialize(model=module, config=settings, dist_init_required=False)[0]
    engine.eval()
    return engine
