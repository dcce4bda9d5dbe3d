"""What to sample, what came out, and the draw itself: one uniform number per row and position.

The knobs are those of `clinical_r1.sampling.Sampling` in vLLM's order: repetition penalty, temperature, min_p, top_k,
top_p.

The numbers of a row come from its own counter-based stream, so a row's text does not depend on which other rows are
in its batch (up to the rounding of the matrix products, whose kernels may differ between batch shapes).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from clinical_r1.sampling import Sampling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SamplingParams:
    """How to continue a prompt."""

    max_new_tokens: int = 1024
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus sampling; log-probabilities stay those of the whole distribution."""
    seed: int = 0
    """Row i of a call draws from the stream (seed, i), unless `generate` is given `seeds`."""
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int = 0
    top_k: int = -1
    """Tokens to choose among; -1 and 0 are off."""
    min_p: float = 0.0
    """Least probability as a share of the likeliest token's; 0 is off."""
    repetition_penalty: float = 1.0
    """Of tokens in the prompt or the answer so far; 1 is off. Log-probabilities are those after it."""

    @classmethod
    def of(cls, how: Sampling, room: int, ends: tuple[int, ...], pad: int) -> Self:
        """As an evaluation or a request says, with this much room."""
        return cls(room, how.temperature, how.top_p, 0, ends, pad, how.top_k, how.min_p, how.repetition_penalty)


@dataclass
class Rollout:
    """One completion."""

    token_ids: list[int] = field(default_factory=list)
    """Without the prompt; the end-of-sequence token is included where the model produced it."""
    logprobs: list[float] = field(default_factory=list)
    """Natural log-probability of each token at the sampling temperature (at temperature 1 for greedy)."""
    finished: bool = False
    """The model ended it; False: cut at `max_new_tokens` or stopped by the caller."""


def row_uniforms(seeds: list[int], count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), shape (rows, count), one Philox stream a row."""
    rows = [np.random.Generator(np.random.Philox(key=seed & (2**64 - 1))).random(count) for seed in seeds]
    return np.stack(rows) if rows else np.empty((0, count))


def row_seeds(seed: int, rows: int) -> list[int]:
    """The streams of a call that was given one seed."""
    return [int(word) for word in np.random.SeedSequence(seed & (2**63 - 1)).generate_state(rows, np.uint64)]


def penalised(logits: "torch.Tensor", seen: "torch.Tensor", penalty: float) -> "torch.Tensor":
    """Logits (rows, vocabulary) with tokens that were `seen` (rows, vocabulary; bool) made less likely (CTRL's way)."""
    import torch

    logits = logits.float()
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(
    logits: "torch.Tensor", uniform: "torch.Tensor | None", params: SamplingParams
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Choose one token a row.

    Args:
        logits: (rows, vocabulary), any float type.
        uniform: (rows,) in [0, 1), float64; None for greedy.
        params: temperature (0 is greedy) and which tokens are left out.

    Returns:
        tokens (rows,) int64 and their log-probabilities (rows,) float32, over the whole vocabulary.
    """
    import torch

    scaled = logits.float() if params.temperature in (0.0, 1.0) else logits.float() / params.temperature
    probabilities = scaled.softmax(dim=-1)
    if params.temperature == 0.0 or uniform is None:
        token = scaled.argmax(dim=-1)
    else:
        kept = _kept(probabilities, params)
        # Inverse transform in double precision: right=True never lands on a token of probability zero.
        cumulative = kept.cumsum(dim=-1, dtype=torch.float64)
        threshold = uniform.clamp(max=1 - 1e-12)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return token, probabilities.gather(-1, token[:, None])[:, 0].log()


def _kept(kept: "torch.Tensor", params: SamplingParams) -> "torch.Tensor":
    """Probabilities with those of tokens that are left out set to zero."""
    if params.min_p > 0:
        kept = kept.masked_fill(kept < params.min_p * kept.amax(dim=-1, keepdim=True), 0.0)
    if 0 < params.top_k < kept.shape[-1]:
        kept = kept.masked_fill(kept < kept.topk(params.top_k, dim=-1).values[:, -1:], 0.0)
    if params.top_p < 1.0:
        ranked, order = kept.sort(dim=-1, descending=True)
        outside = ranked.cumsum(dim=-1) - ranked >= params.top_p * ranked.sum(dim=-1, keepdim=True)
        kept = kept.scatter(-1, order, ranked.masked_fill(outside, 0.0))
    return kept
