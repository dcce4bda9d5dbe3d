"""One HTTP exchange with an endpoint, on aiohttp.

The openai SDK builds and validates objects for every request, which costs 1.3 ms of CPU a call, several times all our
own work; at 256 calls in flight that, not the endpoint, set the pace. The protocol is one POST. Retries are ours (they
know the journal and the budget), and the connection pool has no limit (the gate sets how many are in flight).
"""

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import aiohttp

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.limits import retry_after
from clinical_r1.llm.reply import AttemptError, Reply, read_reply

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
MAX_REPLY = 1 << 24
"""Bytes of the largest reply that is read; a chat completion has some thousands."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""One for all requests: json.dumps with settings of its own makes an encoder each time."""


class Transport:
    """The connections to one endpoint. Make and use it within one event loop."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._base = endpoint.base_url.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # 0 is aiohttp's word for no limit
            headers={
                "Authorization": f"Bearer {endpoint.api_key()}",
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",  # replies are small, and what is not packed cannot be a zip bomb
            },
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=endpoint.total_timeout,
                sock_connect=endpoint.connect_timeout,
                sock_read=endpoint.read_timeout,
            ),
            # Looking for proxies costs time on every request, so only where the environment names one.
            trust_env=any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        """One attempt at a chat completion; raises AttemptError. Ends within `total_timeout`, come what may."""
        data = _encode(body).encode("utf-8", "replace")
        return read_reply(await self._exchange("POST", "/chat/completions", data=data, headers=headers))

    async def models(self) -> list[str]:
        """Ids of the models that the endpoint lists; raises AttemptError."""
        content = await self._exchange("GET", "/models")
        try:
            return [str(row["id"]) for row in json.loads(content)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AttemptError("bad_reply") from None

    async def _exchange(self, method: str, path: str, **options: Any) -> bytes:
        try:
            # A redirect would take the record to a host that nobody allowed.
            async with self._session.request(method, self._base + path, allow_redirects=False, **options) as response:
                content = await _bounded(response)
                if 300 <= response.status < 400:
                    raise AttemptError("redirected", response.status)
                if response.status >= 400:
                    raise _status_error(response.status, response.headers, content)
                return content
        except TimeoutError:
            raise AttemptError("timeout") from None
        except (aiohttp.ClientError, OSError):
            raise AttemptError("connection") from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, unpacked where the endpoint packs it unasked; raises AttemptError("oversized") beyond MAX_REPLY."""
    chunks: list[bytes] = []
    length = 0
    while chunk := await response.content.readany():
        length += len(chunk)
        if length > MAX_REPLY:
            raise AttemptError("oversized", response.status)
        chunks.append(chunk)
    content = b"".join(chunks)
    if response.headers.get("Content-Encoding", "identity").lower() in ("gzip", "x-gzip", "deflate"):
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
