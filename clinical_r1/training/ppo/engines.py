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
from torch import Tensor, nn

from clinical_r1.generation.chat import end_ids
from clinical_r1.generation.load import load_model
from clinical_r1.generation.weights import is_sharded
from clinical_r1.training.deepspeed import DeepSpeedConfig, build_config
from clinical_r1.training.group import local_device, rank, world_size
from clinical_r1.training.logprobs import LogitScale, score_tokens
from clinical_r1.training.lora import LoraSettings, lora_config, merged_state
from clinical_r1.training.ppo.batch import MicroBatch
from clinical_r1.training.ppo.config import PPOConfig


def states_at(body: Any, micro: MicroBatch) -> Tensor:
    """Last hidden states of a transformers decoder without head, before each completion token: (tokens, hidden)."""
    hidden: Tensor = body(input_ids=micro.ids, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[micro.kept]


class Policy(nn.Module):
    """A causal language model (plain or with adapters) as a distribution over given completions."""

    def __init__(self, model: Any, temperature: float = 1.0, chunk: int = 4096) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk
        self.scale = LogitScale.of(self.causal.config)

    def forward(self, micro: MicroBatch, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the completion's tokens, and entropies (zeros unless asked for); both (rows, time)."""
        causal = self.causal
        hidden = states_at(causal.base_model, micro)
        counts = micro.mask.bool()
        targets = micro.targets[counts]
        head = causal.get_output_embeddings()
        # The head runs inside of this module's forward pass, where ZeRO-3 gathers its (possibly tied) weight.
        scores = score_tokens(head, hidden, targets, self.chunk, self.temperature, entropy, self.scale)
        shape = torch.zeros_like(micro.mask)
        return shape.masked_scatter(counts, scores.logprobs), shape.masked_scatter(counts, scores.entropy)

    @property
    def causal(self) -> Any:
        """The transformers model inside of adapters."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model


class ValueHead(nn.Linear):
    """The critic's head, in float32 over a body of any type: values differ in digits that bfloat16 does not have.

    Its weights stay float32 where the module around it is cast (as DeepSpeed does for bfloat16), except under ZeRO-3,
    whose groups take one type: there they are the body's, and only the product is float32.
    """

    def __init__(self, size: int, sharded_as: torch.dtype | None = None) -> None:
        super().__init__(size, 1, dtype=sharded_as or torch.float32)
        self._keeps = sharded_as is None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        keep = self._keeps
        return super()._apply(lambda t: fn(t).float() if keep and t.is_floating_point() else fn(t), recurse)

    def forward(self, states: Tensor) -> Tensor:
        """(..., hidden) of any type to (..., 1) float32."""
        return nn.functional.linear(states.float(), self.weight.float(), self.bias.float())


class Critic(nn.Module):
    """A transformer body with a linear head: the expected return after each token of a completion is chosen."""

    def __init__(self, body: Any, initial_value: float = 0.0, sharded: bool = False) -> None:
        """`sharded`: ZeRO-3 will hold the parameters, see `ValueHead`."""
        super().__init__()
        self.body = body
        size = body.config.get_text_config().hidden_size
        self.head = ValueHead(size, next(body.parameters()).dtype if sharded else None)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, initial_value)

    def forward(self, micro: MicroBatch) -> Tensor:
        """Values before each completion token, (rows, time), float32; 0 on padding."""
        values = self.head(states_at(self.body, micro)).squeeze(-1)
        return torch.zeros_like(micro.mask).masked_scatter(micro.mask.bool(), values)


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


def build_engines(config: PPOConfig, model_folder: Path, resharded: bool = False) -> Engines:
    """Load the SFT model three times (actor, critic, reference) and start the engines; `resharded` as build_config."""
    device = local_device()
    model, tokenizer = _load(config, model_folder, device)
    accumulation = config.accumulation(world_size())
    policy = Policy(model, config.rollout.temperature, config.logits_chunk)
    actor = _engine(config, policy, config.learning_rate, accumulation, resharded)
    critic = None
    if config.has_critic:
        body = _load(config, model_folder, device)[0]
        body = body.get_base_model().base_model if config.lora else body.base_model
        value_model = Critic(body, config.critic.initial_value, config.deepspeed.stage == 3).to(device)
        critic = _engine(config, value_model, config.critic_rate, accumulation, resharded)
    reference = None
    if config.lora is None:
        frozen = load_model(model_folder, str(device), config.dtype, attn_implementation=config.attention)[0]
        reference = Policy(frozen.requires_grad_(False), config.rollout.temperature, config.logits_chunk).eval()
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


def shared(micro_batches: list[MicroBatch]) -> list[MicroBatch]:
    """This process's share: every n-th, so that lengths are spread evenly."""
    return micro_batches[rank() :: world_size()]


def _load(config: PPOConfig, folder: Path, device: torch.device) -> tuple[Any, Any]:
    model, tokenizer = load_model(folder, str(device), config.dtype, attn_implementation=config.attention)
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


def _engine(
    config: PPOConfig, module: torch.nn.Module, learning_rate: float, accumulation: int, resharded: bool
) -> Any:
    import deepspeed

    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    size, norm = config.micro_batch_size, config.max_grad_norm
    settings = build_config(config.deepspeed, size, accumulation, norm, world_size(), config.dtype, resharded)
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
