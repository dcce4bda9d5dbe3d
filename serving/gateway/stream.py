"""A streamed answer: bytes of the engine in, observed and rewritten, bytes of the client out."""

import asyncio
import contextlib
import time

import aiohttp
from aiohttp import web

from serving.gateway.errors import RejectionError
from serving.gateway.exchange import Exchange
from serving.gateway.rewrite import BadAnswerError, StreamRewriter
from serving.gateway.sse import EventReader
from serving.gateway.state import Gateway

LAST_WORD_SECONDS = 2.0


class ClientGoneError(Exception):
    """The client closed its connection while we wrote."""


class Outgoing:
    """The stream to the client, once its headers are sent."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        self.blocked = False
        """Waiting for the client to read: a time-out now is the client's, not the engine's."""
        self.ended = False
        """The end mark is on its way: nothing may follow it."""

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises ClientGoneError, to be told apart from an engine that went away."""
        self.blocked = True
        try:
            await self.response.write(data)
        except ConnectionError:
            raise ClientGoneError from None
        self.blocked = False

    async def tell(self, problem: RejectionError) -> web.StreamResponse:
        """Say in the stream that it broke off; clients raise on an `error` event. One who does not read misses it."""
        if self.ended:
            return self.response
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self.response.write(b"data: " + problem.body() + b"\n\n")
                await self.response.write_eof()
        return self.response


STARTED: web.RequestKey[Outgoing] = web.RequestKey("started", Outgoing)


async def stream(
    request: web.Request,
    gateway: Gateway,
    exchange: Exchange,
    upstream: aiohttp.ClientResponse,
    timer: asyncio.Timeout,
) -> web.StreamResponse:
    out = Outgoing()
    exchange.status = 200
    await out.response.prepare(request)
    request[STARTED] = out
    await _pump(gateway, exchange, upstream, timer, out)
    exchange.close()
    with contextlib.suppress(ConnectionError):
        await out.response.write_eof()
    return out.response


async def _pump(
    gateway: Gateway,
    exchange: Exchange,
    upstream: aiohttp.ClientResponse,
    timer: asyncio.Timeout,
    out: Outgoing,
) -> None:
    """Bytes of the engine in, bytes of the client out, until the end mark."""
    limits, loop = gateway.config.timeouts, asyncio.get_running_loop()
    clock, observe = time.perf_counter, gateway.metrics.inter_token_child.observe
    reader, rewriter = EventReader(), StreamRewriter(exchange.answers)
    last = armed = 0.0
    give_up = loop.time() + limits.total
    async for data in upstream.content.iter_any():
        now = clock()
        events = []
        for event in reader.feed(data):
            events.append(rewriter.event(event, now))
            if rewriter.new_tokens:
                if last:
                    observe(now - last)
                last = now
            if rewriter.done:
                break
        exchange.usage = rewriter.usage
        if now - armed > 0.5:  # moving a timer at each chunk costs more than being half a second late
            armed = now
            timer.reschedule(min(loop.time() + limits.idle, give_up))
        if joined := b"".join(events):
            await out.write(joined)
        if rewriter.failed:
            raise BadAnswerError
        if rewriter.done:
            break
    if not rewriter.done and (tail := reader.finish()):
        await out.write(rewriter.event(tail, clock()))
    if not rewriter.done and not all(answer.ended for answer in exchange.answers):
        raise aiohttp.ClientPayloadError  # a missing end mark alone takes nothing from finished answers
    for answer in exchange.answers:
        if not answer.ended:  # the engine ended the stream properly, without a finish_reason
            answer.finish(clock())
    for dropped, kind in ((rewriter.absurd, "absurd_usage"), (rewriter.late, "late_text")):
        if dropped:
            gateway.metrics.upstream_failed(kind)
    out.ended = True
    await out.write(rewriter.ending(exchange.asked.include_usage))
