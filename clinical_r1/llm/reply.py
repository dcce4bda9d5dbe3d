"""What comes back from an endpoint: a reply of the chat protocol, or an attempt that failed. No SDK needed to know
these."""

import json
from dataclasses import dataclass

THROTTLED = (429, 503)
RETRIED_STATUS = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529))


@dataclass(frozen=True, slots=True)
class Reply:
    """A well-formed reply of the chat protocol."""

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class AttemptError(Exception):
    """One attempt failed. `message` is the endpoint's own error text: for decisions, never for logs."""

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
    def throttled(self) -> bool:
        """Did the endpoint say that it is too much?"""
        return self.status in THROTTLED


def read_reply(content: bytes) -> Reply:
    """The first choice of a chat completion; raises AttemptError("bad_reply") where it is none."""
    try:
        row = json.loads(content)
        choice = row["choices"][0]
        text = _text_of(choice["message"].get("content"))
        usage = row.get("usage") or {}
        return Reply(
            text=text,
            model=str(row.get("model") or ""),
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=max(0, int(usage.get("prompt_tokens") or 0)),
            completion_tokens=max(0, int(usage.get("completion_tokens") or 0)) or estimate_tokens(text),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        raise AttemptError("bad_reply") from None


def _text_of(content: object) -> str:
    """Content of a message: a text, nothing, or a list of parts of which those of type text count."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError("content is neither text nor parts")


def estimate_tokens(text: str) -> int:
    """A rough count for endpoints that report none: four Latin letters or one and a half other characters a token."""
    latin = len(text.encode("ascii", "ignore"))
    return latin // 4 + (len(text) - latin) * 2 // 3
