"""One entry an endpoint: where it is, what it costs, how hard it may be pushed, and what may be sent to it."""

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from clinical_r1.dialects import AUTO, checked_name
from clinical_r1.errors import UserError
from clinical_r1.strict import Strict

Positive = Annotated[float, Field(gt=0)]


class BudgetConfig(Strict):
    """Limits that stop a run cleanly; finished calls are kept, so a raised limit goes on where it stopped."""

    max_cost: float | None = Field(default=None, gt=0)
    """Money, in the currency of the endpoints' price lists; None for no limit."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Prompt and completion tokens of all endpoints together; None for no limit."""

    def shared(self, parts: int) -> Self:
        """The share of one of several processes: the budget holds for the whole job."""
        update = {
            "max_cost": None if self.max_cost is None else self.max_cost / parts,
            "max_tokens": None if self.max_tokens is None else max(1, self.max_tokens // parts),
        }
        return self if parts <= 1 else self.model_copy(update=update)


class EndpointConfig(Strict):
    """An OpenAI-compatible chat endpoint."""

    name: str = Field(min_length=1)
    """What reports and error messages call it."""
    base_url: str = Field(pattern=r"^https?://")
    """Up to and with the version, for example https://api.openai.com/v1."""
    model: str = Field(min_length=1)
    """The model id to ask for; the id that the endpoint returns is recorded with every reply."""
    api_key_env: str = ""
    """Name of the environment variable with the key; empty for endpoints without one. Keys never stand in configs."""
    api_key_header: str = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]+$")
    """Header that carries the key: Authorization (as `Bearer KEY`), or the bare key in api-key (Azure), x-api-key."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, such as anthropic-version. No secrets: those come from the environment."""
    query: dict[str, str] = Field(default_factory=dict)
    """Query string of every request, such as api-version for Azure."""
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
    """Further attempts after a reply that does not parse or is cut off: with another seed, and with room if cut off."""
    backoff_first: Positive = 0.5
    """Seconds before the first retry where the endpoint names none; doubles from there."""
    backoff_max: Positive = 60.0
    """Longest wait that we choose or accept from a Retry-After header, seconds."""
    give_up_after: Positive = 300.0
    """Seconds without one good reply, while calls keep failing, after which the run stops: the endpoint is down."""
    thinking: Annotated[str, AfterValidator(checked_name)] = AUTO
    """How its answers mark thoughts: a name of clinical_r1/dialects.yaml, or auto (each answer's own marks tell)."""
    json_mode: Literal["schema", "object", "text"] = "schema"
    """How structured replies are asked for; falls back to the next weaker form where the endpoint refuses one."""
    send_seed: bool = True
    """Send the `seed` parameter; an endpoint that refuses it is asked without."""
    send_temperature: bool = True
    """Send `temperature`; some reasoning models refuse it, and are asked without."""
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the bound of a reply's length; found out where it refuses this one."""
    extra_body: dict[str, object] = Field(default_factory=dict)
    """Further request parameters, such as chat_template_kwargs of a vLLM server."""

    def api_key(self) -> str:
        """The key from the environment; raises UserError where it is named but not set."""
        if not self.api_key_env:
            return "none"
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            what = f"the environment variable {self.api_key_env} (api_key_env)"
            raise UserError(f"endpoint {self.name}: {what} is not set")
        if not key.isascii() or any(character.isspace() for character in key):
            raise UserError(f"endpoint {self.name}: {self.api_key_env} holds no key: a key has no spaces or line ends")
        return key

    def shared(self, parts: int) -> Self:
        """This entry for one of several processes that use it at once: limits hold for the whole job."""
        if parts <= 1:
            return self
        names = ("requests_per_minute", "tokens_per_minute")
        limits = {name: getattr(self, name) / parts for name in names if getattr(self, name)}
        return self.model_copy(update={**limits, "max_concurrency": max(1, self.max_concurrency // parts)})

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / 1e6
