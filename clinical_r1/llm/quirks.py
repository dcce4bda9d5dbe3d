"""What an endpoint takes of the protocol: as configured, and as its refusals tell; and its own words for the user.

A refusal that names one of our optional fields is unambiguous: the field is sent otherwise or not at all from then on,
which is told once, with the setting that makes it permanent. A structured reply is asked for in the strictest form that
the endpoint takes.
"""

import re
import sys
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import TOO_LONG, WORDS, AttemptError, either
from clinical_r1.sampling import UNUSUAL

Mode = Literal["schema", "object", "text"]
_WEAKER: dict[Mode, Mode] = {"schema": "object", "object": "text"}
_REFUSED, _EXCLUSIVE = either(WORDS["requests"]["refused"]), either(WORDS["requests"]["exclusive"])
_OPTIONAL = ("seed", "temperature", "top_p", "stop")
_SECRET = re.compile(r"\b[A-Za-z0-9_\-]{20,}\b")
ADVICE: dict[str, str] = WORDS["advice"]
"""What mends each kind of failure."""
LONGEST = 240
"""Characters of an endpoint's message that are shown."""


class Quirks:
    """Remembers, per client, what the endpoint would not take."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._endpoint = endpoint
        self.json_mode: Mode = endpoint.json_mode
        self.token_field = endpoint.token_field
        sent = {"seed": endpoint.send_seed, "temperature": endpoint.send_temperature}
        self.omitted = {name for name, wanted in sent.items() if not wanted}
        self.learnt: list[str] = []
        """Settings that the endpoint's refusals taught."""

    def request(self, body: dict[str, Any], response_model: type[BaseModel] | None) -> dict[str, Any]:
        """The body as this endpoint wants it, as far as is known by now, for a reply of the given shape."""
        request = {name: value for name, value in body.items() if name not in self.omitted}
        request[self.token_field] = request.pop("max_tokens")
        if response_model is not None and self.json_mode != "text":
            plain = self.json_mode == "object"
            request["response_format"] = {"type": "json_object"} if plain else _schema_format(response_model)
        return request

    def learn(self, error: AttemptError, request: dict[str, Any]) -> bool:
        """Whether the same call, sent otherwise, is worth another attempt."""
        if error.status not in (400, 404, 422) or not _REFUSED.search(error.message) or TOO_LONG.search(error.message):
            return False
        for other in ("max_completion_tokens", "max_tokens"):
            if other not in request and other in error.message and self.token_field in error.message:
                self.token_field = other
                return self.tell(f"token_field: {other}")
        if any(name in request and name in error.message for name in UNUSUAL):
            return self.drop_unusual(request)
        exclusive = _EXCLUSIVE.search(error.message) and "temperature" in error.message
        for name in ("top_p",) if exclusive else _OPTIONAL:
            if name in request and re.search(rf"(?<![\w-]){name}(?![\w-])", error.message):
                self.omitted.add(name)
                setting = f"send_{name}: false" if name in ("seed", "temperature") else f"sampling.{name} left out"
                return self.tell(setting)
        return False

    def drop_unusual(self, request: dict[str, Any]) -> bool:
        """Leave out the fields that are not OpenAI's; whether there were any."""
        self.omitted.update(UNUSUAL)
        return any(name in request for name in UNUSUAL)

    def weaken(self, tried: Mode) -> bool:
        """Ask in the next weaker form than `tried`; False where there is none (then back to where it began)."""
        if tried == "text":
            self.json_mode = self._endpoint.json_mode
        elif self.json_mode == tried:
            self.json_mode = _WEAKER[tried]
        return tried != "text"

    def learn_form(self, error: AttemptError, tried: Mode) -> bool:
        """Whether the endpoint refused the form `tried`, and a weaker one is worth another attempt."""
        if tried == "text" or error.status not in (400, 404, 415, 422, 500, 501):
            return False
        return any(hint in error.message.lower() for hint in WORDS["requests"]["json"]) and self.weaken(tried)

    def tell(self, setting: str) -> bool:
        """Say once what is sent from now on, also where many calls were on their way; True."""
        if setting not in self.learnt:
            self.learnt.append(setting)
            line = f"endpoint {self._endpoint.name}: it refuses the request as sent; goes on with {setting}"
            print(line, file=sys.stderr, flush=True)
        return True


@lru_cache(maxsize=64)
def _schema_format(response_model: type[BaseModel]) -> dict[str, Any]:
    schema = response_model.model_json_schema()
    _close(schema)
    return {"type": "json_schema", "json_schema": {"name": response_model.__name__, "schema": schema, "strict": True}}


def _close(schema: dict[str, Any]) -> None:
    """Strict mode wants every object closed and every key required."""
    if schema.get("type") == "object":
        schema["additionalProperties"] = False
        schema["required"] = list(schema.get("properties", {}))
    for value in schema.values():
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(part, dict):
                _close(part)
    schema.pop("description", None)


def said(error: AttemptError, messages: list[dict[str, str]]) -> str:
    """The endpoint's own words, for the user: one line, without anything of what was sent, without keys.

    A stretch of 18 Latin letters, or of 6 others, that stands in a message too is a quotation.
    """
    text = _SECRET.sub("…", " ".join(error.message.split()))
    if not text or text.startswith("<"):
        return ""
    sent = " ".join(" ".join(str(message.get("content") or "").split()) for message in messages)
    pieces = (text[at : at + size] for size in (18, 6) for at in range(len(text) - size + 1))
    if any(piece in sent for piece in pieces if len(piece) == 18 or not piece.isascii()):
        return "(its message quotes the request and is not shown)"
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
