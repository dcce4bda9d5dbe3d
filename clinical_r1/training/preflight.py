"""Memory and disk before the first step: what a configuration needs on each GPU, in host memory and in its folders.

Every training asks at its start; `clinical-r1 preflight CONFIG --gpu-gib 80` asks without a GPU. Sums weights,
gradients, optimizer states, the reference and critic models, rollout weights, the KV cache, activations and logits, by
the sharding that DeepSpeed does (ZeRO paper, arXiv 1910.02054, section 3) and the activations of a transformer layer
(arXiv 2205.05198, with Qwen2's gated MLP and grouped heads). Estimates, not measurements.
"""

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.training.deepspeed import DeepSpeedConfig, shards
from clinical_r1.training.lora import LoraSettings
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig

GIB = 2**30
FRAMEWORK = 1.5 * GIB
"""CUDA context, NCCL buffers, kernels."""
SLACK = 1.08
"""Allocator fragmentation."""
CONFIG_FOLDER = Path(__file__).parent / "configs"
PROMPT_TOKENS = 1_024
"""Assumed longest prompt of PPO."""


class Geometry(NamedTuple):
    """The sizes of a Qwen2-like decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    window: int

    @classmethod
    def of(cls, folder: Path) -> "Geometry":
        """From a model folder's config.json; UserError where a size is missing or no number."""
        from clinical_r1.generation.load import load_config

        config = load_config(folder)

        def size(key: str, default: int = 0) -> int:
            value = getattr(config, key, None) or default
            if not isinstance(value, int) or value < 1:
                raise UserError(
                    f"{folder / 'config.json'}: {key} is missing or no size; give a decoder of equal layers"
                )
            return value

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        grouped, wide = size("num_key_value_heads", heads), size("head_dim", hidden // heads)
        inner, words = size("intermediate_size", 4 * hidden), size("vocab_size")
        tied, window = bool(config.tie_word_embeddings), size("max_position_embeddings", 4_096)
        return cls(hidden, size("num_hidden_layers"), heads, grouped, wide, inner, words, tied, window)

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim * (self.hidden + 1)
        return qkv + (self.heads * self.head_dim + 3 * self.intermediate + 2) * self.hidden

    @property
    def body(self) -> int:
        """Weights without the language-model head: the critic's."""
        return self.vocabulary * self.hidden + self.layers * self.layer + self.hidden

    @property
    def total(self) -> int:
        """All weights."""
        return self.body + (0 if self.tied else self.vocabulary * self.hidden)

    def adapters(self, lora: LoraSettings) -> int:
        """Weights of the adapters."""
        ends = dict.fromkeys(("q_proj", "o_proj"), self.heads * self.head_dim)
        ends |= dict.fromkeys(("k_proj", "v_proj"), self.kv_heads * self.head_dim)
        ends |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), self.intermediate)
        return self.layers * lora.rank * sum(self.hidden + ends[name] for name in lora.target_modules if name in ends)


QWEN_7B = Geometry(3_584, 28, 28, 4, 128, 18_944, 152_064, False, 32_768)
"""Qwen2.5-7B: what the shipped configurations are for."""


@dataclass
class Estimate:
    """Bytes by purpose: on the fullest GPU, in one node's host memory, and in state and output folder at most."""

    gpu: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)

    @property
    def gpu_gib(self) -> float:
        """Per GPU, with the framework and fragmentation."""
        return (sum(self.gpu.values()) * SLACK + FRAMEWORK) / GIB

    @property
    def host_gib(self) -> float:
        """Per node, beyond the processes themselves."""
        return sum(self.host.values()) / GIB

    @property
    def disk_gib(self) -> float:
        """Of both folders, at the fullest moment: a new checkpoint is whole before an old one goes."""
        return sum(self.disk.values()) / GIB


def estimate(config: SFTConfig | PPOConfig, model: Geometry, world: int = 0) -> Estimate:
    """What a configuration needs for a model; `world` is the number of processes over all nodes."""
    world, need = world or config.processes, Estimate()
    folder = float(_width(config) * model.total)
    # A new checkpoint is whole before an old one goes; in a store, one stays on the disk.
    most = 1 if config.checkpoints else config.keep_checkpoints + 1
    one = _sft(need, config, model, world) if isinstance(config, SFTConfig) else _ppo(need, config, model, world)
    need.disk = {"checkpoints": most * one, "model": folder} | need.disk
    return need


def _sft(need: Estimate, config: SFTConfig, model: Geometry, world: int) -> float:
    """Adds what is needed; returns the bytes of a checkpoint."""
    size = _width(config)
    micro = config.micro_batch_size or max(1, config.batch_size // world)
    tokens = micro * (config.max_length or model.window)
    saved = _engine(need, "model", model, model.total, config.deepspeed or DeepSpeedConfig(stage=0), world, config)
    need.gpu["activations"] = activations(model, tokens, size, config.activation_checkpointing)
    need.gpu["logits"] = 3 * 4 * min(tokens, 1_024) * model.vocabulary
    # transformers' checkpoint holds the weights as a model folder, and DeepSpeed's what it shards beside it
    trained = _trained(config, model, model.total)
    return size * trained + (saved if shards(config.deepspeed, config.dtype, world) else 8.0 * trained)


def _ppo(need: Estimate, config: PPOConfig, model: Geometry, world: int) -> float:
    """As `_sft`."""
    size, sharding = _width(config), config.deepspeed
    saved = _engine(need, "actor", model, model.total, sharding, world, config)
    if config.has_critic:
        saved += _engine(need, "critic", model, model.body, sharding, world, config)
    if config.lora is None:
        need.gpu["reference"] = size * model.total / (world if sharding.stage == 3 else 1)
    length = PROMPT_TOKENS + config.rollout.max_new_tokens
    cache = 0.0
    if config.rollout.engine == "local":
        if sharding.stage == 3:
            need.gpu["rollout weights"] = size * model.total
        cached = min(config.rollout.batch_tokens, -(-config.batch_size // world) * length)
        cache = 2.0 * model.layers * model.kv_heads * model.head_dim * size * cached
    tokens = config.micro_batch_size * length
    # On a GPU the cache and the training activations are never alive together; the larger one counts.
    kept = activations(model, tokens, size, config.activation_checkpointing)
    need.gpu["activations or KV cache"] = max(cache, kept)
    need.gpu["logits"] = 3 * 4 * min(tokens, config.logits_chunk) * model.vocabulary
    if config.keep == "best":
        need.disk["best models so far"] = 2.0 * size * model.total
    if config.rollout.engine == "vllm":
        need.disk["weights for the server"] = float(size * model.total)
    return saved


def _engine(
    need: Estimate, name: str, model: Geometry, total: int, sharding: DeepSpeedConfig, world: int, config: Any
) -> float:
    """One DeepSpeed engine: weights, gradients, float32 master weights and two moments, buckets. Returns the bytes of
    its checkpoint: weights (under ZeRO-3 the master's alone), master and moments."""
    stage, size, trained = sharding.stage, _width(config), _trained(config, model, total)
    state = 12 if stage or size == 2 else 8
    local = min(world, config.processes)
    gpu = {
        f"{name} weights": size * total / (world if stage == 3 else 1),
        f"{name} gradients": size * trained / (world if stage >= 2 else 1),
        f"{name} optimizer": state * trained / (world if stage >= 1 else 1),
    }
    if stage == 3:
        gpu[f"{name} gathered layers"] = 2.0 * size * total / 28
    if sharding.offload_parameters:
        need.host[f"{name} weights"] = gpu.pop(f"{name} weights") * local
    if sharding.offload_optimizer:
        # Gradients are copied out as float32 as they come; the GPU keeps the buckets in flight.
        need.host[f"{name} optimizer"] = gpu.pop(f"{name} optimizer") * local
        need.host[f"{name} gradients"] = 4.0 * trained / world * local
        gpu[f"{name} gradients"] = 0.0
    if stage:
        gpu["buckets"] = need.gpu.get("buckets", 0.0) + 3.0 * size * min(sharding.bucket_size, trained)
    need.gpu |= gpu
    need.host["loading"] = need.host.get("loading", 0.0) + size * total * (1 if stage == 3 else local)
    return float(((0 if stage == 3 else size) + state) * trained)


def activations(model: Geometry, tokens: int, size: int, checkpointing: bool) -> float:
    """Kept for the backward pass: per token and layer the inputs of its projections, norms and products."""
    wide = 8 * model.hidden + (2 * model.kv_heads + model.heads) * model.head_dim + 4 * model.intermediate
    layer = float(size * wide * tokens)
    return size * model.hidden * tokens * model.layers + layer if checkpointing else layer * model.layers


def _trained(config: SFTConfig | PPOConfig, model: Geometry, total: int) -> int:
    return total if config.lora is None else model.adapters(config.lora)


def _width(config: SFTConfig | PPOConfig) -> int:
    return 2 if config.dtype == "bfloat16" else 4


CPU_TOKENS = 8_192
"""Tokens that a CPU takes at once: fewer, and every pass costs more than it does; more gains nothing, and a short
example waits for a long one (docs/log.md, "Training on a CPU")."""
CPU_ACTIVATIONS = 2 * 2**30
"""Bytes of activations kept for one micro-batch's backward pass on a CPU: 135M weights make 1.4 MB a token."""


def micro_batch(config: SFTConfig, world: int, tokens: float, cpu: Path | None = None) -> tuple[int, int]:
    """(examples a process takes at once, accumulation steps) that make up batch_size.

    `tokens`: an example's mean; `cpu`: the base model's folder where this is a CPU, by whose activations it is told
    how many of them are taken at once.
    """
    micro = config.micro_batch_size or config.batch_size // world
    if micro and cpu and not config.micro_batch_size and not config.packing:
        one = activations(Geometry.of(cpu), 1, 4, config.activation_checkpointing)
        most = max(1, min(CPU_TOKENS, int(CPU_ACTIVATIONS / one)))
        micro = next((size for size in range(micro, 0, -1) if micro % size == 0 and size * tokens <= most), 1)
    if not micro or config.batch_size % (micro * world):
        raise UserError(
            f"sft.batch_size {config.batch_size} is no multiple of micro_batch_size {micro} x {world} processes; "
            "change one of them"
        )
    return micro, config.batch_size // (micro * world)


def shipped(kind: str) -> list[tuple[str, SFTConfig | PPOConfig]]:
    """Our configurations of a kind (`sft` | `ppo`) by file name."""
    model: Any = SFTConfig if kind == "sft" else PPOConfig
    paths = sorted(CONFIG_FOLDER.glob(f"{kind}-*.yaml"))
    return [(path.name, model.model_validate(read_table(path))) for path in paths]


def check(config: SFTConfig | PPOConfig, model: Geometry, world: int, gpu_gib: float, host_gib: float) -> Estimate:
    """Refuse a configuration that cannot fit.

    Raises:
        UserError: it needs more than there is; names the largest parts and the shipped configuration that fits this
            machine and differs least.
    """
    need = estimate(config, model, world)
    if need.gpu_gib > gpu_gib:
        place, parts = f"{need.gpu_gib:.0f} GiB on each GPU and there are {gpu_gib:.0f}", need.gpu
    elif need.host_gib > host_gib:
        place, parts = f"{need.host_gib:.0f} GiB of host memory and there are {host_gib:.0f}", need.host
    else:
        return need
    fitting = []
    for name, other in shipped("sft" if isinstance(config, SFTConfig) else "ppo"):
        its = estimate(other, model)
        if other.processes <= world and its.gpu_gib <= gpu_gib and its.host_gib <= host_gib:
            other_method = (other.lora is None) != (config.lora is None)
            fitting.append((other_method, world - other.processes, -its.gpu_gib, f"{name} fits"))
    without = "no shipped configuration fits; take more or larger GPUs, lora, or a smaller model"
    advice = min(fitting)[-1] if fitting else without
    raise UserError(f"this run needs about {place} (largest: {_told(parts, 0, 3)} GiB): {advice}")


def _told(parts: dict[str, float], digits: int, most: int | None = None) -> str:
    largest = sorted(parts.items(), key=lambda part: -part[1])[:most]
    return ", ".join(f"{name} {size / GIB:.{digits}f}" for name, size in largest)


def check_disk(need: Estimate, free_gib: float, held_gib: float, place: str) -> None:
    """Refuse a run whose checkpoints would fill the disk; `held_gib` is what its folders hold already.

    Raises:
        UserError: with the largest parts and what makes it less.
    """
    if need.disk_gib - held_gib <= free_gib:
        return
    raise UserError(
        f"{place}: this run leaves about {need.disk_gib:.1f} GiB there at its fullest ({_told(need.disk, 1)}) and "
        f"{free_gib:.1f} are free; take a larger volume, lower keep_checkpoints, or train adapters (lora)"
    )


def check_here(config: SFTConfig | PPOConfig, folder: Path, world: int, state_dir: Path) -> None:
    """`check` against this process's GPU, this node's memory and the disk of the state folder; without a GPU the disk
    alone."""
    import torch

    if int(os.environ.get("RANK", "0")) == 0:
        state_dir.mkdir(parents=True, exist_ok=True)
        held = sum(file.stat().st_size for file in state_dir.rglob("*") if file.is_file()) / GIB
        try:
            need = estimate(config, Geometry.of(folder), world)
        except UserError as error:
            print(f"disk is not checked: {error}", file=sys.stderr, flush=True)
        else:
            check_disk(need, shutil.disk_usage(state_dir).free / GIB, held, str(state_dir))
    if torch.cuda.is_available():
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
        check(config, Geometry.of(folder), world, torch.cuda.mem_get_info()[1] / GIB, host)


def gpu_peak(config: SFTConfig | PPOConfig, folder: Path, world: int) -> dict[str, float]:
    """What this process's GPU held at most, beside the estimate; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    held = torch.cuda.max_memory_reserved() / GIB
    return {"peak_gpu_gib": held, "estimated_gpu_gib": estimate(config, Geometry.of(folder), world).gpu_gib}
