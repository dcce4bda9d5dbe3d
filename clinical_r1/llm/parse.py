"""Structured replies from models that wrap, decorate or slightly break their JSON."""

import ast
import json
import re
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.dialects import Dialect
from clinical_r1.recognise import Answer, read

ModelT = TypeVar("ModelT", bound=BaseModel)

_FENCE = re.compile(r"```(?:json|JSON)?\s*\n?(.*?)```", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
MOST_BRACES = 200
"""Opening braces that are tried, from the last: prose full of them is no reply."""


def parse_reply(text: str, model: type[ModelT], dialect: Dialect | None = None) -> ModelT | None:
    """The reply as `model`, or None. Strict JSON first; else, outside of any thought, the last object in a code fence
    or amid prose, repaired if need be: what comes last is what was meant, drafts and examples stand before it.

    Nothing is invented: an object that is cut off, or lacks a required key, does not parse. A model with a
    `read_reply(text)` of its own reads what stands outside of the thought itself.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError:
        pass
    said = read(Answer(text), dialect).response
    if (reader := getattr(model, "read_reply", None)) is not None:
        return reader(said)
    for candidate in _candidates(said):
        row = _loads(candidate)
        if isinstance(row, dict):
            try:
                return model.model_validate(row)
            except ValidationError:
                continue
    return None


def _candidates(text: str) -> Iterator[str]:
    """Stretches that may be the object: fences before prose, later ones first."""
    yield from (fenced.strip() for fenced in reversed(_FENCE.findall(text)))
    found: list[str] = []
    start = text.find("{")
    while start >= 0 and len(found) < MOST_BRACES:
        end = _closing_brace(text, start)
        if end >= 0:  # else a stray brace: what it holds is looked at all the same
            found.append(text[start : end + 1])
        start = text.find("{", max(start, end) + 1)
    yield from reversed(found)


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
    try:
        return ast.literal_eval(text)  # a Python dictionary, with single quotes
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
