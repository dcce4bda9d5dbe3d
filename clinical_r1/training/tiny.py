"""The default run's base model: a tokenizer trained from scratch and a tiny, randomly initialised Qwen2.

The tokenizer has exactly Qwen2's normalizer, pre-tokenizer and decoder, because AutoTokenizer rebuilds those from the
model type: with any other the reloaded tokenizer would cut numbers differently from the one that trained.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from clinical_r1.errors import Strict, UserError
from clinical_r1.generation.chat import PADDING, SPECIAL_TOKENS, THINK_TOKENS, TURN_END, prepare_tokenizer
from clinical_r1.settings import Seed


class TinyModelConfig(Strict):
    """Size and initialisation of the tiny model."""

    hidden_size: int = Field(default=128, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Query heads; hidden_size must be a multiple."""
    kv_heads: int = Field(default=2, ge=1)
    """Key and value heads; heads must be a multiple."""
    intermediate_size: int = Field(default=0, ge=0)
    """Width of the MLP; 0 means 8/3 of hidden_size, rounded down to a multiple of 32 (at least 32)."""
    vocab_size: int = Field(default=2_000, ge=261)
    """Most tokens that the tokenizer may have, its 256 bytes and 5 markers included."""
    window: int = Field(default=1_024, ge=16)
    """Longest sequence, in tokens (max_position_embeddings)."""
    init_std: float = Field(default=0.08, gt=0)
    """Standard deviation of initial weights; copying from the prompt emerges sooner at .08 than at Qwen2's .02."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies."""
    seed: Seed = 0
    """Seed of the initial weights."""
    max_lines: int = Field(default=20_000, ge=1)
    """Lines read from each corpus file to train the tokenizer."""


def make_base_model(config: TinyModelConfig, corpus: list[Path], out_dir: Path) -> dict[str, int]:
    """Write a model folder made from scratch; the same config and corpus give the same bytes.

    `corpus` are JSONL files of cases or traces: their texts train the tokenizer.

    Returns:
        {"parameters", "vocabulary"}.
    """
    from clinical_r1.generation.load import quieten, save_model

    quieten()
    if config.hidden_size % config.heads or config.heads % config.kv_heads:
        raise UserError(
            f"hidden_size {config.hidden_size}, heads {config.heads}, kv_heads {config.kv_heads}: hidden_size must be "
            "a multiple of heads and heads of kv_heads; change them in the model config"
        )
    tokenizer = train_tokenizer(_texts(corpus, config.max_lines), config.vocab_size, config.window)
    model = build_model(config, tokenizer)
    save_model(model, tokenizer, out_dir)
    return {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(tokenizer)}


def train_tokenizer(texts: Iterable[str], vocab_size: int, window: int = 1_024) -> Any:
    """A byte-level BPE tokenizer with Qwen2's text handling and our chat format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    empty: Any = Qwen2Tokenizer()._tokenizer
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer, trained.decoder = empty.normalizer, empty.pre_tokenizer, empty.decoder
    markers = [*SPECIAL_TOKENS, *THINK_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(markers),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    state = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in state["merges"]]
    # The markers follow the vocabulary as added tokens, as in Qwen2's own files.
    tokenizer = Qwen2Tokenizer(
        vocab=state["vocab"], merges=merges, eos_token=TURN_END, pad_token=PADDING, model_max_length=window
    )
    prepare_tokenizer(tokenizer)
    return tokenizer


def build_model(config: TinyModelConfig, tokenizer: Any) -> Any:
    """A randomly initialised Qwen2ForCausalLM of the configured size."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    markers = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size or max(32, config.hidden_size * 8 // 3 // 32 * 32),
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.window,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=config.init_std,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        **markers,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Qwen2ForCausalLM(sizes)
    model.generation_config.update(**markers)
    return model


def _texts(corpus: list[Path], limit: int) -> Iterator[str]:
    """Natural-language fields of cases and traces, line by line."""
    for path in corpus:
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected cases or traces, one JSON object a line")
        with open(path, encoding="utf-8") as handle:
            for row in map(json.loads, itertools.islice(handle, limit)):
                yield "user\nassistant\n"  # the chat format's own words, so that they are one token each
                yield from (row[key] for key in ("question", "thinking", "response") if row.get(key))
                yield from row.get("references", ())
