"""Memory and disk before the first step: what a configuration needs on each GPU, in host memory and in its folders.

Every training asks at its start; `clinical-r1 preflight CONFIG --gpu-gib 80` asks without a GPU. Sums weights,
gradients, optimizer states, the reference and critic models, rollout weights, the KV cache, activations and logits, by
the sharding that DeepSpeed does (ZeRO paper, arXiv 1910.02054, section 3) and the activations of a transformer layer
(arXiv 2205.05198, with Qwen2's gated MLP and grouped heads). Estimates, not measurements.
"""

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

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


@dataclass(frozen=True)
class Geometry:
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
    def of(cls, folder: Path) -> Self:
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
        return cls(
            hidden=hidden,
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", hidden // heads),
            intermediate=size("intermediate_size", 4 * hidden),
            vocabulary=size("vocab_size"),
            tied=bool(config.tie_word_embeddings),
            window=size("max_position_embeddings", 4_096),
        )

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
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        ends = {"q_proj": self.hidden + q, "k_proj": self.hidden + kv, "v_proj": self.hidden + kv}
        ends |= {"o_proj": self.hidden + q}
        ends |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), self.hidden + self.intermediate)
        return self.layers * lora.rank * sum(ends.get(name, 0) for name in lora.target_modules)


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

    def add(self, other: dict[str, float]) -> None:
        """Add GPU bytes by purpose."""
        for name, size in other.items():
            self.gpu[name] = self.gpu.get(name, 0.0) + size


def estimate(config: SFTConfig | PPOConfig, model: Geometry, world: int = 0) -> Estimate:
    """What a configuration needs for a model; `world` is the number of processes over all nodes."""
    world = world or config.processes
    return _sft(config, model, world) if isinstance(config, SFTConfig) else _ppo(config, model, world)


def _sft(config: SFTConfig, model: Geometry, world: int) -> Estimate:
    size = _width(config.dtype)
    micro = config.micro_batch_size or max(1, config.batch_size // world)
    tokens = micro * (config.max_length or model.window)
    need = Estimate()
    sharding = config.deepspeed or DeepSpeedConfig(stage=0)
    _engine(need, "model", model.total, _trained(config.lora, model, model.total), sharding, size, world, config)
    need.gpu["activations"] = activations(model, tokens, size, config.activation_checkpointing)
    need.gpu["logits"] = 3 * 4 * min(tokens, 1_024) * model.vocabulary
    trained = _trained(config.lora, model, model.total)
    # transformers' checkpoint holds the weights as a model folder, and DeepSpeed's what it shards beside it
    sharded = shards(config.deepspeed, config.dtype, world)
    one = size * trained + (_saved(sharding.stage, trained, size) if sharded else 8.0 * trained)
    need.disk = {"checkpoints": _checkpoints(config) * one, "model": float(size * model.total)}
    return need


def _ppo(config: PPOConfig, model: Geometry, world: int) -> Estimate:
    size, sharding = _width(config.dtype), config.deepspeed
    need = Estimate()
    _engine(need, "actor", model.total, _trained(config.lora, model, model.total), sharding, size, world, config)
    if config.has_critic:
        _engine(need, "critic", model.body, _trained(config.lora, model, model.body), sharding, size, world, config)
    if config.lora is None:
        need.gpu["reference"] = size * model.total / (world if sharding.stage == 3 else 1)
    length = PROMPT_TOKENS + config.rollout.max_new_tokens
    if config.rollout.engine == "local":
        if sharding.stage == 3:
            need.gpu["rollout weights"] = size * model.total
        rows = -(-config.batch_size // world)
        cached = min(config.rollout.batch_tokens, rows * length)
        # On a GPU the cache and the training activations are never alive together; the larger one counts.
        cache = 2.0 * model.layers * model.kv_heads * model.head_dim * size * cached
    else:
        cache = 0.0
    tokens = config.micro_batch_size * length
    kept = activations(model, tokens, size, config.activation_checkpointing)
    need.gpu["activations or KV cache"] = max(cache, kept)
    need.gpu["logits"] = 3 * 4 * min(tokens, config.logits_chunk) * model.vocabulary
    folder = float(size * model.total)
    one = _saved(sharding.stage, _trained(config.lora, model, model.total), size)
    if config.has_critic:
        one += _saved(sharding.stage, _trained(config.lora, model, model.body), size)
    need.disk = {"checkpoints": _checkpoints(config) * one, "model": folder}
    if config.keep == "best":
        need.disk["best models so far"] = 2 * folder
    if config.rollout.engine == "vllm":
        need.disk["weights for the server"] = folder
    return need


def _checkpoints(config: SFTConfig | PPOConfig) -> int:
    """Most that are on the disk at once."""
    return 1 if config.checkpoints else config.keep_checkpoints + 1


def _saved(stage: int, trained: int, size: int) -> float:
    """DeepSpeed's checkpoint of an engine: weights (under ZeRO-3 the master's alone), master and two moments."""
    weights = 0 if stage == 3 else size
    return float((weights + (12 if stage or size == 2 else 8)) * trained)


def _engine(
    need: Estimate, name: str, total: int, trained: int, sharding: DeepSpeedConfig, size: int, world: int, config: Any
) -> None:
    """One DeepSpeed engine: weights, gradients, float32 master weights and two moments, buckets."""
    stage = sharding.stage
    weights = size * total / (world if stage == 3 else 1)
    gradients = size * trained / (world if stage >= 2 else 1)
    states = (12 if stage or size == 2 else 8) * trained / (world if stage >= 1 else 1)
    local = min(world, config.processes)
    gpu = {f"{name} weights": weights, f"{name} gradients": gradients, f"{name} optimizer": states}
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
        gpu["buckets"] = 3.0 * size * min(sharding.bucket_size, trained)
    need.add(gpu)
    need.host["loading"] = need.host.get("loading", 0.0) + (size * total * local if stage != 3 else size * total)


def activations(model: Geometry, tokens: int, size: int, checkpointing: bool) -> float:
    """Kept for the backward pass: per token and layer the inputs of its projections, norms and products."""
    wide = 8 * model.hidden + (2 * model.kv_heads + model.heads) * model.head_dim + 4 * model.intermediate
    layer = float(size * wide * tokens)
    if checkpointing:
        return size * model.hidden * tokens * model.layers + layer
    return layer * model.layers


def _trained(lora: LoraSettings | None, model: Geometry, total: int) -> int:
    return total if lora is None else model.adapters(lora)


def _width(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4


def shipped(kind: str) -> list[tuple[str, SFTConfig | PPOConfig]]:
    """Our configurations of a kind (`sft` | `ppo`) by file name."""
    model: Any = SFTConfig if kind == "sft" else PPOConfig
    paths = sorted(CONFIG_FOLDER.glob(f"{kind}-*.yaml"))
    return [(path.name, model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))) for path in paths]


def nearest(config: SFTConfig | PPOConfig, model: Geometry, gpus: int, gpu_gib: float, host_gib: float) -> str:
    """Name of the shipped configuration that fits this machine and differs least; empty if none does."""
    kind = "sft" if isinstance(config, SFTConfig) else "ppo"
    fitting = []
    for name, candidate in shipped(kind):
        need = estimate(candidate, model)
        if candidate.processes <= gpus and need.gpu_gib <= gpu_gib and need.host_gib <= host_gib:
            same_method = (candidate.lora is None) == (config.lora is None)
            fitting.append((not same_method, gpus - candidate.processes, -need.gpu_gib, name))
    return min(fitting)[-1] if fitting else ""


def check(config: SFTConfig | PPOConfig, model: Geometry, world: int, gpu_gib: float, host_gib: float) -> Estimate:
    """Refuse a configuration that cannot fit.

    Raises:
        UserError: it needs more than there is; names the largest parts and the nearest shipped configuration that fits.
    """
    need = estimate(config, model, world)
    place = "" if need.gpu_gib <= gpu_gib else f"{need.gpu_gib:.0f} GiB on each GPU and there are {gpu_gib:.0f}"
    parts = need.gpu
    if not place and need.host_gib > host_gib:
        place, parts = f"{need.host_gib:.0f} GiB of host memory and there are {host_gib:.0f}", need.host
    if not place:
        return need
    largest = sorted(parts.items(), key=lambda item: -item[1])[:3]
    told = ", ".join(f"{name} {size / GIB:.0f}" for name, size in largest)
    other = nearest(config, model, world, gpu_gib, host_gib)
    advice = (
        f"{other} fits"
        if other
        else "no shipped configuration fits; take more or larger GPUs, lora, or a smaller model"
    )
    raise UserError(f"this run needs about {place} (largest: {told} GiB): {advice}")


def check_disk(need: Estimate, free_gib: float, held_gib: float, place: str) -> None:
    """Refuse a run whose checkpoints would fill the disk; `held_gib` is what its folders hold already.

    Raises:
        UserError: with the largest parts and what makes it less.
    """
    wanted = need.disk_gib - held_gib
    if wanted <= free_gib:
        return
    told = ", ".join(f"{name} {size / GIB:.1f}" for name, size in sorted(need.disk.items(), key=lambda kv: -kv[1]))
    raise UserError(
        f"{place}: this run leaves about {need.disk_gib:.1f} GiB there at its fullest ({told}) and {free_gib:.1f} are "
        "free; take a larger volume, lower keep_checkpoints, or train adapters (lora)"
    )


def check_here(config: SFTConfig | PPOConfig, folder: Path, world: int, state_dir: Path) -> None:
    """`check` against this process's GPU, this node's memory and the disk of the state folder; without a GPU the disk
    alone."""
    import os

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
    if not torch.cuda.is_available():
        return
    gpu = torch.cuda.mem_get_info()[1] / GIB
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    check(config, Geometry.of(folder), world, gpu, host)


def gpu_peak(config: SFTConfig | PPOConfig, folder: Path, world: int) -> dict[str, float]:
    """What this process's GPU held at most, beside the estimate; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    held = torch.cuda.max_memory_reserved() / GIB
    return {"peak_gpu_gib": held, "estimated_gpu_gib": estimate(config, Geometry.of(folder), world).gpu_gib}
