"""What an endpoint takes of the protocol: as configured, and as its refusals tell; and its own words for the user.

A refusal that names one of our optional fields is unambiguous: the field is sent otherwise or not at all from then on,
which is told once, with the setting that makes it permanent.
"""

import re
import sys
from typing import Any

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import AttemptError
from clinical_r1.sampling import UNUSUAL

_REFUSED = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|extra (?:fields|inputs)|"
    r"invalid (?:parameter|argument|field)|only the default|deprecated|forbidden|use '?max_|cannot be|not available|"
    r"not (?:a )?valid|unable to|must be|should be|n't support|extraneous|invalid|\bonly\b|cannot both|no longer|"
    r"不支持|未知|无效|仅支持|不能",
    re.IGNORECASE,
)
_OPTIONAL = ("seed", "temperature", "top_p", "stop")
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|maximum context|too many tokens|(?:prompt|input) is too long|max_model_len|"
    r"token count|range of input length|request too large|exceeds the max\w* (?:number of tokens|length)|input length|"
    r"max_(?:new_|completion_|output_)?tokens\b.{0,60}(?:<=|less than|at most|too large|valid range|exceed|maximum|"
    r"cannot be greater)|(?:at most|maximum of) \d+ (?:completion|output) tokens|输入(?:过长|长度)|超过.{0,6}长度", re.I
)  # fmt: skip
_EXCLUSIVE = re.compile(r"\b(?:both|together|alongside|only one)\b|同时", re.IGNORECASE)
_SECRET = re.compile(r"\b[A-Za-z0-9_\-]{20,}\b")
LONGEST = 240
"""Characters of an endpoint's message that are shown."""


class Quirks:
    """Remembers, per client, what the endpoint would not take."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._name = endpoint.name
        self.token_field = endpoint.token_field
        self.omitted = {name for name, sent in (("seed", endpoint.send_seed),
                                                ("temperature", endpoint.send_temperature)) if not sent}  # fmt: skip
        self.learnt: list[str] = []
        """Settings that the endpoint's refusals taught."""

    def fields(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as this endpoint wants it."""
        request = {name: value for name, value in body.items() if name not in self.omitted}
        if self.token_field != "max_tokens" and "max_tokens" in request:
            request[self.token_field] = request.pop("max_tokens")
        return request

    def learn(self, error: AttemptError, request: dict[str, Any]) -> bool:
        """Whether the same call, sent otherwise, is worth another attempt."""
        if error.status not in (400, 404, 422) or not _REFUSED.search(error.message) or _TOO_LONG.search(error.message):
            return False
        for other in ("max_completion_tokens", "max_tokens"):
            if other not in request and other in error.message and self.token_field in error.message:
                self.token_field = other
                return self.tell(f"token_field: {other}")
        if any(name in request and name in error.message for name in UNUSUAL):  # not OpenAI's: none of them, then
            self.omitted.update(UNUSUAL)
            return True
        exclusive = _EXCLUSIVE.search(error.message) and "temperature" in error.message
        for name in ("top_p",) if exclusive else _OPTIONAL:
            if name in request and re.search(rf"(?<![\w-]){name}(?![\w-])", error.message):
                self.omitted.add(name)
                return self.tell(
                    f"send_{name}: false" if name in ("seed", "temperature") else f"sampling.{name} left out"
                )
        return False

    def drop_unusual(self, request: dict[str, Any]) -> bool:
        """Leave out the fields that are not OpenAI's; whether there were any."""
        unusual = [name for name in UNUSUAL if name in request]
        self.omitted.update(unusual)
        return bool(unusual)

    def tell(self, setting: str) -> bool:
        """Say once what is sent from now on, also where many calls were on their way; True."""
        if setting not in self.learnt:
            self.learnt.append(setting)
            line = f"endpoint {self._name}: it refuses the request as sent; goes on with {setting}"
            print(line, file=sys.stderr, flush=True)
        return True


def reason_of(error: AttemptError) -> str:
    """The short code of a failed attempt."""
    return (
        "too_long"
        if error.status in (400, 413, 422) and _TOO_LONG.search(f"{error.code} {error.message}")
        else error.reason
    )


ADVICE = {
    "too_long": "prompt and reply are too long for the model: lower max_tokens, or name a model with a larger context",
    "truncated": "replies are cut: raise max_tokens",
    "unparseable": "replies are not the JSON that was asked for: set json_mode, or name another model",
    "timeout": "raise total_timeout, or lower max_concurrency",
    "rate_limited": "lower max_concurrency, or set requests_per_minute",
    "content_filter": "its content filter refuses these prompts: ask for another policy, or name another endpoint",
    "refused": "the model refuses these prompts: name another model",
    "bad_reply": "it does not speak the chat protocol: correct base_url",
    "certificate": "its certificate is not trusted: name your authority's file in SSL_CERT_FILE",
    "connection": "connections break off: see the server, or the proxy",
}
"""What mends each kind of failure."""


def said(error: AttemptError, messages: list[dict[str, str]]) -> str:
    """The endpoint's own words, for the user: one line, without anything of what was sent, without keys."""
    text = _SECRET.sub("…", " ".join(error.message.split()))
    if not text or text.startswith("<"):
        return ""
    if _quotes(text, messages):
        return "(its message quotes the request and is not shown)"
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _quotes(text: str, messages: list[dict[str, str]]) -> bool:
    """Whether the text shares a stretch with a message: 18 Latin letters, or 6 others."""
    sent = " ".join(" ".join(str(message.get("content") or "").split()) for message in messages)
    return any(
        piece in sent
        for size in (18, 6)
        for at in range(max(1, len(text) - size + 1))
        if (piece := text[at : at + size]) and len(piece) == size and (size == 18 or not piece.isascii())
    )
