"""The gateway's settings: one YAML file, checked as a whole."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from clinical_r1.dialects import AUTO, checked_name
from clinical_r1.strict import Strict

INTENDED_USE = "research and clinician decision support; not a medical device; no autonomous diagnosis"


class Timeouts(Strict):
    """Seconds; each bounds a different kind of silence."""

    connect: float = Field(default=5.0, gt=0)
    """Until the engine accepts the connection."""
    first_byte: float = Field(default=120.0, gt=0)
    """From the request to the first byte of a stream (queueing and prefill)."""
    idle: float = Field(default=60.0, gt=0)
    """Between two pieces of a stream."""
    total: float = Field(default=900.0, gt=0)
    """A whole answer, streamed or not."""
    body: float = Field(default=15.0, gt=0)
    """Until the client has sent its request body."""
    header: float = Field(default=15.0, gt=0)
    """A connection without a request for so long is closed."""
    drain: float = Field(default=60.0, ge=0)
    """Running answers may finish for so long after SIGTERM; then they are cut and counted as aborted."""
    settle: float = Field(default=5.0, ge=0)
    """After SIGTERM new requests are still taken for so long, until load balancers have seen that we are not ready."""


class Limits(Strict):
    """What one request and all requests together may ask for."""

    body_bytes: int = Field(default=1_048_576, ge=1024)
    """Larger bodies are refused (413) before they are read."""
    max_tokens: int = Field(default=8192, ge=1)
    """Larger values are lowered to this."""
    default_max_tokens: int = Field(default=4096, ge=1)
    """Used where the client names none; lowered to what the engine's context leaves is the engine's matter."""
    max_n: int = Field(default=4, ge=1, le=16)
    """More answers to one request are lowered to this."""
    messages: int = Field(default=128, ge=1)
    """Turns in one conversation."""
    in_flight: int = Field(default=256, ge=1)
    """Requests at a time; one more is told 429 with Retry-After."""
    key_share: float = Field(default=0.5, gt=0, le=1)
    """Share of `in_flight` that one API key may take; more is told 429. Without keys there is no share."""
    answer_bytes: int = Field(default=33_554_432, ge=65_536)
    """Largest answer that is accepted from the engine."""


EFFORTS = {"none": 0, "minimal": 128, "low": 1024, "medium": 2048, "high": 4096}
"""LiteLLM's budgets for the words of OpenAI's protocol; `none` asks for the answer at once."""


class Thinking(Strict):
    """How the served model writes its thoughts; unset values are asked from the engine's /tokenize, or found out by one
    probe."""

    dialect: str = AUTO
    """A name of clinical_r1/dialects.py: think (ours), tags, opened, headings, channels, gemma, none, ..."""
    open_id: int | None = None
    """Token id of <think> where it is one token."""
    close_id: int | None = None
    """Token id of </think> where it is one token."""
    opened: bool | None = None
    """Whether the chat template already writes <think> into the prompt."""
    tags_are_special: bool = False
    """The tags are special tokens: the engine is told to keep them in its text."""
    budget: Annotated[int, Field(ge=0)] | Literal["auto"] | None = None
    """Tokens that a thought may have where the request names none; a longer one is closed and the answer asked for.
    `auto`: what the evaluation of the served model found to lose no accuracy (in its baseline), none where it found
    none."""
    efforts: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: dict(EFFORTS))
    """Budgets of `reasoning_effort`."""
    budget_by: Literal["gateway", "engine"] = "gateway"
    """Who closes a thought. `engine`: vLLM with `--reasoning-config` is sent `thinking_token_budget`; as some of its
    runners ignore it, the gateway closes what goes on for another 64 tokens."""

    @field_validator("dialect")
    @classmethod
    def _a_dialect(cls, value: str) -> str:
        return checked_name(value)


class Sampling(Strict):
    """Audit sampling: a share of questions and answers is kept for out-of-band judging. Off by default."""

    rate: float = Field(default=0.0, ge=0, le=1)
    """Share of answers to keep; 0 keeps none."""
    store: str = ""
    """Where segments of JSON lines are written: a folder, or s3://BUCKET/PREFIX with the credentials of the environment
    (clinical_r1.objectstore). Contains text of patients: a prefix of its own, encrypted, with retention."""
    segment: int = Field(default=100, ge=1)
    """Answers in one object."""
    seconds: float = Field(default=300.0, gt=0)
    """An object is written after so long even if it is not full, and at shutdown."""


class GatewayConfig(Strict):
    """Everything the gateway can be told."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a pod."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes a free port."""
    upstream: str = "http://127.0.0.1:8000"
    """Base address of the engine, without /v1."""
    auth: Literal["keys", "none"] = "keys"
    """`none` serves everybody who reaches the port: laptops only."""
    keys_file: Path | None = None
    """Hashed API keys (`python -m serving.gateway.keys new ID`); read again when it changes."""
    model_name: str = ""
    """What clients call the model, besides the engine's own id."""
    model_version: str = Field(default="unversioned", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:-]{0,79}$")
    """Label on every metric and audit line."""
    tokenizer: Path | None = None
    """tokenizer.json: needed where the engine gives no token ids, or the tags are several tokens."""
    token_ids: bool = True
    """Ask the engine for token ids; off for engines that refuse `return_token_ids`."""
    baseline: Path | None = None
    """reasoning_baseline.json of the served model, for drift."""
    audit_file: str = "-"
    """One JSON line a request, without text; `-` is standard output, empty is none."""
    tools: bool = False
    """Tool definitions, calls and results pass through; off, they are refused by name."""
    audit_required: bool = False
    """Refuse requests (503) as long as no audit line can be written, instead of counting the lost ones."""
    tracing: bool = False
    """A span a request by the OpenTelemetry SDK (extra `tracing`; the image has it), sent where its environment
    variables say (OTEL_EXPORTER_OTLP_ENDPOINT). Off, a client's `traceparent` is handed to the engine as it is."""
    chat_page: bool = False
    """Serve the small chat page at /."""
    max_connections: int = Field(default=4096, ge=16)
    """Open client connections; the oldest idle ones are closed beyond it."""
    timeouts: Timeouts = Field(default_factory=Timeouts)
    limits: Limits = Field(default_factory=Limits)
    thinking: Thinking = Field(default_factory=Thinking)
    sampling: Sampling = Field(default_factory=Sampling)
