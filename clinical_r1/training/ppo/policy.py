"""The models of PPO as modules whose forward pass returns what PPO needs: token log-probabilities, token values."""

from typing import Any

import torch
from torch import Tensor, nn

from clinical_r1.generation.kernels import states_at
from clinical_r1.training.logprobs import LogitScale, score_tokens
from clinical_r1.training.ppo.batch import MicroBatch


class Policy(nn.Module):
    """A causal language model (plain or with adapters) as a distribution over given completions."""

    def __init__(self, model: Any, temperature: float = 1.0, chunk: int = 4096) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk
        self.scale = LogitScale.of(self.causal.config)

    def forward(self, micro: MicroBatch, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the completion's tokens, and entropies (zeros unless asked for); both (rows, time)."""
        causal = self.causal
        hidden = states_at(causal.base_model, micro.ids, micro.kept)
        counts = micro.mask.bool()
        targets = micro.targets[counts]
        head = causal.get_output_embeddings()
        # The head runs inside of this module's forward pass, where ZeRO-3 gathers its (possibly tied) weight.
        scores = score_tokens(
            head, hidden, targets, self.chunk, self.temperature, "entropy" if entropy else "none", self.scale
        )
        shape = torch.zeros_like(micro.mask)
        return shape.masked_scatter(counts, scores.logprobs), shape.masked_scatter(counts, scores.entropy)

    @property
    def causal(self) -> Any:
        """The transformers model inside of adapters."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model


class ValueHead(nn.Linear):
    """The critic's head, in float32 over a body of any type: values differ in digits that bfloat16 does not have.

    Its weights stay float32 where the module around it is cast (as DeepSpeed does for bfloat16), except under ZeRO-3,
    whose groups take one type: there they are the body's, and only the product is float32.
    """

    def __init__(self, size: int, sharded_as: torch.dtype | None = None) -> None:
        super().__init__(size, 1, dtype=sharded_as or torch.float32)
        self._keeps = sharded_as is None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        keep = self._keeps
        return super()._apply(lambda t: fn(t).float() if keep and t.is_floating_point() else fn(t), recurse)

    def forward(self, states: Tensor) -> Tensor:
        """(..., hidden) of any type to (..., 1) float32."""
        return nn.functional.linear(states.float(), self.weight.float(), self.bias.float())


class Critic(nn.Module):
    """A transformer body with a linear head: the expected return after each token of a completion is chosen."""

    def __init__(self, body: Any, initial_value: float = 0.0, sharded: bool = False) -> None:
        """`sharded`: ZeRO-3 will hold the parameters, see `ValueHead`."""
        super().__init__()
        self.body = body
        size = body.config.get_text_config().hidden_size
        self.head = ValueHead(size, next(body.parameters()).dtype if sharded else None)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, initial_value)

    def forward(self, micro: MicroBatch) -> Tensor:
        """Values before each completion token, (rows, time), float32; 0 on padding."""
        values = self.head(states_at(self.body, micro.ids, micro.kept)).squeeze(-1)
        return torch.zeros_like(micro.mask).masked_scatter(micro.mask.bool(), values)
