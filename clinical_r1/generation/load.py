"""Model folders: check, load and save them. HF format, safetensors in 5 GB shards, the tokenizer with the weights."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError

SHARD_SIZE = "5GB"
"""transformers 5 would write shards of 50 GB."""


def check_model_folder(folder: Path | str) -> Path:
    """The folder as a path, or a UserError that says what is missing; reads no weights."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no model folder: no such folder; give one with config.json and *.safetensors")
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no model folder: {name} missing; give the folder that save_pretrained wrote")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{folder} is no model folder: config.json is not JSON; copy the model again") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"{folder} is no model folder: config.json names no model_type; copy the model again")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"{folder} is no model folder: *.safetensors missing; copy the weights beside config.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index} is no index of weights: copy the model again") from None
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                raise UserError(f"{folder} is no whole model folder: {shard} missing; copy the weights again")
    return folder


def load_tokenizer(folder: Path | str) -> Any:
    """The folder's tokenizer, with padding on the right (our batches pad themselves)."""
    folder = check_model_folder(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, padding_side="right", local_files_only=True)


def load_model(folder: Path | str, device: str = "cpu", dtype: str = "float32", **options: Any) -> tuple[Any, Any]:
    """(model, tokenizer) of a checked folder; the model is in evaluation mode.

    `dtype` is float32, bfloat16, float16 or auto; `options` go to from_pretrained (attn_implementation, ...).

    Raises:
        UserError: the folder is no model folder, or its weights cannot be read.
    """
    folder = check_model_folder(folder)
    quieten()
    tokenizer = load_tokenizer(folder)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    torch_dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    model: Any
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype, local_files_only=True, **options)
    except (SafetensorError, EOFError) as error:
        raise UserError(
            f"{folder}: the weights cannot be read ({type(error).__name__}); copy the model again"
        ) from None
    if device != "cpu":
        model = model.to(device)
    return model.eval(), tokenizer


def save_model(model: Any, tokenizer: Any, folder: Path | str, state_dict: dict[str, Any] | None = None) -> Path:
    """Write a model folder that appears whole or not at all; replaces one that is there.

    `state_dict` are gathered weights where the model's own are sharded (ZeRO-3).
    """
    quieten()
    folder = Path(folder)
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save_pretrained(fresh, max_shard_size=SHARD_SIZE, state_dict=state_dict)
    tokenizer.save_pretrained(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def quieten() -> None:
    """No bars for shards, and no warning that DeepSpeed (which accelerate imports) found no GPU: neither is news."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    deepspeed = logging.getLogger("DeepSpeed")
    if not deepspeed.filters:
        deepspeed.addFilter(lambda record: "Setting accelerator to CPU" not in str(record.msg))
