"""The engine's answer into the client's: thinking and content apart, what only we asked for removed.

Engines differ (a null `choices`, a missing index, a chunk after the end, half a character): what is plain is taken.

A chunk that lies wholly in one part is forwarded by splicing bytes; only chunks at a boundary are serialised again.
Splicing is safe because `"key":` cannot occur inside of a JSON string: there its quotes are escaped.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from clinical_r1.reasoning import Outcome, Piece
from clinical_r1.schema import MOST_TOKENS
from serving.gateway.observer import AnswerObserver, reconcile
from serving.gateway.request import DROPPED_PARTS

_CONTENT = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)*")')
_TOKEN_IDS = re.compile(rb',\s*"token_ids":\s*(?:null|\[[\d,\s]*\])')
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
GIVEN_UP = ("abort", "error", "cancelled")
"""What finish_reason says where the engine did not finish: no answer, whatever text there is."""
_HEAD = ("id", "object", "created", "model", "system_fingerprint")


class BadAnswerError(Exception):
    """The engine's answer is not what the protocol says."""


def sound_usage(given: Any) -> tuple[dict[str, Any], bool]:
    """(the engine's usage, {} where it gave none that can be; whether one was dropped as absurd)."""
    if not given:
        return {}, False
    counts = [given.get(name) for name in _COUNTS] if isinstance(given, dict) else [None]
    if not any(count is not None for count in counts) or not _sound(counts):
        return {}, True
    usage = {name: count or 0 for name, count in zip(_COUNTS, counts, strict=True)}
    if usage["total_tokens"] < usage["prompt_tokens"] + usage["completion_tokens"]:
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    details = given.get("prompt_tokens_details")
    if not isinstance(details, dict):
        return usage, False
    return ({**usage, "prompt_tokens_details": details}, False) if _sound(details.values()) else (usage, True)


def _sound(counts: Iterable[Any]) -> bool:
    return all(count is None or (type(count) is int and 0 <= count <= MOST_TOKENS) for count in counts)


def with_details(usage: dict[str, Any], reasoning: int | None) -> dict[str, Any] | None:
    """OpenAI's usage with the reasoning tokens where they are known; None where the engine gave none: not zeros."""
    if not usage or reasoning is None:
        return usage or None
    return {**usage, "completion_tokens_details": {"reasoning_tokens": reasoning}}


def _loads(data: bytes) -> Any:
    """JSON; the slow library takes halves of a character, which some engines send in two chunks, and NaN."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def reasoning_total(answers: list[AnswerObserver]) -> int | None:
    """Reasoning tokens of all answers of a request; None if one of them cannot be counted. After they ended.

    The line breaks of an empty thought are told as none: beside a missing text, clients take tokens of thought for a
    thought that is kept back.
    """
    counts = [answer.count() for answer in answers]
    empty = [answer.outcome is Outcome.EMPTY_THINK for answer in answers]
    return None if None in counts else sum(c.reasoning for c, none in zip(counts, empty, strict=True) if c and not none)


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
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
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
    if answer.finish_reason in GIVEN_UP:
        raise BadAnswerError
    answer.finish(now)
    out = _answered(index, answer)
    if message.get("tool_calls"):
        out["message"]["tool_calls"] = message["tool_calls"]
    return out


def _answered(index: int, answer: AnswerObserver) -> dict[str, Any]:
    """A choice of a whole answer. After it ended."""
    assert answer.split
    thinking = answer.split.thinking or None
    out = {"role": "assistant", "content": answer.split.response, "reasoning_content": thinking, "reasoning": thinking}
    return {"index": index, "message": out, "finish_reason": answer.finish_reason, "logprobs": None}


def _said(part: dict[str, Any]) -> str:
    """All text of a message or delta."""
    said = [part.get("reasoning_content") or part.get("reasoning"), part.get("content")]
    return "".join("".join(_joined(text)) if isinstance(text, list) else text or "" for text in said)


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
    thought, content = part.get("reasoning_content") or part.get("reasoning"), part.get("content")
    if isinstance(content, list):  # in parts, as Mistral's engines write it
        thought, content = _joined(content)
    if thought:
        pieces += answer.reasoning(thought, now)
    if content:
        pieces += answer.text(content, now)
    if part.get("tool_calls"):
        answer.called = True
    if ids:
        answer.ids(ids)
    return pieces


def _joined(parts: list[Any]) -> tuple[str, str]:
    """(thought, text) of a content in parts."""
    thought = text = ""
    for part in parts:
        said = part.get("thinking") or part.get("text") or ""
        said = _joined(said)[1] if isinstance(said, list) else said
        if part["type"] in DROPPED_PARTS:
            thought += said
        else:
            text += said
    return thought, text


class StreamRewriter:
    """Takes the events of one stream, gives the events for the client; or those of several, where a thought was closed
    at its budget and its answer comes from a second request (`go_on`)."""

    def __init__(self, answers: list[AnswerObserver], budget: bool = False) -> None:
        self._answers, self._budget = answers, budget
        self._going_on: int | None = None
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

    @property
    def over(self) -> bool:
        """Nothing more is wanted of this stream: its end mark came, an error, or all that is missing follows closed
        thoughts."""
        return (self.done or self.failed) or (
            self._budget
            and any(answer.waiting for answer in self._answers)
            and all(answer.ended or answer.waiting for answer in self._answers)
        )

    def end(self, now: float) -> bool:
        """The stream has ended: is it whole? A missing end mark alone takes nothing from finished answers, a missing
        finish_reason nothing from a stream that was ended properly."""
        left = [answer for answer in self._answers if not (answer.ended or answer.waiting)]
        for answer in left if self.done else ():
            answer.finish(now)
        return self.done or not left

    def go_on(self, index: int) -> None:
        """What follows is the text of this answer, behind its closed thought."""
        self._going_on, self.done = index, False
        self._answers[index].waiting = False

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
            if chunk.get("error") or chunk.get("object") == "error":
                self.failed = True
                return b""
            if chunk.get("usage"):
                usage, absurd = sound_usage(chunk["usage"])
                self.usage, self.absurd = usage or self.usage, self.absurd or absurd
            choices = chunk.get("choices") or []
            if len(choices) == 1:
                return self._choice(chunk, choices[0], data, now)
            return b"".join(self._choice(chunk, choice, b"", now) for choice in choices)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadAnswerError from None

    def _choice(self, chunk: dict[str, Any], choice: dict[str, Any], raw: bytes, now: float) -> bytes:
        index = _index(choice, self._answers) if self._going_on is None else self._going_on
        answer = self._answers[index]
        if answer.waiting:  # what the engine wrote before it heard that the thought is over
            return b""
        delta = choice.get("delta") or ({"content": choice["text"]} if "text" in choice else {})
        if answer.ended:  # some engines send an empty chunk after it, or the end twice
            self.late |= bool(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"))
            return b""
        ids, reason = choice.get("token_ids"), choice.get("finish_reason") or None
        pieces = _take(answer, delta, ids, now)
        if self._budget and reason is None and answer.budget_reached(_said(delta), ids or []):
            pieces += answer.close_thought(now)
        content = delta.get("content")
        self.new_tokens = bool(content or ids)
        if (
            raw
            and self._going_on is None
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
        if reason in GIVEN_UP:
            raise BadAnswerError
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
        if self._going_on is None:
            self._head = {name: chunk[name] for name in _HEAD if name in chunk}
        events = []
        for number, part in enumerate(deltas, 1):
            ending = reason if number == len(deltas) else None
            choice = {"index": index, "delta": part, "finish_reason": ending, "logprobs": None}
            events.append(b"data: " + orjson.dumps({**self._head, "choices": [choice]}) + b"\n\n")
        return b"".join(events)

    def settle(self, prompt_tokens: int | None) -> None:
        """After the answers ended. `prompt_tokens`: of the question, where answers came in two parts: the usage of such
        requests is our own count, without what we wrote into them."""
        if prompt_tokens is not None:
            counts = [answer.count() for answer in self._answers]
            made = sum(count.total for count in counts if count)
            known = None not in counts
            self.usage = dict(zip(_COUNTS, (prompt_tokens, made, prompt_tokens + made), strict=True)) if known else {}

    def whole(self) -> bytes:
        """The answers as one body. After they ended."""
        reconcile(self._answers, self.usage.get("completion_tokens"))
        choices = [_answered(index, answer) for index, answer in enumerate(self._answers)]
        head = {**self._head, "object": "chat.completion"}
        return orjson.dumps(
            {**head, "choices": choices, "usage": with_details(self.usage, reasoning_total(self._answers))}
        )

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
