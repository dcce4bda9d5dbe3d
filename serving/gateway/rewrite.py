"""The engine's answer into the client's: thinking and content apart, what only we asked for removed.

A chunk that lies wholly in one part is forwarded by splicing bytes; only chunks at a boundary are serialised again.
Splicing is safe because `"key":` cannot occur inside of a JSON string: there its quotes are escaped.
"""

import re
from typing import Any

import orjson

from clinical_r1.reasoning import Piece
from serving.gateway.observer import AnswerObserver, reconcile

_CONTENT = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)*")')
_TOKEN_IDS = re.compile(rb',\s*"token_ids":\s*(?:null|\[[\d,\s]*\])')
_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class BadAnswerError(Exception):
    """The engine's answer is not what the protocol says."""


def with_details(usage: dict[str, Any], reasoning: int | None) -> dict[str, Any]:
    """OpenAI's usage with the reasoning tokens where they are known."""
    out = {name: usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    if usage.get("prompt_tokens_details"):
        out["prompt_tokens_details"] = usage["prompt_tokens_details"]
    if reasoning is not None:
        out["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return out


def reasoning_total(answers: list[AnswerObserver]) -> int | None:
    """Reasoning tokens of all answers of a request; None if one of them cannot be counted. After they ended."""
    counts = [answer.count() for answer in answers]
    return None if None in counts else sum(count.reasoning for count in counts if count)


def unary(body: bytes, answers: list[AnswerObserver], now: float) -> tuple[bytes, dict[str, Any]]:
    """Take a whole answer through the observers; returns (body for the client, the engine's usage).

    Raises:
        BadAnswerError: not a chat completion of as many choices as were asked for.
    """
    try:
        given = orjson.loads(body)
        usage = given.get("usage") or {}
        choices = [_unary_choice(choice, answers, now) for choice in given["choices"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError):
        raise BadAnswerError from None
    if not all(answer.ended for answer in answers) or not isinstance(usage, dict):
        raise BadAnswerError
    reconcile(answers, usage.get("completion_tokens"))
    head = {name: given[name] for name in _HEAD if name in given}
    out = {**head, "choices": choices, "usage": with_details(usage, reasoning_total(answers))}
    return orjson.dumps(out), usage


def _unary_choice(choice: dict[str, Any], answers: list[AnswerObserver], now: float) -> dict[str, Any]:
    index, message = choice["index"], choice["message"]
    answer = _at(answers, index)
    if answer.ended:
        raise BadAnswerError
    _take(answer, message, choice.get("token_ids"), now)
    answer.finish_reason = choice.get("finish_reason")
    answer.finish(now)
    assert answer.split
    thinking = answer.split.thinking or None
    out = {"role": "assistant", "content": answer.split.response, "reasoning_content": thinking, "reasoning": thinking}
    return {"index": index, "message": out, "finish_reason": answer.finish_reason, "logprobs": None}


def _at(answers: list[AnswerObserver], index: Any) -> AnswerObserver:
    if not isinstance(index, int) or not 0 <= index < len(answers):
        raise BadAnswerError
    return answers[index]


def _take(answer: AnswerObserver, part: dict[str, Any], ids: Any, now: float) -> list[Piece]:
    """Feed one message or delta; the engine may have split off the thinking already."""
    pieces: list[Piece] = []
    thought = part.get("reasoning_content") or part.get("reasoning")
    if thought:
        pieces += answer.reasoning(thought, now)
    if part.get("content"):
        pieces += answer.text(part["content"], now)
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
            chunk = orjson.loads(data)
            if "error" in chunk:
                self.failed = True
                return b""
            if chunk.get("usage"):
                self.usage = dict(chunk["usage"])
            choices = chunk.get("choices") or []
            if len(choices) == 1:
                return self._choice(chunk, choices[0], data, now)
            return b"".join(self._choice(chunk, choice, b"", now) for choice in choices)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            raise BadAnswerError from None

    def _choice(self, chunk: dict[str, Any], choice: dict[str, Any], raw: bytes, now: float) -> bytes:
        answer = _at(self._answers, choice["index"])
        if answer.ended:
            raise BadAnswerError
        delta = choice.get("delta") or {}
        ids, reason = choice.get("token_ids"), choice.get("finish_reason")
        pieces = _take(answer, delta, ids, now)
        content = delta.get("content")
        self.new_tokens = bool(content or ids)
        if (
            raw
            and len(pieces) == 1
            and reason is None
            and pieces[0].text == content
            and len(delta) == 1
            and not chunk.get("usage")
        ):
            spliced = splice(raw, pieces[0].part == "thinking")
            if spliced:
                return b"data: " + spliced + b"\n\n"
        if reason is not None:
            answer.finish_reason = reason
            pieces += answer.finish(now)
        return self._rebuilt(chunk, choice["index"], pieces, "role" in delta, reason)

    def _rebuilt(self, chunk: dict[str, Any], index: int, pieces: list[Piece], role: bool, reason: str | None) -> bytes:
        deltas: list[dict[str, str]] = [
            {"content": text} if part == "answer" else {"reasoning_content": text, "reasoning": text}
            for part, text in pieces
        ]
        if role:
            deltas = [{"role": "assistant", "content": ""}, *deltas]
        if reason is not None and not deltas:
            deltas = [{}]
        if not deltas:
            return b""
        self._head = {name: chunk[name] for name in _HEAD if name in chunk}
        events = []
        for number, delta in enumerate(deltas, 1):
            ending = reason if number == len(deltas) else None
            choice = {"index": index, "delta": delta, "finish_reason": ending, "logprobs": None}
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
