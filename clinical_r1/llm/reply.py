"""What comes back from an endpoint: a reply of the chat protocol, or an attempt that failed; how a call can end other
than well; and structured replies from models that wrap, decorate or slightly break their JSON, with the shape of the
useless ones. No message carries text of a request or a reply."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.atomic import read_table
from clinical_r1.dialects import CLOSE, Dialect
from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome
from clinical_r1.recognise import CUT, FILTERED, Answer, read
from clinical_r1.schema import MOST_TOKENS, Usage
from clinical_r1.text import HAN

REFUSALS = ("content_filter", "refused")
"""Reasons of calls that the endpoint would not answer: outcomes of their own, asked once."""
RETRIED_STATUS = frozenset((408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531), 598, 599))


def either(words: list[str]) -> re.Pattern[str]:
    """One pattern of a list of `providers.yaml`."""
    return re.compile("|".join(words), re.IGNORECASE)


WORDS: dict[str, Any] = read_table(Path(__file__).with_name("providers.yaml"))
TOO_LONG = either(WORDS["requests"]["too_long"])
_REPLY, _ERRORS = WORDS["reply"], WORDS["errors"]
_CUT = {*(name.lower() for name in CUT), *_REPLY["cut"]}
_FILTERED = {*(name.lower() for name in FILTERED), *_REPLY["filtered"]}
_MEANS = [(status, either(words)) for status, words in _ERRORS["means"].items()]
_LATER = re.compile(
    r"(?:try again|retry)(?: after| in)?:? ?(\d+(?:\.\d+)?) ?(ms|m(?:in\w*)?(?![a-z])|s)?|"
    r"retryDelay\"?: ?\"(\d+(?:\.\d+)?)s",
    re.IGNORECASE,
)
_MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


class CallFailed(Exception):  # noqa: N818
    """One call could not be completed, after all retries that make sense.

    `reason` is a short code for counters and reject files: timeout, connection, rate_limited, http_<status>,
    bad_reply (not the protocol), oversized, unparseable (not the schema), truncated, and the REFUSALS. `usage` is what
    the attempts cost all the same; `shape` is the structure of the last reply that was no use, without its text.
    """

    def __init__(self, reason: str, attempts: int, usage: Usage | None = None, shape: str = "") -> None:
        super().__init__(f"call failed after {attempts} attempt(s): {reason}")
        self.reason, self.attempts, self.usage, self.shape = reason, attempts, usage or Usage(), shape


class BudgetExhausted(UserError):  # noqa: N818
    """The budget is spent: no new call begins; what was in flight is journaled. Raise the budget and run again."""


class EndpointUnusable(UserError):  # noqa: N818
    """The endpoint as a whole does not work (dead, wrong key, unknown model, no quota): the run stops and can be
    resumed."""


class AttemptError(Exception):
    """One attempt failed. `message` is the endpoint's own error text, which may quote what was sent: for decisions,
    and for users only through `quirks.said`."""

    def __init__(
        self, reason: str, status: int = 0, wait: float | None = None, message: str = "", code: str = ""
    ) -> None:
        super().__init__(reason)
        too_long = status in (400, 413, 422) and TOO_LONG.search(f"{code} {message}")
        self.reason = "too_long" if too_long else reason
        self.status, self.wait, self.message, self.code = status, wait, message, code

    @property
    def retryable(self) -> bool:
        return self.reason != "oversized" and (self.status == 0 or self.status in RETRIED_STATUS)

    @property
    def filtered(self) -> bool:
        """Did a content filter refuse the request? Asked again, it would refuse again."""
        said = f"{self.code} {self.message}".casefold()
        return 400 <= self.status < 500 and any(word in said for word in _ERRORS["filters"])


@dataclass(frozen=True, slots=True)
class Reply:
    """A well-formed reply of the chat protocol."""

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    reasoning: str | None = None  # the thought, where the message has it in a field of its own
    reasoning_tokens: int | None = None  # as usage states them
    refusal: bool = False  # the message declares a refusal

    @property
    def refused(self) -> str:
        """Why the endpoint would not answer, one of REFUSALS; empty where it did."""
        return "content_filter" if self.finish_reason in FILTERED else "refused" if self.refusal else ""

    @property
    def answer(self) -> Answer:
        return Answer(self.text, self.reasoning, self.finish_reason, self.reasoning_tokens, self.refusal)


def read_reply(content: bytes) -> Reply:
    """The first choice of a chat completion; raises AttemptError where it is none."""
    try:
        row = _joined(content) if content.lstrip().startswith((b"data:", b"event:", b":")) else json.loads(content)
        if not row.get("choices") and (row.get("error") or row.get("errors")):  # an upstream's error in a 200
            raise error_of(content, 200)
        choice = row["choices"][0]
        if choice.get("error"):
            raise _error_in(choice["error"], 200)
        message = choice.get("message") or {"content": choice["text"]}
        text, thought = _text_of(message.get("content"))
        found = (flat for name in _REPLY["thought"] if (flat := _flat(message.get(name))))
        reasoning = next(found, thought + _flat(message.get("reasoning_details"))) or None
        prompt, completion, reasoned = _tokens(row.get("usage"))
        return Reply(
            text=text,
            model=str(row.get("model") or ""),
            finish_reason=_finish(choice),
            prompt_tokens=prompt,
            completion_tokens=completion or estimate_tokens((reasoning or "") + text),
            reasoning=reasoning,
            reasoning_tokens=reasoned,
            refusal=bool(message.get("refusal")),
        )
    except _MALFORMED:
        raise AttemptError("bad_reply") from None


def error_of(content: bytes, status: int, wait: float | None = None) -> AttemptError:
    """The error in the body of a reply, wherever it puts its words."""
    plain = content[:500].decode("utf-8", "replace")
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        row = None
    row = row[0] if isinstance(row, list) and row else row
    if not isinstance(row, dict):
        return _error_in(None, status, wait, plain)
    listed = row.get("errors")
    inner = row.get("error") or row.get("fault") or (listed[0] if isinstance(listed, list) and listed else None)
    if not isinstance(inner, dict):
        inner = {"message": ": ".join(filter(None, (str(inner or ""), _said(row))))}
    inner = {"code": row.get("code"), "type": row.get("error_type") or row.get("type"), **inner}
    if wait is None and (later := _LATER.search(plain)):
        wait = float(later[1] or later[3]) * {"": 1, "s": 1, "ms": 0.001}.get((later[2] or "").lower(), 60)
    return _error_in(inner, status, wait, plain)


def _error_in(error: object, status: int, wait: float | None = None, plain: str = "") -> AttemptError:
    """The error of a reply; the endpoint's own words are in `message` and `code`, where it sends any."""
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    message, kind = _said(fields) or plain, str(fields.get("type") or "")
    code = str(fields.get("code") or kind or fields.get("status") or "")
    if status == 200:
        named = (meant for name, meant in _ERRORS["named"].items() if name in f"{code} {kind}".lower())
        status = int(code) if code.isdigit() and 400 <= int(code) < 600 else next(named, 502)
    if status < 500 or status == 502:
        status = next((meant for meant, words in _MEANS if words.search(f"{code} {kind} {message}")), status)
    return AttemptError("rate_limited" if status == 429 else f"http_{status}", status, wait, message, code)


def _said(fields: dict[str, Any]) -> str:
    """The words of an error: a provider's own where a gateway hands them on, FastAPI's list in one line."""
    behind = fields.get("metadata")
    if isinstance(behind, dict) and isinstance(behind.get("raw"), str):
        return str(fields.get("message") or "") + ": " + behind["raw"]
    value = next((value for name in _ERRORS["messages"] if (value := fields.get(name))), "")
    if isinstance(value, list):
        value = "; ".join(f"{part.get('loc', [''])[-1]}: {part.get('msg')}" for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _count(value: object) -> int | None:
    """A number of tokens, whatever it is written as; None where none is stated, or one that cannot be: an answer is
    not lost by its books."""
    try:
        stated = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return int(stated) if 0 <= stated <= MOST_TOKENS else None


def _tokens(usage: Any) -> tuple[int, int, int | None]:
    """(prompt, completion with its thought, thought if stated) under the names that endpoints have for them."""
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    stated = details.get("reasoning_tokens") if isinstance(details, dict) else None
    prompt = _count(usage.get("prompt_tokens", usage.get("input_tokens"))) or 0
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens"))) or 0
    thought = _count(usage.get("reasoning_tokens") if stated is None else stated)
    total = _count(usage.get("total_tokens"))
    if thought and (thought > completion or total == prompt + completion + thought):  # counted beside, not within
        completion += thought
    return prompt, completion, thought


def _finish(choice: dict[str, Any]) -> str:
    """How the reply ended, in the protocol's words where it means one of them; AttemptError where it broke off."""
    others = [said for name in ("stop_reason", "done_reason") if isinstance(said := choice.get(name), str)]
    reason = choice.get("finish_reason") or next(filter(None, others), "")
    if isinstance(reason, dict):
        reason = reason.get("type") or ""
    plain = str(reason).lower().replace("-", "_").removeprefix("finish_reason_")
    if plain in _REPLY["broken"]:
        raise AttemptError("interrupted")
    return "length" if plain in _CUT else "content_filter" if plain in _FILTERED else str(reason)


def _text_of(content: object) -> tuple[str, str]:
    """(text, thought) of a message's content: a text, nothing, or a list of parts of which some may be thoughts."""
    if isinstance(content, list):
        texts = [part.get("text") or "" for part in content if part.get("type", "text") in ("text", "output_text")]
        thoughts = [_flat(part.get(name)) for part in content for name in _REPLY["thought"] if name in part]
        return "".join(texts), "".join(thoughts)
    if content is None or isinstance(content, str):
        return content or "", ""
    raise TypeError("content is neither text nor parts")


def _flat(value: object) -> str:
    if isinstance(value, list):
        return "".join(map(_flat, value))
    if isinstance(value, dict):
        return next((found for name in _REPLY["inner"] if (found := _flat(value.get(name)))), "")
    return value if isinstance(value, str) else ""


def _joined(content: bytes) -> dict[str, Any]:
    """The whole of an answer that an endpoint streams unasked."""
    whole: dict[str, Any] = {}
    message: dict[str, str] = {}
    finish = None
    for line in content.splitlines():
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data in (b"", b"[DONE]"):
            continue
        row = json.loads(data)
        whole |= {name: value for name, value in row.items() if value is not None}
        for choice in row.get("choices") or ():
            for name, value in (choice.get("delta") or {}).items():
                if isinstance(value, str) and name != "role":
                    message[name] = message.get(name, "") + value
            finish = choice.get("finish_reason") or finish
    return {**whole, "choices": [{"message": message, "finish_reason": finish}]}


def estimate_tokens(text: str) -> int:
    """A rough count for endpoints that report none: four Latin letters or one and a half other characters a token."""
    latin = len(text.encode("ascii", "ignore"))
    return latin // 4 + (len(text) - latin) * 2 // 3


# --- structured replies

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
