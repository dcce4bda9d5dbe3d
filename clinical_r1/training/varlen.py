"""Attention over packed examples with what torch brings: nothing to install, nothing to compile.

`register` gives transformers the implementation `varlen`. Rows are whole examples one behind the other; the collator of
TRL says where each begins (`cu_seq_lens_q`), and none sees another. On a GPU it is torch's own flash attention for
sequences of various lengths (torch.nn.attention.varlen); on a CPU one SDPA call an example, slow and exact.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clinical_r1.errors import UserError

NAME = "varlen"


def register() -> None:
    """Let transformers' models be loaded with `attn_implementation="varlen"`; it needs no mask."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, cu_seq_lens_q: Tensor | None = None, max_length_q: int | None = None,
    sliding_window: int | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Causal attention within each example, as transformers calls it: (1, tokens, heads, head_dim), and no weights.

    Args:
        module: not used, nor `attention_mask`: Qwen2's head groups are in the shapes, the bounds say the rest.
        query: (1, heads, tokens, head_dim); `key` and `value` are (1, kv_heads, tokens, head_dim).
        scaling: of the scores; None = 1 / sqrt(head_dim).
        cu_seq_lens_q: (examples + 1,) int32, where each example begins, and the end.
        max_length_q: tokens of the longest.
        sliding_window: refused where an example is longer; None = full attention.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        raise ValueError("attention varlen got a batch without cu_seq_lens_q: it is for packed examples only")
    if sliding_window is not None and sliding_window < max_length_q:
        raise UserError(
            f"attention varlen is full attention and this model's window is {sliding_window} tokens; set attention to "
            "sdpa and packing to false"
        )
    if query.device.type == "cpu":
        parts = [
            F.scaled_dot_product_attention(
                query[:, :, start:end], key[:, :, start:end], value[:, :, start:end],
                scale=scaling, is_causal=True, enable_gqa=query.shape[1] != key.shape[1],
            )
            for start, end in itertools.pairwise(cu_seq_lens_q.tolist())
        ]  # fmt: skip
        return torch.cat(parts, dim=2).transpose(1, 2), None
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    bounds, longest = cu_seq_lens_q, max_length_q
    mixed: Any = varlen_attn(
        query, key, value, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=True
    )
    return mixed[None], None
