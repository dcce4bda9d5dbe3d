"""Tiny random base models in the shapes of real ones: architecture, output head, BOS, markers, template, end tokens.

What a name stands for is its row in `BASES`; templates are the published ones cut down to their form. The weights are
drawn, so these models know nothing: they show that the code takes the shape, and SmolLM2 shows that a model learns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = (
    "A patient has fever, cough, dysuria, headache, thirst and a rash. What is the diagnosis? Okay, fever suggests "
    "pneumonia. So cystitis, migraine, diabetes or measles fits best. The most likely diagnosis is pneumonia.\n"
    "Final diagnosis: pneumonia user assistant model system 0123456789 case year old 患者 发热 咳嗽 肺炎 诊断 "
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
COHERE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' + ('<|CHATBOT_TOKEN|>' if "
    "message['role'] == 'assistant' else '<|USER_TOKEN|>') + message['content'] + "
    "'<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
GRANITE = (
    "{% for message in messages %}{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + "
    "'<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}"
    "{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<｜User｜>' + "
    "message['content'] }}{% else %}{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + "
    "'<｜end▁of▁sentence｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Base:
    """What is particular to one family."""

    config: str
    """Name of transformers' configuration class."""
    template: str
    markers: tuple[str, ...]
    """Special tokens; the first is pad or BOS as named below."""
    eos: str
    ends: tuple[str, ...] = ()
    """Further end tokens of generation_config.json."""
    bos: str = ""
    pad: str = ""
    tied: bool = True
    plain: tuple[str, ...] = ()
    """Added tokens that are not special (native think tags)."""
    options: dict[str, Any] = field(default_factory=dict)


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_L3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
_GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_R1 = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
_MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_COHERE = (
    "<PAD>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"
)  # fmt: skip
_THINK = ("<think>", "</think>")
BASES: dict[str, Base] = {
    "llama3": Base(
        "LlamaConfig", LLAMA3, _L3, "<|eot_id|>", ("<|end_of_text|>", "<|eom_id|>"), "<|begin_of_text|>", tied=False
    ),
    "llama3.2": Base("LlamaConfig", LLAMA3, _L3, "<|eot_id|>", ("<|end_of_text|>",), "<|begin_of_text|>"),
    "qwen2.5": Base("Qwen2Config", CHATML, _CHATML, "<|im_end|>", ("<|endoftext|>",), pad="<|endoftext|>"),
    "qwen2.5-7b": Base(
        "Qwen2Config", CHATML, _CHATML, "<|im_end|>", ("<|endoftext|>",), pad="<|endoftext|>", tied=False
    ),
    "qwen2.5-base": Base("Qwen2Config", "", _CHATML, "<|endoftext|>", pad="<|endoftext|>"),
    "qwen3": Base("Qwen3Config", CHATML, _CHATML, "<|im_end|>", (), "", "<|endoftext|>", True, _THINK),
    "gemma3": Base("Gemma3TextConfig", GEMMA, _GEMMA, "<eos>", ("<end_of_turn>",), "<bos>", "<pad>",
                   options={"sliding_window": 32}),
    "gemma2": Base("Gemma2Config", GEMMA, _GEMMA, "<eos>", ("<end_of_turn>",), "<bos>", "<pad>",
                   options={"sliding_window": 32, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 50.0}),
    "mistral": Base("MistralConfig", MISTRAL, _MISTRAL, "</s>", (), "<s>", tied=False,
                    options={"sliding_window": None}),
    "granite": Base("GraniteConfig", GRANITE, ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
                    "<|end_of_text|>", pad="<|end_of_text|>",
                    options={"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22}),
    "cohere": Base(
        "CohereConfig", COHERE,
        _COHERE,
        "<|END_OF_TURN_TOKEN|>", (), "<BOS_TOKEN>", "<PAD>", options={"logit_scale": 0.0625},
    ),
    "r1-distill": Base(
        "Qwen2Config", R1, _R1, _R1[1], (), _R1[0], _R1[1], False, _THINK
    ),
    "bare": Base("LlamaConfig", "", ("<s>", "</s>"), "</s>", bos="<s>"),
}  # fmt: skip


def make_base(name: str, folder: Path, window: int = 256, seed: int = 0, hidden: int = 32) -> Path:
    """Write the folder of one of BASES, as its publisher would."""
    import torch
    import transformers

    from clinical_r1.generation.load import quieten

    quieten()
    base = BASES[name]
    tokenizer = make_tokenizer(base, [WORDS], window)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (base.eos, *base.ends)]
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": hidden // 4, "max_position_embeddings": window,
        "tie_word_embeddings": base.tied, "initializer_range": 0.2, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, base.config)(**shape | base.options)
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = shape["eos_token_id"]
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(base: Base, texts: Iterable[str], window: int) -> Any:
    """A byte-level BPE tokenizer with the family's markers, which begins texts with BOS where the family's does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(texts, trainer)
    trained.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in base.markers])
    trained.add_tokens([AddedToken(text, special=False, normalized=False) for text in base.plain])
    if base.bos:
        number = trained.token_to_id(base.bos)
        trained.post_processor = processors.TemplateProcessing(
            single=f"{base.bos} $A", pair=f"{base.bos} $A $B", special_tokens=[(base.bos, number)]
        )
    known = {"bos_token": base.bos, "eos_token": base.eos, "pad_token": base.pad}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, model_max_length=window, **{name: text for name, text in known.items() if text}
    )
    if base.template:
        tokenizer.chat_template = base.template
    return tokenizer
