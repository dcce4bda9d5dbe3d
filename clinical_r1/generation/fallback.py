"""HFDecoder: the shared loop over any HF causal model's own forward pass and cache, for models other than Qwen2."""

import inspect
from typing import Any

import torch

from clinical_r1.generation.loop import Decoder


class HFDecoder(Decoder):
    """Correct for every causal model of transformers; slower than StaticDecoder."""

    def __init__(self, model: Any, batch_tokens: int = 65_536) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        config = model.config
        self.window = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**31
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.refresh()

    def refresh(self) -> None:
        self.device = next(self.model.parameters()).device

    def _prefill(self, ids: torch.Tensor, real: torch.Tensor, capacity: int) -> torch.Tensor:
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self.model.config)
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
        extra = {"position_ids": positions} if self._takes_positions else {}
        was_training = self.model.training
        self.model.eval()
        output = self.model(
            input_ids=ids, attention_mask=self._real.long(), past_key_values=self._cache, use_cache=True, **extra
        )
        self.model.train(was_training)
        self._cache = output.past_key_values
        return output.logits[:, -1]
