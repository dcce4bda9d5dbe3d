"""The dialects of thinking, as data: where a thought begins and ends in what a model or an endpoint sends back.

One row a form. `reasoning.py` takes outputs apart by a row; `recognise.py` finds out which row an answer, an endpoint
or a model folder needs.
"""

import re
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal

OPEN = "<think>"
CLOSE = "</think>"
Kind = Literal["open", "close", "drop"]


@dataclass(frozen=True)
class Dialect:
    """How a model marks its thoughts: where a thought begins and ends, and what is dropped as mere marking."""

    name: str
    opens: tuple[str, ...] = field(default=(), repr=False)
    closes: tuple[str, ...] = field(default=(), repr=False)
    drops: tuple[str, ...] = field(default=(), repr=False)
    """Markers that belong to neither part, such as those around the answer."""
    opened: bool = False
    """The prompt (the chat template) already holds the opening marker."""
    strict: bool = False
    """Letter for letter, and a stray marker is an error: the form that we train and reward."""
    special: bool = False
    """Markers are special tokens: a decoder has to keep them."""
    once: bool = False
    """Markers count once: the first at the very beginning of the output, the second where the answer begins."""
    lines: bool = False
    """Markers are whole lines."""
    ending: str = field(default="", repr=False)
    """What closes a thought from outside; empty: the closing marker in the place of the opening one."""

    def closing(self, opening: str = "") -> str:
        """Text that ends a thought which began with the marker `opening` (empty: in the prompt), for an answer to
        follow."""
        names = [self.fold(marker) for marker in self.opens]
        at = names.index(self.fold(opening)) * len(self.closes) // len(self.opens) if opening else 0
        mark = (self.ending or self.closes[at]).strip()
        return mark if self.special else f"\n{mark}\n\n"

    @property
    def markers(self) -> tuple[str, ...]:
        """All markers, the longest first."""
        return tuple(sorted({*self.opens, *self.closes, *self.drops}, key=len, reverse=True))

    def fold(self, text: str) -> str:
        """The text as markers are compared: of the same length, Latin letters small unless `strict`."""
        return text if self.strict else text.translate(_SMALL)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any marker, in folded text."""
        return re.compile("|".join(re.escape(self.fold(marker)) for marker in self.markers) or "(?!)")

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """All that a marker can begin with, itself left out; folded."""
        return frozenset(self.fold(marker)[:end] for marker in self.markers for end in range(1, len(marker)))

    @cached_property
    def longest(self) -> int:
        """Characters of the longest marker."""
        return max(map(len, self.markers), default=0)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What a folded marker does."""
        kinds: dict[str, Kind] = dict.fromkeys(map(self.fold, self.drops), "drop")
        kinds |= dict.fromkeys(map(self.fold, self.opens), "open")
        return kinds | dict.fromkeys(map(self.fold, self.closes), "close")


_SMALL = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_TAG_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "reason", "seed:think", "思考")
_THOUGHT_HEADS = ("thinking", "thought", "thoughts", "thought process", "thinking process", "inner thinking",
                  "chain of thought", "思考", "思考过程", "思维过程", "思维链", "内心思考")  # fmt: skip
_ANSWER_HEADS = ("final response", "response", "final answer", "answer", "final reply", "最终回答", "最终答复",
                 "最终回复", "最终答案", "最终响应", "回答", "回复", "答案")  # fmt: skip
_HEADING_FORMS = ("## {}", "# {}", "### {}", "## {}:", "### {}:", "## **{}**", "### **{}**", "**{}**", "**{}:**",
                  "**{}**:", "## {}：", "**{}：**")  # fmt: skip


def _headings(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(form.format(word) + end for word in words for form in _HEADING_FORMS for end in ("\n", "\r\n", " \n"))


def _bracketed(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"【{word}】" for word in words if not word.isascii())


THINK = Dialect("think", (OPEN,), (CLOSE,), strict=True)
"""Ours: one leading block, letter for letter."""
TAGS = Dialect(
    "tags",
    opens=(*(f"<{name}>" for name in _TAG_NAMES), "[think]", "◁think▷", "<|begin_of_thought|>", "<|start_thinking|>",
           "<|inner_prefix|>"),
    closes=(*(f"</{name}>" for name in _TAG_NAMES), "[/think]", "◁/think▷", "<|end_of_thought|>", "<|end_thinking|>",
            "<|inner_suffix|>"),
    drops=("<answer>", "</answer>", "<output>", "</output>", "<response>", "</response>", "<|begin_of_solution|>",
           "<|end_of_solution|>", "<|start_response|>", "<|end_response|>"),
)  # fmt: skip
"""Tags in the text: Qwen3, DeepSeek, Magistral, Kimi, Seed-OSS, OpenThinker, Cohere, Reflection, Apertus."""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        THINK,
        TAGS,
        # R1-Distill, Qwen3-Thinking, QwQ without a parser: the template writes the opening tag into the prompt.
        replace(TAGS, name="opened", opened=True),
        # HuatuoGPT-o1.
        Dialect("headings", _headings(_THOUGHT_HEADS), _headings(_ANSWER_HEADS), once=True, lines=True,
                ending="## Final Response"),
        # In words: Granite 3, Apriel, headings in Chinese brackets.
        Dialect(
            "phrases",
            opens=("Here is my thought process:", "Here are my reasoning steps:", *_bracketed(_THOUGHT_HEADS)),
            closes=("Here is my response:", "[BEGIN FINAL RESPONSE]", *_bracketed(_ANSWER_HEADS)),
            drops=("[END FINAL RESPONSE]",),
            once=True,
        ),
        # gpt-oss (harmony); the second form is what is left of it once special tokens are dropped.
        Dialect(
            "channels",
            opens=("<|channel|>analysis", "<|channel|>commentary"),
            closes=("<|channel|>final",),
            drops=("<|message|>", "<|constrain|>json", "<|start|>assistant", "<|end|>", "<|return|>", "<|start|>"),
            special=True,
            ending="<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        Dialect("channels_bare", opens=("analysis",), closes=("assistantfinal",), once=True),
        # MedGemma 1.5; Gemma 4.
        Dialect(
            "gemma",
            opens=("<unused94>thought\n", "<unused94>", "<|channel>thought\n", "<|channel>"),
            closes=("<unused95>", "<channel|>"),
            drops=("<end_of_turn>", "<turn|>"),
            special=True,
        ),
        # In fields of the message (reasoning_content, reasoning): DeepSeek's API, vLLM and SGLang with a parser, ours.
        Dialect("field"),
        # Thoughts are counted (usage) and not shown: OpenAI's o-series.
        Dialect("hidden"),
        Dialect("none"),
    )
}  # fmt: skip
"""Every dialect by its name in configurations; see docs/serving.md."""
AUTO = "auto"
"""In configurations: found out by the chat template or by a probe, and told in the log."""


@cache
def opened_form(dialect: Dialect) -> Dialect:
    """The dialect where the prompt already holds the opening marker."""
    return replace(dialect, opened=True)


def checked_name(name: str) -> str:
    """The name of a dialect in a configuration, or `auto`; ValueError for another."""
    if name != AUTO and name not in DIALECTS:
        raise ValueError(f"{name!r} is no dialect; use {AUTO} or one of {', '.join(DIALECTS)}")
    return name
