"""A model's own chat format, for training, evaluation and serving alike; ours (ChatML) only where it has none.

The template and the end of a turn are the folder's: what a base model learnt to read, it goes on reading. `<think>` and
`</think>` are added as plain tokens where the base has none. Text of users and records cannot open or close a turn or a
thought: strings that are markers of this tokenizer are broken apart in every message that is not the assistant's.
Templates are plain Jinja, so that vLLM and llama.cpp render the same prompts.
"""

import re
from typing import Any
from weakref import WeakKeyDictionary

from clinical_r1.dialects import AUTO, THINK, Dialect, opened_form
from clinical_r1.errors import UserError
from clinical_r1.reasoning import CLOSE, OPEN, Split, count_reasoning_tokens, render
from clinical_r1.recognise import Answer, Reader, of_template

TURN_START, TURN_END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = (PADDING, TURN_START, TURN_END)
THINK_TOKENS = (OPEN, CLOSE)
PADS = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|vision_pad|>", PADDING, "<unk>")
"""Tokens that a tokenizer without a padding token may pad with, the best first."""

# Qwen2.5's template without its default system message and tools; split and join, since llama.cpp's minja knows no
# filter `replace`.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- message['content'] + '<|im_end|>\n' -}}"
    "{%- else -%}"
    "{%- set text = message['content'].split('<|') | join('< |') -%}"
    "{%- set text = text.split('<think>') | join('< think>') -%}"
    "{{- text.split('</think>') | join('< /think>') + '<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
BEGINNING = "{{- bos_token -}}"
"""Before our template where the base begins every text with a token of its own (Llama, Gemma)."""
PLAIN_TEMPLATE = "{%- for message in messages -%}{{- message['content'] + '\n\n' -}}{%- endfor -%}"
"""What a base model without a template is asked in until SFT gives it ours; never saved."""
_QUESTION, _PROBE = {"role": "user", "content": "?"}, "ANSWER-9f3a"


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """Tokens of a one-question conversation up to the assistant's turn."""
    return conversation_ids(tokenizer, [{"role": "user", "content": question}])


def conversation_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Tokens of a conversation up to the assistant's next turn; UserError where the model's template refuses it."""
    ids: list[int] = tokenizer(_rendered(tokenizer, messages, True), add_special_tokens=False)["input_ids"]
    return ids


def completion_ids(tokenizer: Any, thinking: str, response: str) -> list[int]:
    """Tokens of the training target: the rendered thought and answer, and the end of the turn (nothing after it);
    without the opening tag where the template writes it into the prompt."""
    text = render(thinking, response)
    if prompt_opens_thinking(tokenizer):
        text = text.removeprefix(OPEN)
        if _rendered(tokenizer, [_QUESTION], True).endswith("\n"):
            text = text.removeprefix("\n")
    return tokenizer(text + turn_end(tokenizer), add_special_tokens=False)["input_ids"]


def completion_text(tokenizer: Any, token_ids: list[int], keep_special: bool = False) -> str:
    """What the model said: special tokens dropped, the think tags kept (special or not). `keep_special`: all but the
    end of the turn, for dialects whose marks are special tokens (gpt-oss)."""
    if keep_special:
        if token_ids and token_ids[-1] == tokenizer.eos_token_id:
            token_ids = token_ids[:-1]
        return tokenizer.decode(token_ids, skip_special_tokens=False)
    dropped = {*tokenizer.all_special_ids, *_markers(tokenizer)[0].values()} - set(think_ids(tokenizer))
    return tokenizer.decode([token for token in token_ids if token not in dropped], skip_special_tokens=False)


def think_ids(tokenizer: Any) -> tuple[int, int]:
    """The tokens of <think> and </think>; (-1, -1) where the tokenizer spells them in pieces."""
    known, _ = _markers(tokenizer)
    return known.get(OPEN, -1), known.get(CLOSE, -1)


class CompletionReader:
    """Takes the completions of one model apart, in whatever dialect its folder's template or its answers speak."""

    def __init__(self, tokenizer: Any, who: str, thinking: str = AUTO, strict: bool = False) -> None:
        """`strict`: our own tags count letter for letter also where the template opens them, as they are rewarded."""
        self.tokenizer, self.reader = tokenizer, Reader(who, thinking)
        found: Dialect | None = None
        if not self.reader.fixed:
            prompt = tokenizer.apply_chat_template([_QUESTION], add_generation_prompt=True, tokenize=False)
            has_tags = all(tag in tokenizer.get_vocab() for tag in THINK_TOKENS)
            found = of_template(prompt, str(tokenizer.chat_template or ""), has_tags)
        if strict and found is not None and found.name == "opened" and prompt_opens_thinking(tokenizer):
            found = opened_form(THINK)
        if found is not None:
            self.reader.settle(found)
            self.reader.fixed = True

    def read(self, token_ids: list[int], finish_reason: str) -> tuple[str, Split, int]:
        """(text, parts, tokens of the thought, tags excluded)."""
        dialect = self.reader.dialect
        text = completion_text(self.tokenizer, token_ids, keep_special=dialect is not None and dialect.special)
        parts = self.reader.read(Answer(text, finish_reason=finish_reason))
        dialect, tags = self.reader.dialect, think_ids(self.tokenizer)
        if dialect is not None and dialect.name in ("think", "opened") and min(tags) >= 0:
            return text, parts, count_reasoning_tokens(token_ids, *tags, opened=dialect.opened)
        # Counted anew where the tags are no single tokens.
        thought = self.tokenizer(parts.thinking, add_special_tokens=False)["input_ids"] if parts.thinking else ()
        return text, parts, len(thought)


def prompt_opens_thinking(tokenizer: Any) -> bool:
    """Whether the folder's template already writes <think> into the prompt (R1-Distill, QwQ; ours does not)."""
    return _rendered(tokenizer, [_QUESTION], True).rstrip().endswith(OPEN)


def turn_end(tokenizer: Any) -> str:
    """What the template writes behind an assistant's message, up to and with the first special token."""
    asked = [_QUESTION, {"role": "assistant", "content": _PROBE}]
    behind = _rendered(tokenizer, asked, False).rpartition(_PROBE)[2]
    found = [(at, -len(end), end) for end in _markers(tokenizer)[0] if (at := behind.find(end)) >= 0]
    if not found:
        return tokenizer.eos_token or ""
    at, _, end = min(found)
    return behind[:at] + end


def end_ids(tokenizer: Any, model: Any) -> tuple[int, ...]:
    """Every token that ends an answer: the turn's end, then those of tokenizer, generation_config and config."""
    listed = [tokenizer.eos_token_id, model.config.get_text_config().eos_token_id]
    listed.append(getattr(model.generation_config, "eos_token_id", None))
    ids: list[Any] = tokenizer(turn_end(tokenizer), add_special_tokens=False)["input_ids"][-1:]
    ids += [one for value in listed for one in (value if isinstance(value, list | tuple) else [value])]
    return tuple(dict.fromkeys(one for one in ids if one is not None))


def complete_tokenizer(tokenizer: Any) -> Any:
    """Give a loaded tokenizer what batches need where its folder lacks it: a padding token and a template (not ours:
    the base was never taught it). Nothing is added to its vocabulary."""
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        known = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in PADS if token in known), tokenizer.eos_token)
    template = tokenizer.chat_template or _beginning(tokenizer) + PLAIN_TEMPLATE
    # without transformers' own {% generation %}, which vLLM and llama.cpp do not read
    template = re.sub(r"({%-?\s*)generation(\s*-?%})", r"\1if true\2", template)
    tokenizer.chat_template = re.sub(r"({%-?\s*)endgeneration(\s*-?%})", r"\1endif\2", template)
    return tokenizer


def prepare_tokenizer(tokenizer: Any) -> list[int]:
    """Make any tokenizer ready to be taught to think, in place; returns ids of tokens that it did not know before.

    The base's template and special tokens stay. Where it has no template it gets ours, with ours markers. The think
    tags become added tokens that are not special: special ones would vanish from decoded text elsewhere.
    """
    from transformers import AddedToken

    known = len(tokenizer)
    vocabulary = tokenizer.get_vocab()
    if not tokenizer.chat_template or tokenizer.chat_template.endswith(PLAIN_TEMPLATE):
        missing = [text for text in SPECIAL_TOKENS if text not in vocabulary]
        tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in missing], special_tokens=True)
        tokenizer.eos_token, tokenizer.pad_token = TURN_END, PADDING
        tokenizer.chat_template = _beginning(tokenizer) + CHAT_TEMPLATE
    missing = [text for text in THINK_TOKENS if text not in vocabulary]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in missing])
    complete_tokenizer(tokenizer)
    return list(range(known, len(tokenizer)))


def _beginning(tokenizer: Any) -> str:
    """What our templates begin with: a token that the tokenizer puts before every text by itself."""
    bos = tokenizer.bos_token_id
    return BEGINNING if bos is not None and tokenizer("x")["input_ids"][:1] == [bos] else ""


def _rendered(tokenizer: Any, messages: list[dict[str, str]], prompt: bool) -> str:
    """The conversation as text, every marker of this tokenizer broken apart behind its first character where the
    assistant did not say it."""
    import jinja2

    inert = []
    for message in messages:
        text = message["content"]
        while message["role"] != "assistant" and holds_marker(tokenizer, text):
            text = _markers(tokenizer)[1].sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        inert.append(message | {"content": text})
    try:
        return tokenizer.apply_chat_template(inert, add_generation_prompt=prompt, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise UserError(f"{tokenizer.name_or_path}: its chat template refuses these messages: {error}") from None


def holds_marker(tokenizer: Any, text: str) -> bool:
    """Whether a text would open or close a turn or a thought if it were tokenized as it is."""
    return _markers(tokenizer)[1].search(text) is not None


_KNOWN: WeakKeyDictionary[Any, tuple[int, dict[str, int], re.Pattern[str]]] = WeakKeyDictionary()


def _markers(tokenizer: Any) -> tuple[dict[str, int], re.Pattern[str]]:
    """Special tokens, and think tags that are single tokens here, with ids (Gemma has thousands of added ones); and
    what finds any of them, or a think tag, in a text."""
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        found = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if (token.special and len(token.content.strip()) > 2) or token.content in THINK_TOKENS
        }
        longest_first = sorted({*found, *THINK_TOKENS}, key=len, reverse=True)
        known = len(tokenizer), found, re.compile("|".join(map(re.escape, longest_first)))
        _KNOWN[tokenizer] = known
    return known[1], known[2]
