"""A model's weights as decoders need them: inside of wrappers, with adapters' products added, whole under ZeRO-3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def causal_of(model: Any) -> Any:
    """The transformers causal model inside of a DeepSpeed engine, a distributed wrapper or a PEFT model."""
    while hasattr(model, "get_base_model") or not hasattr(model, "get_output_embeddings"):
        inner = model.get_base_model() if hasattr(model, "get_base_model") else getattr(model, "module", None)
        if inner is None:
            return model
        model = inner
    return model


def is_sharded(model: Any) -> bool:
    """Whether ZeRO-3 holds parts of the weights elsewhere."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def gathered(parameters: Iterable[torch.nn.Parameter], writer: int | None = None) -> Iterator[None]:
    """Under ZeRO-3 whole parameters exist only inside; what process `writer` changes there, all of them get."""
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=writer):
        yield


def weight_of(module: Any) -> torch.Tensor:
    """A layer's effective weight: with LoRA the base weight and the active adapters' products."""
    if hasattr(module, "token_adapter"):  # peft: a few trainable rows over a frozen embedding
        adapter = module.token_adapter
        active = [] if adapter.disable_adapters else adapter.active_adapters
        return adapter.get_merged_weights(active) if active else adapter.get_base_layer().weight
    if not hasattr(module, "base_layer"):
        return module.weight.data
    weight = module.base_layer.weight.data
    if module.merged or module.disable_adapters:
        return weight
    for adapter in module.active_adapters:
        if adapter in module.lora_A:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
    return weight


@torch.no_grad()
def whole_copy(causal: Any, old: Any = None) -> Any:
    """A plain model with the weights of a sharded one, adapters' products added; `old` is filled anew. Collective."""
    whole = old
    if whole is None:
        first = next(causal.parameters())
        with first.device:
            whole = type(causal)(causal.config).to(first.dtype).eval().requires_grad_(False)
        whole.generation_config = causal.generation_config
    buffers = dict(causal.named_buffers())
    for name, buffer in whole.named_buffers():
        if name in buffers:
            buffer.copy_(buffers[name])
    for name, target in whole.named_parameters():
        owner, _, leaf = name.rpartition(".")
        module = causal.get_submodule(owner)
        with gathered(module.parameters()):
            plain = getattr(module, "base_layer", module)
            target.copy_(weight_of(module) if leaf == "weight" else plain.get_parameter(leaf))
    return whole
