"""What a client may ask: pydantic models of an allow-list of fields, checked and clamped, refused without an echo.

Clients send more than they ask for: `tools: null`, `logprobs: false`, `response_format: {"type": "text"}`. What says
nothing is dropped; what is harmless is dropped or forwarded; what would change the answer and is not offered is refused
by name (the table in docs/serving.md; the same models make the OpenAPI document).
"""

import codecs
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clinical_r1.atomic import read_table
from clinical_r1.text import han_of, latin_of
from serving.gateway.config import Limits
from serving.gateway.errors import RejectionError

_TABLE = read_table(Path(__file__).with_name("fields.yaml"))
DROPPED = frozenset(_TABLE["dropped"])
NEUTRAL: dict[str, tuple[Any, ...]] = {field: tuple(values) for field, values in _TABLE["neutral"].items()}
TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
"""Forwarded where the configuration allows tools."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of content parts that are text."""
DROPPED_PARTS = ("thinking", "redacted_thinking", "reasoning")
"""Types of content parts in which clients send back what an earlier turn thought."""
MAX_STOPS, MAX_STOP_LENGTH = 4, 64
LANGUAGES = ("en", "zh", "other")


def _limit(value: Any) -> Any:
    """-1 is how some clients say that there is none."""
    return None if type(value) in (int, float) and value == -1 else _whole(value)


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Tokens = Annotated[Annotated[int, Field(ge=1, le=10_000_000)] | None, BeforeValidator(_limit)]
Budget = Annotated[Annotated[int, Field(ge=0, le=10_000_000)] | None, BeforeValidator(_limit)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class TextPart(_Strict):
    """One part of a message's content: text, or an earlier turn's thought, which does not reach the engine."""

    model_config = ConfigDict(extra="ignore")

    type: Literal[*TEXT_PARTS, *DROPPED_PARTS]  # type: ignore[valid-type]
    text: str = ""


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
            content = "".join(part.text for part in content if part.type in TEXT_PARTS)
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


class Reasoning(_Strict):
    """How long to think, as OpenRouter's clients say it."""

    effort: str | None = None
    max_tokens: Budget = None
    enabled: Literal[True] | None = None
    exclude: Literal[False] | None = None
    summary: Literal["auto"] | None = None


class ThinkingAsked(_Strict):
    """How long to think, as Anthropic's clients say it."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Budget = None


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
    thinking_token_budget: Budget = None
    """Tokens that a thought may have; a longer one is closed and the answer asked for."""
    reasoning_effort: str | None = None
    """A word for it (none, minimal, low, medium, high); a number wins."""
    reasoning: Reasoning | None = None
    """The same in OpenRouter's form."""
    thinking: ThinkingAsked | None = None
    """The same in Anthropic's form."""
    thinking_budget: Budget = None
    """The same under another name, with or without `enable_thinking`, as Qwen's clients say it."""
    enable_thinking: bool | None = None
    """False asks for the answer at once; also as `chat_template_kwargs`."""

    def budget(self, efforts: Mapping[str, int]) -> int | None:
        """What the request says of the length of its thought, in whichever form. Raises RejectionError."""
        reasoning, thinking = self.reasoning or Reasoning(), self.thinking or ThinkingAsked(type="enabled")
        effort = self.reasoning_effort or reasoning.effort
        if effort is not None and effort not in efforts:
            raise _bad("reasoning_effort", f"must be one of {', '.join(efforts)}")
        numbers = (
            self.thinking_token_budget,
            reasoning.max_tokens,
            0 if self.enable_thinking is False or thinking.type == "disabled" else None,
            thinking.budget_tokens,
            self.thinking_budget,
            efforts[effort] if effort is not None else None,
        )
        return next((number for number in numbers if number is not None), None)


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


BUDGET_FIELDS = (
    "thinking_token_budget",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "thinking_budget",
    "enable_thinking",
)


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
    budget: int | None = None
    """Tokens that a thought may have."""
    budget_from: Literal["request", "default"] = "request"


@dataclass(frozen=True)
class Budgets:
    """How long thoughts may be, where the gateway can tell and close them."""

    efforts: Mapping[str, int]
    default: int | None = None
    possible: bool = True
    """The engine has what it takes to go on from a closed thought."""
    by_engine: bool = False
    """The engine closes them itself."""


def parse(
    body: bytes,
    limits: Limits,
    names: frozenset[str],
    context: int = 0,
    tools: bool = False,
    budgets: Budgets | None = None,
) -> Asked:
    """Check a chat completion body.

    Args:
        body: as received.
        limits: what to clamp to.
        names: model names that we answer to; empty while the engine is unknown.
        context: the engine's context in tokens, 0 while unknown.
        tools: tool calls pass through.
        budgets: of thoughts.

    Raises:
        RejectionError: with a message that names our field at most.
    """
    try:
        given = orjson.loads(body.removeprefix(codecs.BOM_UTF8))  # editors on Windows put it there
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
    if forward.get("top_p") == 0:
        forward["top_p"] = 1e-6  # OpenAI's 0 is the likeliest token; engines ask for more than 0
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
    asked = Asked(forward, n, bool(request.stream), include_usage, language, forward["messages"])
    _set_budget(asked, request, budgets or Budgets({}))
    return asked


def _set_budget(asked: Asked, request: ChatRequest, budgets: Budgets) -> None:
    """What follows a thought that we close is plain text, so an answer that may call tools has no budget."""
    possible = budgets.by_engine or (budgets.possible and "tools" not in asked.forward)
    asked.budget = request.budget(budgets.efforts)
    if asked.budget is not None and not possible:
        named = next(name for name in BUDGET_FIELDS if getattr(request, name) is not None)
        why = "not together with tools" if budgets.possible else "this engine cannot go on from a closed thought"
        raise _bad(named, why)
    if asked.budget is None and possible:
        asked.budget, asked.budget_from = budgets.default, "default"
    if (asked.budget or 0) >= asked.forward.get("max_tokens", math.inf):
        asked.budget = None  # the other limit is the tighter one


def _bad(param: str, message: str) -> RejectionError:
    return RejectionError(400, "bad_field", f"{param}: {message}", param)


def _meaning(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something. Raises RejectionError for those that are not offered."""
    said: dict[str, Any] = {}
    switch = given.get("chat_template_kwargs")
    if isinstance(switch, dict) and switch and switch.keys() <= {"enable_thinking", "thinking_budget"}:
        given = {**switch, **{name: value for name, value in given.items() if name != "chat_template_kwargs"}}
    for name, value in given.items():
        if name in ChatRequest.model_fields:
            said[name] = value
        elif value is None or name in DROPPED:
            continue
        elif name not in NEUTRAL:
            allowed = ", ".join(sorted(ChatRequest.model_fields))
            raise RejectionError(400, "refused_field", f"an unknown field; allowed are {allowed}")
        # 0 == False in Python; in JSON they are two things, but 1.0 is 1
        elif not any(_whole(value) == neutral and type(_whole(value)) is type(neutral) for neutral in NEUTRAL[name]):
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
    chinese, latin = len(han_of(text)), len(latin_of(text))
    if chinese * 4 > latin and chinese:
        return "zh"
    return "en" if latin else "other"
