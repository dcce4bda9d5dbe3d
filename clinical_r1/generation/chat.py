"""One chat format for training, evaluation and serving: Qwen's ChatML, and <think> tags as plain added tokens.

The template travels in the model folder, so vLLM renders the same prompts. Text of users and records cannot open or
close a turn or a thought: the template breaks such strings apart in every message that is not the assistant's.
"""

from typing import Any

from clinical_r1.dialects import Dialect
from clinical_r1.reasoning import CLOSE, OPEN, render
from clinical_r1.recognise import of_template

TURN_START, TURN_END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = (PADDING, TURN_START, TURN_END)
THINK_TOKENS = (OPEN, CLOSE)

# Qwen2.5's template without its default system message and tools; generation markers for assistant-only losses.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    "{%- else -%}"
    "{{- message['content'] | replace('<|', '< |') | replace('<think>', '< think>')"
    " | replace('</think>', '< /think>') + '<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """Tokens of a one-question conversation up to the assistant's turn."""
    messages = [{"role": "user", "content": question}]
    return conversation_ids(tokenizer, messages)


def conversation_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Tokens of a conversation up to the assistant's next turn."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


def completion_ids(tokenizer: Any, thinking: str, response: str) -> list[int]:
    """Tokens of the training target: the rendered thought and answer, and the end of the turn (no newline after it)."""
    text = render(thinking, response) + TURN_END
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def completion_text(tokenizer: Any, token_ids: list[int], keep_special: bool = False) -> str:
    """What the model said: special tokens dropped, the think tags kept. `keep_special`: all but the end of the turn,
    for dialects whose marks are special tokens (gpt-oss)."""
    if keep_special and token_ids and token_ids[-1] == tokenizer.eos_token_id:
        token_ids = token_ids[:-1]
    return tokenizer.decode(token_ids, skip_special_tokens=not keep_special)


def think_ids(tokenizer: Any) -> tuple[int, int]:
    """The tokens of <think> and </think>; see `prepare_tokenizer`."""
    return tuple(tokenizer.convert_tokens_to_ids(list(THINK_TOKENS)))


def prompt_opens_thinking(tokenizer: Any) -> bool:
    """Whether the folder's template already writes <think> into the prompt (some base models do; ours does not)."""
    return prompt_ids(tokenizer, "?")[-4:].count(think_ids(tokenizer)[0]) > 0


def folder_dialect(tokenizer: Any) -> Dialect | None:
    """How the folder's model marks its thoughts, by its chat template; None where the template does not say."""
    messages = [{"role": "user", "content": "?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    has_tags = all(tag in tokenizer.get_vocab() for tag in THINK_TOKENS)
    return of_template(prompt, str(tokenizer.chat_template or ""), has_tags)


def prepare_tokenizer(tokenizer: Any) -> list[int]:
    """Give any tokenizer our chat format, in place; returns the ids of tokens that it did not know before.

    The think tags become added tokens that are not special: special ones would vanish from decoded text before
    rewards and evaluation see them. Padding and end of turn are different tokens, so the end is learnt.
    """
    from transformers import AddedToken

    known = len(tokenizer)
    vocabulary = tokenizer.get_vocab()
    special = [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS if text not in vocabulary]
    if special:
        tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in THINK_TOKENS if text not in vocabulary]
    )
    tokenizer.eos_token, tokenizer.pad_token = TURN_END, PADDING
    tokenizer.padding_side = "right"
    tokenizer.chat_template = CHAT_TEMPLATE
    return list(range(known, len(tokenizer)))
