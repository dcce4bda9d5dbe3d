"""Actor, critic and reference model: loading them, putting them under DeepSpeed, forward passes and updates, their
checkpoints, and the model folder at the end.

Two engines, because actor and critic have an optimizer each; OpenRLHF's layout. With adapters the reference model is
the actor with its adapters off, so one copy of the base weights serves both.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clinical_r1.atomic import write_text
from clinical_r1.generation.chat import end_ids
from clinical_r1.generation.decoder import gathered, is_sharded
from clinical_r1.generation.load import load_model, save_model
from clinical_r1.training import checkpoints
from clinical_r1.training.checkpoints import Remote
from clinical_r1.training.deepspeed import DeepSpeedConfig, build_config, reshard
from clinical_r1.training.group import barrier, local_device, rank, world_size
from clinical_r1.training.logprobs import LogitScale, score_tokens
from clinical_r1.training.lora import lora_config, merged_state
from clinical_r1.training.ppo.batch import MicroBatch
from clinical_r1.training.ppo.config import PPOConfig

STATE_FILE = "trainer.json"
WARMUP_FILE = "warmup.pt"
"""Beside it while the critic is fitted alone: the batches that it is fitted to."""
TAG = "engine"
"""DeepSpeed puts an engine's files into a folder of this name."""


def states_at(body: Any, micro: MicroBatch) -> Tensor:
    """Last hidden states of a transformers decoder without head, before each completion token: (tokens, hidden)."""
    hidden: Tensor = body(input_ids=micro.ids, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[micro.kept]


class Policy(nn.Module):
    """A causal language model (plain or with adapters) as a distribution over given completions."""

    def __init__(self, model: Any, temperature: float = 1.0, chunk: int = 4096) -> None:
        super().__init__()
        self.model, self.temperature, self.chunk = model, temperature, chunk
        self.scale = LogitScale.of(self.causal.config)

    def forward(self, micro: MicroBatch, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the completion's tokens, and entropies (zeros unless asked for); both (rows, time)."""
        causal = self.causal
        hidden = states_at(causal.base_model, micro)
        counts = micro.mask.bool()
        targets = micro.targets[counts]
        # The head runs inside of this module's forward pass, where ZeRO-3 gathers its (possibly tied) weight.
        head = causal.get_output_embeddings()
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
        return super()._apply(lambda t: fn(t).float() if self._keeps and t.is_floating_point() else fn(t), recurse)

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


class Engines:
    """Everything with weights: the SFT model as actor, critic and reference, under DeepSpeed."""

    def __init__(self, config: PPOConfig, model_folder: Path, resharded: bool = False) -> None:
        """`resharded` as build_config."""
        import deepspeed

        self.device, sharded = local_device(), config.deepspeed.stage == 3
        size, accumulation = config.micro_batch_size, config.accumulation(world_size())

        def engine(module: nn.Module, learning_rate: float) -> Any:
            norm = config.max_grad_norm
            told = build_config(config.deepspeed, size, accumulation, norm, world_size(), config.dtype, resharded)
            optimizer = _optimizer(config, [one for one in module.parameters() if one.requires_grad], learning_rate)
            return deepspeed.initialize(model=module, optimizer=optimizer, config=told, dist_init_required=False)[0]

        model, self.tokenizer = _load(config, model_folder, self.device)
        self.actor = engine(Policy(model, config.rollout.temperature, config.logits_chunk), config.learning_rate)
        self.critic: Any | None = None
        """None for runs without one."""
        self.reference: Any | None = None
        """Frozen Policy (under ZeRO-3 an engine); None where the actor without its adapters is the reference."""
        if config.has_critic:
            body = _load(config, model_folder, self.device)[0]
            body = body.get_base_model().base_model if config.lora else body.base_model
            critic = Critic(body, config.critic.initial_value, sharded).to(self.device)
            self.critic = engine(critic, config.critic_rate)
        if config.lora is None:
            frozen = load_model(model_folder, str(self.device), config.dtype, attn_implementation=config.attention)[0]
            reference = Policy(frozen.requires_grad_(False), config.rollout.temperature, config.logits_chunk)
            if sharded:
                alone = DeepSpeedConfig(stage=3, offload_parameters=config.deepspeed.offload_parameters)
                told = build_config(alone, size, 1, 0.0, world_size(), config.dtype)
                reference = deepspeed.initialize(model=reference, config=told, dist_init_required=False)[0]
            reference.eval()
            self.reference = reference
        self.ends = end_ids(self.tokenizer, self.policy.causal)
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

    def trained(self) -> Iterator[tuple[str, Any, bool]]:
        """The engines that have an optimizer: what checkpoints call them, and whether a part of them is frozen."""
        for name, engine in (("actor", self.actor), ("critic", self.critic)):
            if engine is not None:
                yield name, engine, any(not parameter.requires_grad for parameter in engine.module.parameters())


def _load(config: PPOConfig, folder: Path, device: torch.device) -> tuple[Any, Any]:
    model, tokenizer = load_model(folder, str(device), config.dtype, attn_implementation=config.attention)
    if config.lora is not None:
        import peft

        torch.manual_seed(config.seed)  # by which peft draws the adapters
        # without dropout: the first update's ratio is exactly 1
        model = peft.get_peft_model(model, lora_config(config.lora, model, [], dropout=False))
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model, tokenizer


def _optimizer(config: PPOConfig, parameters: list[nn.Parameter], learning_rate: float) -> Any:
    options: dict[str, Any] = {"lr": learning_rate, "betas": (0.9, 0.95), "weight_decay": config.weight_decay}
    if config.deepspeed.cpu_adam:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(parameters, **options)
    return torch.optim.AdamW(parameters, **options, fused=not config.deepspeed.offload_optimizer)


def update(engine: Any, losses: Iterator[Tensor]) -> float | None:
    """One optimizer step over the losses of this process's micro-batches, sums over tokens divided by the step's
    constant; the gradient norm before clipping, None where DeepSpeed does not tell it (float32 at stage 0)."""
    for loss in losses:
        engine.backward(loss * world_size(), scale_wrt_gas=False)  # DeepSpeed averages, and processes are to add up
        engine.step()
    norm = engine.get_global_grad_norm()
    return None if norm is None else float(norm)


def set_learning_rate(engine: Any, rate: float) -> None:
    """Set the rate of the next optimizer steps."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def shared(micro_batches: list[MicroBatch]) -> list[MicroBatch]:
    """This process's share: every n-th, so that lengths are spread evenly."""
    return micro_batches[rank() :: world_size()]


def fit_newest(state_dir: Path) -> bool:
    """Make the newest checkpoint fit this group of processes; True where it had to be made to. Collective."""
    folder = checkpoints.latest(state_dir)
    if folder is None or checkpoints.processes_of(folder) == world_size():
        return False
    if rank() == 0:
        for engine in sorted(folder.glob(f"*/{TAG}")):
            reshard(engine)
    barrier()
    return any(folder.glob(f"*/{TAG}_universal"))


def save_checkpoint(
    engines: Engines, state_dir: Path, step: int, state: dict[str, Any], keep: int, remote: Remote | None = None
) -> None:
    """Both engines (weights, optimizers) and the trainer's own state; collective. The last `keep` stay."""
    told = {name: value for name, value in state.items() if name != "warmup"}

    def write(folder: Path) -> None:
        for name, engine, frozen in engines.trained():
            engine.save_checkpoint(str(folder / name), tag=TAG, save_latest=False, exclude_frozen_parameters=frozen)
        if rank() == 0:
            write_text(folder / STATE_FILE, json.dumps(told) + "\n")
            torch.save(state["warmup"], folder / WARMUP_FILE)

    checkpoints.save(state_dir, step, write, keep, remote)
    if rank() == 0:
        for folder in state_dir.glob("best-*"):
            if folder != best_folder(state_dir, state["watch"]["best_step"]):
                shutil.rmtree(folder, ignore_errors=True)


def load_checkpoint(engines: Engines, state_dir: Path) -> dict[str, Any] | None:
    """Put the newest whole checkpoint back; returns the trainer's state, None where there is none. Collective."""
    folder = checkpoints.latest(state_dir)
    if folder is None:
        return None
    for name, engine, frozen in engines.trained():
        tag = f"{TAG}_universal" if engine.load_universal_checkpoint() else TAG
        if engine.load_checkpoint(str(folder / name), tag=tag, load_module_strict=not frozen)[0] is None:
            raise RuntimeError(f"{folder}: DeepSpeed could not load the {name}")
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return state | {"warmup": torch.load(folder / WARMUP_FILE, weights_only=True)}


def best_folder(state_dir: Path, step: int) -> Path:
    """Where the actor's weights are kept while they are the best so far; others go with the next checkpoint."""
    return state_dir / f"best-{step:08d}"


def export(engines: Engines, start: Path, state_dir: Path, out: Path, best_step: int | None) -> None:
    """Write the resulting model folder: the weights of `best_step` (0: the SFT model itself), or the last (None)."""
    if best_step is None:
        write_model(engines, out)
    elif rank() == 0:
        fresh = out.with_name(f".{out.name}.tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(best_folder(state_dir, best_step) if best_step else start, fresh)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
    barrier()


def write_model(engines: Engines, folder: Path) -> None:
    """The actor as a plain Hugging Face folder, whole also under ZeRO-3, adapters merged; collective."""
    model = _plain(engines.policy)
    if rank() == 0:
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, engines.tokenizer, folder)
    barrier()


def _plain(policy: Policy) -> Any:
    """The policy as a plain transformers model; None off rank 0 where it had to be gathered."""
    model, causal = policy.model, policy.causal
    if causal is model and not is_sharded(model):
        return model
    with gathered(model.parameters()):
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
