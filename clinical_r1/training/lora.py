"""Low-rank adapters for SFT and PPO: where they go, trainable rows for new tokens, merging, keeping them apart.

A token that the base never saw needs more than adapters: its output row must become the likeliest, so its rows train in
the embeddings and in the output head (one and the same where they are tied).
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from clinical_r1.errors import UserError
from clinical_r1.strict import Strict

if TYPE_CHECKING:  # the command line reads the settings alone, and torch takes seconds
    from torch import Tensor


class LoraSettings(Strict):
    """Train low-rank adapters instead of all weights; they are merged into a plain model folder at the end."""

    rank: int = Field(default=32, ge=1)
    """Width of the adapters."""
    alpha: int = Field(default=64, gt=0)
    """Scale: an adapter's product is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the adapters' input."""
    target_modules: list[str] = Field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Linear layers that get one."""


def lora_config(settings: LoraSettings, model: Any, new_tokens: list[int], dropout: bool = True) -> Any:
    """peft's configuration for a causal model; `new_tokens` are ids whose rows train as well.

    Raises UserError where the architecture has no layers of these names.
    """
    from peft import LoraConfig
    from torch import nn

    layers = (name for name, module in model.named_modules() if isinstance(module, nn.Linear) and "." in name)
    linear = {name.rpartition(".")[2] for name in layers}
    unknown = [name for name in settings.target_modules if name not in linear]
    if unknown:
        raise UserError(
            f"lora.target_modules: {', '.join(unknown)} is no layer of {model.config.model_type}; it has "
            f"{', '.join(sorted(linear))}"
        )
    rows = None
    if new_tokens:  # of the embeddings, which a tied head follows by itself, and of a head of its own
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        tables = ends[: 1 if ends[0].weight is ends[1].weight else 2]
        names = {id(module): name for name, module in model.named_modules()}
        rows = {names[id(table)]: list(new_tokens) for table in tables}
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout if dropout else 0.0,
        target_modules=settings.target_modules,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )


def expose_bias(model: Any) -> None:
    """Let a wrapped output head say what its bias is: TRL's fused head asks, peft's wrapper does not know."""
    for module in model.modules():
        if hasattr(module, "token_adapter"):
            # past nn.Module's registration: the parameter is the wrapped layer's and must not be there twice
            module.__dict__["bias"] = getattr(module.token_adapter.get_base_layer(), "bias", None)


def merged_state(model: Any) -> "dict[str, Tensor]":
    """Weights of the base architecture with the active adapters' products added; the model itself is not touched."""
    from peft.tuners.lora import LoraLayer

    from clinical_r1.generation.decoder import weight_of

    base = model.get_base_model()
    layers: dict[str, Any] = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    merged: dict[str, Tensor] = {}
    for name, value in base.state_dict().items():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".base_layer.")
        weight = weight_of(layers[owner]) if owner and leaf == "weight" else value
        merged[f"{owner}.{leaf}" if owner else name] = weight.detach().cpu().clone()
    return merged


def save_adapters(model: Any, folder: Path, base: str) -> None:
    """The adapters by themselves, as peft loads them on the model `base` (a name, kept in the configuration)."""
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(fresh, save_embedding_layers=False)
    (fresh / "README.md").unlink(missing_ok=True)  # peft's card names paths of this machine
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
