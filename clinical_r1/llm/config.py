"""One entry an endpoint: where it is, what it costs, how hard it may be pushed, and what may be sent to it."""

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from clinical_r1.dialects import AUTO, checked_name
from clinical_r1.errors import UserError

Positive = Annotated[float, Field(gt=0)]


class BudgetConfig(BaseModel):
    """Limits that stop a run cleanly; finished calls are kept, so a raised limit goes on where it stopped."""

    model_config = ConfigDict(extra="forbid")

    max_cost: float | None = Field(default=None, gt=0)
    """Money, in the currency of the endpoints' price lists; None for no limit."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Prompt and completion tokens of all endpoints together; None for no limit."""


class EndpointConfig(BaseModel):
    """An OpenAI-compatible chat endpoint."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    """What reports and error messages call it."""
    base_url: str = Field(pattern=r"^https?://")
    """Up to and with the version, for example https://api.openai.com/v1."""
    model: str = Field(min_length=1)
    """The model id to ask for; the id that the endpoint returns is recorded with every reply."""
    api_key_env: str = ""
    """Name of the environment variable with the key; empty for endpoints without one. Keys never stand in configs."""
    terms: Literal["train", "no_train", "unknown"] = "unknown"
    """May its outputs train models, by its terms of use?"""
    data_region: str = "unknown"
    """Where it processes what it is sent: a country or region code, or `cluster`."""
    trusted: bool = False
    """True for an endpoint inside the own security boundary: records may reach it without the PHI gate's scrubbing."""
    max_concurrency: int = Field(default=128, ge=1)
    """Most calls in flight; the client finds its way below it when the endpoint throttles."""
    requests_per_minute: Positive | None = None
    """Request limit of the account; None for none."""
    tokens_per_minute: Positive | None = None
    """Token limit of the account (prompt and completion); None for none."""
    price_prompt: float = Field(default=0.0, ge=0)
    """Price of a million prompt tokens."""
    price_completion: float = Field(default=0.0, ge=0)
    """Price of a million completion tokens."""
    connect_timeout: Positive = 10.0
    """Seconds to open a connection."""
    read_timeout: Positive = 120.0
    """Seconds without a byte; replies are not streamed, so this bounds a whole generation."""
    total_timeout: Positive = 180.0
    """Seconds from sending a request to its last byte: a hang ends here."""
    max_retries: int = Field(default=6, ge=0)
    """Further attempts after 429, 5xx, timeouts and lost connections."""
    max_resamples: int = Field(default=4, ge=0)
    """Further attempts after a reply that does not parse or is cut off."""
    backoff_first: Positive = 0.5
    """Seconds before the first retry where the endpoint names none; doubles from there."""
    backoff_max: Positive = 60.0
    """Longest wait that we choose or accept from a Retry-After header, seconds."""
    give_up_after: Positive = 300.0
    """Seconds without one good reply, while calls keep failing, after which the run stops: the endpoint is down."""
    thinking: str = AUTO
    """How its answers mark thoughts: a name of clinical_r1/dialects.py, or auto (each answer's own marks tell)."""
    json_mode: Literal["schema", "object", "text"] = "schema"
    """How structured replies are asked for; falls back to the next weaker form where the endpoint refuses one."""
    send_seed: bool = True
    """Send the `seed` parameter; some endpoints refuse it."""
    send_temperature: bool = True
    """Send `temperature`; some reasoning models refuse it."""
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the bound of a reply's length."""
    extra_body: dict[str, object] = Field(default_factory=dict)
    """Further request parameters, such as chat_template_kwargs of a vLLM server."""

    @field_validator("thinking")
    @classmethod
    def _a_dialect(cls, value: str) -> str:
        return checked_name(value)

    def api_key(self) -> str:
        """The key from the environment; raises UserError where it is named but not set."""
        if not self.api_key_env:
            return "none"
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UserError(
                f"endpoint {self.name}: the environment variable {self.api_key_env} (api_key_env) is not set"
            )
        if not key.isascii() or any(character.isspace() for character in key):
            raise UserError(f"endpoint {self.name}: {self.api_key_env} holds no key: a key has no spaces or line ends")
        return key

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of one call."""
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / 1e6
