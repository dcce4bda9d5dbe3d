"""Running the gateway: listening, connections that never speak, a graceful end."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from aiohttp import web

from clinical_r1.errors import UserError
from serving.gateway.app import build_app, build_gateway
from serving.gateway.config import GatewayConfig
from serving.gateway.state import Gateway

log = logging.getLogger("clinical_r1.gateway")
KEEPALIVE = 75.0
"""Seconds that a served connection may be silent; longer than most load balancers wait."""


def _wordless(record: logging.LogRecord) -> bool:
    """aiohttp's server log without its messages: a parser's complaint quotes what it could not parse."""
    record.msg = "the HTTP server reported a problem (details are left out: they may quote a request)"
    record.args, record.exc_info, record.exc_text = (), None, None
    return True


http_log = logging.getLogger("clinical_r1.gateway.http")
http_log.addFilter(_wordless)


class GatewayProtocol(web.RequestHandler):
    """aiohttp's protocol, whose answer to broken HTTP repeats nothing of it; it knows its age, for the sweeper."""

    __slots__ = ("gateway", "made", "seen", "seen_at")
    gateway: Gateway
    made: float
    """Loop time of the connection."""
    seen: Any
    """The request that the sweeper met here last."""
    seen_at: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the time."""
        self.made, self.seen, self.seen_at = self._loop.time(), None, 0.0
        super().connection_made(transport)

    def cut(self) -> None:
        """End it now, whatever is still to be written."""
        if self.transport:
            self.transport.abort()
        self.force_close()

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """A constant body in OpenAI's shape; what could not be parsed reaches no handler, so it is counted here."""
        self.gateway.metrics.rejections.labels("bad_http" if status < 500 else "internal").inc()
        text = '{"error":{"message":"the request is not valid HTTP","type":"invalid_request_error",'
        text += '"param":null,"code":"bad_http"}}'
        response = web.Response(text=text, status=400 if status < 500 else 500, content_type="application/json")
        response.force_close()
        return response


class Listener:
    """One listening socket with its connections.

    `port` is the one it got.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.app = build_app(gateway)
        self.port = 0
        # A client that closes its connection cancels the handler, and that cancels the engine.
        self._runner = web.AppRunner(self.app, handler_cancellation=True)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises UserError if the port is taken."""
        _raise_file_limit()
        config = self.gateway.config
        await self._runner.setup()
        manager, loop = self._runner.server, asyncio.get_running_loop()
        assert manager is not None

        def protocol() -> GatewayProtocol:
            made = GatewayProtocol(
                manager,
                loop=loop,
                access_log=None,  # type: ignore[arg-type]
                logger=http_log,
                keepalive_timeout=KEEPALIVE,
                lingering_time=0.0,
            )
            made.gateway = self.gateway
            return made

        try:
            self._server = await loop.create_server(protocol, config.host, config.port, backlog=1024)
        except OSError as problem:
            await self._runner.cleanup()
            where = f"{config.host}:{config.port}"
            raise UserError(f"{where}: cannot listen ({problem.strerror}); choose another port") from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """Close connections that never speak, that hold a request for longer than any may last, and surplus ones."""
        limits, most = self.gateway.config.timeouts, self.gateway.config.max_connections
        longest = limits.body + limits.total + limits.idle
        manager, loop = self._runner.server, asyncio.get_running_loop()
        assert manager is not None
        while True:
            await asyncio.sleep(min(1.0, limits.header / 2))
            now = loop.time()
            idle: list[GatewayProtocol] = []
            for connection in manager.connections:
                assert isinstance(connection, GatewayProtocol)
                request = connection._current_request
                if request is None:
                    # Once it has been served, aiohttp's keep-alive timer bounds its silence.
                    if not connection._request_count and now - connection.made > limits.header:
                        connection.cut()
                    else:
                        idle.append(connection)
                elif connection.seen is not request:
                    connection.seen, connection.seen_at = request, now
                elif now - connection.seen_at > longest:  # the answer is not fetched
                    connection.cut()
            surplus = len(manager.connections) - most
            if surplus > 0:
                for connection in sorted(idle, key=lambda one: one._next_keepalive_close_time)[:surplus]:
                    connection.cut()

    async def drain(self) -> None:
        """Unready first, then deaf, then gone: nobody who was accepted is dropped before the time is up."""
        gateway, limits = self.gateway, self.gateway.config.timeouts
        gateway.draining = True
        await asyncio.sleep(limits.settle)
        gateway.closed = True
        if self._server:
            self._server.close()
        deadline = asyncio.get_running_loop().time() + limits.drain
        while gateway.tasks and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        for task in list(gateway.tasks):
            task.cancel()
        if gateway.tasks:
            await asyncio.wait(list(gateway.tasks), timeout=2.0)

    async def stop(self) -> None:
        """Release everything."""
        if self._sweeper:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._server:
            self._server.close()
        await self._runner.cleanup()


async def until_signal() -> None:
    """Return at SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def run_gateway(config: GatewayConfig, announce: Callable[[int], None]) -> None:
    """Serve until SIGINT or SIGTERM, then drain; `announce` is told the port. Raises UserError."""
    listener = Listener(build_gateway(config))
    await listener.start()
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be walked again in the middle of a request
    try:
        announce(listener.port)
        await until_signal()
        await listener.drain()
    finally:
        await listener.stop()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run on uvloop."""

    async def entry() -> None:
        await main()

    uvloop.run(entry())


def _raise_file_limit() -> None:
    """As many connections as the system allows us: a soft limit of 1024 falls to 1,000 half-open ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 65_536), hard))


def setup_logging() -> None:
    """Our own log on standard error: short, and without any text of requests."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
