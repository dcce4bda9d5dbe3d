"""Published models by name: how they are asked and how their answers are drawn, as their publishers state it.

`baselines.yaml` holds them, each value with its source; the weights, or an endpoint that serves them, are the user's.
The same words may be put to any model (`prompt`), so that a table compares models and not prompts.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from clinical_r1.dialects import AUTO
from clinical_r1.errors import Strict
from clinical_r1.schema import Case

FILE = Path(__file__).with_name("baselines.yaml")
OURS = "ours"
"""The prompt that training teaches: `Case.prompt`."""


class Words(Strict):
    """What a model is asked; an empty text is ours."""

    system: str = ""
    """The system message."""
    open: str = ""
    """An open question, with {question}."""
    closed: str = ""
    """A question with choices, with {question}, {options} and perhaps {letters}."""
    option: str = "{letter}. {text}"
    """One of the choices."""


class Decoding(Strict):
    """How answers are drawn: settings of an evaluation by their names there."""

    temperature: float
    top_p: float = 1.0
    top_k: int = -1
    repetition_penalty: float = 1.0
    max_new_tokens: int


class Baseline(Strict):
    """One published model."""

    about: str
    model: str
    """Its id where its weights are published, or at its maker's endpoint."""
    prompt: Words = Field(default_factory=Words)
    decoding: Decoding
    thinking: str = AUTO
    """Its dialect (clinical_r1/dialects.py)."""
    source: list[str] = Field(min_length=1)
    """Where the values above stand."""
    unstated: str = ""
    """What its publisher does not say."""


@cache
def baselines() -> dict[str, Baseline]:
    """Every baseline by name."""
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: Baseline.model_validate(row) for name, row in rows.items()}


def baseline(name: str) -> Baseline:
    """A baseline; ValueError for an unknown name."""
    if name not in baselines():
        raise ValueError(f"{name!r} is no baseline; use one of {', '.join(baselines())}")
    return baselines()[name]


def settings_of(name: str) -> dict[str, Any]:
    """The settings of an evaluation that a baseline means."""
    found = baseline(name)
    return {"prompt": name, "thinking": found.thinking, **found.decoding.model_dump()}


def words(prompt: str) -> Words:
    """The words of a `prompt` setting."""
    return Words() if prompt == OURS else baseline(prompt).prompt


def messages(case: Case, prompt: str, system: str = "") -> list[dict[str, str]]:
    """The conversation that puts a case to a model; `system` goes before the prompt's own."""
    asked = words(prompt)
    template = asked.closed if case.options else asked.open if case.references else ""  # a conversation is its own
    content = case.prompt
    if template:
        listed = [] if case.problem == case.question else case.options  # a question may list its options itself
        letters = [chr(ord("A") + index) for index in range(len(case.options))]
        lines = [asked.option.format(letter=letter, text=text) for letter, text in zip(letters, listed, strict=False)]
        content = template.format(question=case.question, options="\n".join(lines), letters="".join(letters))
    before = [{"role": turn.role, "content": turn.content} for turn in case.turns]
    system = system or asked.system
    if system and not any(turn["role"] == "system" for turn in before):
        before.insert(0, {"role": "system", "content": system})
    return [*before, {"role": "user", "content": content}]


def notes(prompt: str, cases: Sequence[Case]) -> list[str]:
    """What a reader of the figures has to know of the words in which these cases were asked."""
    if prompt == OURS:
        return []
    asked = words(prompt)
    said = []
    for closed, template, kind in ((False, asked.open, "open questions"), (True, asked.closed, "multiple choice")):
        n = sum(bool(case.options) is closed for case in cases)
        if n:
            whose = f"in the published words of {prompt}" if template else f"in ours: {prompt} states no words for them"
            said.append(f"{n} {kind} asked {whose}")
    chinese = sum(case.language == "zh" for case in cases)
    if chinese and (asked.open or asked.closed):
        said.append(f"{chinese} cases in Chinese asked with the published words, which are English")
    return said
