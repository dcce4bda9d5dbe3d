"""The language-model head of SFT on a CPU.

TRL scores labelled positions only on GPUs, by a Triton kernel. Without one it scores every position, prompt and padding
too, and reads the logits some twenty times: a third of an SFT step here. `install` puts ours in its place.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn
from trl.trainer.utils import FusedCausalLMOutput

from clinical_r1.generation.kernels import states_at
from clinical_r1.training.logprobs import score_tokens
from clinical_r1.training.sft.data import IGNORED

CHUNK_ELEMENTS = 2**26
"""Logits that exist at a time: 256 MiB of float32."""
TAKEN = {"input_ids", "attention_mask", "use_cache", "num_items_in_batch"}
"""Inputs that the head knows what to do with. The mask says nothing: rows are padded on the right."""


def install(model: Any) -> None:
    """Let a causal model that TRL has given its fused head score by ours where that applies.

    It does for a float32 Qwen2 on a CPU with a whole, plain head; else TRL's own runs (other models scale or cap their
    logits, which TRL knows of). As in `generation.kernels`,
    what decides is never in the data.
    """
    if model.config.model_type != "qwen2":
        return
    fused = model.forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        head = self.get_output_embeddings()
        if not fused_lm_head or args or labels is None or not kwargs.keys() <= TAKEN or not _plain(head):
            return fused(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        mask = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][mask]
        kept = nn.functional.pad(mask, (0, 1)).flatten().nonzero()[:, 0]
        hidden = states_at(self.base_model, kwargs["input_ids"], kept)
        scores = score_tokens(head, hidden, targets, max(1, CHUNK_ELEMENTS // head.weight.shape[0]), extras="metrics")
        logprobs, entropy, is_top1 = (part.new_zeros(mask.shape).masked_scatter(mask, part) for part in scores)
        return FusedCausalLMOutput(log_probs=logprobs, entropy=entropy, is_top1=is_top1, label_mask=mask)

    model.forward = MethodType(forward, model)


def _plain(head: Any) -> bool:
    return (
        type(head) is nn.Linear
        and head.weight.device.type == "cpu"
        and head.weight.dtype == torch.float32
        and not hasattr(head.weight, "ds_id")
        and not torch.is_autocast_enabled("cpu")
    )
