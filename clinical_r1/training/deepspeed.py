"""DeepSpeed: the configuration of one engine, the process group, and what must be on the machine before it starts.

The default optimizer is torch's own AdamW (`zero_allow_untested_optimizer`), so nothing is compiled at run time.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from pydantic import Field

from clinical_r1.errors import UserError
from clinical_r1.strict import Strict
from clinical_r1.training.launcher import LONE


class DeepSpeedConfig(Strict):
    """How one engine is sharded, and where its state lives."""

    stage: Literal[0, 1, 2, 3] = 2
    """ZeRO: 1 shards optimizer states, 2 gradients as well, 3 parameters as well."""
    offload_optimizer: bool = False
    """Keep optimizer states in host memory."""
    offload_parameters: bool = False
    """Keep parameters in host memory (stage 3 only)."""
    cpu_adam: bool = False
    """DeepSpeed's own CPU Adam for an offloaded optimizer: several times faster, but compiled at the first start."""
    pin_memory: bool = True
    """Page-locked host memory for offloading: faster copies, not swappable."""
    bucket_size: int = Field(default=50_000_000, ge=1_000)
    """Elements reduced at a time; smaller needs less memory."""


def build_config(
    config: DeepSpeedConfig,
    micro_batch_size: int,
    accumulation_steps: int = 1,
    gradient_clipping: float = 1.0,
    world_size: int = 1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    resharded: bool = False,
) -> dict[str, Any]:
    """The dict that `deepspeed.initialize(config=...)` takes, for one engine.

    Args:
        config: sharding and offloading.
        micro_batch_size: rows that one process trains in one backward pass.
        accumulation_steps: backward passes between optimizer steps.
        gradient_clipping: largest norm of the gradient over all parameters; 0 is off.
        world_size: processes of the group.
        dtype: of the weights; bfloat16 keeps a float32 master copy in the optimizer.
        resharded: the checkpoint that will be loaded was written by another number of processes, see `reshard`.
    """
    zero: dict[str, Any] = {
        "stage": config.stage,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": config.bucket_size,
        "allgather_bucket_size": config.bucket_size,
    }
    if config.stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        zero["stage3_prefetch_bucket_size"] = config.bucket_size
    for name, asked in (("offload_optimizer", config.offload_optimizer), ("offload_param", config.offload_parameters)):
        if asked:
            zero[name] = {"device": "cpu", "pin_memory": config.pin_memory}
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "train_batch_size": micro_batch_size * accumulation_steps * world_size,
        "gradient_clipping": gradient_clipping,
        "zero_optimization": zero,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        "checkpoint": {"load_universal": resharded},
    }


def reshard(folder: Path) -> None:
    """Write an engine's checkpoint once more beside it, in DeepSpeed's universal form, which any number of processes
    loads; one process only. A checkpoint that is not sharded (stage 0) is left as it is."""
    from deepspeed.checkpoint.ds_to_universal import main

    if any(folder.glob("*_optim_states.pt")):
        out = folder.with_name(f"{folder.name}_universal")
        shutil.rmtree(out, ignore_errors=True)
        told = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        main(SimpleNamespace(input_folder=str(folder), output_folder=str(out), inject_missing_state=True, **told))


def shards(sharding: DeepSpeedConfig | None, dtype: str, world: int) -> bool:
    """Whether DeepSpeed does anything: one process that keeps all in float32 would only get a second copy of it all."""
    if sharding is None:
        return False
    return world > 1 or dtype == "bfloat16" or sharding.offload_optimizer or sharding.stage == 3


def check_requirements(config: DeepSpeedConfig) -> None:
    """Refuse at the start what would fail minutes later: missing compilers, packages, GPUs; impossible combinations."""
    if config.offload_parameters and config.stage != 3:
        raise UserError(
            f"deepspeed.offload_parameters needs ZeRO stage 3 and deepspeed.stage is {config.stage}; change one of them"
        )
    if config.offload_optimizer and config.stage == 0:
        raise UserError("deepspeed.offload_optimizer needs a ZeRO stage of 1 or more; set deepspeed.stage")
    if config.cpu_adam and not config.offload_optimizer:
        raise UserError("deepspeed.cpu_adam is for an offloaded optimizer; set deepspeed.offload_optimizer or drop it")
    missing = [tool for tool in ("g++", "ninja") if config.cpu_adam and shutil.which(tool) is None]
    if missing:
        raise UserError(
            f"deepspeed.cpu_adam compiles at the first start and {' and '.join(missing)} is not on PATH; "
            "install it, or set deepspeed.cpu_adam to false (torch's AdamW: nothing to compile, slower steps)"
        )


def check_attention(attention: str, dtype: str) -> None:
    """Refuse at the start an attention that this machine does not have."""
    if attention == "varlen" and dtype != "bfloat16" and _has_gpu():
        raise UserError(f"attention is varlen and dtype {dtype}: on a GPU it takes bfloat16; set dtype to bfloat16")
    if attention != "flash_attention_2":
        return
    if not _has_gpu():
        raise UserError(
            "attention is flash_attention_2 and there is no CUDA GPU; set attention to sdpa and packing to false"
        )
    if importlib.util.find_spec("flash_attn") is None:
        raise UserError(
            "attention is flash_attention_2 and the package flash-attn is not installed; install it in the trainer "
            "image, or set attention to varlen (with packing) or sdpa (without)"
        )


def join_group() -> None:
    """Make this process ready for DeepSpeed and join the process group (NCCL on GPUs, gloo on CPUs); call before
    anything imports DeepSpeed.

    Without a launcher DeepSpeed looks for mpi4py, so a lone process gets a group of one. The shared-memory reduction
    for CPUs is switched off: it is compiled at the first start (minutes) and gloo gives the same sums.
    """
    if "RANK" not in os.environ:
        os.environ.update(LONE)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if _has_gpu() else "cpu")
    import deepspeed
    import torch

    deepspeed.utils.logger.setLevel("WARNING")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if _has_gpu() else "gloo", verbose=False)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
