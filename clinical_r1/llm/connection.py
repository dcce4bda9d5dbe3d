"""One HTTP/1.1 connection on asyncio, with the parser of uvicorn (httptools). One request at a time.

A general client spends more CPU on a call than all our own work together: aiohttp 0.28 ms, pyreqwest 0.17, this 0.07
(`make bench NAME=evaluation`). At 256 calls in flight that, not the endpoint, set the pace.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

HEADERS_LIMIT = 1 << 16
"""Bytes that a reply may have beyond its content."""


class LostConnectionError(ConnectionError):
    """The other side closed in the middle, or does not speak HTTP."""


class OversizedError(ConnectionError):
    """The reply is larger than asked for."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole reply; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Connection(asyncio.Protocol):
    """Send a request, read its reply, within time and size."""

    def __init__(self, limit: int, read_timeout: float, total_timeout: float) -> None:
        """`limit`: bytes of content; `read_timeout`: seconds of silence; `total_timeout`: seconds of one exchange."""
        self._limit, self._read_timeout, self._total_timeout = limit, read_timeout, total_timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[Response] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport
        self.reusable = True
        """May another request follow?"""
        self.free_since = 0.0
        """When the last exchange ended, by the loop's clock."""

    async def exchange(self, request: bytes, tunnel: bool = False) -> Response:
        """The reply to the bytes of a request. `tunnel`: it is a CONNECT, whose reply has no content.

        Raises TimeoutError, OversizedError, LostConnectionError.
        """
        if not self.reusable or self.transport.is_closing():
            raise LostConnectionError
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = waiting = self._loop.create_future()
        self._tunnel = tunnel
        self._chunks: list[bytes] = []
        self._received = self._status = 0
        self._headers: dict[str, str] = {}
        self._begun = self._heard = self._loop.time()
        self._timer = self._loop.call_later(min(self._read_timeout, self._total_timeout), self._look_at_the_clock)
        self.transport.write(request)
        try:
            return await waiting
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiting = None
            if self._timer is not None:
                self._timer.cancel()

    def close(self) -> None:
        """Let go of the connection at once."""
        self.reusable = False
        self.transport.abort()

    def _look_at_the_clock(self) -> None:
        """One timer for both limits: data that come in only note the time."""
        now = self._loop.time()
        due = min(self._heard + self._read_timeout, self._begun + self._total_timeout)
        if now < due:
            self._timer = self._loop.call_at(due, self._look_at_the_clock)
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
        self.close()

    def _finish(self) -> None:
        self.free_since = self._loop.time()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Response(self._status, self._headers, b"".join(self._chunks)))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():  # nobody asked
            self.close()
            return
        self._heard = self._loop.time()
        self._received += len(data)
        if self._received > self._limit + HEADERS_LIMIT:
            self._fail(OversizedError())
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(LostConnectionError())

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._waiting is None:
            return
        stated = "content-length" in self._headers or "transfer-encoding" in self._headers
        if exc is None and self._status >= 200 and not stated:  # such a reply ends where the connection does
            self._finish()
        self._fail(LostConnectionError())

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._headers, self._status = {}, 0
        if self._waiting is None or self._waiting.done():  # a second reply to one request
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self.reusable = self.reusable and self._parser.should_keep_alive()
        if self._tunnel:
            self.reusable = self._status == 200
            self._finish()

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._status >= 200:  # after an interim reply the real one follows
            self._finish()
