"""Log-probabilities of given tokens under a language-model head, without logits for batch x time x vocabulary.

The head is applied to the positions that count only, in chunks, and where there is more than one chunk its logits are
computed again in the backward pass (as TRL's GRPO and Liger do).
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class TokenScores(NamedTuple):
    """What the head says of each target; both (tokens,)."""

    logprobs: Tensor
    """Float32, with a gradient."""
    entropy: Tensor
    """Float32, nats, with a gradient; zeros where it was not asked for."""


class LogitScale(NamedTuple):
    """What an architecture does to its head's output before the softmax (Granite, Cohere, Gemma 2, ...)."""

    factor: float = 1.0
    cap: float | None = None
    """Of the soft cap: cap x tanh(logits / cap), behind the factor."""

    @classmethod
    def of(cls, config: Any) -> Self:
        """From transformers' configuration. The names are those that TRL's fused head knows (trl/trainer/utils.py)."""
        text = config.get_text_config()
        factors = [getattr(text, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
        divisor = getattr(text, "logits_scaling", None)
        if divisor is not None:
            factors.append(divisor if text.model_type == "hyperclovax" else 1 / divisor)
        known = [factor for factor in factors if factor is not None]
        return cls(float(known[0]) if known else 1.0, getattr(text, "final_logit_softcapping", None))

    def apply(self, logits: Tensor) -> Tensor:
        """The logits that the softmax sees."""
        if self.factor != 1.0:
            logits = logits * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def score_tokens(
    head: nn.Module,
    hidden: Tensor,
    targets: Tensor,
    chunk: int,
    temperature: float = 1.0,
    entropy: bool = False,
    scale: LogitScale = LogitScale(),
) -> TokenScores:
    """Score targets by the states before them.

    Args:
        head: states -> logits; called inside of a module's forward pass, where ZeRO-3 gathers its weight.
        hidden: (tokens, hidden).
        targets: (tokens,) ids.
        chunk: tokens whose logits exist at a time.
        temperature: divides the logits.
        scale: what the architecture does to the head's output.
        entropy: whether entropies are wanted.
    """
    pieces = []
    single = len(targets) <= chunk
    for start in range(0, max(len(targets), 1), chunk):
        args = (head, hidden[start : start + chunk], targets[start : start + chunk], temperature, entropy, scale)
        if single or not torch.is_grad_enabled():
            pieces.append(_chunk(*args))
        else:
            pieces.append(checkpoint(_chunk, *args, use_reentrant=False))
    return pieces[0] if single else TokenScores(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def _chunk(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool, scale: LogitScale
) -> TokenScores:
    logits = scale.apply(head(hidden).float())
    if temperature != 1.0:
        logits = logits / temperature
    if not entropy:
        chosen = _Chosen.apply(logits, targets)
        return TokenScores(chosen, torch.zeros_like(chosen))
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, targets[:, None])[:, 0]
    return TokenScores(chosen, -(logprobs.exp() * logprobs).sum(-1))


class _Chosen(torch.autograd.Function):
    """log_softmax(logits)[targets]; the gradient g (one-hot - p) is written in one pass, torch's own takes three."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logprobs = logits.log_softmax(-1)
        ctx.save_for_backward(logprobs, targets)
        return logprobs.gather(-1, targets[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logprobs, targets = ctx.saved_tensors
        of_logits = logprobs.exp().mul_(-grad[:, None])
        return of_logits.scatter_add_(-1, targets[:, None], grad[:, None]), None
