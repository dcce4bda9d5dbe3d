"""One HTTP exchange with an endpoint, over aiohttp's pool of connections.

The protocol is one POST, so the SDK's objects (1.3 ms of CPU a call) are left out. Retries are ours (they know the
journal, the budget and what the endpoint says; tenacity knows none of them), and the pool has no limit (the gate sets
how many calls are in flight). Proxies and CA files are those of the environment.
"""

import json
import math
import os
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from clinical_r1.errors import UserError
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import AttemptError, Reply, error_of, read_reply

MAX_REPLY = 1 << 24
"""Bytes of the largest reply that is read; a chat completion has some thousands."""
KEEPALIVE = 3.0
"""Seconds after which an idle connection is not used again: servers drop theirs (uvicorn after 5 s)."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""One for all requests: json.dumps with settings of its own makes an encoder each time."""


class _Connector(aiohttp.TCPConnector):
    """A kept connection on which something came unasked is not used again: it would answer the wrong case."""

    async def _get(self, key: Any, traces: Any) -> Any:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class Transport:
    """The connections to one endpoint. Make and use it within one event loop."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        base = URL(endpoint.base_url).with_user(None)
        query = {**base.query, **endpoint.query}
        self._chat, self._models = (
            (base.with_query(None) / path).update_query(query) for path in ("chat/completions", "models")
        )
        _check_proxy(base)
        key = endpoint.api_key()
        header = endpoint.api_key_header
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE, ssl=_trust()),
            timeout=aiohttp.ClientTimeout(
                total=endpoint.connect_timeout + endpoint.total_timeout,
                sock_connect=endpoint.connect_timeout,
                sock_read=endpoint.read_timeout,
            ),
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                header: f"Bearer {key}" if header.lower() == "authorization" else key,
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # replies are small
                "User-Agent": "clinical-r1",
                **endpoint.headers,
            },
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        """One attempt at a chat completion; raises AttemptError. Ends within `connect_timeout` and `total_timeout`."""
        data = _encode(body).encode("utf-8", "replace")
        return read_reply(await self._exchange("POST", self._chat, data, headers))

    async def models(self) -> list[str]:
        """Ids of the models that the endpoint lists; raises AttemptError."""
        content = await self._exchange("GET", self._models, None, {})
        try:
            return [str(row["id"]) for row in json.loads(content)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AttemptError("bad_reply") from None

    async def _exchange(self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str]) -> bytes:
        try:
            # A redirect would take the record to a host that nobody allowed.
            posted = self._session.request(method, url, data=data, headers=headers, allow_redirects=False)
            async with posted as response:
                content = await _read(response)
        except TimeoutError:
            raise AttemptError("timeout") from None
        except aiohttp.ClientSSLError:
            raise AttemptError("certificate") from None
        except aiohttp.ClientResponseError as error:  # of the header: too long, or no HTTP
            raise AttemptError("oversized" if "more than" in error.message else "connection") from None
        except (aiohttp.ClientError, OSError):
            raise AttemptError("connection") from None
        if response.status < 200:
            raise AttemptError("connection")
        if 300 <= response.status < 400:
            raise AttemptError("redirected", response.status)
        if response.status != 200:
            raise error_of(content, response.status, retry_after(response.headers))
        return content


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The content, which aiohttp unpacks where it is packed; AttemptError("oversized") beyond MAX_REPLY."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MAX_REPLY:
            response.close()
            raise AttemptError("oversized", response.status)
        parts.append(part)
    return b"".join(parts)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an endpoint asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date; None if
    neither."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _trust() -> ssl.SSLContext:
    """The environment's authorities: SSL_CERT_FILE and SSL_CERT_DIR (OpenSSL's own), REQUESTS_CA_BUNDLE."""
    context = ssl.create_default_context()
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name):
            try:
                context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
            except (OSError, ssl.SSLError):
                raise UserError(f"{name}: {path} is no file of certificates; correct or unset it") from None
    return context


def _check_proxy(base: URL) -> None:
    """Raise UserError where the environment names a proxy that the HTTP library would pass over."""
    known, host = getproxies(), base.host or ""
    url = known.get(base.scheme) or known.get("all")
    if not url or proxy_bypass(host) or (base.scheme in known and url.startswith(("http://", "https://"))):
        return
    raise UserError(
        f"the environment's proxy for {host} is {url.partition('://')[0]}://… (or set by all_proxy); set "
        f"{base.scheme}_proxy to an http:// proxy, or list {host} in no_proxy"
    )
