"""The models of PPO as modules whose forward pass returns what PPO needs: token log-probabilities, token values.

Logits never exist for batch x time x vocabulary: the language-model head is applied to completion positions only, in
chunks, and a chunk's logits are recomputed in the backward pass (as TRL's GRPO and Liger do).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clinical_r1.generation.kernels import states_at
from clinical_r1.training.ppo.batch import MicroBatch


class Policy(nn.Module):
    """A causal language model (plain or with adapters) as a distribution over given completions."""

    def __init__(self, model: Any, temperature: float = 1.0, chunk: int = 4096) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk

    def forward(self, micro: MicroBatch, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the completion's tokens, and entropies (zeros unless asked for); both (rows, time)."""
        causal = self.causal
        hidden = states_at(causal.base_model, micro.ids, micro.kept)
        counts = micro.mask.bool()
        targets = micro.targets[counts]
        head = causal.get_output_embeddings()
        # The head runs inside of this module's forward pass, where ZeRO-3 gathers its (possibly tied) weight.
        pieces = []
        single = len(targets) <= self.chunk
        for start in range(0, len(targets), self.chunk):
            args = (head, hidden[start : start + self.chunk], targets[start : start + self.chunk], self.temperature)
            if single or not torch.is_grad_enabled():
                pieces.append(_chunk(*args, entropy))
            else:
                pieces.append(checkpoint(_chunk, *args, entropy, use_reentrant=False))
        shape = torch.zeros_like(micro.mask)
        logprobs = shape.masked_scatter(counts, torch.cat([piece[0] for piece in pieces]))
        return logprobs, shape.masked_scatter(counts, torch.cat([piece[1] for piece in pieces]))

    @property
    def causal(self) -> Any:
        """The transformers model inside of adapters."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model


class Critic(nn.Module):
    """A transformer body with a linear head: the expected return after each token of a completion is chosen."""

    def __init__(self, body: Any, initial_value: float = 0.0) -> None:
        super().__init__()
        self.body = body
        config = body.config
        self.head = nn.Linear(config.hidden_size, 1, dtype=next(body.parameters()).dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, initial_value)

    def forward(self, micro: MicroBatch) -> Tensor:
        """Values before each completion token, (rows, time), float32; 0 on padding."""
        values = self.head(states_at(self.body, micro.ids, micro.kept)).squeeze(-1).float()
        return torch.zeros_like(micro.mask).masked_scatter(micro.mask.bool(), values)


def _chunk(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor]:
    """(tokens, hidden) -> log-probability of each target and, if asked, the entropy; both (tokens,) float32."""
    logits = head(hidden).float()
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = logits.log_softmax(-1)  # forward and backward one fused pass each
    chosen = logprobs.gather(-1, targets[:, None])[:, 0]
    if not entropy:
        return chosen, torch.zeros_like(chosen)
    return chosen, -(logprobs.exp() * logprobs).sum(-1)
