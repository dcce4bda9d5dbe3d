"""What all handlers share: settings, metrics, the engine, the keys, and which requests run."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from serving.gateway.audit import AuditLog
from serving.gateway.config import GatewayConfig
from serving.gateway.errors import RejectionError
from serving.gateway.keys import KeyRing
from serving.gateway.sampling import Sampler
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
    draining: bool = False
    """Not ready any more, but requests are still taken."""
    closed: bool = False
    """New requests are refused; running ones may finish."""
    in_flight: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def identify(self, request: web.Request) -> str:
        """The caller's key id. Raises RejectionError (401)."""
        if self.keys is None:
            return "anonymous"
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        key_id = self.keys.identify(presented.strip()) if scheme.lower() == "bearer" else None
        if key_id is None:
            raise RejectionError(401, "unauthorized", "give a valid API key: Authorization: Bearer KEY")
        return key_id


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
