"""Refusals in OpenAI's shape. Messages are constants: nothing of the input is ever repeated."""

import json

from aiohttp import web


class RejectionError(Exception):
    """A request that the gateway will not answer.

    `reason` is one of REASONS: a metric label, so the set is closed.
    """

    def __init__(self, status: int, reason: str, message: str, param: str | None = None, retry_after: int = 0) -> None:
        super().__init__(reason)
        assert reason in REASONS
        self.status, self.reason, self.message, self.param, self.retry_after = (
            status,
            reason,
            message,
            param,
            retry_after,
        )
        self.allow = ""

    def body(self) -> bytes:
        """The JSON body."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.reason}
        return json.dumps({"error": error}).encode()

    def response(self) -> web.Response:
        """The whole response."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        if self.allow:
            headers["Allow"] = self.allow
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(body=self.body(), status=self.status, content_type="application/json", headers=headers)


REASONS = (
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "body_too_large",
    "body_timeout",
    "bad_media_type",
    "bad_json",
    "bad_field",
    "refused_field",
    "unknown_model",
    "overloaded",
    "key_overloaded",
    "audit_unavailable",
    "draining",
    "bad_http",
    "engine_refused",
    "engine_busy",
    "engine_unreachable",
    "engine_failed",
    "engine_timeout",
    "internal",
)
"""Every reason for which the gateway answers with an error."""
