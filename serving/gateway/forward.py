"""The engine's side of one request: send it, pass the answer on, watch the clock, translate failures, close the books.

A chunk has three stations: bytes to events (`sse.py`), the engine's event to the client's (`rewrite.py`, which has the
answer observed on its way), and the pump here, which writes it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from serving.gateway.config import Timeouts
from serving.gateway.errors import RejectionError
from serving.gateway.exchange import Exchange
from serving.gateway.rewrite import BadAnswerError, StreamRewriter, unary
from serving.gateway.state import Gateway
from serving.gateway.upstream import EventReader, EventTooLongError

LAST_WORD_SECONDS = 2.0
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
Write = Callable[[bytes], Awaitable[None]]


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


class Clock:
    """How long the engine may be silent, now."""

    def __init__(self, timer: asyncio.Timeout, limits: Timeouts) -> None:
        self._timer, self._limits, self._time = timer, limits, asyncio.get_running_loop().time
        self._give_up, self._armed = self._time() + limits.total, 0.0

    def first_byte(self) -> None:
        """A request for a stream goes out."""
        self._timer.reschedule(min(self._time() + self._limits.first_byte, self._give_up))

    def heard(self) -> None:
        """A piece came."""
        now = self._time()
        if now - self._armed > 0.5:  # moving a timer at each chunk costs more than being half a second late
            self._armed = now
            self._timer.reschedule(min(now + self._limits.idle, self._give_up))


def engine_body(gateway: Gateway, exchange: Exchange) -> dict[str, Any]:
    """What the engine is sent: the checked request and what the gateway itself wants to know."""
    asked, engine = exchange.asked, gateway.upstream
    body = {**gateway.decoding, **asked.forward}  # drawn as it was evaluated, unless the client asks otherwise
    body["model"] = engine.engine_model
    if engine.thinks.token_ids:
        body["return_token_ids"] = True
    dialect = engine.thinks.dialect
    if gateway.config.thinking.tags_are_special or (dialect is not None and dialect.special):
        body["skip_special_tokens"] = False
    if asked.stream or asked.budget is not None:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if exchange.engine_closes and asked.budget is not None:
        body["thinking_token_budget"] = asked.budget
    return body


async def rest_body(gateway: Gateway, exchange: Exchange, index: int) -> tuple[dict[str, Any], int]:
    """(the request for what follows a closed thought, tokens of the question).

    In the form of plain completions: a chat template would write the thought anew, or drop it.
    """
    engine, answer = gateway.upstream, exchange.answers[index]
    question = await engine.tokenize(messages=exchange.asked.messages, add_generation_prompt=True)
    begun = await engine.tokenize(prompt=answer.raw, add_special_tokens=False)
    if not question or not begun:
        raise BadAnswerError
    body = engine_body(gateway, exchange)
    room = body.get("max_tokens", engine.context - len(question)) - len(begun)
    for name in ("messages", "n", "thinking_token_budget"):
        body.pop(name, None)
    if "seed" in body:
        body["seed"] += index
    return {**body, "prompt": question + begun, "max_tokens": max(1, room)}, len(question)


async def forward(request: web.Request, gateway: Gateway, exchange: Exchange) -> web.StreamResponse:
    """Send it to the engine; whatever happens, the books are closed."""
    problem: RejectionError
    written = False
    try:
        limits, body = gateway.config.timeouts, engine_body(gateway, exchange)
        first = limits.first_byte if "stream" in body else limits.total
        async with asyncio.timeout(min(first, limits.total)) as timer:
            clock = Clock(timer, limits)
            async with await _post(gateway, exchange, CHAT, body) as upstream:
                if exchange.asked.stream:
                    return await _stream(request, gateway, exchange, upstream, clock)
                whole = _collected(gateway, exchange, upstream, clock) if "stream" in body else None
                response = await (whole or _whole(gateway, exchange, upstream))
                exchange.status, written = 200, True
                return response
    except TimeoutError:
        if STARTED in request and request[STARTED].blocked:
            exchange.aborted_by = "client"  # it does not read what it asked for
            raise ConnectionResetError from None
        _blame(exchange, gateway, "timeout", "timeout")
        problem = RejectionError(504, "engine_timeout", "the engine did not answer in time")
    except aiohttp.ClientConnectorError:
        _blame(exchange, gateway, "engine", "connect")
        problem = RejectionError(502, "engine_unreachable", "the engine cannot be reached", retry_after=2)
    except aiohttp.ClientError:
        _blame(exchange, gateway, "engine", "died")
        problem = RejectionError(502, "engine_failed", "the engine failed while it answered")
    except (BadAnswerError, EventTooLongError):
        _blame(exchange, gateway, "engine", "bad_answer")
        problem = RejectionError(502, "engine_failed", "the engine's answer cannot be understood")
    except RejectionError as refused:
        exchange.aborted_by = "engine"
        problem = refused
    except asyncio.CancelledError:
        exchange.aborted_by = "shutdown" if gateway.closed else "client"
        if gateway.closed and STARTED in request:
            await request[STARTED].tell(RejectionError(503, "draining", "this replica is shutting down"))
        raise
    except ClientGoneError:
        exchange.aborted_by = "client"
        raise ConnectionResetError from None
    finally:
        if written:
            # The handler goes on to write the answer without a pause: the books can wait until that is done.
            asyncio.get_running_loop().call_soon(exchange.close)
        else:
            exchange.close()
    if STARTED not in request:
        raise problem
    return await request[STARTED].tell(problem)


def _blame(exchange: Exchange, gateway: Gateway, by: str, kind: str) -> None:
    exchange.aborted_by = by
    gateway.metrics.upstream_failed(kind)


async def _post(gateway: Gateway, exchange: Exchange, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
    """Send a request; once more if a kept connection turned out to be closed before anything came back.

    Raises RejectionError for the engine's refusals; its own words may repeat the input and are dropped.
    """
    headers = {"Content-Type": "application/json", "X-Request-Id": exchange.request_id, **exchange.trace.headers}
    data = orjson.dumps(body)
    try:
        response = await gateway.upstream.ask("POST", path, data=data, headers=headers)
    except aiohttp.ServerDisconnectedError:
        response = await gateway.upstream.ask("POST", path, data=data, headers=headers)
    status = response.status
    if status == 200:
        return response
    response.close()
    kind = "http_429" if status in (429, 503) else "http_4xx" if status < 500 else "http_5xx"
    if 300 <= status < 400:  # following it would take the prompt to wherever it points
        kind = "redirect"
    gateway.metrics.upstream_failed(kind)
    if kind == "http_429":
        raise RejectionError(429, "engine_busy", "the engine is busy; try again later", retry_after=2)
    if status in (400, 413, 422):
        message = "the engine refused the request; prompt and max_tokens together may exceed the model's context"
        raise RejectionError(400, "engine_refused", message)
    raise RejectionError(502, "engine_failed", "the engine failed")


async def _whole(gateway: Gateway, exchange: Exchange, upstream: aiohttp.ClientResponse) -> web.Response:
    """An answer that the engine gives in one piece."""
    limit = gateway.config.limits.answer_bytes
    parts, size = [], 0
    async for chunk in upstream.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise BadAnswerError
        parts.append(chunk)
    body, exchange.usage, absurd = unary(b"".join(parts), exchange.answers, time.perf_counter())
    if absurd:
        gateway.metrics.upstream_failed("absurd_usage")
    return web.Response(body=body, content_type="application/json")


async def _collected(
    gateway: Gateway, exchange: Exchange, upstream: aiohttp.ClientResponse, clock: Clock
) -> web.Response:
    """A whole answer whose thought has a budget: the engine streams it, so that the thought can be closed in time."""

    async def nowhere(data: bytes) -> None:
        pass

    rewriter = await _answers(gateway, exchange, upstream, clock, nowhere)
    return web.Response(body=rewriter.whole(), content_type="application/json")


async def _stream(
    request: web.Request, gateway: Gateway, exchange: Exchange, upstream: aiohttp.ClientResponse, clock: Clock
) -> web.StreamResponse:
    out = Outgoing()
    exchange.status = 200
    await out.response.prepare(request)
    request[STARTED] = out
    rewriter = await _answers(gateway, exchange, upstream, clock, out.write)
    out.ended = True
    await out.write(rewriter.ending(exchange.asked.include_usage))
    exchange.close()
    with contextlib.suppress(ConnectionError):
        await out.response.write_eof()
    return out.response


async def _answers(
    gateway: Gateway, exchange: Exchange, upstream: aiohttp.ClientResponse, clock: Clock, write: Write
) -> StreamRewriter:
    """All answers of a request to their ends; those whose thought was closed at its budget are asked to go on."""
    rewriter = StreamRewriter(exchange.answers, exchange.asked.budget is not None)
    question: int | None = None
    try:
        await _pump(gateway, upstream, rewriter, clock, write)
        for index, answer in enumerate(exchange.answers):
            if answer.waiting:
                upstream.close()  # by this an engine that thinks on learns that nobody listens
                clock.first_byte()
                body, question = await rest_body(gateway, exchange, index)
                async with await _post(gateway, exchange, COMPLETIONS, body) as rest:
                    rewriter.go_on(index)
                    await _pump(gateway, rest, rewriter, clock, write)
        rewriter.settle(question)
    finally:
        exchange.usage = rewriter.usage
    for dropped, kind in ((rewriter.absurd, "absurd_usage"), (rewriter.late, "late_text")):
        if dropped:
            gateway.metrics.upstream_failed(kind)
    return rewriter


async def _pump(
    gateway: Gateway, upstream: aiohttp.ClientResponse, rewriter: StreamRewriter, clock: Clock, write: Write
) -> None:
    """Bytes of the engine in, bytes of the client out, until the end mark, or until a closed thought has to go on."""
    observe, reader, last = gateway.metrics.inter_token_child.observe, EventReader(), 0.0
    async for data in upstream.content.iter_any():
        now = time.perf_counter()
        events = []
        for event in reader.feed(data):
            events.append(rewriter.event(event, now))
            if rewriter.new_tokens:
                if last:
                    observe(now - last)
                last = now
            if rewriter.over:
                break
        clock.heard()
        if joined := b"".join(events):
            await write(joined)
        if rewriter.failed:
            raise BadAnswerError
        if rewriter.over:
            break
    now = time.perf_counter()
    if not rewriter.over and (tail := reader.finish()):
        await write(rewriter.event(tail, now))
    if not rewriter.end(now):
        raise aiohttp.ClientPayloadError
