"""Qwen2's arithmetic on a CPU in fewer passes over memory: the same functions up to rounding.

A small model on a CPU spends half of a training step outside of the matrix products, in elementwise operations that
read and write whole activations. `install` gives a loaded model RMS norms with a backward pass of their own, one
product for query, key and value and one for gate and up, and a rotation that is one complex multiplication. Where that
does not apply (a GPU, bfloat16, adapters, ZeRO-3's sharded weights, a KV cache) transformers' own code runs. What
decides is never in the data (a mask, a length): ZeRO-2 adds gradients up in the order in which they arrive, and
processes that took different ways would add a query's gradient to a key's.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm over the last dimension; torch's own has a fused kernel on GPUs only."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.rms_norm(x, (x.shape[-1],), weight, epsilon)
    if not torch.is_grad_enabled():
        return (x * _inverse_rms(x, epsilon)).mul_(weight)
    normed: Tensor = _RMSNorm.apply(x, weight, epsilon)
    return normed


def _inverse_rms(x: Tensor, epsilon: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    """y = x / rms(x) * weight; with r = 1/rms: dx = r (g w) - x r^3 mean(g w x), dw = sum over rows of r g x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = _inverse_rms(x, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        product = (grad * x).view(-1, x.shape[-1])
        of_weight = torch.mv(product.t(), inverse.view(-1))
        share = torch.mv(product, weight).view_as(inverse) * inverse**3 / -x.shape[-1]
        return (grad * weight).mul_(inverse).addcmul_(x, share), of_weight, None


class _GatedUp(torch.autograd.Function):
    """silu(gate) * up of a tensor (..., gate and up side by side)."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        active = F.silu(gate)
        ctx.save_for_backward(both, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        both, active = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        result = torch.empty_like(both)
        of_gate, of_up = result.chunk(2, -1)
        torch.mul(grad, active, out=of_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=of_gate)
        return result


class _Rows(torch.autograd.Function):
    """Some rows of a matrix, each at most once: the gradient is copied back and not added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.count = x.shape[0]
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.count, grad.shape[1]).index_copy_(0, rows, grad), None


def states_at(body: Any, ids: Tensor, kept: Tensor) -> Tensor:
    """Last hidden states at some positions, (len(kept), hidden); in an installed body the last MLP runs only there.

    Args:
        body: a transformers decoder without head.
        ids: (rows, length), padded on the right.
        kept: places in the flattened ids, none twice.
    """
    known = getattr(body, "takes_kept", False)
    hidden = body(input_ids=ids, use_cache=False, **({"kept": kept} if known else {})).last_hidden_state
    return hidden if known else _rows(hidden, kept)


def _rows(hidden: Tensor, kept: Tensor) -> Tensor:
    chosen: Tensor = _Rows.apply(hidden.flatten(0, 1), kept)
    return chosen


def _last_layer(self: Any, hidden_states: Tensor, kept: Tensor | None = None, **kwargs: Any) -> Tensor:
    """A decoder layer that continues after its attention with the kept positions only."""
    if kept is None or self.gradient_checkpointing:
        whole: Tensor = type(self).forward(self, hidden_states, **kwargs)
        return whole if kept is None else _rows(whole, kept)
    mixed, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
    x = _rows(hidden_states + mixed, kept)
    result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
    return result


def install(model: Any) -> Any:
    """Let a transformers Qwen2 (causal model or body) compute by these kernels wherever they apply; returns it."""
    from transformers.models.qwen2 import modeling_qwen2 as qwen2

    forwards: dict[type, Any] = {qwen2.Qwen2RMSNorm: _norm, qwen2.Qwen2MLP: _mlp, qwen2.Qwen2Attention: _attention}
    for module in model.modules():
        forward = forwards.get(type(module))
        if forward is not None:
            module.forward = MethodType(forward, module)
        if type(module) is qwen2.Qwen2Model:
            body: Any = module
            body.layers[-1].forward = MethodType(_last_layer, body.layers[-1])
            body.takes_kept = True
    return model


def _plain(x: Tensor, *layers: Any) -> bool:
    """Whether the kernels apply: float32 on a CPU, linear layers without adapters, whole weights."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and all(type(layer) is nn.Linear and not hasattr(layer.weight, "ds_id") for layer in layers)
    )


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    if not _plain(hidden_states) or hasattr(self.weight, "ds_id"):
        result: Tensor = type(self).forward(self, hidden_states)
        return result
    return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def _mlp(self: Any, x: Tensor) -> Tensor:
    if not _plain(x, self.gate_proj, self.up_proj) or self.config.hidden_act != "silu":
        result: Tensor = type(self).forward(self, x)
        return result
    both = F.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight)))
    hidden: Tensor = self.down_proj(_GatedUp.apply(both))
    return hidden


def _attention(
    self: Any, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], attention_mask: Tensor | None,
    past_key_values: Any = None, **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    config = self.config
    if (
        past_key_values is not None
        or config._attn_implementation != "sdpa"
        or (self.training and self.attention_dropout)
        or kwargs.get("is_causal") is False
        or not _plain(hidden_states, self.q_proj, self.k_proj, self.v_proj)
    ):
        result: tuple[Tensor, Tensor | None] = type(self).forward(
            self, hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
        )
        return result
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, self.head_dim
    rotated = (heads + kv_heads) * size
    weight = torch.cat((paired(self.q_proj.weight, size), paired(self.k_proj.weight, size), self.v_proj.weight))
    bias = None
    if self.q_proj.bias is not None:
        bias = torch.cat((paired(self.q_proj.bias, size), paired(self.k_proj.bias, size), self.v_proj.bias))
    states, values = F.linear(hidden_states, weight, bias).split((rotated, kv_heads * size), -1)
    states = rotate(states, rotation(*position_embeddings, heads + kv_heads))
    query, keys = states.split((heads * size, kv_heads * size), -1)
    query, keys, values = (part.unflatten(-1, (-1, size)).transpose(1, 2) for part in (query, keys, values))
    mixed = F.scaled_dot_product_attention(
        query, keys, values, attention_mask, scale=self.scaling, enable_gqa=heads != kv_heads,
        is_causal=attention_mask is None and hidden_states.shape[1] > 1,
    )  # fmt: skip
    return self.o_proj(mixed.transpose(1, 2).flatten(2)), None


def paired(weight: Tensor, head_dim: int) -> Tensor:
    """Output rows of a projection reordered so that the two numbers that are rotated together stand side by side.

    Attention scores are sums over a head's numbers, so their order does not matter as long as query and key share it.
    """
    halves = weight.view(-1, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def rotation(cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """transformers' rotary tables (..., head_dim) as complex numbers of `heads` heads in a row: (..., heads x half)."""
    half = cos.shape[-1] // 2
    return torch.complex(cos[..., :half], sin[..., :half]).repeat(*[1] * (cos.ndim - 1), heads)


def rotate(states: Tensor, turns: Tensor) -> Tensor:
    """Rotate `paired` queries and keys (..., heads x head_dim) by complex multiplication."""
    pairs = torch.view_as_complex(states.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)
