"""Open connections to one host: with TLS where the address says https, through the environment's proxy if any."""

import asyncio
import base64
import ssl
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from clinical_r1.errors import UserError
from clinical_r1.llm.connection import Connection, LostConnectionError


class Dialer:
    """The way to one host. `prefix` goes before a request's path (the whole address, for a proxy that forwards)."""

    def __init__(self, base_url: str, connect_timeout: float) -> None:
        """`connect_timeout`: seconds for the connection, the proxy's and TLS's greetings included."""
        self._host = urlsplit(base_url)
        self._timeout = connect_timeout
        self._tls = ssl.create_default_context() if self._host.scheme == "https" else None
        name, colon, port = self._host.netloc.rpartition("@")[2].partition(":")
        self.authority = (name if name.isascii() else name.encode("idna").decode()) + colon + port
        self._proxy = proxy_of(self._host)
        self.prefix, self.headers = "", dict[str, str]()
        if self._proxy is not None and self._tls is None:
            self.prefix, self.headers = f"http://{self.authority}", _credentials(self._proxy)

    async def connect(self, **limits: Any) -> Connection:
        """A new connection; raises OSError (ssl.SSLError among them) or TimeoutError."""
        loop = asyncio.get_running_loop()
        via = self._proxy or self._host
        port = via.port or (443 if via.scheme == "https" else 80)
        tls = self._tls if self._proxy is None else ssl.create_default_context() if via.scheme == "https" else None
        async with asyncio.timeout(self._timeout):
            _, connection = await loop.create_connection(
                lambda: Connection(**limits), via.hostname or "", port, ssl=tls
            )
            if self._proxy is not None and self._tls is not None:
                await self._through(connection)
        return connection

    async def _through(self, connection: Connection) -> None:
        """Ask the proxy for a tunnel and speak TLS in it (RFC 9110, section 9.3.6)."""
        target = f"{self._host.hostname}:{self._host.port or 443}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        lines += [f"{name}: {value}" for name, value in _credentials(cast(SplitResult, self._proxy)).items()]
        reply = await connection.exchange(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), tunnel=True)
        if reply.status != 200:
            connection.close()
            raise LostConnectionError
        upgraded = await asyncio.get_running_loop().start_tls(
            connection.transport, connection, cast(ssl.SSLContext, self._tls), server_hostname=self._host.hostname
        )
        if upgraded is None:
            raise LostConnectionError
        connection.transport = upgraded


def proxy_of(host: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for a host (http_proxy, https_proxy, all_proxy, no_proxy)."""
    known = getproxies()
    url = known.get(host.scheme) or known.get("all")
    if not url or proxy_bypass(host.netloc.rpartition("@")[2]):
        return None
    proxy = urlsplit(url if "://" in url else f"http://{url}")
    if proxy.scheme not in ("http", "https"):
        raise UserError(
            f"the environment's proxy for {host.hostname} is {proxy.scheme}://…; name an http:// proxy, or "
            f"list {host.hostname} in no_proxy"
        )
    return proxy


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
