"""HFDecoder: the shared loop over any HF causal model's own forward pass and cache, for models other than Qwen2."""

import inspect
from typing import Any

import torch

from clinical_r1.generation.loop import Decoder
from clinical_r1.generation.weights import causal_of, gathered, is_sharded, weight_of


class HFDecoder(Decoder):
    """Correct for every causal model of transformers; slower than StaticDecoder.

    Under ZeRO-3 it decodes with a whole copy of the weights, which `refresh` renews: forward passes of the sharded
    model are collective, and processes whose rows end at different times would wait for each other for ever.
    """

    def __init__(self, model: Any, batch_tokens: int = 65_536) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        causal = causal_of(model)
        self.window = getattr(causal.config.get_text_config(), "max_position_embeddings", None) or 2**31
        taken = inspect.signature(causal.forward).parameters
        self._takes_positions, self._takes_count = "position_ids" in taken, "logits_to_keep" in taken
        self._whole: Any = None
        self.refresh()

    def refresh(self) -> None:
        causal = causal_of(self.model)
        self.device = next(causal.parameters()).device
        if is_sharded(causal):
            self._whole = whole_copy(causal, self._whole)

    def _prefill(self, ids: torch.Tensor, real: torch.Tensor, capacity: int) -> torch.Tensor:
        from transformers import DynamicCache

        self._cache = DynamicCache(config=causal_of(self.model).config)
        self._real = real
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        self._next = positions[:, -1] + 1
        return self._forward(ids, positions)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._real = torch.cat([self._real, torch.ones_like(self._real[:, :1])], dim=1)
        logits = self._forward(tokens[:, None], self._next[:, None])
        self._next = self._next + 1
        return logits

    def _compact(self, holes: torch.Tensor, sources: torch.Tensor, live: int) -> None:
        order = torch.arange(live, device=self.device)
        order[holes] = sources
        self._cache.batch_select_indices(order)
        self._real, self._next = self._real[order], self._next[order]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        extra: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        if self._takes_count:  # the logits of a whole prompt would take prompt x vocabulary numbers a row
            extra["logits_to_keep"] = 1
        model = self.model if self._whole is None else self._whole
        was_training = model.training
        model.eval()
        output = model(
            input_ids=ids, attention_mask=self._real.long(), past_key_values=self._cache, use_cache=True, **extra
        )
        model.train(was_training)
        self._cache = output.past_key_values
        return output.logits[:, -1]


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
