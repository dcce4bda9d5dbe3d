"""Structured replies from models that wrap, decorate or slightly break their JSON; the shape of the useless ones."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.dialects import CLOSE, Dialect
from clinical_r1.reasoning import Outcome
from clinical_r1.recognise import Answer, read
from clinical_r1.text import HAN

ModelT = TypeVar("ModelT", bound=BaseModel)

_FENCE = re.compile(r"```(?:json|JSON)?\s*\n?(.*?)```", re.DOTALL)
_STRING_OR_BRACE = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}]', re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
MOST_BRACES = 200
"""Opening braces that are tried, from the last: prose full of them is no reply."""


def parse_reply(text: str, model: type[ModelT], dialect: Dialect | None = None) -> ModelT | None:
    """The reply as `model`, or None. Strict JSON first; else, outside of any thought, the last object in a code fence
    or amid prose, repaired if need be: what comes last is what was meant, drafts and examples stand before it. Of
    several thoughts the last one ends where the reply begins.

    Nothing is invented: an object that is cut off, or lacks a required key, does not parse. A model with a
    `read_reply(text)` of its own reads what stands outside of the thought itself.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError:
        pass
    parts = read(Answer(text), dialect)
    said = text.rpartition(CLOSE)[2] if parts.outcome is Outcome.MULTIPLE and CLOSE in text else parts.response
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
    depth = 0
    for found in _STRING_OR_BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
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


KEPT = frozenset(
    ("verdict", "correct", "incorrect", "told", "true", "false", "null", "yes", "no", "json", "answer", "reasoning",
     "thinking", "response", "正确", "错误", "不正确", "是", "否")
)  # fmt: skip
"""Words that a protocol of ours may put into a reply; every other word is only counted."""
_PIECE = re.compile(
    rf"(?P<tag></?\|?[a-z_]{{1,16}}\|?>)|(?P<fence>```)|(?P<mark>[{{}}\[\]:,\"])|(?P<cjk>[{HAN}]+)|(?P<word>[^\W_]+)",
    re.IGNORECASE,
)
LONGEST = 120


def shape(text: str, cut: bool = False) -> str:
    """Tags, fences, braces and the words of our protocol as they stand, all else as counts; e.g.
    `<think> 212 words, cut off`, `9 words {"verdict": 3 words}`."""
    parts: list[str] = []
    for counted, group in groupby(_PIECE.finditer(text), _is_counted):
        found = list(group)
        if not counted:
            parts += [piece[0].lower() for piece in found]
            continue
        words = sum(piece.lastgroup == "word" for piece in found)
        characters = sum(len(piece[0]) for piece in found if piece.lastgroup == "cjk")
        parts += [f"{words} word{'s' * (words > 1)}"] * bool(words)
        parts += [f"{characters} Chinese character{'s' * (characters > 1)}"] * bool(characters)
    if not parts:
        return "empty, cut off" if cut else "empty"
    line = re.sub(r"(?<=[{\[\"]) | (?=[}\]\":,])", "", " ".join(parts))
    if len(line) > LONGEST:
        half = LONGEST // 2
        line = f"{line[:half].rstrip()} ... {line[-half:].lstrip()}"
    return f"{line}, cut off" if cut else line


def _is_counted(piece: re.Match[str]) -> bool:
    return piece.lastgroup in ("word", "cjk") and piece[0].lower() not in KEPT
