"""StaticDecoder: Qwen2 decoding on one static KV buffer with fused weights; `build_decoder` picks it or the fallback.

HF generate spends most of a small model's step outside of the matrix products, and keeps ended rows to the end of the
batch. Here a layer is two fused projections, one attention and one fused MLP, and ended rows leave the batch.
"""

import itertools
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F

from clinical_r1.generation.kernels import paired, rms_norm, rotate, rotation
from clinical_r1.generation.loop import Decoder
from clinical_r1.generation.weights import causal_of, gathered, weight_of


@dataclass
class _Layer:
    """A layer's weights: matrices (in, out), the query's and key's numbers that rotate together `paired`."""

    norm1: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    out: torch.Tensor
    norm2: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def supports(model: Any) -> bool:
    """Whether the model is a Qwen2 that this file computes exactly: full attention, SiLU, fixed rotary frequencies."""
    config = causal_of(model).config
    layer_types = getattr(config, "layer_types", None) or []
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type == "qwen2"
        and config.hidden_act == "silu"
        and all(kind == "full_attention" for kind in layer_types)
        and rope.get("rope_type", "default") in ("default", "linear", "yarn", "llama3")
    )


def build_decoder(model: Any, batch_tokens: int = 65_536) -> Decoder:
    """The fastest decoder that computes this model exactly."""
    if supports(model):
        return StaticDecoder(model, batch_tokens)
    from clinical_r1.generation.fallback import HFDecoder

    return HFDecoder(model, batch_tokens)


class StaticDecoder(Decoder):
    """Runs the weights of an HF Qwen2ForCausalLM (plain, LoRA-wrapped, or sharded by ZeRO-3) of any size.

    Weights that need no fusing are shared with the model; the fused ones (and all of them under ZeRO-3 or LoRA) are
    copies that `refresh` renews, so call it after each optimizer step before generating.
    """

    def __init__(self, model: Any, batch_tokens: int = 65_536) -> None:
        self.model = model
        self.config = causal_of(model).config
        self.batch_tokens = batch_tokens
        self.window = self.config.max_position_embeddings
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.head_dim = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.heads
        self._layers: list[_Layer] = []
        self.device, self.dtype = torch.device("meta"), torch.float32
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        causal = causal_of(self.model)
        body = causal.model
        fresh: list[_Layer] = []
        for layer, old in itertools.zip_longest(body.layers, self._layers):
            attention, mlp = layer.self_attn, layer.mlp
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            with gathered(layer.parameters()) as own:
                bias = [_bias(part) for part in parts]
                fresh.append(
                    _Layer(
                        own(layer.input_layernorm.weight),
                        _fuse(self._paired([weight_of(part) for part in parts]), _buffer(old, "qkv")),
                        _fuse(self._paired(bias), _buffer(old, "qkv_bias")) if bias[0] is not None else None,
                        own(weight_of(attention.o_proj)).t(),
                        own(layer.post_attention_layernorm.weight),
                        _fuse([weight_of(mlp.gate_proj), weight_of(mlp.up_proj)], _buffer(old, "gate_up")),
                        own(weight_of(mlp.down_proj)).t(),
                    )
                )
        self._layers = fresh
        embeddings, head = body.embed_tokens, causal.lm_head
        with gathered([*embeddings.parameters(), *head.parameters(), *body.norm.parameters()]) as own:
            self._embedding, self._norm = own(weight_of(embeddings)), own(body.norm.weight)
            self._head = self._embedding if self.config.tie_word_embeddings else own(weight_of(head))
        if self._embedding.dtype != self.dtype or self._embedding.device != self.device:
            self.device, self.dtype = self._embedding.device, self._embedding.dtype
            self._turns = torch.empty(0, dtype=torch.complex64)  # the model's own table is rounded to its type

    def _paired(self, parts: list[Any]) -> list[torch.Tensor]:
        """Query's and key's rows of three projections (weights or biases) reordered."""
        query, key, value = parts
        return [paired(query, self.head_dim), paired(key, self.head_dim), value]

    def _prefill(self, ids: torch.Tensor, real: torch.Tensor, capacity: int) -> torch.Tensor:
        rows, length = ids.shape
        self._rotary(capacity)
        shape = (len(self._layers), 2, rows, self.kv_heads, capacity, self.head_dim)
        self._cache = torch.empty(shape, dtype=self.dtype, device=self.device)
        self._hidden: torch.Tensor | None = None
        mask = None
        if not bool(real.all()):
            # What is added to the scores: as booleans every layer of every step would turn them into numbers again.
            self._hidden = torch.zeros((rows, capacity), dtype=self.dtype, device=self.device)
            self._hidden[:, :length].masked_fill_(~real, -torch.inf)
            causal = torch.ones((length, length), dtype=torch.bool, device=self.device).tril()
            # A padding position sees itself, or its softmax would be 0/0.
            own = torch.eye(length, dtype=torch.bool, device=self.device)
            mask = ((causal & real[:, None, :]) | own)[:, None]
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        self._next, self._end = positions[:, -1] + 1, length
        return self._forward(ids, positions, mask, 0)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        start, self._end = self._end, self._end + 1
        mask = self._hidden[:, None, None, : self._end] if self._hidden is not None else None
        logits = self._forward(tokens[:, None], self._next[:, None], mask, start)
        self._next = self._next + 1
        return logits

    def _compact(self, holes: torch.Tensor, sources: torch.Tensor, live: int) -> None:
        self._cache[:, :, holes, :, : self._end] = self._cache[:, :, sources, :, : self._end]
        self._cache = self._cache[:, :, :live]
        for state in (self._next, *([self._hidden] if self._hidden is not None else [])):
            state[holes] = state[sources]
        self._next = self._next[:live]
        self._hidden = self._hidden[:live] if self._hidden is not None else None

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, start: int
    ) -> torch.Tensor:
        """ids, positions (rows, n) go to cache places start..start+n; returns the last position's logits."""
        rows, count = ids.shape
        heads, kv_heads, end, epsilon = self.heads, self.kv_heads, start + count, self.config.rms_norm_eps
        x = F.embedding(ids.flatten(), self._embedding)
        turns = self._turns[positions.flatten()][:, None].expand(-1, heads + kv_heads, -1)
        turns = torch.cat((turns, turns.new_ones(len(x), kv_heads, turns.shape[-1])), dim=1)  # values stay as they are
        seen, fresh = self._cache[..., :end, :].unbind(), self._cache[..., start:end, :].unbind()
        for layer, (keys, values), place in zip(self._layers, seen, fresh, strict=True):
            normed = rms_norm(x, layer.norm1, epsilon)
            fused = normed @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, normed, layer.qkv)
            states = rotate(fused.float(), turns.flatten(1)).to(self.dtype).view(rows, count, -1, self.head_dim)
            query, both = states.split((heads, 2 * kv_heads), dim=2)
            place.copy_(both.unflatten(2, (2, kv_heads)).permute(2, 0, 3, 1, 4))
            if count == 1:  # the query heads of a group become its query positions: no repeated keys and values
                query = query.view(rows, kv_heads, heads // kv_heads, self.head_dim)
                mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            else:
                mixed = F.scaled_dot_product_attention(
                    query.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=True
                ).transpose(1, 2)
            x = torch.addmm(x, mixed.reshape(len(x), -1), layer.out)
            gate, up = (rms_norm(x, layer.norm2, epsilon) @ layer.gate_up).chunk(2, -1)
            x = torch.addmm(x, F.silu(gate).mul_(up), layer.down)
        return F.linear(rms_norm(x.view(rows, count, -1)[:, -1], self._norm, epsilon), self._head)

    def _rotary(self, length: int) -> None:
        """A table of rotations for at least `length` positions, from the model's own rotary module."""
        if self._turns.shape[0] >= length:
            return
        size = min(max(length, 512), max(length, self.window))
        probe = torch.empty(0, dtype=self.dtype, device=self.device)
        rotary = causal_of(self.model).model.rotary_emb
        cos, sin = rotary(probe, torch.arange(size, device=self.device)[None])
        self._turns = rotation(cos[0].float(), sin[0].float(), 1)


def _bias(module: Any) -> torch.Tensor | None:
    bias = getattr(module, "base_layer", module).bias
    return None if bias is None else bias.data


def _buffer(layer: Any, name: str) -> torch.Tensor | None:
    """The fused tensor of the previous refresh."""
    return cast(torch.Tensor | None, getattr(layer, name)) if layer else None


def _fuse(parts: list[torch.Tensor], buffer: torch.Tensor | None) -> torch.Tensor:
    """Transposes side by side along the output dimension, in the previous buffer where there is one."""
    parts = [part.t() for part in parts]
    if buffer is not None and buffer.dtype == parts[0].dtype and buffer.device == parts[0].device:
        return torch.cat(parts, dim=-1, out=buffer)
    return torch.cat(parts, dim=-1)
