"""What a client may ask: an allow-list of fields, checked and clamped; everything else is refused without an echo."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.gateway.config import Limits
from serving.gateway.errors import RejectionError

NUMBERS: dict[str, tuple[float, float, bool]] = {
    # field: (least, most, whole)
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "min_p": (0, 1, False),
    "top_k": (-1, 1_000_000, True),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
    "repetition_penalty": (0.01, 10, False),
    "seed": (-(2**63), 2**63 - 1, True),
    "n": (1, 128, True),
    "max_tokens": (1, 10_000_000, True),
    "max_completion_tokens": (1, 10_000_000, True),
}
"""Numeric fields and the range in which they make sense; `n` and the token limits are then lowered to ours."""
OTHERS = ("messages", "model", "stream", "stream_options", "stop", "user")
REFUSED = (
    "logit_bias",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "skip_special_tokens",
    "include_reasoning",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "vllm_xargs",
    "kv_transfer_params",
    "documents",
    "mm_processor_kwargs",
    "priority",
    "cache_salt",
    "store",
    "metadata",
)
"""Fields that are refused by name; unknown ones are refused too, without a name."""
ROLES = ("system", "developer", "user", "assistant")
MAX_STOPS, MAX_STOP_LENGTH = 4, 64
_CJK = re.compile(r"[㐀-鿿]")
_LATIN = re.compile(r"[A-Za-z]")
LANGUAGES = ("en", "zh", "other")


@dataclass
class Asked:
    """A checked request."""

    forward: dict[str, Any]
    """The body for the engine, before the gateway's own additions."""
    n: int
    stream: bool
    include_usage: bool
    language: str
    messages: list[dict[str, Any]] = field(repr=False)


def parse(body: bytes, limits: Limits, names: frozenset[str], context: int = 0) -> Asked:
    """Check a chat completion body.

    Args:
        body: as received.
        limits: what to clamp to.
        names: model names that we answer to; empty while the engine is unknown.
        context: the engine's context in tokens, 0 while unknown.

    Raises:
        RejectionError: with a message that names our field at most.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RejectionError(400, "bad_json", "the body is not valid JSON in UTF-8") from None
    if not isinstance(given, dict):
        raise RejectionError(400, "bad_json", "the body must be a JSON object")
    _check_fields(given)
    forward: dict[str, Any] = {"messages": _messages(given.get("messages"), limits), "model": _model(given, names)}
    for name, (least, most, whole) in NUMBERS.items():
        value = given.get(name)
        if value is not None:
            forward[name] = _number(name, value, least, most, whole)
    n = min(forward.get("n", 1), limits.max_n)
    if n > 1 or "n" in forward:
        forward["n"] = n
    tokens = forward.pop("max_tokens", None)
    tokens = forward.pop("max_completion_tokens", tokens)
    if tokens is not None:
        forward["max_tokens"] = min(tokens, limits.max_tokens)
    elif not 0 < context <= limits.max_tokens:  # else the engine's own context is the tighter limit
        forward["max_tokens"] = min(limits.default_max_tokens, limits.max_tokens)
    if given.get("stop") is not None:
        forward["stop"] = _stops(given["stop"])
    stream, include_usage = _stream(given)
    return Asked(forward, n, stream, include_usage, language_of(forward["messages"]), forward["messages"])


def _bad(param: str, message: str) -> RejectionError:
    return RejectionError(400, "bad_field", f"{param}: {message}", param)


def _check_fields(given: dict[str, Any]) -> None:
    for name in given:
        if name in NUMBERS or name in OTHERS:
            continue
        if name in REFUSED:
            raise RejectionError(400, "refused_field", f"{name} is not allowed here", name)
        raise RejectionError(
            400, "refused_field", f"an unknown field; allowed are {', '.join(sorted((*NUMBERS, *OTHERS)))}"
        )


def _model(given: dict[str, Any], names: frozenset[str]) -> str:
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise _bad("model", "name the model; GET /v1/models lists it")
    if names and model not in names:
        raise RejectionError(404, "unknown_model", "no such model; GET /v1/models lists what is served", "model")
    return model


def _number(name: str, value: Any, least: float, most: float, whole: bool) -> float | int:
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _bad(name, f"must be {kind}")
    if whole and value != int(value):
        raise _bad(name, f"must be {kind}")
    if not least <= value <= most:
        raise _bad(name, f"must be {kind} from {least} to {most}")
    return int(value) if whole else value


def _messages(value: Any, limits: Limits) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _bad("messages", "must be a list of at least one message")
    if len(value) > limits.messages:
        raise _bad("messages", f"at most {limits.messages} messages")
    return [_message(message) for message in value]


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise _bad("messages", f"each needs a role out of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        parts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise _bad("messages", "content parts must be of type text")
            parts.append(part["text"])
        content = "".join(parts)
    if not isinstance(content, str):
        raise _bad("messages", "content must be a string or a list of text parts")
    # Fields such as `name` or an earlier turn's reasoning_content do not reach the engine.
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": content}


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_LENGTH for stop in stops)
    ):
        raise _bad("stop", f"must be at most {MAX_STOPS} strings of 1 to {MAX_STOP_LENGTH} characters")
    return stops


def _stream(given: dict[str, Any]) -> tuple[bool, bool]:
    stream = given.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _bad("stream", "must be true or false")
    options = given.get("stream_options")
    if options is None:
        return bool(stream), False
    if not stream:
        raise _bad("stream_options", "only with stream: true")
    if not isinstance(options, dict) or set(options) - {"include_usage"}:
        raise _bad("stream_options", "may hold include_usage only")
    include = options.get("include_usage", False)
    if not isinstance(include, bool):
        raise _bad("stream_options", "include_usage must be true or false")
    return True, include


def language_of(messages: list[dict[str, Any]]) -> str:
    """`zh`, `en` or `other`, by the letters of the last user message (a metric label, no more)."""
    text = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")[:2000]
    chinese, latin = len(_CJK.findall(text)), len(_LATIN.findall(text))
    if chinese * 4 > latin and chinese:
        return "zh"
    return "en" if latin else "other"
