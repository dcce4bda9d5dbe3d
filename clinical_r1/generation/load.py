"""Model folders: load and save them. HF format, safetensors in 5 GB shards, the tokenizer with the weights."""

import logging
import shutil
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder


def load_tokenizer(folder: Path | str) -> Any:
    """The folder's tokenizer, ready for batches: padded on the right, with a padding token and a template."""
    folder = check_model_folder(folder).path
    from transformers import AutoTokenizer

    from clinical_r1.generation.chat import complete_tokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, ImportError, OSError, KeyError) as error:
        raise UserError(f"{folder}: the tokenizer cannot be read: {_first_line(error)}") from None
    return complete_tokenizer(tokenizer)


def load_config(folder: Path | str) -> Any:
    """transformers' configuration of a checked folder: that of the language model where the model has other parts too.

    What config.json leaves out stands there by its architecture's defaults.
    """
    folder = check_model_folder(folder).path
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'}: transformers cannot read it: {_first_line(error)}") from None


def load_model(folder: Path | str, device: str = "cpu", dtype: str = "float32", **options: Any) -> tuple[Any, Any]:
    """(model, tokenizer) of a checked folder; the model is in evaluation mode.

    `dtype` is float32, bfloat16, float16 or auto; `options` go to from_pretrained (attn_implementation, ...).

    Raises:
        UserError: the folder is no model folder, or its weights cannot be read or are not all there.
    """
    folder = check_model_folder(folder).path
    quieten()
    tokenizer = load_tokenizer(folder)
    load_config(folder)
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if options.get("attn_implementation") == "sdpa":
        options.pop("attn_implementation")  # transformers' choice too, but for architectures that cannot (Gemma 2)
    told = options | {"dtype": dtype, "local_files_only": True, "output_loading_info": True}
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(folder, **told)
    except (SafetensorError, EOFError) as error:
        reason = type(error).__name__
        raise UserError(f"{folder}: the weights cannot be read ({reason}); copy the model again") from None
    except (ValueError, ImportError, RuntimeError) as error:
        if "out of memory" in str(error).lower():
            raise
        if "ignore_mismatched_sizes" in str(error):
            raise UserError(f"{folder}: the sizes in config.json are not those of its weights; copy it again") from None
        raise UserError(f"{folder}: transformers cannot load it: {_first_line(error)}") from None
    model, loading = found
    if loading["missing_keys"]:  # transformers would draw them at random and go on
        raise UserError(
            f"{folder}: {len(loading['missing_keys'])} weights are not in its files "
            f"({min(loading['missing_keys'])}, ...); copy the model again"
        )
    if device != "cpu":
        model = model.to(device)
    return model.eval(), tokenizer


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def save_model(model: Any, tokenizer: Any, folder: Path | str, state_dict: dict[str, Any] | None = None) -> Path:
    """Write a model folder that appears whole or not at all; replaces one that is there.

    `state_dict` are gathered weights where the model's own are sharded (ZeRO-3).
    """
    from transformers import GenerationConfig

    quieten()
    folder = Path(folder)
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save_pretrained(fresh, max_shard_size="5GB", state_dict=state_dict)  # transformers 5 would write 50 GB
    tokenizer.save_pretrained(fresh)
    # Without the base's sampling: vLLM and others would fill it into every request.
    ends = {name: getattr(model.generation_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**{name: value for name, value in ends.items() if value is not None}).save_pretrained(fresh)
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
