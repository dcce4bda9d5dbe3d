"""Decoding with a local checkpoint: transformers' forward pass and cache, a loop of our own around them.

Hugging Face's `generate` would keep rows that ended to the end of the batch, draw a row's text by what else is in its
batch, and stop no row on request. Here the prompts are read left-padded, each step appends one token a row, and rows
leave when they end; log-probabilities, streaming and splitting by memory come with it.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from clinical_r1.errors import UserError
from clinical_r1.generation.sampling import Rollout, SamplingParams, draw, penalised, row_seeds, row_uniforms
from clinical_r1.generation.weights import causal_of, is_sharded, whole_copy

OnToken = Callable[[int, int], bool | None]
"""Called as (row, token id) for each new token; returning True stops that row."""


class Decoder:
    """Continues prompts with any causal model of transformers, wrapped or not; not thread-safe (one call at a time).

    Under ZeRO-3 it decodes with a whole copy of the weights, which `refresh` renews: forward passes of the sharded
    model are collective, and processes whose rows end at different times would wait for each other for ever.
    """

    def __init__(self, model: Any, batch_tokens: int = 65_536) -> None:
        """`batch_tokens`: rows x (longest prompt + max_new_tokens) that one batch may take in the KV cache; more rows
        wait."""
        self.model = model
        self.batch_tokens = batch_tokens
        causal = causal_of(model)
        self.window: int = getattr(causal.config.get_text_config(), "max_position_embeddings", None) or 2**31
        """Longest sequence (prompt and completion) that the model was made for."""
        taken = inspect.signature(causal.forward).parameters
        self._takes_positions, self._takes_count = "position_ids" in taken, "logits_to_keep" in taken
        self._whole: Any = None
        self._cache: Any = None
        self.refresh()

    def refresh(self) -> None:
        """Take over the model's current weights. A collective call under ZeRO-3: every process must make it."""
        causal = causal_of(self.model)
        self.device = next(causal.parameters()).device
        if is_sharded(causal):
            self._whole = whole_copy(causal, self._whole)

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
        model = self.model if self._whole is None else self._whole
        was_training = model.training
        model.eval()
        try:
            logits = self._prefill(*left_pad(prompts, params.pad_token_id, self.device))
            return self._continue(logits, prompts, streams, params, on_token, names)
        finally:
            model.train(was_training)
            self._cache = None

    def _continue(
        self,
        logits: torch.Tensor,
        prompts: list[Sequence[int]],
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
        seen = _seen(prompts, logits) if params.repetition_penalty != 1.0 else None
        for position in range(new):
            if seen is not None:
                logits = penalised(logits, seen[rows], params.repetition_penalty)
            token, logprob = draw(logits, uniform[rows, position] if uniform is not None else None, params)
            if seen is not None:
                seen[rows, token] = True
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

    def _prefill(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Read prompts; ids and real (False on padding) are (rows, length). Returns logits (rows, vocabulary)."""
        from transformers import DynamicCache

        self._cache = DynamicCache(config=causal_of(self.model).config)
        self._real = real
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        self._next = positions[:, -1] + 1
        return self._forward(ids, positions)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append one token to each live row, (rows,); returns the next logits (rows, vocabulary)."""
        self._real = torch.cat([self._real, torch.ones_like(self._real[:, :1])], dim=1)
        logits = self._forward(tokens[:, None], self._next[:, None])
        self._next = self._next + 1
        return logits

    def _compact(self, holes: torch.Tensor, sources: torch.Tensor, live: int) -> None:
        """Move rows `sources` into `holes`, then keep the first `live` rows."""
        order = torch.arange(live, device=self.device)
        order[holes] = sources
        self._cache.batch_select_indices(order)
        self._real, self._next = self._real[order], self._next[order]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        extra: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        if self._takes_count:  # the logits of a whole prompt would take prompt x vocabulary numbers a row
            extra["logits_to_keep"] = 1
        model = self.model if self._whole is None else self._whole
        output = model(
            input_ids=ids, attention_mask=self._real.long(), past_key_values=self._cache, use_cache=True, **extra
        )
        self._cache = output.past_key_values
        return output.logits[:, -1]


def left_pad(prompts: list[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as one (rows, longest) tensor with padding on the left, and the mask of real tokens."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], dtype=torch.long)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    real = torch.arange(longest)[None] >= longest - lengths[:, None]
    return ids.to(device), real.to(device)


def _seen(prompts: list[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
    """Which tokens each prompt holds: (rows, vocabulary)."""
    seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for row, prompt in enumerate(prompts):
        seen[row, torch.tensor(prompt, device=logits.device)] = True
    return seen


def _notify(
    on_token: OnToken, names: list[int], rows: torch.Tensor, token: torch.Tensor, over: torch.Tensor
) -> torch.Tensor:
    """Tell the caller of each new token; returns which live rows it wants stopped."""
    wanted = [
        not done and on_token(names[row], value) is True
        for row, value, done in zip(rows.tolist(), token.tolist(), over.tolist(), strict=True)
    ]
    return torch.tensor(wanted, device=rows.device)
