"""What comes back from an endpoint: a reply of the chat protocol, or an attempt that failed."""

import json
from dataclasses import dataclass
from typing import Any

from clinical_r1.recognise import FILTERED, Answer

THROTTLED = (429, 503)
RETRIED_STATUS = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529))
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts")
_FILTER_WORDS = ("content_filter", "content filter", "content management policy", "content policy", "content_policy",
                 "responsibleaipolicy", "guardrail", "data_inspection_failed", "sensitive_content")  # fmt: skip
"""How providers name their content filters in errors: OpenAI, Azure, Bedrock, DashScope, others."""
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
        if self.code == "insufficient_quota" or self.reason == "oversized":
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
        row = json.loads(content) if not content.lstrip().startswith(b"data:") else _joined(content)
        if row.get("error") and not row.get("choices"):  # some gateways wrap an upstream's error into a 200
            raise error_in(row["error"], 200)
        choice = row["choices"][0]
        message = choice["message"]
        text, thought = _text_of(message.get("content"))
        usage = row.get("usage") or {}
        return Reply(
            text=text,
            model=str(row.get("model") or ""),
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=_count(usage.get("prompt_tokens")) or 0,
            completion_tokens=_count(usage.get("completion_tokens")) or estimate_tokens(text),
            reasoning=_thought_of(message, thought),
            reasoning_tokens=_count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")),
            refusal=bool(message.get("refusal")),
        )
    except _MALFORMED:
        raise AttemptError("bad_reply") from None


def error_in(error: object, status: int, wait: float | None = None, plain: str = "") -> AttemptError:
    """The error of a reply; the endpoint's own words are in `message` and `code`, where it sends any."""
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error or plain}
    code = str(fields.get("code") or "")
    if status == 200 and code.isdigit() and 400 <= int(code) < 600:
        status = int(code)
    elif status == 200:
        status = 502
    reason = "rate_limited" if status == 429 else f"http_{status}"
    return AttemptError(reason, status, wait, str(fields.get("message") or ""), code)


def _count(value: object) -> int | None:
    """A number of tokens, whatever it is written as; None where none is stated. ValueError for what is no number."""
    return None if value is None else max(0, int(float(value)))  # type: ignore[arg-type]


def _thought_of(message: dict[str, Any], thought: str) -> str | None:
    for name in _THOUGHT_FIELDS:
        if isinstance(value := message.get(name), str) and value:
            return value
    details = message.get("reasoning_details")
    if isinstance(details, list):
        thought += "".join(str(part.get("text") or part.get("summary") or "") for part in details)
    return thought or None


def _text_of(content: object) -> tuple[str, str]:
    """(text, thought) of a message's content: a text, nothing, or a list of parts of which some may be thoughts."""
    if isinstance(content, list):
        text = "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))
        return text, "".join(_flat(part.get(part["type"])) for part in content if part.get("type") in _THOUGHT_FIELDS)
    if content is None or isinstance(content, str):
        return content or "", ""
    raise TypeError("content is neither text nor parts")


def _flat(value: object) -> str:
    if isinstance(value, list):
        return "".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in value)
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
