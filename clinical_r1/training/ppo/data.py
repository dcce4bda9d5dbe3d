"""The cases that are trained on: read and tokenised once, drawn in an order that only seed and step decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clinical_r1.errors import UserError
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.schema import Case, read_jsonl

WARMUP_STREAM, TRAIN_STREAM = 1, 0


@dataclass(frozen=True)
class PromptSet:
    """Cases with their prompts' tokens."""

    cases: list[Case]
    prompts: list[list[int]]
    too_long: int
    """Cases left out because prompt and max_new_tokens exceed the model's window."""

    def __len__(self) -> int:
        return len(self.cases)


def load_prompts(path: Path, tokenizer: Any, window: int, max_new_tokens: int, limit: int | None = None) -> PromptSet:
    """Read and tokenise; UserError where the file has no case, or none that fits the window."""
    cases = read_jsonl(path, Case)[:limit]
    if not cases:
        raise UserError(f"{path}: no cases in it; PPO needs at least one (check the sizes of the splits)")
    prompts = [prompt_ids(tokenizer, case.prompt) for case in cases]
    fits = [len(prompt) + max_new_tokens <= window for prompt in prompts]
    if not any(fits):
        raise UserError(
            f"{path}: no prompt fits: the model's window is {window} tokens and rollout.max_new_tokens is "
            f"{max_new_tokens}; lower max_new_tokens"
        )
    kept = [index for index, fit in enumerate(fits) if fit]
    return PromptSet([cases[i] for i in kept], [prompts[i] for i in kept], len(cases) - len(kept))


def draw_order(count: int, seed: int, stream: int, first: int, size: int) -> list[int]:
    """Positions first..first+size of an endless stream of shuffled passes over `count` cases."""
    order: list[int] = []
    while len(order) < size:
        epoch, offset = divmod(first + len(order), count)
        shuffled = np.random.default_rng([seed, stream, epoch]).permutation(count)
        order += shuffled[offset : offset + size - len(order)].tolist()
    return order


def stream_seeds(seed: int, stream: int, step: int, rows: int) -> list[int]:
    """One sampling stream an episode, the same for any number of processes."""
    return np.random.SeedSequence([seed, stream, step]).generate_state(rows, np.uint64).tolist()


def micro_order(seed: int, stream: int, step: int, epoch: int, count: int) -> list[int]:
    """The order of micro-batches in one PPO epoch."""
    return np.random.default_rng([seed, stream, step, epoch, 7]).permutation(count).tolist()
