"""Decoding with a local checkpoint: what to sample, the draw, and a loop around transformers' forward pass and cache.

Hugging Face's `generate` would keep rows that ended to the end of the batch, draw a row's text by what else is in its
batch, and stop no row on request. Here the prompts are read left-padded, each step appends one token a row, and rows
leave when they end; log-probabilities, streaming and splitting by memory come with it. The numbers of a row come from
its own counter-based stream, so its text does not depend on which other rows are in its batch (up to the rounding of
the matrix products, whose kernels may differ between batch shapes).
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from clinical_r1.errors import UserError
from clinical_r1.sampling import Sampling

OnToken = Callable[[int, int], bool | None]
"""Called as (row, token id) for each new token; returning True stops that row."""


@dataclass(frozen=True)
class SamplingParams:
    """How to continue a prompt: `sampling.Sampling` in vLLM's order (penalty, temperature, min_p, top_k, top_p)."""

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
    """Of tokens in the prompt or the answer so far (CTRL's way); 1 is off. Log-probabilities are those after it."""

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


def row_seeds(seed: int, rows: int) -> list[int]:
    """The streams of a call that was given one seed."""
    return [int(word) for word in np.random.SeedSequence(seed & (2**63 - 1)).generate_state(rows, np.uint64)]


def draw(logits: Tensor, uniform: Tensor | None, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Choose one token a row.

    Args:
        logits: (rows, vocabulary), any float type.
        uniform: (rows,) in [0, 1), float64; None for greedy.

    Returns:
        tokens (rows,) int64 and their log-probabilities (rows,) float32, over the whole vocabulary.
    """
    scaled = logits.float() if params.temperature in (0.0, 1.0) else logits.float() / params.temperature
    probabilities = scaled.softmax(dim=-1)
    if params.temperature == 0.0 or uniform is None:
        token = scaled.argmax(dim=-1)
    else:
        # Inverse transform in double precision: right=True never lands on a token of probability zero.
        cumulative = _kept(probabilities, params).cumsum(dim=-1, dtype=torch.float64)
        threshold = uniform.clamp(max=1 - 1e-12)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return token, probabilities.gather(-1, token[:, None])[:, 0].log()


def _kept(kept: Tensor, params: SamplingParams) -> Tensor:
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


class Decoder:
    """Continues prompts with any causal model of transformers, wrapped or not; not thread-safe (one call at a time).

    Under ZeRO-3 it decodes with a whole copy of the weights, which `refresh` renews: forward passes of the sharded
    model are collective, and processes whose rows end at different times would wait for each other for ever.
    """

    def __init__(self, model: Any, batch_tokens: int = 65_536) -> None:
        """`batch_tokens`: rows x (longest prompt + max_new_tokens) that one batch may take in the KV cache; more rows
        wait."""
        self.model, self.batch_tokens = model, batch_tokens
        causal = causal_of(model)
        self.window: int = getattr(causal.config.get_text_config(), "max_position_embeddings", None) or 2**31
        """Longest sequence (prompt and completion) that the model was made for."""
        taken = inspect.signature(causal.forward).parameters
        self._takes_positions, self._takes_count = "position_ids" in taken, "logits_to_keep" in taken
        self._whole: Any = None
        self._cache: Any = None
        self._real = torch.empty(0)
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
        new = params.max_new_tokens
        if prompts and new < 1:
            raise UserError(f"max_new_tokens is {new}; set it to at least 1")
        for row, prompt in enumerate(prompts):
            if not len(prompt):
                raise ValueError(f"prompt {row} is empty")
            if len(prompt) + new > self.window:
                raise UserError(
                    f"prompt {row} has {len(prompt)} tokens and max_new_tokens is {new}, more than the model's window "
                    f"of {self.window} together; shorten the prompt or lower max_new_tokens"
                )
        streams = list(seeds) if seeds is not None else row_seeds(params.seed, len(prompts))
        results: list[Rollout] = [Rollout() for _ in prompts]
        self._runs = self.model if self._whole is None else self._whole
        was_training = self._runs.training
        self._runs.eval()
        waiting = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))  # similar lengths go together
        try:
            while waiting:
                size = max(1, self.batch_tokens // (len(prompts[waiting[0]]) + new))
                rows, waiting = waiting[:size], waiting[size:]
                for row, rollout in zip(rows, self._decode(rows, prompts, streams, params, on_token), strict=True):
                    results[row] = rollout
        finally:
            self._runs.train(was_training)
            self._cache = None
        return results

    def _decode(
        self,
        names: list[int],
        prompts: Sequence[Sequence[int]],
        streams: list[int],
        params: SamplingParams,
        on_token: OnToken | None,
    ) -> list[Rollout]:
        """The rows `names` of a call, as one batch."""
        count, new, device = len(names), params.max_new_tokens, self.device
        logits = self._read([prompts[name] for name in names], params.pad_token_id)
        uniform = None
        if params.temperature > 0:  # numbers in [0, 1), one Philox stream a row
            seeds = [streams[name] for name in names]
            drawn = [np.random.Generator(np.random.Philox(key=seed & (2**64 - 1))).random(new) for seed in seeds]
            uniform = torch.from_numpy(np.stack(drawn)).to(device)
        ends = torch.tensor(params.eos_token_ids, device=device, dtype=torch.long)
        tokens = torch.full((count, new), params.pad_token_id, dtype=torch.long, device=device)
        logprobs = torch.zeros((count, new), device=device)
        lengths = torch.full((count,), new, device=device)
        finished = torch.zeros(count, dtype=torch.bool, device=device)
        rows = torch.arange(count, device=device)
        over = torch.zeros(count, dtype=torch.bool, device=device)
        penalty = params.repetition_penalty
        seen = torch.zeros(logits.shape if penalty != 1.0 else (count, 0), dtype=torch.bool, device=device)
        for row, name in enumerate(names if penalty != 1.0 else ()):
            seen[row, torch.tensor(prompts[name], device=device)] = True
        for position in range(new):
            if penalty != 1.0:
                logits = logits.float()
                logits = torch.where(seen[rows], torch.where(logits > 0, logits / penalty, logits * penalty), logits)
            token, logprob = draw(logits, uniform[rows, position] if uniform is not None else None, params)
            if penalty != 1.0:
                seen[rows, token] = True
            tokens[rows, position], logprobs[rows, position] = token, logprob
            leaving = ended = torch.isin(token, ends) & ~over
            if on_token:
                told = zip(rows.tolist(), token.tolist(), over.tolist(), strict=True)
                stops = [not done and on_token(names[row], value) is True for row, value, done in told]
                leaving = ended | torch.tensor(stops, device=device)
            if bool(leaving.any()):
                finished[rows[ended]] = True
                lengths[rows[leaving]] = position + 1
                over = over | leaving
                live = int((~over).sum())
                if live == 0:
                    break
                # Rows that ended ride along until an eighth of the batch has: a step costs nearly the same either way.
                if (len(rows) - live) * 8 >= len(rows):
                    order = torch.arange(live, device=device)
                    order[over[:live].nonzero()[:, 0]] = (~over[live:]).nonzero()[:, 0] + live
                    self._cache.batch_select_indices(order)
                    self._real, rows, token, over = self._real[order], rows[order], token[order], over[order]
            if position + 1 < new:
                logits = self._forward(token[:, None], torch.ones_like(self._real[:, :1]))
        columns = (column.tolist() for column in (tokens, logprobs, lengths, finished))
        return [
            Rollout(token_row[:length], logprob_row[:length], done)
            for token_row, logprob_row, length, done in zip(*columns, strict=True)
        ]

    def _read(self, prompts: list[Sequence[int]], pad: int) -> Tensor:
        """Read prompts, padded on the left, into a fresh cache; returns logits (rows, vocabulary)."""
        from transformers import DynamicCache

        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], dtype=torch.long)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        real = (torch.arange(longest)[None] >= longest - lengths[:, None]).to(self.device)
        self._cache, self._real = DynamicCache(config=causal_of(self.model).config), real[:, :0]
        return self._forward(ids.to(self.device), real)

    def _forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """Append tokens to each live row; ids and real (False on padding) are (rows, length). Logits behind the last,
        (rows, vocabulary)."""
        self._real = torch.cat([self._real, real], dim=1)
        mask = self._real.long()
        extra: dict[str, Any] = {}
        if self._takes_positions:
            extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if self._takes_count:  # the logits of a whole prompt would take prompt x vocabulary numbers a row
            extra["logits_to_keep"] = 1
        output = self._runs(input_ids=ids, attention_mask=mask, past_key_values=self._cache, use_cache=True, **extra)
        self._cache = output.past_key_values
        return output.logits[:, -1]


def causal_of(model: Any) -> Any:
    """The transformers causal model inside of a DeepSpeed engine, a distributed wrapper or a PEFT model."""
    while hasattr(model, "get_base_model") or not hasattr(model, "get_output_embeddings"):
        inner = model.get_base_model() if hasattr(model, "get_base_model") else getattr(model, "module", None)
        if inner is None:
            return model
        model = inner
    return model


def is_sharded(model: Any) -> bool:
    """Whether ZeRO-3 holds parts of the weights elsewhere."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def gathered(parameters: Iterable[torch.nn.Parameter], writer: int | None = None) -> Iterator[None]:
    """Under ZeRO-3 whole parameters exist only inside; what process `writer` changes there, all of them get."""
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=writer):
        yield


def weight_of(module: Any) -> Tensor:
    """A layer's effective weight: with LoRA the base weight and the active adapters' products."""
    if hasattr(module, "token_adapter"):  # peft: a few trainable rows over a frozen embedding
        adapter = module.token_adapter
        active = [] if adapter.disable_adapters else adapter.active_adapters
        return adapter.get_merged_weights(active) if active else adapter.get_base_layer().weight
    if not hasattr(module, "base_layer"):
        return module.weight.data
    weight = module.base_layer.weight.data
    if module.merged or module.disable_adapters:
        return weight
    for adapter in module.active_adapters:
        if adapter in module.lora_A:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
    return weight


@torch.no_grad()
def whole_copy(causal: Any, whole: Any) -> Any:
    """A plain model with the weights of a sharded one, adapters' products added; `whole`, if any, is filled anew.
    Collective."""
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
