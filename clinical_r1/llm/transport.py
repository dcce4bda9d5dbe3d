"""One HTTP exchange with an endpoint, over a pool of connections.

The protocol is one POST, so the SDK's objects (1.3 ms of CPU a call) are left out. Retries are ours (they know the
journal and the budget), and the pool has no limit (the gate sets how many calls are in flight).
"""

import asyncio
import json
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.connection import Connection, OversizedError, Response
from clinical_r1.llm.dial import Dialer
from clinical_r1.llm.limits import retry_after
from clinical_r1.llm.reply import AttemptError, Reply, read_reply

MAX_REPLY = 1 << 24
"""Bytes of the largest reply that is read; a chat completion has some thousands."""
KEEPALIVE = 3.0
"""Seconds after which an idle connection is not used again: servers drop theirs (uvicorn after 5 s)."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""One for all requests: json.dumps with settings of its own makes an encoder each time."""


class Transport:
    """The connections to one endpoint. Make and use it within one event loop."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._path = quote(urlsplit(endpoint.base_url).path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        self._dialer = Dialer(endpoint.base_url, endpoint.connect_timeout)
        self._limits = {"read_timeout": endpoint.read_timeout, "total_timeout": endpoint.total_timeout}
        self._headers = {
            "Host": self._dialer.authority,
            "Authorization": f"Bearer {endpoint.api_key()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # replies are small, and what is not packed cannot be a zip bomb
            "User-Agent": "clinical-r1",
            **self._dialer.headers,
        }
        self._idle: list[Connection] = []

    async def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()

    async def post(self, body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        """One attempt at a chat completion; raises AttemptError. Ends within `connect_timeout` and `total_timeout`."""
        data = _encode(body).encode("utf-8", "replace")
        return read_reply(await self._exchange("POST", "/chat/completions", data, headers))

    async def models(self) -> list[str]:
        """Ids of the models that the endpoint lists; raises AttemptError."""
        content = await self._exchange("GET", "/models", b"", {})
        try:
            return [str(row["id"]) for row in json.loads(content)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AttemptError("bad_reply") from None

    async def _exchange(self, method: str, path: str, data: bytes, headers: Mapping[str, str]) -> bytes:
        request = [f"{method} {self._dialer.prefix}{self._path}{path} HTTP/1.1\r\n"]
        request += [f"{name}: {value}\r\n" for name, value in (*self._headers.items(), *headers.items())]
        request.append(f"Content-Length: {len(data)}\r\n\r\n")
        try:
            connection = self._take() or await self._dialer.connect(limit=MAX_REPLY, **self._limits)
            response = await connection.exchange("".join(request).encode("latin-1") + data)
        except TimeoutError:
            raise AttemptError("timeout") from None
        except OversizedError:
            raise AttemptError("oversized") from None
        except OSError:
            raise AttemptError("connection") from None
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        content = _unpacked(response)
        # A redirect would take the record to a host that nobody allowed.
        if 300 <= response.status < 400:
            raise AttemptError("redirected", response.status)
        if response.status >= 400:
            raise _status_error(response.status, response.headers, content)
        return content

    def _take(self) -> Connection | None:
        """The connection that was used last, unless it is too old."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.free_since < KEEPALIVE:
                return connection
            connection.close()
        return None


def _unpacked(response: Response) -> bytes:
    """The content, unpacked where the endpoint packs it unasked; raises AttemptError("oversized") beyond MAX_REPLY."""
    content = response.content
    if len(content) > MAX_REPLY:
        raise AttemptError("oversized", response.status)
    if response.headers.get("content-encoding", "identity").lower() in ("gzip", "x-gzip", "deflate"):
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by the header
        try:
            content = unpacker.decompress(content, MAX_REPLY)
        except zlib.error:
            raise AttemptError("bad_reply") from None
        if unpacker.unconsumed_tail:
            raise AttemptError("oversized", response.status)
    return content


def _status_error(status: int, headers: Mapping[str, str], content: bytes) -> AttemptError:
    """The error of a reply; the endpoint's own words are in `error.message` and `error.code`, where it sends any."""
    try:
        error = json.loads(content).get("error")
    except (ValueError, AttributeError, RecursionError):
        error = None
    fields = error if isinstance(error, dict) else {"message": error or content[:500].decode("utf-8", "replace")}
    reason = "rate_limited" if status == 429 else f"http_{status}"
    return AttemptError(
        reason, status, retry_after(headers), str(fields.get("message") or ""), str(fields.get("code") or "")
    )
