"""What to sample, what came out, and the draw itself: one uniform number per row and position.

The numbers of a row come from its own counter-based stream, so a row's text does not depend on which other rows are
in its batch (up to the rounding of the matrix products, whose kernels may differ between batch shapes).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

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


def draw(
    logits: "torch.Tensor", uniform: "torch.Tensor | None", temperature: float, top_p: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Choose one token a row.

    Args:
        logits: (rows, vocabulary), any float type.
        uniform: (rows,) in [0, 1), float64; None for greedy.
        temperature: 0 is greedy.
        top_p: keep the smallest set of tokens whose probability reaches it.

    Returns:
        tokens (rows,) int64 and their log-probabilities (rows,) float32.
    """
    import torch

    scaled = logits.float() if temperature in (0.0, 1.0) else logits.float() / temperature
    probabilities = scaled.softmax(dim=-1)
    if temperature == 0.0 or uniform is None:
        token = scaled.argmax(dim=-1)
    else:
        kept = probabilities
        if top_p < 1.0:
            ranked, order = probabilities.sort(dim=-1, descending=True)
            outside = ranked.cumsum(dim=-1) - ranked >= top_p
            kept = probabilities.scatter(-1, order, ranked.masked_fill(outside, 0.0))
        # Inverse transform in double precision: right=True never lands on a token of probability zero.
        cumulative = kept.cumsum(dim=-1, dtype=torch.float64)
        threshold = uniform.clamp(max=1 - 1e-12)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return token, probabilities.gather(-1, token[:, None])[:, 0].log()
