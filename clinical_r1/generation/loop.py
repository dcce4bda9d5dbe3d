"""The decoding loop that every local decoder shares: left-padded prefill, one step a token, rows leave when they end.

A decoder supplies `_prefill`, `_step` and `_compact`; splitting by memory, sampling, stopping and streaming are here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from clinical_r1.errors import UserError
from clinical_r1.generation.sampling import Rollout, SamplingParams, draw, row_seeds, row_uniforms

OnToken = Callable[[int, int], bool | None]
"""Called as (row, token id) for each new token; returning True stops that row."""


SMALL_STEP = 3e8
"""Floating-point operations of a decoding step below which sharing it among CPU threads costs more than it saves."""


def is_small_step(model: Any, rows: int) -> bool:
    """Whether decoding `rows` sequences on a CPU is done on one thread."""
    return 2.0 * rows * sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters()) <= SMALL_STEP


class Decoder(ABC):
    """Continues prompts with a local model; not thread-safe (one call at a time)."""

    model: Any
    device: torch.device
    window: int
    """Longest sequence (prompt and completion) that the model was made for."""
    batch_tokens: int
    """Rows x (longest prompt + max_new_tokens) that one batch may reserve in the KV cache; more rows wait."""

    @abstractmethod
    def refresh(self) -> None:
        """Take over the model's current weights. A collective call under ZeRO-3: every process must make it."""

    @abstractmethod
    def _prefill(self, ids: torch.Tensor, real: torch.Tensor, capacity: int) -> torch.Tensor:
        """Read left-padded prompts; ids and real (False on padding) are (rows, length).

        Returns logits of the next token, (rows, vocabulary); `capacity` positions are needed in all.
        """

    @abstractmethod
    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append one token to each live row, (rows,); returns the next logits (rows, vocabulary)."""

    @abstractmethod
    def _compact(self, holes: torch.Tensor, sources: torch.Tensor, live: int) -> None:
        """Move rows `sources` into `holes`, then keep the first `live` rows."""

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        on_token: OnToken | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """Continue each prompt until an end token or `max_new_tokens`; results in the order of the prompts.

        Raises:
            UserError: a prompt leaves no room for `max_new_tokens` in the model's window.
        """
        if not prompts:
            return []
        self._check(prompts, params)
        streams = list(seeds) if seeds is not None else row_seeds(params.seed, len(prompts))
        results: list[Rollout] = [Rollout() for _ in prompts]
        for rows in self._batches(prompts, params.max_new_tokens):
            batch = self._decode([prompts[row] for row in rows], [streams[row] for row in rows], params, on_token, rows)
            for row, rollout in zip(rows, batch, strict=True):
                results[row] = rollout
        return results

    @contextmanager
    def _few_threads(self, rows: int) -> Iterator[None]:
        """Small steps on a CPU run on one thread: two took 1.6 times as long where waking one up is dear."""
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads == 1 or not is_small_step(self.model, rows):
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _check(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        if params.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {params.max_new_tokens}; set it to at least 1")
        for row, prompt in enumerate(prompts):
            if not len(prompt):
                raise ValueError(f"prompt {row} is empty")
            if len(prompt) + params.max_new_tokens > self.window:
                raise UserError(
                    f"prompt {row} has {len(prompt)} tokens and max_new_tokens is {params.max_new_tokens}, more than "
                    f"the model's window of {self.window} together; shorten the prompt or lower max_new_tokens"
                )

    def _batches(self, prompts: Sequence[Sequence[int]], new: int) -> Iterator[list[int]]:
        """Row numbers of batches that fit `batch_tokens`; rows of similar length go together."""
        order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
        start = 0
        while start < len(order):
            size = max(1, self.batch_tokens // (len(prompts[order[start]]) + new))
            yield order[start : start + size]
            start += size

    def _decode(
        self,
        prompts: list[Sequence[int]],
        streams: list[int],
        params: SamplingParams,
        on_token: OnToken | None,
        names: list[int],
    ) -> list[Rollout]:
        capacity = max(map(len, prompts)) + params.max_new_tokens
        logits = self._prefill(*left_pad(prompts, params.pad_token_id, self.device), capacity=capacity)
        with self._few_threads(len(prompts)):
            return self._continue(logits, streams, params, on_token, names)

    def _continue(
        self,
        logits: torch.Tensor,
        streams: list[int],
        params: SamplingParams,
        on_token: OnToken | None,
        names: list[int],
    ) -> list[Rollout]:
        count, new, device = len(logits), params.max_new_tokens, self.device
        uniform = torch.from_numpy(row_uniforms(streams, new)).to(device) if params.temperature > 0 else None
        ends = torch.tensor(params.eos_token_ids, device=device, dtype=torch.long)
        tokens = torch.full((count, new), params.pad_token_id, dtype=torch.long, device=device)
        logprobs = torch.zeros((count, new), device=device)
        lengths = torch.full((count,), new, device=device)
        finished = torch.zeros(count, dtype=torch.bool, device=device)
        rows = torch.arange(count, device=device)
        over = torch.zeros(count, dtype=torch.bool, device=device)
        for position in range(new):
            token, logprob = draw(
                logits, uniform[rows, position] if uniform is not None else None, params.temperature, params.top_p
            )
            tokens[rows, position], logprobs[rows, position] = token, logprob
            ended = torch.isin(token, ends) & ~over
            stopped = _notify(on_token, names, rows, token, over) if on_token else None
            leaving = ended if stopped is None else (ended | stopped) & ~over
            if bool(leaving.any()):
                finished[rows[ended]] = True
                lengths[rows[leaving]] = position + 1
                over = over | leaving
                live = int((~over).sum())
                if live == 0:
                    break
                # Rows that ended ride along until an eighth of the batch has: a step costs nearly the same either way.
                if (len(rows) - live) * 8 >= len(rows):
                    holes = over[:live].nonzero()[:, 0]
                    sources = (~over[live:]).nonzero()[:, 0] + live
                    self._compact(holes, sources, live)
                    for state in (rows, token):
                        state[holes] = state[sources]
                    rows, token, over = rows[:live], token[:live], torch.zeros(live, dtype=torch.bool, device=device)
            if position + 1 < new:
                logits = self._step(token)
        return [
            Rollout(token_row[:length], logprob_row[:length], done)
            for token_row, logprob_row, length, done in zip(
                tokens.tolist(), logprobs.tolist(), lengths.tolist(), finished.tolist(), strict=True
            )
        ]


def left_pad(prompts: list[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as one (rows, longest) tensor with padding on the left, and the mask of real tokens."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], dtype=torch.long)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    real = torch.arange(longest)[None] >= longest - lengths[:, None]
    return ids.to(device), real.to(device)


def _notify(
    on_token: OnToken, names: list[int], rows: torch.Tensor, token: torch.Tensor, over: torch.Tensor
) -> torch.Tensor:
    """Tell the caller of each new token; returns which live rows it wants stopped."""
    wanted = [
        not done and on_token(names[row], value) is True
        for row, value, done in zip(rows.tolist(), token.tolist(), over.tolist(), strict=True)
    ]
    return torch.tensor(wanted, device=rows.device)
