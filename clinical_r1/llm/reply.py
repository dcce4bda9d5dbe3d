"""What comes back from an endpoint: a reply of the chat protocol, or an attempt that failed."""

import json
import re
from dataclasses import dataclass
from typing import Any

from clinical_r1.recognise import CUT, FILTERED, Answer
from clinical_r1.schema import MOST_TOKENS

THROTTLED = (429, 503)
RETRIED_STATUS = frozenset((408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531), 598, 599))
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoningContent",
                   "thinking_blocks")  # fmt: skip
_INNER = ("text", "thinking", "content", "summary", "reasoning_text", "reasoningText", "reasoning")
"""Where an object that stands for a thought has its text; signatures and encrypted parts are none."""
_CUT = {*(name.lower() for name in CUT), "max_output_tokens", "token_limit", "length_limit", "max_length",
        "model_context_window_exceeded", "context_length_exceeded"}  # fmt: skip
_FILTERED = {*(name.lower() for name in FILTERED), "recitation", "prohibited_content", "blocklist", "spii", "blocked",
             "error_toxic", "moderation", "content_policy_violation"}  # fmt: skip
_BROKEN = {"error", "network_error", "abort", "aborted", "insufficient_system_resource"}
"""How endpoints call an end of a reply, in small letters."""
_FILTER_WORDS = ("content_filter", "content filter", "content management policy", "content policy", "content_policy",
                 "responsibleaipolicy", "guardrail", "data_inspection_failed", "sensitive_content", "moderation",
                 "input was flagged", "inappropriate content", "不安全或敏感")  # fmt: skip
"""How providers name their content filters in errors: OpenAI, Azure, Bedrock, DashScope, others."""
_WORDS = tuple((status, re.compile(words, re.IGNORECASE)) for status, words in (
    (402, r"insufficient_quota|credit balance|insufficient (?:account )?(?:balance|credits?|funds)|arrearage|"
          r"in good standing|余额不足|欠费"),
    (401, r"(?:invalid|incorrect|wrong|missing)[ _-](?:x-)?api[ _-]?key|api key not valid|authentication_error"),
    (404, r"model_not_found|invalid model\b(?! param)|unexpected endpoint|模型不存在|"
          r"model(?: [`'\"]?[\w./:-]+[`'\"]?)? (?:does not exist|not exist|not found|is not (?:found|available))"),
))  # fmt: skip
"""What an error means whatever its status (400, or 200 with an error in it): the account, the key, the model."""
_NAMED = (("rate_limit", 429), ("resource_exhausted", 429), ("overloaded", 529), ("context_length", 400),
          ("invalid_request", 400), ("invalid_argument", 400), ("badrequest", 400), ("validation", 400))  # fmt: skip
"""Names of errors that come without a status."""
_LATER = re.compile(
    r"(?:try again|retry)(?: after| in)?:? ?(\d+(?:\.\d+)?) ?(ms|m(?:in\w*)?(?![a-z])|s)?|"
    r"retryDelay\"?: ?\"(\d+(?:\.\d+)?)s",
    re.IGNORECASE,
)
_MESSAGES = ("message", "msg", "Message", "error_msg", "errorMessage", "faultstring", "detail", "error_description")
_MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Reply:
    """A well-formed reply of the chat protocol."""

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    reasoning: str | None = None
    """The thought, where the message has it in a field of its own."""
    reasoning_tokens: int | None = None
    """As usage states them."""
    refusal: bool = False
    """The message declares a refusal."""

    @property
    def refused(self) -> str:
        """Why the endpoint would not answer: `content_filter`, `refused`; empty where it did."""
        if self.finish_reason in FILTERED:
            return "content_filter"
        return "refused" if self.refusal else ""

    @property
    def answer(self) -> Answer:
        """As the dialects read it."""
        return Answer(self.text, self.reasoning, self.finish_reason, self.reasoning_tokens, self.refusal)


class AttemptError(Exception):
    """One attempt failed. `message` is the endpoint's own error text, which may quote what was sent: for decisions,
    and for users only through `advice.said`."""

    def __init__(
        self, reason: str, status: int = 0, wait: float | None = None, message: str = "", code: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.wait = wait
        self.message = message
        self.code = code

    @property
    def retryable(self) -> bool:
        """May the same request succeed later?"""
        if self.reason == "oversized":
            return False
        return self.status == 0 or self.status in RETRIED_STATUS

    @property
    def filtered(self) -> bool:
        """Did a content filter refuse the request? Asked again, it would refuse again."""
        said = f"{self.code} {self.message}".casefold()
        return 400 <= self.status < 500 and any(word in said for word in _FILTER_WORDS)

    @property
    def throttled(self) -> bool:
        """Did the endpoint say that it is too much?"""
        return self.status in THROTTLED


def read_reply(content: bytes) -> Reply:
    """The first choice of a chat completion; raises AttemptError where it is none."""
    try:
        row = _joined(content) if content.lstrip().startswith((b"data:", b"event:", b":")) else json.loads(content)
        if not row.get("choices") and (row.get("error") or row.get("errors")):  # an upstream's error in a 200
            raise error_of(content, 200)
        choice = row["choices"][0]
        if choice.get("error"):
            raise error_in(choice["error"], 200)
        message = choice.get("message") or {"content": choice["text"]}
        text, thought = _text_of(message.get("content"))
        reasoning = _thought_of(message, thought)
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
        return error_in(None, status, wait, plain)
    listed = row.get("errors")
    inner = row.get("error") or row.get("fault") or (listed[0] if isinstance(listed, list) and listed else None)
    if not isinstance(inner, dict):
        inner = {"message": ": ".join(filter(None, (str(inner or ""), _said(row))))}
    inner = {"code": row.get("code"), "type": row.get("error_type") or row.get("type"), **inner}
    if wait is None and (later := _LATER.search(plain)):
        wait = float(later[1] or later[3]) * {"": 1, "s": 1, "ms": 0.001}.get((later[2] or "").lower(), 60)
    return error_in(inner, status, wait, plain)


def error_in(error: object, status: int, wait: float | None = None, plain: str = "") -> AttemptError:
    """The error of a reply; the endpoint's own words are in `message` and `code`, where it sends any."""
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    message, code = _said(fields) or plain, str(fields.get("code") or fields.get("type") or fields.get("status") or "")
    names = f"{code} {fields.get('type') or ''} {message}"
    if status == 200:
        named = (meant for name, meant in _NAMED if name in f"{code} {fields.get('type') or ''}".lower())
        status = int(code) if code.isdigit() and 400 <= int(code) < 600 else next(named, 502)
    if status < 500 or status == 502:
        status = next((meant for meant, words in _WORDS if words.search(names)), status)
    reason = "rate_limited" if status == 429 else f"http_{status}"
    return AttemptError(reason, status, wait, message, code)


def _said(fields: dict[str, Any]) -> str:
    """The words of an error: a provider's own where a gateway hands them on, FastAPI's list in one line."""
    behind = fields.get("metadata")
    if isinstance(behind, dict) and isinstance(behind.get("raw"), str):
        return str(fields.get("message") or "") + ": " + behind["raw"]
    value = next((value for name in _MESSAGES if (value := fields.get(name))), "")
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
    details = details if isinstance(details, dict) else {}
    prompt = _count(usage.get("prompt_tokens", usage.get("input_tokens"))) or 0
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens"))) or 0
    stated = details.get("reasoning_tokens")
    thought = _count(usage.get("reasoning_tokens") if stated is None else stated)
    total = _count(usage.get("total_tokens"))
    if thought and (thought > completion or total == prompt + completion + thought):  # counted beside, not within
        completion += thought
    return prompt, completion, thought


def _finish(choice: dict[str, Any]) -> str:
    """How the reply ended, in the protocol's words where it means one of them; AttemptError where it broke off."""
    reason = choice.get("finish_reason")
    for name in ("stop_reason", "done_reason"):
        reason = choice[name] if not reason and isinstance(choice.get(name), str) else reason
    if isinstance(reason, dict):
        reason = reason.get("type")
    plain = str(reason or "").lower().replace("-", "_").removeprefix("finish_reason_")
    if plain in _BROKEN:
        raise AttemptError("interrupted")
    return "length" if plain in _CUT else "content_filter" if plain in _FILTERED else str(reason or "")


def _thought_of(message: dict[str, Any], thought: str) -> str | None:
    return next((found for name in _THOUGHT_FIELDS if (found := _flat(message.get(name)))),
                thought + _flat(message.get("reasoning_details"))) or None  # fmt: skip


def _text_of(content: object) -> tuple[str, str]:
    """(text, thought) of a message's content: a text, nothing, or a list of parts of which some may be thoughts."""
    if isinstance(content, list):
        texts = [part.get("text") or "" for part in content if part.get("type", "text") in ("text", "output_text")]
        thoughts = [_flat(part.get(name)) for part in content for name in _THOUGHT_FIELDS if name in part]
        return "".join(texts), "".join(thoughts)
    if content is None or isinstance(content, str):
        return content or "", ""
    raise TypeError("content is neither text nor parts")


def _flat(value: object) -> str:
    if isinstance(value, list):
        return "".join(map(_flat, value))
    if isinstance(value, dict):
        return next((found for name in _INNER if (found := _flat(value.get(name)))), "")
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
