"""A model's weights as decoders need them: inside of wrappers, with adapters' products added, whole under ZeRO-3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
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
def gathered(parameters: Iterable[torch.nn.Parameter]) -> Iterator[Any]:
    """Under ZeRO-3 whole parameters exist only inside; the yielded function keeps a tensor beyond it."""
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        with nullcontext():
            yield lambda tensor: tensor.data
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded):
        yield lambda tensor: tensor.data.clone()


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
