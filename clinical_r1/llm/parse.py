"""Structured replies from models that wrap, decorate or slightly break their JSON."""

import json
import re
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

ModelT = TypeVar("ModelT", bound=BaseModel)

_FENCE = re.compile(r"```(?:json|JSON)?\s*\n?(.*?)```", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_THINK = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


def parse_reply(text: str, model: type[ModelT]) -> ModelT | None:
    """The reply as `model`, or None. Strict JSON first; else the object in a code fence or amid prose, repaired if
    need be.

    Nothing is invented: an object that is cut off, or lacks a required key, does not parse.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError:
        pass
    for candidate in _candidates(text):
        row = _loads(candidate)
        if isinstance(row, dict):
            try:
                return model.model_validate(row)
            except ValidationError:
                continue
    return None


def _candidates(text: str) -> Iterator[str]:
    """Stretches that may be the object, most deliberate first."""
    text = _THINK.sub("", text)
    yield from (fenced.strip() for fenced in _FENCE.findall(text))
    start = text.find("{")
    while start >= 0:
        end = _closing_brace(text, start)
        if end < 0:
            return
        yield text[start : end + 1]
        start = text.find("{", end + 1)


def _closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one at `start`, string contents skipped; -1 where there is none."""
    depth, inside, escaped = 0, False, False
    for at in range(start, len(text)):
        character = text[at]
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return at
    return -1


def _loads(text: str) -> object:
    for attempt in (text, _TRAILING_COMMA.sub(r"\1", text)):
        try:
            return json.loads(attempt, strict=False)  # models put raw newlines into strings
        except ValueError:
            continue
    return None
