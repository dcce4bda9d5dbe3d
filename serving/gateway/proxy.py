"""One chat completion through the gateway: check, forward, observe, answer."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from serving.gateway.audit import AuditLog, Sampler
from serving.gateway.config import GatewayConfig
from serving.gateway.errors import RejectionError
from serving.gateway.exchange import Exchange
from serving.gateway.keys import KeyRing
from serving.gateway.request import Asked, parse
from serving.gateway.rewrite import BadAnswerError, StreamRewriter, unary
from serving.gateway.sse import EventReader, EventTooLongError
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


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    arrived = time.perf_counter()
    gateway = request.app[GATEWAY]
    key_id = gateway.identify(request)
    if gateway.closed:
        raise RejectionError(503, "draining", "this replica is shutting down; send the request again", retry_after=1)
    if gateway.in_flight >= gateway.config.limits.in_flight:
        raise RejectionError(429, "overloaded", "too many requests at a time; try again later", retry_after=2)
    gateway.in_flight += 1
    task = asyncio.current_task()
    assert task
    gateway.tasks.add(task)
    try:
        body = await read_body(request, gateway.config.limits.body_bytes, gateway.config.timeouts.body)
        asked = parse(body, gateway.config.limits, gateway.upstream.names, gateway.upstream.context)
        if not gateway.upstream.ready:
            raise RejectionError(503, "engine_unreachable", "the engine is not ready", retry_after=5)
        exchange = Exchange(
            request[REQUEST_ID],
            key_id,
            asked,
            arrived,
            gateway.metrics,
            gateway.audit,
            gateway.sampler,
            gateway.upstream.thinks,
        )
        return await _forward(request, gateway, exchange)
    finally:
        gateway.in_flight -= 1
        gateway.tasks.discard(task)


async def read_body(request: web.Request, limit: int, timeout: float) -> bytes:
    """The body, refused by its announced length before it is read, and cut off when it grows beyond the limit."""
    too_large = RejectionError(413, "body_too_large", f"the body may have at most {limit} bytes")
    if (request.content_length or 0) > limit:
        raise too_large
    if request.content_type != "application/json":
        raise RejectionError(415, "bad_media_type", "send Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RejectionError(415, "bad_media_type", "send the body without Content-Encoding")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise RejectionError(408, "body_timeout", "the body did not arrive in time") from None
    return b"".join(chunks)


def engine_body(asked: Asked, gateway: Gateway) -> bytes:
    """What the engine is sent: the checked request and what the gateway itself wants to know."""
    body = dict(asked.forward)
    body["model"] = gateway.upstream.engine_model
    if gateway.upstream.thinks.token_ids:
        body["return_token_ids"] = True
    if gateway.config.thinking.tags_are_special:
        body["skip_special_tokens"] = False
    if asked.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


async def _forward(request: web.Request, gateway: Gateway, exchange: Exchange) -> web.StreamResponse:
    """Send it to the engine; whatever happens, the books are closed."""
    problem: RejectionError
    try:
        limits = gateway.config.timeouts
        first = limits.first_byte if exchange.asked.stream else limits.total
        async with asyncio.timeout(min(first, limits.total)) as timer:
            async with await _post(gateway, exchange) as upstream:
                _check_status(upstream.status, gateway)
                if exchange.asked.stream:
                    return await _stream(request, gateway, exchange, upstream, timer)
                return await _whole(gateway, exchange, upstream)
    except TimeoutError:
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
    except RejectionError:
        exchange.aborted_by = "engine"
        raise
    except asyncio.CancelledError:
        exchange.aborted_by = "shutdown" if gateway.closed else "client"
        if gateway.closed and STARTED in request:
            await request[STARTED].tell(RejectionError(503, "draining", "this replica is shutting down"))
        raise
    except ClientGoneError:
        exchange.aborted_by = "client"
        raise ConnectionResetError from None
    finally:
        exchange.close()
    if STARTED not in request:
        raise problem
    return await request[STARTED].tell(problem)


def _blame(exchange: Exchange, gateway: Gateway, by: str, kind: str) -> None:
    exchange.aborted_by = by
    gateway.metrics.upstream_errors.labels(gateway.metrics.model_version, kind).inc()


async def _post(gateway: Gateway, exchange: Exchange) -> aiohttp.ClientResponse:
    """Send the request; once more if a kept connection turned out to be closed before anything came back."""
    body = engine_body(exchange.asked, gateway)
    headers = {"Content-Type": "application/json", "X-Request-Id": exchange.request_id}
    url = gateway.upstream.url("/v1/chat/completions")
    try:
        return await gateway.upstream.session.post(url, data=body, headers=headers)
    except aiohttp.ServerDisconnectedError:
        return await gateway.upstream.session.post(url, data=body, headers=headers)


def _check_status(status: int, gateway: Gateway) -> None:
    """Translate the engine's refusals; its own words may repeat the input and are dropped."""
    if status == 200:
        return
    m = gateway.metrics
    kind = "http_429" if status in (429, 503) else "http_4xx" if status < 500 else "http_5xx"
    m.upstream_errors.labels(m.model_version, kind).inc()
    if kind == "http_429":
        raise RejectionError(429, "engine_busy", "the engine is busy; try again later", retry_after=2)
    if status in (400, 413, 422):
        message = "the engine refused the request; prompt and max_tokens together may exceed the model's context"
        raise RejectionError(400, "engine_refused", message)
    raise RejectionError(502, "engine_failed", "the engine failed")


async def _whole(gateway: Gateway, exchange: Exchange, upstream: aiohttp.ClientResponse) -> web.Response:
    limit = gateway.config.limits.answer_bytes
    parts, size = [], 0
    async for chunk in upstream.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise BadAnswerError
        parts.append(chunk)
    body, exchange.usage = unary(b"".join(parts), exchange.answers, time.perf_counter())
    exchange.status = 200
    return web.Response(body=body, content_type="application/json")


class ClientGoneError(Exception):
    """The client closed its connection while we wrote."""


class Outgoing:
    """The stream to the client, once its headers are sent."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises ClientGoneError, to be told apart from an engine that went away."""
        try:
            await self.response.write(data)
        except ConnectionError:
            raise ClientGoneError from None

    async def tell(self, problem: RejectionError) -> web.StreamResponse:
        """Say in the stream that it broke off; clients raise on an `error` event."""
        with contextlib.suppress(ConnectionError):
            await self.response.write(b"data: " + problem.body() + b"\n\n")
            await self.response.write_eof()
        return self.response


STARTED: web.RequestKey[Outgoing] = web.RequestKey("started", Outgoing)


async def _stream(
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
    if not rewriter.done:
        raise aiohttp.ClientPayloadError
    for answer in exchange.answers:
        if not answer.ended:  # the engine ended the stream properly, without a finish_reason
            answer.finish(clock())
    await out.write(rewriter.ending(exchange.asked.include_usage))
