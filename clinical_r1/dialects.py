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


THINK = Dialect("think", (OPEN,), (CLOSE,), strict=True)
"""Ours: one leading block, letter for letter."""
TAGS = Dialect(
    "tags",
    opens=(*(f"<{name}>" for name in _TAG_NAMES), "[think]", "◁think▷", "<|begin_of_thought|>", "<|start_thinking|>"),
    closes=(*(f"</{name}>" for name in _TAG_NAMES), "[/think]", "◁/think▷", "<|end_of_thought|>", "<|end_thinking|>"),
    drops=("<answer>", "</answer>", "<output>", "</output>", "<response>", "</response>", "<|begin_of_solution|>",
           "<|end_of_solution|>", "<|start_response|>", "<|end_response|>"),
)  # fmt: skip
"""Tags in the text: Qwen3, DeepSeek, Magistral, Kimi, Seed-OSS, OpenThinker, Cohere, Reflection."""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        THINK,
        TAGS,
        # R1-Distill, Qwen3-Thinking, QwQ without a parser: the template writes the opening tag into the prompt.
        replace(TAGS, name="opened", opened=True),
        # HuatuoGPT-o1.
        Dialect("headings", _headings(_THOUGHT_HEADS), _headings(_ANSWER_HEADS), once=True, lines=True),
        # In words: Granite 3, Apriel, headings in Chinese brackets.
        Dialect(
            "phrases",
            opens=("Here is my thought process:", "Here are my reasoning steps:", "【思考】", "【思考过程】"),
            closes=("Here is my response:", "[BEGIN FINAL RESPONSE]", "【回答】", "【最终回答】", "【答案】"),
            drops=("[END FINAL RESPONSE]",),
            once=True,
        ),
        # gpt-oss (harmony); the second form is what is left of it once special tokens are dropped.
        Dialect(
            "channels",
            opens=("<|channel|>analysis<|message|>", "<|channel|>commentary<|message|>"),
            closes=("<|channel|>final<|message|>",),
            drops=("<|start|>assistant", "<|end|>", "<|return|>", "<|start|>"),
            special=True,
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
