"""The engine's answer into the client's: thinking and content apart, what only we asked for removed.

Engines differ (a null `choices`, a missing index, a chunk after the end, half a character): what is plain is taken.

A chunk that lies wholly in one part is forwarded by splicing bytes; only chunks at a boundary are serialised again.
Splicing is safe because `"key":` cannot occur inside of a JSON string: there its quotes are escaped.
"""

import json
import re
from typing import Any

import orjson

from clinical_r1.reasoning import Piece
from serving.gateway.observer import AnswerObserver, reconcile

_CONTENT = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)*")')
_TOKEN_IDS = re.compile(rb',\s*"token_ids":\s*(?:null|\[[\d,\s]*\])')
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
MOST_TOKENS = 10_000_000
"""A count above it is none: no context is as long."""
_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class BadAnswerError(Exception):
    """The engine's answer is not what the protocol says."""


def sound_usage(given: Any) -> tuple[dict[str, Any], bool]:
    """(the engine's usage, {} where it gave none that can be; whether one was dropped as absurd)."""
    if not given:
        return {}, False
    counts = [given.get(name) for name in _COUNTS] if isinstance(given, dict) else [None]
    stated = [count for count in counts if count is not None]
    if not stated or not all(type(count) is int and 0 <= count <= MOST_TOKENS for count in stated):
        return {}, True
    usage = {name: count or 0 for name, count in zip(_COUNTS, counts, strict=True)}
    if usage["total_tokens"] < usage["prompt_tokens"] + usage["completion_tokens"]:
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    details = given.get("prompt_tokens_details")
    return ({**usage, "prompt_tokens_details": details} if isinstance(details, dict) else usage), False


def with_details(usage: dict[str, Any], reasoning: int | None) -> dict[str, Any] | None:
    """OpenAI's usage with the reasoning tokens where they are known; None where the engine gave none: not zeros."""
    if not usage or reasoning is None:
        return usage or None
    return {**usage, "completion_tokens_details": {"reasoning_tokens": reasoning}}


def _loads(data: bytes) -> Any:
    """JSON; the slow library takes halves of a character, which some engines send in two chunks."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\u" not in data:
            raise
        return json.loads(data)


def reasoning_total(answers: list[AnswerObserver]) -> int | None:
    """Reasoning tokens of all answers of a request; None if one of them cannot be counted. After they ended."""
    counts = [answer.count() for answer in answers]
    return None if None in counts else sum(count.reasoning for count in counts if count)


def unary(body: bytes, answers: list[AnswerObserver], now: float) -> tuple[bytes, dict[str, Any], bool]:
    """Take a whole answer through the observers; returns (body for the client, the engine's usage, whether it was
    dropped as absurd).

    Raises:
        BadAnswerError: not a chat completion of as many choices as were asked for.
    """
    try:
        given = _loads(body)
        usage, absurd = sound_usage(given.get("usage"))
        choices = [_unary_choice(choice, answers, now) for choice in given["choices"]]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise BadAnswerError from None
    if not all(answer.ended for answer in answers):
        raise BadAnswerError
    reconcile(answers, usage.get("completion_tokens"))
    head = {name: given[name] for name in _HEAD if name in given}
    out = {**head, "choices": choices, "usage": with_details(usage, reasoning_total(answers))}
    return orjson.dumps(out), usage, absurd


def _unary_choice(choice: dict[str, Any], answers: list[AnswerObserver], now: float) -> dict[str, Any]:
    index, message = _index(choice, answers), choice["message"]
    answer = answers[index]
    if answer.ended:
        raise BadAnswerError
    _take(answer, message, choice.get("token_ids"), now)
    answer.finish_reason = choice.get("finish_reason") or None
    answer.finish(now)
    assert answer.split
    thinking = answer.split.thinking or None
    out = {"role": "assistant", "content": answer.split.response, "reasoning_content": thinking, "reasoning": thinking}
    if message.get("tool_calls"):
        out["tool_calls"] = message["tool_calls"]
    return {"index": index, "message": out, "finish_reason": answer.finish_reason, "logprobs": None}


def _index(choice: dict[str, Any], answers: list[AnswerObserver]) -> int:
    """Which answer a choice belongs to; an engine may leave it out where only one was asked for."""
    index = choice.get("index")
    if index is None and len(answers) == 1:
        return 0
    if type(index) is not int or not 0 <= index < len(answers):
        raise BadAnswerError
    return index


def _take(answer: AnswerObserver, part: dict[str, Any], ids: Any, now: float) -> list[Piece]:
    """Feed one message or delta; the engine may have split off the thinking already."""
    pieces: list[Piece] = []
    thought = part.get("reasoning_content") or part.get("reasoning")
    if thought:
        pieces += answer.reasoning(thought, now)
    if part.get("content"):
        pieces += answer.text(part["content"], now)
    if part.get("tool_calls"):
        answer.called = True
    if ids:
        answer.ids(ids)
    return pieces


class StreamRewriter:
    """Takes the events of one stream, gives the events for the client."""

    def __init__(self, answers: list[AnswerObserver]) -> None:
        self._answers = answers
        self._head: dict[str, Any] = {}
        self.usage: dict[str, Any] = {}
        self.done = False
        self.absurd = False
        """A usage that cannot be was dropped."""
        self.late = False
        """Text came after its answer had ended, and was dropped."""
        self.failed = False
        """The engine has reported an error inside of the stream."""
        self.new_tokens = False
        """Whether the last event carried text."""

    def event(self, data: bytes, now: float) -> bytes:
        """One event's data in, zero or more whole events out.

        Raises:
            BadAnswerError: not a chat completion chunk.
        """
        self.new_tokens = False
        if data == b"[DONE]":
            self.done = True
            return b""
        try:
            chunk = _loads(data)
            if chunk.get("error"):
                self.failed = True
                return b""
            if chunk.get("usage"):
                usage, absurd = sound_usage(chunk["usage"])
                self.usage, self.absurd = usage or self.usage, self.absurd or absurd
            choices = chunk.get("choices") or []
            if len(choices) == 1:
                return self._choice(chunk, choices[0], data, now)
            return b"".join(self._choice(chunk, choice, b"", now) for choice in choices)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadAnswerError from None

    def _choice(self, chunk: dict[str, Any], choice: dict[str, Any], raw: bytes, now: float) -> bytes:
        index = _index(choice, self._answers)
        answer = self._answers[index]
        delta = choice.get("delta") or {}
        if answer.ended:  # some engines send an empty chunk after it, or the end twice
            self.late |= bool(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"))
            return b""
        ids, reason = choice.get("token_ids"), choice.get("finish_reason") or None
        pieces = _take(answer, delta, ids, now)
        content = delta.get("content")
        self.new_tokens = bool(content or ids)
        if (
            raw
            and len(pieces) == 1
            and pieces[0].text == content
            and len(delta) == 1
            and choice.get("index") is not None
            and choice.get("finish_reason") is None
            and not chunk.get("usage")
            and "error" not in chunk
            and b"\n" not in raw  # an event of several data lines
        ):
            spliced = splice(raw, pieces[0].part == "thinking")
            if spliced:
                return b"data: " + spliced + b"\n\n"
        if reason is not None:
            answer.finish_reason = reason
            pieces += answer.finish(now)
        return self._rebuilt(chunk, index, pieces, delta, reason)

    def _rebuilt(
        self, chunk: dict[str, Any], index: int, pieces: list[Piece], delta: dict[str, Any], reason: str | None
    ) -> bytes:
        deltas: list[dict[str, Any]] = [
            {"content": text} if part == "answer" else {"reasoning_content": text, "reasoning": text}
            for part, text in pieces
        ]
        if "role" in delta:
            deltas = [{"role": "assistant", "content": ""}, *deltas]
        if delta.get("tool_calls"):
            deltas.append({"tool_calls": delta["tool_calls"]})
        if reason is not None and not deltas:
            deltas = [{}]
        if not deltas:
            return b""
        self._head = {name: chunk[name] for name in _HEAD if name in chunk}
        events = []
        for number, part in enumerate(deltas, 1):
            ending = reason if number == len(deltas) else None
            choice = {"index": index, "delta": part, "finish_reason": ending, "logprobs": None}
            events.append(b"data: " + orjson.dumps({**self._head, "choices": [choice]}) + b"\n\n")
        return b"".join(events)

    def ending(self, include_usage: bool) -> bytes:
        """The usage chunk, if the client asked for it, and the end mark. After the answers ended."""
        reconcile(self._answers, self.usage.get("completion_tokens"))
        if not include_usage:
            return b"data: [DONE]\n\n"
        usage = with_details(self.usage, reasoning_total(self._answers))
        return b"data: " + orjson.dumps({**self._head, "choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"


def splice(raw: bytes, thinking: bool) -> bytes | None:
    """The chunk with `content` renamed for a thought and token ids cut out; None if it must be serialised again."""
    if b'"token_ids":' in raw:
        raw, cuts = _TOKEN_IDS.subn(b"", raw)
        if not cuts or b'token_ids":' in raw:
            return None
    if not thinking:
        return raw
    match = _CONTENT.search(raw)
    if not match:
        return None
    text = match[1]
    return b"".join((raw[: match.start()], b'"reasoning_content":', text, b',"reasoning":', text, raw[match.end() :]))
