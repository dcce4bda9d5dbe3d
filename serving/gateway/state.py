"""What all handlers share: settings, metrics, the engine, the keys, and which requests run."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from serving.gateway.audit import AuditLog, Sampler
from serving.gateway.config import GatewayConfig
from serving.gateway.errors import RejectionError
from serving.gateway.keys import KeyRing
from serving.gateway.request import Budgets
from serving.gateway.tracing import Tracing
from serving.gateway.upstream import Upstream
from serving.metrics import GatewayMetrics


@dataclass
class Gateway:
    """Everything that the handlers share."""

    config: GatewayConfig
    metrics: GatewayMetrics
    upstream: Upstream
    keys: KeyRing | None
    audit: AuditLog
    sampler: Sampler
    decoding: dict[str, Any] = field(default_factory=dict)
    """Sampling fields that a request may leave out: as the model was evaluated."""
    tracing: Tracing = field(default_factory=Tracing)
    budget: int | None = None
    """Tokens that a thought may have where the request does not say."""
    draining: bool = False
    """Not ready any more, but requests are still taken."""
    closed: bool = False
    """New requests are refused; running ones may finish."""
    in_flight: int = 0
    in_flight_of: Counter[str] = field(default_factory=Counter)
    """The same by API key."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def budgets(self) -> Budgets:
        """How long thoughts may be."""
        thinking = self.config.thinking
        return Budgets(thinking.efforts, self.budget, self.upstream.goes_on, thinking.budget_by == "engine")

    def identify(self, request: web.Request) -> str:
        """The caller's key id. Raises RejectionError (401)."""
        if self.keys is None:
            return "anonymous"
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        key_id = self.keys.identify(presented.strip()) if scheme.lower() == "bearer" else None
        if key_id is None:
            raise RejectionError(401, "unauthorized", "give a valid API key: Authorization: Bearer KEY")
        return key_id

    def admit(self, key_id: str) -> None:
        """May one more request begin? Raises RejectionError."""
        limits = self.config.limits
        if self.closed:
            message = "this replica is shutting down; send the request again"
            raise RejectionError(503, "draining", message, retry_after=1)
        if self.config.audit_required and self.audit.failing:
            raise RejectionError(503, "audit_unavailable", "the audit log cannot be written", retry_after=5)
        if self.in_flight >= limits.in_flight:
            raise RejectionError(429, "overloaded", "too many requests at a time; try again later", retry_after=2)
        if self.keys and self.in_flight_of[key_id] >= math.ceil(limits.in_flight * limits.key_share):
            message = "too many requests of this key at a time; try again later"
            raise RejectionError(429, "key_overloaded", message, retry_after=2)


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
