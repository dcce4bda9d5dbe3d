"""What a client may ask: pydantic models of an allow-list of fields, checked and clamped, refused without an echo.

Clients send more than they ask for: `tools: null`, `logprobs: false`, `response_format: {"type": "text"}`. What says
nothing is dropped; what is harmless is dropped or forwarded; what would change the answer and is not offered is refused
by name (the table in docs/serving.md; the same models make the OpenAPI document).
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serving.gateway.config import Limits
from serving.gateway.errors import RejectionError

DROPPED = frozenset(
    [
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "metadata",
        "service_tier",
        "verbosity",
        "request_id",
    ]
)
"""Accepted with any value and never forwarded: they do not change an answer, and may identify a person."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "allowed_token_ids": (),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_tokens": (0,),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "priority": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "store": (False,),
    "structured_outputs": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "web_search_options": (),
}
"""Known fields that are refused by name, but for null and the values that say what happens anyway."""
TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
"""Forwarded where the configuration allows tools."""
MAX_STOPS, MAX_STOP_LENGTH = 4, 64
_CJK = re.compile(r"[㐀-鿿]")
_LATIN = re.compile(r"[A-Za-z]")
LANGUAGES = ("en", "zh", "other")


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Tokens = Annotated[Whole | None, Field(ge=1, le=10_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class TextPart(_Strict):
    """One part of a message's content."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn. Fields such as `name`, `refusal` or an earlier turn's reasoning do not reach the engine."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    """Only an assistant's turn may be without."""
    tool_calls: list[dict[str, Any]] | None = None
    """An assistant's calls, where tools are allowed."""
    tool_call_id: str | None = None
    """Which call a tool's turn answers."""

    def forwarded(self, tools: bool) -> dict[str, Any]:
        """The turn as the engine gets it. Raises RejectionError."""
        if not tools and (self.role == "tool" or self.tool_calls):
            raise _bad("messages", "tool calls are not allowed here")
        if self.content is None and self.role != "assistant":
            raise _bad("messages", "content must be a string or a list of text parts")
        content = self.content or ""
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        turn: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": content}
        if self.tool_calls:
            turn["tool_calls"] = self.tool_calls
        if self.role == "tool":
            turn["tool_call_id"] = self.tool_call_id or ""
        return turn


class StreamOptions(_Strict):
    """How a stream ends."""

    include_usage: bool | None = None
    """A last chunk with the usage."""
    include_obfuscation: bool | None = None
    """Accepted and dropped: padding against eavesdroppers is not made here."""
    continuous_usage_stats: Literal[False] | None = None


class ChatRequest(_Strict):
    """A chat completion; every field but `model` and `messages` may be null or left out."""

    model: str = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    """Only with `stream: true`."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    top_k: Whole | None = Field(None, ge=-1, le=1_000_000)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    seed: Whole | None = Field(None, ge=-(2**63), le=2**63 - 1)
    n: Whole | None = Field(None, ge=1, le=128)
    """Lowered to the configured limit."""
    max_tokens: Tokens = None
    """Lowered to the configured limit."""
    max_completion_tokens: Tokens = None
    """OpenAI's newer name of `max_tokens`; it wins."""
    stop: str | list[str] | None = None


SAMPLING = (
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
)
"""Fields that go to the engine as they are."""


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


def parse(body: bytes, limits: Limits, names: frozenset[str], context: int = 0, tools: bool = False) -> Asked:
    """Check a chat completion body.

    Args:
        body: as received.
        limits: what to clamp to.
        names: model names that we answer to; empty while the engine is unknown.
        context: the engine's context in tokens, 0 while unknown.
        tools: tool calls pass through.

    Raises:
        RejectionError: with a message that names our field at most.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RejectionError(400, "bad_json", "the body is not valid JSON in UTF-8") from None
    if not isinstance(given, dict):
        raise RejectionError(400, "bad_json", "the body must be a JSON object")
    forward: dict[str, Any] = {}
    if tools and given.get("tools"):
        forward = {name: given.pop(name) for name in TOOL_FIELDS if given.get(name) is not None}
    request = _validated(_meaning(given), limits)
    if names and request.model not in names:
        raise RejectionError(404, "unknown_model", "no such model; GET /v1/models lists what is served", "model")
    forward |= {"messages": [message.forwarded(tools) for message in request.messages], "model": request.model}
    forward |= {name: value for name in SAMPLING if (value := getattr(request, name)) is not None}
    n = min(request.n or 1, limits.max_n)
    if request.n:
        forward["n"] = n
    tokens = request.max_completion_tokens or request.max_tokens
    if tokens is not None:
        forward["max_tokens"] = min(tokens, limits.max_tokens)
    elif not 0 < context <= limits.max_tokens:  # else the engine's own context is the tighter limit
        forward["max_tokens"] = min(limits.default_max_tokens, limits.max_tokens)
    if stops := _stops(request.stop):
        forward["stop"] = stops
    options = request.stream_options
    if options and options.include_usage and not request.stream:
        raise _bad("stream_options", "only with stream: true")
    include_usage = bool(options and options.include_usage)
    language = language_of(forward["messages"])
    return Asked(forward, n, bool(request.stream), include_usage, language, forward["messages"])


def _bad(param: str, message: str) -> RejectionError:
    return RejectionError(400, "bad_field", f"{param}: {message}", param)


def _meaning(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something. Raises RejectionError for those that are not offered."""
    said: dict[str, Any] = {}
    for name, value in given.items():
        if name in ChatRequest.model_fields:
            said[name] = value
        elif value is None or name in DROPPED:
            continue
        elif name not in NEUTRAL:
            allowed = ", ".join(sorted(ChatRequest.model_fields))
            raise RejectionError(400, "refused_field", f"an unknown field; allowed are {allowed}")
        # 0 == False in Python; in JSON they are two things
        elif not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL[name]):
            raise RejectionError(400, "refused_field", f"{name} is not allowed here", name)
    return said


def _validated(said: dict[str, Any], limits: Limits) -> ChatRequest:
    messages = said.get("messages")
    if isinstance(messages, list) and len(messages) > limits.messages:
        raise _bad("messages", f"at most {limits.messages} messages")
    if not isinstance(said.get("model"), str):
        raise _bad("model", "name the model; GET /v1/models lists it")
    try:
        return ChatRequest.model_validate(said)
    except ValidationError as problem:
        # The first place is one of our field names; pydantic's words are of our types, the input is left out.
        first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _bad(str(first["loc"][0]), _words(first["type"], first["msg"])) from None


def _words(kind: str, message: str) -> str:
    return "has a field that is not known here" if kind == "extra_forbidden" else message[:1].lower() + message[1:]


def _stops(value: str | list[str] | None) -> list[str]:
    if not value:
        return []
    stops = [value] if isinstance(value, str) else value
    if len(stops) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
        raise _bad("stop", f"must be at most {MAX_STOPS} strings of 1 to {MAX_STOP_LENGTH} characters")
    return stops


def language_of(messages: list[dict[str, Any]]) -> str:
    """`zh`, `en` or `other`, by the letters of the last user message (a metric label, no more)."""
    text = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")[:2000]
    chinese, latin = len(_CJK.findall(text)), len(_LATIN.findall(text))
    if chinese * 4 > latin and chinese:
        return "zh"
    return "en" if latin else "other"
